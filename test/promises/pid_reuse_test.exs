defmodule Exile.PidReuseTest do
  use ExUnit.Case

  # A VM in a PID namespace, where nothing else uses process ids and the next one can be chosen.
  # Repeatedly, a command exits and a process that Exile does not know gets its number.
  @helpers ~S"""
  alias Exile.Process, as: P
  {:ok, _} = Application.ensure_all_started(:exile)

  defmodule Stranger do
    # Leads its own group, and answers as long as no signal has ended it.
    def called(pid, program \\ "exec cat") do
      File.write!("/proc/sys/kernel/ns_last_pid", "#{pid - 1}")
      port = Port.open({:spawn_executable, "/bin/sh"}, [:binary, args: ["-c", program]])

      case Port.info(port, :os_pid) do
        {:os_pid, ^pid} ->
          port

        {:os_pid, _other} ->
          Port.close(port)
          called(pid, program)
      end
    end

    def well?(port) do
      Port.command(port, "?")
      receive(do: ({^port, {:data, "?"}} -> :well), after: (5_000 -> :killed))
    end
  end

  eventually = fn again, condition ->
    unless condition.(), do: Process.sleep(1) && again.(again, condition)
  end

  start = fn script ->
    {:ok, p} = P.start_link(["sh", "-c", script])
    {:ok, pid} = P.os_pid(p)
    {p, pid}
  end

  # A command that has exited by itself and whose status is known.
  ended = fn ->
    {p, pid} = start.("cat; exit 7")
    :ok = P.close_stdin(p)
    eventually.(eventually, fn -> P.os_pid(p) == :undefined end)
    {p, pid}
  end
  """

  # The guard is a child too and would be counted.
  @program "Application.put_env(:exile, :guard, false)\n" <>
             @helpers <>
             ~S"""
             # The stop of the application must not be logged either.
             Logger.configure(level: :none)

             # No command runs and no teardown is under way.
             at_rest = fn ->
               eventually.(eventually, fn ->
                 counts = Exile.Native.counts()
                 counts[:children] == 0 and counts[:teardowns] == 0
               end)
             end

             {p, pid} = ended.()
             stranger = Stranger.called(pid)
             {:error, :esrch} = P.kill(p, :sigkill)
             {:ok, 7} = P.await_exit(p)
             {:error, :esrch} = P.kill(p, :sigkill)
             IO.puts("kill/2: #{Stranger.well?(stranger)}")

             {p, pid} = ended.()
             stranger = Stranger.called(pid)
             {:ok, 7} = P.await_exit(p, 0)
             at_rest.()
             IO.puts("await_exit/2: #{Stranger.well?(stranger)}")

             # The rest of the group ends between two signals.
             for _ <- 1..3 do
               {p, pid} = start.("trap '' TERM; sleep 0.5 & trap 'exit 5' TERM; echo ready; wait")
               {:ok, "ready\n"} = P.read(p)
               {:ok, 5} = P.await_exit(p, 800)
               stranger = Stranger.called(pid)
               at_rest.()
               IO.puts("the rest of a teardown: #{Stranger.well?(stranger)}")
             end

             test = self()

             owner =
               spawn(fn ->
                 send(test, ended.())
                 Process.sleep(:infinity)
               end)

             pid = receive(do: ({_, pid} -> pid))
             stranger = Stranger.called(pid)
             Process.exit(owner, :kill)
             at_rest.()
             IO.puts("the owner's death: #{Stranger.well?(stranger)}")

             # The command has exited on the first signal; the rest of its group has not.
             owner =
               spawn(fn ->
                 {p, pid} =
                   start.("trap '' TERM; sleep 0.4 & trap 'exit 5' TERM; echo ready; wait")

                 {:ok, "ready\n"} = P.read(p)
                 send(test, {p, pid})
                 Process.sleep(:infinity)
               end)

             {p, pid} = receive(do: ({p, pid} -> {p, pid}))
             Process.exit(owner, :kill)
             eventually.(eventually, fn -> P.os_pid(p) == :undefined end)
             stranger = Stranger.called(pid)
             at_rest.()
             IO.puts("the rest of the owner's group: #{Stranger.well?(stranger)}")

             {_p, pid} = ended.()
             stranger = Stranger.called(pid)
             {_p, _} = start.("exec sleep 600")
             :ok = Application.stop(:exile)
             at_rest.()
             IO.puts("the application's end: #{Stranger.well?(stranger)}")
             """

  @guarded """
           Application.put_env(:exile, :guard, true)
           """ <>
             @helpers <>
             ~S"""
             true = is_pid(Process.whereis(Exile.Runtime.Guard))
             {_p, pid} = ended.()
             {_p, _} = start.("exec sleep 600")
             Stranger.called(pid, "exec sleep 600")
             # Printed output may be lost when the VM is killed.
             File.write!(System.fetch_env!("STRANGER"), "#{pid}")
             System.cmd("kill", ["-KILL", System.pid()])
             """

  # The shell is PID 1, so that the VM is not.
  @namespace ~w(--pid --fork --mount-proc --kill-child sh -c)

  defp run(script, program, environment \\ []) do
    arguments = @namespace ++ [script, Application.app_dir(:exile, "ebin"), program]
    System.cmd("unshare", arguments, env: environment, stderr_to_stdout: true)
  end

  # This takes privileges that a user or a container may not have.
  @allowed "echo 100 > /proc/sys/kernel/ns_last_pid"
  unless match?({_, 0}, System.cmd("unshare", @namespace ++ [@allowed], stderr_to_stdout: true)) do
    @moduletag skip: "this user may not make a PID namespace and choose its numbers"
  end

  describe "a number that has become a stranger's is not signalled" do
    @expected """
    kill/2: well
    await_exit/2: well
    the rest of a teardown: well
    the rest of a teardown: well
    the rest of a teardown: well
    the owner's death: well
    the rest of the owner's group: well
    the application's end: well
    """

    for source <- ["auto", "wait"] do
      test "by anything that ends commands, statuses from #{source}" do
        environment = [{"EXILE_EXIT_SOURCE", unquote(source)}]
        script = ~S(elixir -pa "$0" -e "$1"; exit $?)
        assert run(script, @program, environment) == {@expected, 0}
      end
    end

    test "by the guard, when the VM is killed" do
      script = ~S"""
      export STRANGER=$(mktemp)
      elixir -pa "$0" -e "$1"
      stranger=$(cat "$STRANGER")
      rm "$STRANGER"
      while grep -qs [e]xile_guard /proc/[0-9]*/cmdline; do sleep 0.01; done
      for stat in /proc/[0-9]*/stat; do
        read -r pid name state rest <$stat
        [ "$name $state" = "(sleep) S" ] && echo "$pid $stranger"
      done
      """

      # The output also contains the shell's message about the killed VM.
      assert {output, _} = run(script, @guarded)
      assert [_, pid, pid] = Regex.run(~r/^(\d+) (\d+)$/m, output)
    end
  end
end
