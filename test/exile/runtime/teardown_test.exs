defmodule Exile.Runtime.TeardownTest do
  use ExUnit.Case, async: true

  alias Exile.Runtime.Teardown

  # Sequences that users may give.
  @given [
    [],
    [sigint: 0],
    [sigint: 100, sigterm: 200],
    [sigint: 60_000, sigterm: 0xFFFF_FFFF, sigint: 1]
  ]

  describe "within/2" do
    test "of the default is SIGTERM twice, spread evenly over the time" do
      assert Teardown.within(:default, 1_000) == [{:sigterm, 500}, {:sigterm, 500}]
      assert Teardown.within(:default, 1) == [{:sigterm, 0}, {:sigterm, 0}]
      assert Teardown.within(:default, 0) == [{:sigterm, 0}, {:sigterm, 0}]
      for time <- 0..1_000, do: assert(Teardown.duration(Teardown.within(:default, time)) <= time)
    end

    test "keeps a given sequence, whatever the time" do
      for steps <- @given, time <- [0, 1, 300, 100_000, 0xFFFF_FFFF] do
        assert Teardown.within(steps, time) == steps
      end
    end
  end

  describe "abandoned/1" do
    test "of the default is SIGTERM twice, in under half a second" do
      assert Teardown.abandoned(:default) == [{:sigterm, 300}, {:sigterm, 150}]
    end

    test "keeps a given sequence" do
      for steps <- @given, do: assert(Teardown.abandoned(steps) == steps)
    end
  end

  describe "duration/1" do
    test "is the sum of the waits" do
      assert Teardown.duration([]) == 0
      assert Teardown.duration([{"sigint", 100}, {:sigterm, 200}]) == 300
      assert Teardown.duration([{"sigint", 0xFFFF_FFFF}, {:sigterm, 1}]) == 0x1_0000_0000
    end
  end
end
