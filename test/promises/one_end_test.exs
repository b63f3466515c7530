defmodule Exile.OneEndTest do
  @moduledoc "A command is ended once, however many processes ask for it."

  use Exile.Case

  import Exile.ProcessHelpers, only: [read_all: 1, read_lines: 2, timed: 1]

  alias Exile.VM

  # Prints the signals that it gets. SIGTERM does not end it.
  @telling "trap 'echo INT' INT; trap 'echo TERM' TERM; echo ready; while :; do sleep 0.01; done"

  # Starts an owner that awaits the exit while the test reads the output.
  defp awaited(timeout, options) do
    test = self()

    owner =
      spawn(fn ->
        {:ok, p} = Exile.Process.start_link(sh(@telling), [stderr: :disable] ++ options)
        {:ok, "ready\n"} = Exile.Process.read(p)
        :ok = Exile.Process.change_pipe_owner(p, :stdout, test)
        send(test, {:command, p})
        Exile.Process.await_exit(p, timeout)
      end)

    assert_receive {:command, p}
    {owner, p}
  end

  describe "the death of an owner that awaits the end" do
    test "repeats no signal of the teardown that is under way" do
      {owner, p} = awaited(0, teardown: [sigint: 1_500, sigterm: 300])
      assert read_lines(p, 1) == ["INT"]
      Process.exit(owner, :kill)
      {time, output} = timed(fn -> read_all(p) end)
      assert output == "TERM\n"
      # The waits have not changed.
      assert time in 1_000..10_000
    end

    test "shortens the default waits" do
      {owner, p} = awaited(16_000, [])
      assert read_lines(p, 1) == ["TERM"]
      Process.exit(owner, :kill)
      {time, output} = timed(fn -> read_all(p) end)
      assert output == "TERM\n"
      # Without the owner's death, eight more seconds would have passed.
      assert time < 4_000
    end
  end

  describe "a command that may not be signalled" do
    @other ~w(--reuid 65534 --regid 65534 --clear-groups)

    unless match?(
             {_, 0},
             System.cmd("setpriv", @other ++ ["true"], stderr_to_stdout: true)
           ) do
      @describetag skip: "only root can start a VM as another user"
    end

    test "is an error at once, but the reader's own exception takes precedence" do
      mark = VM.mark()
      setpriv = Path.join(VM.tmp_dir(mark), "setpriv")
      File.mkdir_p!(VM.tmp_dir(mark))
      File.cp!(System.find_executable("setpriv"), setpriv)
      # The set-user-ID bit lets any user run it and become another user.
      File.chmod!(setpriv, 0o4755)
      File.chmod!(VM.tmp_dir(mark), 0o755)

      program = """
      Logger.configure(level: :none)
      {:ok, _} = Application.ensure_all_started(:exile)
      other = [#{inspect(setpriv)}, "--reuid", "1", "--regid", "1", "--clear-groups"]
      command = other ++ ["sh", "-c", "echo ready; exec sleep 600"]
      patient = [teardown: [sigterm: 600_000], stderr: :disable]

      {:ok, p} = Exile.Process.start_link(command, patient)
      {:ok, "ready\\n"} = Exile.Process.read(p)
      IO.inspect(Exile.Process.kill(p, :sigterm))
      {:error, error} = Exile.Process.await_exit(p, 0)
      IO.inspect({error.__struct__, error.reason, error.operation})
      {:error, %{reason: :eperm}} = Exile.Process.await_exit(p, 0)

      try do
        Enum.each(Exile.stream!(command, patient), fn "ready\\n" -> raise "mine" end)
      rescue
        error -> IO.inspect(error)
      end

      try do
        Enum.take(Exile.stream!(command, patient), 1)
      rescue
        error -> IO.inspect({error.__struct__, error.reason, error.operation})
      end

      [] = Process.info(self(), :messages) |> elem(1)
      System.halt(0)
      """

      port = VM.open(program, mark, as: ["setpriv" | @other], env: [{"HOME", "/tmp"}])

      for line <- [
            "{:error, :eperm}",
            "{Exile.Process.Error, :eperm, :signal}",
            "%RuntimeError{message: \"mine\"}",
            "{Exile.Process.Error, :eperm, :signal}"
          ] do
        assert_receive {^port, {:data, {:eol, ^line}}}, 60_000
      end

      assert_receive {^port, {:exit_status, 0}}, 30_000
      # A change of user clears the parent-death signal, so these commands outlive the VM.
      for {os_pid, _} <- VM.marked(mark), do: Exile.ProcessHelpers.kill_os_process(os_pid)
    end
  end
end
