defmodule Exile.Runtime.SignalTest do
  use ExUnit.Case, async: true

  alias Exile.Runtime.Signal

  describe "known?/1" do
    test "knows lower-case signal names as atoms" do
      for signal <- [:sighup, :sigint, :sigkill, :sigusr1, :sigterm, :sigstop, :sigcont] do
        assert Signal.known?(signal)
      end

      for bad <- [:term, :SIGTERM, :Sigterm, nil, "sigterm", ~c"sigterm", {}, :sig] do
        refute Signal.known?(bad)
      end
    end

    test "knows their numbers" do
      for number <- [1, 9, 15, 31, 34, 64], do: assert(Signal.known?(number))
      for bad <- [0, -1, 65, 1_000_000_000_000, 15.0], do: refute(Signal.known?(bad))
    end
  end
end
