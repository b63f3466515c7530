defmodule Exile.Runtime.SignalTest do
  use ExUnit.Case, async: true

  alias Exile.Runtime.Signal

  describe "known?/1" do
    test "knows lower-case signal names as atoms" do
      for signal <- [:sighup, :sigint, :sigkill, :sigusr1, :sigterm, :sigstop, :sigcont] do
        assert Signal.known?(signal)
      end

      for bad <- [:term, :SIGTERM, :Sigterm, nil, "sigterm", 15, ~c"sigterm", {}, :sig] do
        refute Signal.known?(bad)
      end
    end
  end
end
