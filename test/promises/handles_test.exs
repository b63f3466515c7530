defmodule Exile.HandlesTest do
  @moduledoc "Commands and streams whose last handle is garbage."

  use Exile.Case

  import Exile.ProcessHelpers, only: [kill_os_process: 1, read_all: 1]
  import Exile.StreamSteps, only: [rest: 1, step: 1]

  alias Exile.LeftBehind

  @count 20

  # Waits until the caller's garbage is collected and `condition` holds.
  defp eventually_collected(condition) do
    eventually(fn ->
      :erlang.garbage_collect()
      condition.()
    end)
  end

  # In its own function, so that no reference to the handle is left when it returns.
  defp start_and_forget(command, use) do
    {:ok, p} = Exile.Process.start_link(command, stderr: :consume)
    use.(p)
    :ok
  end

  describe "nothing is left of a command that has ended and whose handle is garbage, if" do
    for {what, command, use} <- [
          {"it was never used", ["true"], quote(do: fn _ -> :ok end)},
          {"its output is unread", ["seq", "100"], quote(do: fn _ -> :ok end)},
          {"its output was read to the end", ["echo", "hi"], quote(do: &read_all/1)},
          {"it was waited for once", ["sh", "-c", "sleep 0.05; echo hi; echo ho"],
           quote(do: &Exile.Process.read/1)},
          {"it was written to", ["head", "-n", "1"],
           quote(do: &Exile.Process.write(&1, "line\n"))},
          {"its end was awaited", ["true"], quote(do: &Exile.Process.await_exit/1)},
          {"its pipes were closed", ["true"],
           quote(do: fn p -> {Exile.Process.close_stdin(p), Exile.Process.close_stdout(p)} end)},
          {"it was killed", ["sleep", "600"], quote(do: &Exile.Process.kill(&1, :sigkill))}
        ] do
      test what do
        before = LeftBehind.count()
        for _ <- 1..@count, do: start_and_forget(unquote(command), unquote(use))
        eventually_collected(fn -> LeftBehind.count() == before end)
        assert_no_message()
      end
    end

    test "a background child keeps its pipes open" do
      before = LeftBehind.count()
      test = self()

      start_and_forget(sh("sleep 600 & echo $!"), fn p ->
        {:ok, line} = Exile.Process.read(p)
        send(test, {:background, line |> String.trim() |> String.to_integer()})
      end)

      assert_receive {:background, background}
      eventually_collected(fn -> LeftBehind.count() == before end)
      assert os_process_alive?(background)
      kill_os_process(background)
    end
  end

  describe "a command that runs and whose handle is garbage" do
    @tag :tmp_dir
    test "keeps running while its owner lives, and ends with it", %{tmp_dir: dir} do
      test = self()
      # The command reports on SIGUSR1 that it is alive. It exits if its output is closed.
      script = "trap 'echo well >well' USR1; echo $$; while sleep 0.01; do echo output; done"

      owner =
        spawn(fn ->
          start_and_forget(["sh", "-c", "cd #{dir}; " <> script], fn p ->
            {:ok, line} = Exile.Process.read(p)
            send(test, {:os_pid, line |> String.split() |> hd()})
          end)

          for _ <- 1..3, do: :erlang.garbage_collect()
          send(test, :collected)
          Process.sleep(:infinity)
        end)

      assert_receive {:os_pid, os_pid}
      assert_receive :collected
      {_, 0} = System.cmd("kill", ["-USR1", os_pid])
      eventually(fn -> File.exists?(Path.join(dir, "well")) end)
      assert os_process_alive?(os_pid)
      Process.exit(owner, :kill)
      eventually(fn -> not os_process_alive?(os_pid) end)
    end
  end

  describe "a suspended stream" do
    # A background child that ignores signals, and a leader that waits, writes or reads.
    @group "trap '' TERM INT HUP; sleep 600 & trap - TERM INT HUP; echo $$ $!; "

    defp suspend_and_forget(stream) do
      {element, _continuation} = step(stream)
      element |> String.split("\n") |> hd() |> String.split() |> Enum.map(&String.to_integer/1)
    end

    for {what, leader, input} <- [
          {"waits", "wait", :none},
          {"writes", "exec yes", :none},
          {"reads what is being evaluated", "exec cat", :evaluated}
        ] do
      test "that is dropped ends its command and its group, the command #{what}" do
        before = LeftBehind.count()
        input = if unquote(input) == :evaluated, do: fn _sink -> Process.sleep(:infinity) end
        stream = Exile.stream!(sh(@group <> unquote(leader)), input: input, stderr: :disable)
        os_pids = for _ <- 1..@count, os_pid <- suspend_and_forget(stream), do: os_pid
        assert length(Enum.uniq(os_pids)) == 2 * @count
        eventually_collected(fn -> not Enum.any?(os_pids, &os_process_alive?/1) end)
        eventually_collected(fn -> LeftBehind.count() == before end)
        assert_no_message()
      end
    end

    test "that is dropped stops the evaluation of its input, and its feeder" do
      test = self()

      input = fn _sink ->
        Process.flag(:trap_exit, true)
        {:links, [feeder]} = Process.info(self(), :links)
        send(test, {:input, self(), feeder})
        Process.sleep(:infinity)
      end

      [_, _] = suspend_and_forget(Exile.stream!(sh(@group <> "exec cat"), input: input))
      assert_receive {:input, evaluation, feeder}
      refs = for pid <- [evaluation, feeder], do: Process.monitor(pid)

      eventually_collected(fn ->
        not Process.alive?(evaluation) and not Process.alive?(feeder)
      end)

      for ref <- refs, do: assert_receive({:DOWN, ^ref, _, _, _})
      assert_no_message()
    end

    test "that is kept goes on after garbage collections" do
      {first, continuation} = step(Exile.stream!(["cat"], input: ["1\n", "2\n", "3\n"]))

      for _ <- 1..3, do: :erlang.garbage_collect()
      assert Enum.join([first | rest(continuation)]) == "1\n2\n3\n"
    end

    test "that was halted or read to its end leaves nothing" do
      before = LeftBehind.count()
      {_, continuation} = step(Exile.stream!(["yes"], ignore_epipe: true))
      {:halted, _} = continuation.({:halt, nil})
      {_, continuation} = step(Exile.stream!(["echo", "hi"]))
      assert rest(continuation) == []
      eventually(fn -> LeftBehind.count() == before end)
    end
  end

  # This runs in its own VM, because it used to crash the VM.
  test "reading the monitors of an owner while its commands end does no harm" do
    program = """
    defmodule Test do
      def look(owner), do: Process.info(owner, :monitored_by) && look(owner)

      def run(0), do: :ok

      def run(n) do
        {:ok, p} = Exile.Process.start_link(["true"])
        {:ok, 0} = Exile.Process.await_exit(p)
        if rem(n, 20) == 0, do: :erlang.garbage_collect()
        run(n - 1)
      end
    end

    {:ok, _} = Application.ensure_all_started(:exile)
    spawn(Test, :look, [self()])
    Test.run(8_000)
    IO.write("alive")
    """

    arguments = ["-pa", Application.app_dir(:exile, "ebin"), "-e", program]
    assert System.cmd("elixir", arguments) == {"alive", 0}
  end
end
