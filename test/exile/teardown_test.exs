defmodule Exile.TeardownTest do
  use ExUnit.Case, async: true

  alias Exile.Teardown

  defp total(steps), do: steps |> Enum.map(&elem(&1, 1)) |> Enum.sum()

  describe "within/2" do
    test "of the default is SIGTERM twice, evenly spread" do
      assert Teardown.within(:default, 1_000) == [{"sigterm", 500}, {"sigterm", 500}]
      assert Teardown.within(:default, 1) == [{"sigterm", 0}, {"sigterm", 0}]
      assert Teardown.within(:default, 0) == [{"sigterm", 0}, {"sigterm", 0}]
    end

    test "keeps the waits where there is time enough" do
      steps = [sigint: 100, sigterm: 200]
      assert Teardown.within(steps, 300) == [{"sigint", 100}, {"sigterm", 200}]
      assert Teardown.within(steps, 100_000) == [{"sigint", 100}, {"sigterm", 200}]
    end

    test "shortens the waits in proportion where there is less" do
      steps = [sigint: 1_000, sigterm: 5_000]
      assert Teardown.within(steps, 600) == [{"sigint", 100}, {"sigterm", 500}]
      assert Teardown.within(steps, 0) == [{"sigint", 0}, {"sigterm", 0}]
    end

    test "keeps steps without a wait, and no steps at all" do
      assert Teardown.within([], 0) == []
      assert Teardown.within([], 100) == []
      assert Teardown.within([sigint: 0], 0) == [{"sigint", 0}]
      assert Teardown.within([sigint: 0, sigterm: 200], 100) == [{"sigint", 0}, {"sigterm", 100}]
    end

    test "never takes longer than the time, nor a step longer than it says, in the same order" do
      for _ <- 1..2_000 do
        steps =
          for _ <- 0..(:rand.uniform(6) - 1)//1 do
            wait = Enum.random([0, :rand.uniform(10), :rand.uniform(10_000), 0xFFFF_FFFF])
            {Enum.random([:sigint, :sigterm, :sighup]), wait}
          end

        time = Enum.random([0, :rand.uniform(10), :rand.uniform(20_000), 0xFFFF_FFFF])
        scaled = Teardown.within(steps, time)
        assert total(scaled) <= time
        assert Enum.map(scaled, &elem(&1, 0)) == Enum.map(steps, &Atom.to_string(elem(&1, 0)))
        for {{_, was}, {_, now}} <- Enum.zip(steps, scaled), do: assert(now in 0..was)
      end
    end
  end

  describe "before/2" do
    test "leaves the command a quarter of the time, and kills it after three" do
      assert Teardown.before(:default, 4_000) == {1_000, [{"sigterm", 1_000}, {"sigterm", 1_000}]}
      assert Teardown.before([sigint: 9_000], 4_000) == {1_000, [{"sigint", 2_000}]}
      assert Teardown.before([sigint: 50], 4_000) == {1_000, [{"sigint", 50}]}
      assert Teardown.before([], 4_000) == {1_000, []}
    end

    test "is over before the time, whatever it is" do
      for timeout <- Enum.concat(0..100, [5_000, 0xFFFF_FFFF]),
          teardown <- [:default, [], [sigint: 3, sigterm: 7], [sigint: 0xFFFF_FFFF]] do
        {grace, steps} = Teardown.before(teardown, timeout)
        assert grace + total(steps) <= timeout
      end
    end
  end

  describe "abandoned/1" do
    test "is over in well under a second" do
      for teardown <- [:default, [], [sigint: 5], [sigint: 60_000, sigterm: 0xFFFF_FFFF]] do
        assert total(Teardown.abandoned(teardown)) <= 600
      end

      assert Teardown.abandoned(:default) == [{"sigterm", 300}, {"sigterm", 300}]
      assert Teardown.abandoned(sigint: 5) == [{"sigint", 5}]
    end
  end

  describe "at_stop/1" do
    test "takes as long as the sequence says" do
      assert Teardown.at_stop(sigint: 60_000, sigterm: 5) == [{"sigint", 60_000}, {"sigterm", 5}]
      assert Teardown.at_stop([]) == []
    end

    test "of the default is over in well under a second" do
      assert Teardown.at_stop(:default) == [{"sigterm", 300}, {"sigterm", 300}]
    end
  end
end
