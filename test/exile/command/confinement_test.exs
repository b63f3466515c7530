defmodule Exile.Command.ConfinementTest do
  use ExUnit.Case, async: true

  alias Exile.Command.Confinement

  @infinity 0xFFFF_FFFF_FFFF_FFFF

  describe "limits/1" do
    test "makes of a number a soft and a hard limit" do
      assert Confinement.limits(cpu: 1, core: 0, memory: {5, :infinity}, stack: :infinity) ==
               {:ok,
                [
                  {:cpu, 1, 1},
                  {:core, 0, 0},
                  {:memory, 5, @infinity},
                  {:stack, @infinity, @infinity}
                ]}

      assert Confinement.limits([]) == {:ok, []}
    end

    test "keeps the first of a resource that is given twice, and checks both" do
      assert Confinement.limits(cpu: 1, cpu: 2) == {:ok, [{:cpu, 1, 1}]}
      assert {:error, message} = Confinement.limits(cpu: 1, cpu: :none)
      assert message =~ "for :cpu, got: :none"
    end

    test "refuses what is no list of resources and limits, naming the resource and the value" do
      for bad <- [nil, 5, %{cpu: 1}, [:cpu], [{"cpu", 1}], [{:cpu, 1} | :x]],
          do: assert(Confinement.limits(bad) == :error)

      for bad <- [-1, 1.0, "1", :none, {1, 2, 3}, {:none, 1}, {1, -1}, @infinity, nil] do
        assert {:error, message} = Confinement.limits(cpu: bad)
        assert message =~ "for :cpu, got: #{inspect(bad)}"
      end

      assert {:error, message} = Confinement.limits(cpu: {:infinity, 1})
      assert message =~ "expected the soft limit not to exceed the hard one for :cpu"
      assert {:error, message} = Confinement.limits(colour: 1)
      assert message =~ "unknown resource :colour; the known ones are :cpu, :memory"
    end
  end

  describe "cpus/1" do
    test "accepts numbers of processors, at least one" do
      assert Confinement.cpus([0, 1023]) == {:ok, [0, 1023]}

      for bad <- [[], nil, 0, [-1], [1024], [0.0], [0 | 1], ["0"]],
          do: assert(Confinement.cpus(bad) == :error)
    end
  end

  describe "io_priority/1" do
    test "accepts :idle and a level from 0 to 7" do
      assert Confinement.io_priority(:idle) == {:ok, :idle}
      assert Confinement.io_priority({:best_effort, 7}) == {:ok, {:best_effort, 7}}

      for bad <- [:realtime, {:best_effort, 8}, {:best_effort, -1}, {:idle, 0}, 4, nil],
          do: assert(Confinement.io_priority(bad) == :error)
    end
  end
end
