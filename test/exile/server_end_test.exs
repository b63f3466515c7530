defmodule Exile.ServerEndTest do
  use Exile.Case

  describe "the Erlang process of a command" do
    test "ends with the command, also when others see the end first" do
      for _ <- 1..200 do
        {:ok, p} = Exile.Process.start_link(["sleep", "60"])
        server = Process.monitor(p.pid)
        :ok = Exile.Process.kill(p, :sigkill)
        # Asks until it has ended, which may be before the VM tells the server.
        ended(p)
        assert_receive {:DOWN, ^server, :process, _, reason} when reason in [:normal, :noproc]
      end

      assert_no_message()
    end
  end

  defp ended(p), do: if(Exile.Native.command_status(p.command) == :running, do: ended(p))
end
