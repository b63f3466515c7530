defmodule Exile.Process.OwnerTest do
  use Exile.Case

  import Exile.ProcessHelpers

  alias Exile.Process, as: Command

  @moduletag :capture_log

  # Prints its own pid and that of a child, which both ignore what asks them to end.
  @stubborn "trap '' TERM INT HUP; sleep 60 & echo $$ $!; while :; do sleep 60; done"

  # Prints its own pid, that of a child and that of a grandchild.
  @family "sh -c 'sleep 60 & echo $!; sleep 60' & echo $$; echo $!; wait"

  # Starts a command in a process of its own, which does what it is told with `tell/2`. The
  # command's pipes belong to the test.
  defp owned_by_other(command, options \\ []) do
    test = self()

    {owner, monitor} =
      spawn_monitor(fn ->
        if options[:trap_exit], do: Process.flag(:trap_exit, true)
        # Shells tell there how their children end.
        options = [stderr: :disable] ++ Keyword.delete(options, :trap_exit)
        {:ok, p} = Command.start_link(command, options)
        for pipe <- [:stdin, :stdout], do: :ok = Command.change_pipe_owner(p, pipe, test)
        send(test, {:started, p})
        receive do: ({:do, fun} -> fun.(p))
      end)

    assert_receive {:started, p}, 5_000
    {p, owner, monitor}
  end

  defp tell(owner, fun), do: send(owner, {:do, fun})

  defp assert_gone(os_pids, time \\ 5_000) do
    eventually(fn -> not Enum.any?(os_pids, &os_process_alive?/1) end, time)
  end

  defp numbers(p) do
    p |> read_lines(1) |> hd() |> String.split() |> Enum.map(&String.to_integer/1)
  end

  describe "a command whose owner" do
    for {how, die} <- [
          {"returns", quote(do: fn _ -> :ok end)},
          {"raises", quote(do: fn _ -> raise "oops" end)},
          {"throws", quote(do: fn _ -> throw(:oops) end)},
          {"exits", quote(do: fn _ -> exit(:oops) end)},
          {"shuts down", quote(do: fn _ -> exit(:shutdown) end)},
          {"is killed", quote(do: fn _ -> Process.exit(self(), :kill) end)}
        ] do
      test "#{how} is ended" do
        {p, owner, monitor} = owned_by_other(sh("echo $$; exec sleep 60"))
        [os_pid] = read_numbers(p, 1)
        tell(owner, unquote(die))
        assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
        assert_gone([os_pid])
        eventually(fn -> Command.os_pid(p) == :undefined end)
        assert Command.read(p) == :eof
        assert Command.write(p, "x") == {:error, :epipe}
        eventually(fn -> not Process.alive?(p.pid) end)
      end
    end

    test "dies is ended in under a second, with its group, though both ignore SIGTERM" do
      {p, owner, monitor} = owned_by_other(sh(@stubborn))
      os_pids = numbers(p)
      tell(owner, fn _ -> Process.exit(self(), :kill) end)
      assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
      {time, :ok} = timed(fn -> assert_gone(os_pids) end)
      assert time < 1_000
    end

    test "dies is ended with its children and grandchildren" do
      {p, owner, monitor} = owned_by_other(sh(@family))
      os_pids = read_numbers(p, 3)
      tell(owner, fn _ -> :ok end)
      assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
      assert_gone(os_pids)
    end

    test "dies is ended though it is stopped" do
      {p, owner, monitor} = owned_by_other(sh("echo $$; kill -STOP $$"))
      [os_pid] = read_numbers(p, 1)
      tell(owner, fn _ -> :ok end)
      assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
      assert_gone([os_pid])
    end

    test "dies is ended by :teardown, its waits shortened" do
      script = """
      trap 'echo int' INT; trap 'echo hup' HUP; trap 'echo term' TERM
      echo ready; while :; do sleep 5 & wait; done
      """

      teardown = [sighup: 60_000, sigint: 60_000, sigterm: 60_000]
      {p, owner, _} = owned_by_other(sh(script), teardown: teardown)
      assert read_lines(p, 1) == ["ready"]
      tell(owner, fn _ -> :ok end)
      {time, output} = timed(fn -> read_all(p) end)
      assert output == "hup\nint\nterm\n"
      assert time < 1_000
    end

    test "dies is left alone in its background programs when it had ended by itself" do
      {p, owner, monitor} = owned_by_other(sh("sleep 60 >/dev/null & echo $!"))
      [background] = read_numbers(p, 1)
      eventually(fn -> Command.os_pid(p) == :undefined end)
      tell(owner, fn _ -> :ok end)
      assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
      eventually(fn -> Exile.Native.counts()[:teardowns] == 0 end)
      assert os_process_alive?(background)
      kill_os_process(background)
    end

    test "waits in await_exit/2 is ended when the owner is killed" do
      {p, owner, monitor} = owned_by_other(sh("echo $$; exec sleep 60"))
      [os_pid] = read_numbers(p, 1)
      tell(owner, fn p -> Command.await_exit(p, :infinity) end)
      wait_until_waiting(owner)
      Process.exit(owner, :kill)
      assert_receive {:DOWN, ^monitor, _, _, :killed}, 5_000
      assert_gone([os_pid])
    end
  end

  describe "a command whose Erlang process" do
    test "is killed is ended with its group, and the owner, being linked, dies" do
      {p, _owner, monitor} = owned_by_other(sh(@stubborn))
      os_pids = numbers(p)
      Process.exit(p.pid, :kill)
      assert_receive {:DOWN, ^monitor, _, _, :killed}, 5_000
      {time, :ok} = timed(fn -> assert_gone(os_pids) end)
      assert time < 1_000
    end

    test "is killed is ended, and an owner that traps exits may still await it" do
      Process.flag(:trap_exit, true)
      {:ok, p} = Command.start_link(["sleep", "60"])
      pid = p.pid
      Process.exit(pid, :kill)
      assert_receive {:EXIT, ^pid, :killed}, 5_000
      assert Command.await_exit(p) == {:ok, 143}
      assert Command.await_exit(p) == {:ok, 143}
      assert Command.os_pid(p) == :undefined
      assert_no_message()
    end

    test "is killed while the owner waits in await_exit/2 is ended, and await_exit/2 returns" do
      test = self()
      {p, owner, monitor} = owned_by_other(["sleep", "60"], trap_exit: true)
      tell(owner, fn p -> send(test, {:status, Command.await_exit(p, :infinity)}) end)
      wait_until_waiting(owner)
      Process.exit(p.pid, :kill)
      assert_receive {:status, {:ok, 143}}, 5_000
      assert_receive {:DOWN, ^monitor, _, _, :normal}
    end

    test "is killed before it has seen the end of the command: those who wait are told" do
      test = self()

      {p, owner, monitor} =
        owned_by_other(sh("sleep 60 & echo $!; exec sleep 60"), trap_exit: true)

      [background] = read_numbers(p, 1)
      reader = waiting_task(p, :stdout, fn -> Command.read(p) end)
      tell(owner, fn p -> send(test, {:status, Command.await_exit(p, :infinity)}) end)
      wait_until_waiting(owner)

      :ok = :sys.suspend(p.pid)
      :ok = Command.kill(p, :sigkill)
      eventually(fn -> Command.os_pid(p) == :undefined end)
      Process.exit(p.pid, :kill)

      # The background process holds the pipe, so it is not the pipe that tells.
      assert Task.await(reader) == :eof
      assert_receive {:status, {:ok, 137}}, 5_000
      assert_receive {:DOWN, ^monitor, _, _, :normal}, 5_000
      kill_os_process(background)
    end

    test "is asked to shut down by somebody else is ended" do
      {p, _owner, monitor} = owned_by_other(sh("echo $$; exec sleep 60"))
      [os_pid] = read_numbers(p, 1)
      Process.exit(p.pid, :shutdown)
      assert_receive {:DOWN, ^monitor, _, _, :shutdown}, 5_000
      assert_gone([os_pid])
    end

    test "gets messages of strangers is not disturbed" do
      {:ok, p} = Command.start_link(["cat"])

      for message <- [:hello, {:select, nil, make_ref(), nil}, {:EXIT, dead_process(), :normal}] do
        send(p.pid, message)
      end

      :ok = Command.write(p, "hi")
      assert Command.read(p) == {:ok, "hi"}
      assert Command.await_exit(p) == {:ok, 0}
    end
  end

  describe "an owner" do
    test "that traps exits gets no message when the command ends, however it does" do
      Process.flag(:trap_exit, true)

      for {command, status} <- [{["true"], 0}, {["false"], 1}, {sh("kill -KILL $$"), 137}] do
        {:ok, p} = Command.start_link(command)
        monitor = Process.monitor(p.pid)
        assert_receive {:DOWN, ^monitor, _, _, reason}, 5_000
        assert reason in [:normal, :noproc]
        assert_no_message()
        assert Command.await_exit(p) == {:ok, status}
        assert_no_message()
      end
    end

    test "that does not trap exits lives on when the command ends, and is linked no more" do
      {:links, before} = Process.info(self(), :links)
      {:ok, p} = Command.start_link(["false"])
      monitor = Process.monitor(p.pid)
      assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
      assert {:links, ^before} = Process.info(self(), :links)
      assert Command.await_exit(p) == {:ok, 1}
    end

    test "has several commands, each of which ends by itself" do
      {:ok, short} = Command.start_link(["true"])
      {:ok, long} = Command.start_link(["cat"])
      assert Command.await_exit(short) == {:ok, 0}
      :ok = Command.write(long, "hi")
      assert Command.read(long) == {:ok, "hi"}
      assert Command.await_exit(long) == {:ok, 0}
    end

    test "that dies takes all its commands along" do
      test = self()

      {owner, monitor} =
        spawn_monitor(fn ->
          commands = for _ <- 1..10, do: elem(Command.start_link(["sleep", "60"]), 1)
          send(test, {:os_pids, for(p <- commands, do: elem(Command.os_pid(p), 1))})
          Process.sleep(:infinity)
        end)

      assert_receive {:os_pids, os_pids}, 5_000
      Process.exit(owner, :kill)
      assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
      assert_gone(os_pids)
    end

    test "that is killed while it starts commands leaves none behind" do
      for _ <- 1..30 do
        {owner, monitor} =
          spawn_monitor(fn -> for _ <- 1..1_000, do: {:ok, _} = Command.start_link(["cat"]) end)

        Process.sleep(:rand.uniform(5))
        Process.exit(owner, :kill)
        assert_receive {:DOWN, ^monitor, _, _, :killed}, 5_000
      end
    end
  end
end
