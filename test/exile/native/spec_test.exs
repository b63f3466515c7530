defmodule Exile.Native.SpecTest do
  use Exile.Case

  import Bitwise

  alias Exile.Command
  alias Exile.Runtime.Running

  @none %{
    arg0: nil,
    nice: nil,
    umask: nil,
    cpus: nil,
    io_priority: nil,
    limits: [],
    no_new_privs: false
  }

  defp start(attributes) do
    stage = ["true"] |> Command.new!([]) |> Command.to_native()
    Running.start([%{stage | attributes: attributes}], stdin: :null)
  end

  describe "the attributes of a command" do
    test "may all be nil" do
      assert {:ok, %{processes: [process], stdout: stdout}} = start(@none)
      assert %{code: 0} = Running.wait(process, :over, 5_000)
      Running.close([stdout])
    end

    # Elixir checks the options. This tests what the native side does if that check has a bug.
    test "raise ArgumentError when out of range, of another type, or missing" do
      bad =
        for(nice <- [-21, 20, 1 <<< 31, 1 <<< 80, 1.0, "5"], do: %{@none | nice: nice}) ++
          for(umask <- [-1, 0o1000, 1 <<< 32, 1 <<< 80, :none], do: %{@none | umask: umask}) ++
          for(arg0 <- ["a\0b", 1, ~c"sh"], do: %{@none | arg0: arg0}) ++
          for(cpus <- [[1024], [-1], [1 <<< 32], :all, [:all]], do: %{@none | cpus: cpus}) ++
          for(
            priority <- [:realtime, {:best_effort, 8}, {:idle, 1}, {:best_effort, -1}, 4],
            do: %{@none | io_priority: priority}
          ) ++
          for(
            limit <- [
              {:cpu, 2, 1},
              {:colour, 1, 1},
              {:cpu, -1, 1},
              {:cpu, 1, 1 <<< 64},
              {:cpu, 1}
            ],
            do: %{@none | limits: [limit]}
          ) ++
          [%{@none | limits: nil}, %{@none | no_new_privs: nil}, %{@none | no_new_privs: 1}] ++
          [Map.delete(@none, :nice), %{}, nil, []]

      for attributes <- bad, do: assert_raise(ArgumentError, fn -> start(attributes) end)
    end
  end
end
