defmodule Exile.Native.SpecTest do
  use Exile.Case

  import Bitwise

  alias Exile.Command
  alias Exile.Runtime.Running

  @none %{arg0: nil, nice: nil, umask: nil}

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
          [Map.delete(@none, :nice), %{}, nil, []]

      for attributes <- bad, do: assert_raise(ArgumentError, fn -> start(attributes) end)
    end
  end
end
