defmodule Exile.Process.AwaitExitTest do
  use Exile.Case

  import Exile.ProcessHelpers

  # Prints the signals that it gets, and does not exit on them.
  @telling """
  for signal in HUP INT QUIT TERM USR1; do trap "echo $signal" $signal; done
  echo ready; while :; do sleep 5 & wait; done
  """

  # Starts a command whose standard output a task reads up to end-of-file, because await_exit/2
  # drops what its caller owns. Returns when the command has printed "ready".
  defp start_read_by_task(command, options \\ []) do
    # Shells report on stderr how their children end.
    {:ok, p} = Exile.Process.start_link(command, Keyword.put_new(options, :stderr, :disable))
    test = self()

    reader =
      Task.async(fn ->
        :ok = Exile.Process.change_pipe_owner(p, :stdout, self())
        ["ready"] = read_lines(p, 1)
        send(test, {:ready, self()})
        read_all(p)
      end)

    pid = reader.pid
    assert_receive {:ready, ^pid}, 5_000
    {p, reader}
  end

  describe "await_exit/2" do
    test "returns the exit status" do
      for status <- [0, 1, 2, 126, 127, 128, 137, 254, 255] do
        {:ok, p} = Exile.Process.start_link(sh("exit #{status}"))
        assert Exile.Process.await_exit(p) == {:ok, status}
      end
    end

    test "returns 128 and the number of the signal that ended the command" do
      for {signal, number} <- [HUP: 1, INT: 2, KILL: 9, TERM: 15] do
        {:ok, p} = Exile.Process.start_link(sh("kill -#{signal} $$"))
        assert Exile.Process.await_exit(p) == {:ok, 128 + number}
      end
    end

    test "returns the same status on every call" do
      {:ok, p} = Exile.Process.start_link(sh("exit 3"))
      for _ <- 1..5, do: assert(Exile.Process.await_exit(p) == {:ok, 3})
      assert Exile.Process.await_exit(p, 0) == {:ok, 3}
      assert Exile.Process.await_exit(p, :infinity) == {:ok, 3}
    end

    test "returns the status of a command that ended long before" do
      {:ok, p} = Exile.Process.start_link(sh("exit 4"))
      eventually(fn -> Exile.Process.os_pid(p) == :undefined end)
      assert Exile.Process.await_exit(p, 0) == {:ok, 4}
    end

    test "closes the caller's pipes, so that a command that reads its input ends by itself" do
      {:ok, p} = Exile.Process.start_link(sh("cat >/dev/null; exit 5"), stderr: :consume)
      assert Exile.Process.await_exit(p, :infinity) == {:ok, 5}

      for result <- [
            Exile.Process.write(p, "x"),
            Exile.Process.read(p),
            Exile.Process.read_stderr(p)
          ] do
        assert result == {:error, :pipe_closed_or_invalid_caller}
      end
    end

    test "leaves the pipes of other processes open" do
      {p, reader} = start_read_by_task(sh("echo ready; cat; echo end"))
      :ok = Exile.Process.write(p, "written\n")
      assert Exile.Process.await_exit(p) == {:ok, 0}
      assert Task.await(reader) == "written\nend\n"
    end

    test "returns at once when the command ends, even while others hold its pipes" do
      {:ok, p} = Exile.Process.start_link(sh("sleep 60 & echo $!"))
      [background] = read_numbers(p, 1)
      assert Exile.Process.await_exit(p, :infinity) == {:ok, 0}
      assert os_process_alive?(background)
      kill_os_process(background)
    end

    test "leaves background programs of a command that ends by itself alone" do
      {:ok, p} =
        Exile.Process.start_link(sh("sleep 60 >/dev/null & echo $!; read line || exit 0"))

      [background] = read_numbers(p, 1)
      assert Exile.Process.await_exit(p) == {:ok, 0}
      eventually(fn -> Exile.Native.counts()[:teardowns] == 0 end)
      assert os_process_alive?(background)
      kill_os_process(background)
    end

    test "drops any amount of remaining output, so that the command ends by itself" do
      script = "yes | head -c 3000000; yes | head -c 3000000 >&2; exit 7"

      for stderr <- [:consume, :redirect_to_stdout, :disable], timeout <- [20_000, :infinity] do
        {:ok, p} = Exile.Process.start_link(sh(script), stderr: stderr)
        assert Exile.Process.await_exit(p, timeout) == {:ok, 7}
        assert_no_message()
      end
    end

    test "never ends a command by a closed pipe: a signal ends one that writes for ever" do
      for _ <- 1..10 do
        {:ok, p} = Exile.Process.start_link(["yes"])
        assert Exile.Process.await_exit(p, 40) == {:ok, 143}
        assert_no_message()
      end
    end

    test "drops what the command writes after a signal" do
      script =
        "trap 'yes | head -c 1000000; exit 9' TERM; echo ready; while :; do sleep 0.01; done"

      {:ok, p} =
        Exile.Process.start_link(sh(script), teardown: [sigterm: 20_000], stderr: :disable)

      assert read_lines(p, 1) == ["ready"]
      assert Exile.Process.await_exit(p, 0) == {:ok, 9}
    end

    test "drops no output that other processes read" do
      script = "echo ready; yes | head -c 1000000; yes | head -c 1000000 >&2"
      {p, reader} = start_read_by_task(sh(script), stderr: :consume)
      assert Exile.Process.await_exit(p, :infinity) == {:ok, 0}
      assert byte_size(Task.await(reader)) == 1_000_000
    end

    test "drains without reordering other messages" do
      for n <- 1..100, do: send(self(), n)
      {:ok, p} = Exile.Process.start_link(["yes"])
      assert Exile.Process.await_exit(p, 100) == {:ok, 143}
      assert Process.info(self(), :messages) == {:messages, Enum.to_list(1..100)}
      for n <- 1..100, do: assert_received(^n)
    end

    test "leaves no message with the caller" do
      for timeout <- [0, 1, 20, 5_000, :infinity] do
        {:ok, p} = Exile.Process.start_link(["cat"])
        assert {:ok, _} = Exile.Process.await_exit(p, timeout)
        assert_no_message()
      end
    end

    test "leaves other messages in the mailbox" do
      send(self(), :mine)
      {:ok, p} = Exile.Process.start_link(["cat"])
      assert Exile.Process.await_exit(p) == {:ok, 0}
      assert_received :mine
      assert_no_message()
    end

    test "is refused to every process except the owner, without any effect" do
      {:ok, p} = Exile.Process.start_link(["cat"])

      task =
        Task.async(fn ->
          message =
            ~r"await_exit/2 must be called by the command's owner, #PID<.*is not the owner"

          assert_raise ArgumentError, message, fn -> Exile.Process.await_exit(p) end
        end)

      Task.await(task)
      :ok = Exile.Process.write(p, "hi")
      assert Exile.Process.read(p) == {:ok, "hi"}
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end

    test "with an invalid timeout raises and closes nothing" do
      {:ok, p} = Exile.Process.start_link(["cat"])

      for bad <- [-1, 1.5, nil, :never, "1", 0x1_0000_0000] do
        message = "expected a timeout in milliseconds or :infinity, got: #{inspect(bad)}"
        assert_raise ArgumentError, message, fn -> Exile.Process.await_exit(p, bad) end
      end

      :ok = Exile.Process.write(p, "hi")
      assert Exile.Process.read(p) == {:ok, "hi"}
      assert Exile.Process.await_exit(p, 0xFFFF_FFFF) == {:ok, 0}
    end
  end

  describe "await_exit/2 of a command that does not end by itself" do
    test "sends SIGTERM after a quarter of the timeout" do
      {:ok, p} = Exile.Process.start_link(["sleep", "60"])
      {time, result} = timed(fn -> Exile.Process.await_exit(p, 800) end)
      assert result == {:ok, 143}
      assert time in 200..399
    end

    test "sends SIGTERM twice and then SIGKILL, evenly spread, and returns in time" do
      {p, reader} = start_read_by_task(sh(@telling))
      {time, result} = timed(fn -> Exile.Process.await_exit(p, 1_600) end)
      assert result == {:ok, 137}
      assert time in 1_200..1_599
      assert Task.await(reader) == "TERM\nTERM\n"
    end

    test "kills it when it ignores every signal that can be ignored" do
      {p, reader} = start_read_by_task(sh("trap '' TERM INT HUP; echo ready; sleep 60; sleep 60"))
      {time, result} = timed(fn -> Exile.Process.await_exit(p, 400) end)
      assert result == {:ok, 137}
      assert time in 300..1_000
      assert Task.await(reader) == ""
    end

    test "ends it even if it is stopped" do
      {:ok, p} = Exile.Process.start_link(["sleep", "60"])
      :ok = Exile.Process.kill(p, :sigstop)
      assert Exile.Process.await_exit(p, 400) == {:ok, 143}
    end

    test "kills it at once when the timeout is 0" do
      {:ok, p} = Exile.Process.start_link(["sleep", "60"])
      {time, {:ok, status}} = timed(fn -> Exile.Process.await_exit(p, 0) end)
      assert status in [137, 143]
      assert time < 500

      {p, reader} = start_read_by_task(sh("trap '' TERM; echo ready; sleep 60; sleep 60"))
      assert Exile.Process.await_exit(p, 0) == {:ok, 137}
      assert Task.await(reader) == ""
    end

    test "lets it end in its own way after a signal" do
      {p, reader} =
        start_read_by_task(
          sh("trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 5 & wait; done")
        )

      assert Exile.Process.await_exit(p, 800) == {:ok, 9}
      assert Task.await(reader) == "bye\n"
    end

    test "ends its whole group, including grandchildren" do
      {:ok, p} =
        Exile.Process.start_link(
          sh("sh -c 'sleep 60 & echo $!; sleep 60' & echo $$; echo $!; wait")
        )

      os_pids = read_numbers(p, 3)
      assert Exile.Process.await_exit(p, 200) == {:ok, 143}
      eventually(fn -> not Enum.any?(os_pids, &os_process_alive?/1) end)
    end

    test "also ends a child that ignores SIGTERM" do
      script = "(trap '' TERM; echo; exec sleep 60) & echo $!; wait"
      {:ok, p} = Exile.Process.start_link(sh(script))
      [child] = p |> read_lines(2) |> Enum.reject(&(&1 == "")) |> Enum.map(&String.to_integer/1)
      assert Exile.Process.await_exit(p, 200) == {:ok, 143}
      eventually(fn -> not os_process_alive?(child) end)
    end

    test "waits without limit with :infinity, and sends no signal" do
      {p, reader} = start_read_by_task(sh(@telling))

      killer =
        Task.async(fn ->
          receive do: (:go -> :ok)
          wait_until_waiting(p.owner)
          :ok = Exile.Process.kill(p, :sigusr1)
          # The reader must see USR1 before the command is killed.
          receive do: (:end -> Exile.Process.kill(p, :sigkill))
        end)

      send(killer.pid, :go)
      Process.send_after(killer.pid, :end, 300)
      assert Exile.Process.await_exit(p, :infinity) == {:ok, 137}
      assert Task.await(killer) == :ok
      assert Task.await(reader) == "USR1\n"
    end
  end

  describe "await_exit/2 with :teardown" do
    test "sends the signals in their order, SIGKILL last" do
      teardown = [sighup: 200, sigint: 200, sigusr1: 200]
      {p, reader} = start_read_by_task(sh(@telling), teardown: teardown)
      assert Exile.Process.await_exit(p, 1_600) == {:ok, 137}
      assert Task.await(reader) == "HUP\nINT\nUSR1\n"
    end

    test "waits the given time after each signal if the timeout allows it" do
      {p, reader} = start_read_by_task(sh(@telling), teardown: [sigint: 400, sigterm: 300])
      {time, {:ok, 137}} = timed(fn -> Exile.Process.await_exit(p, 2_000) end)
      assert Task.await(reader) == "INT\nTERM\n"
      # A quarter of the timeout, then 400 ms, then 300 ms.
      assert time in 1_200..1_490
    end

    test "keeps the given waits even if they exceed the timeout" do
      {p, reader} = start_read_by_task(sh(@telling), teardown: [sigint: 500, sigterm: 500])
      {time, {:ok, 137}} = timed(fn -> Exile.Process.await_exit(p, 400) end)
      assert Task.await(reader) == "INT\nTERM\n"
      # A quarter of the timeout, and twice 500 ms.
      assert time in 1_100..2_000
    end

    test "that is empty kills after a quarter of the timeout" do
      {p, reader} = start_read_by_task(sh(@telling), teardown: [])
      {time, {:ok, 137}} = timed(fn -> Exile.Process.await_exit(p, 800) end)
      assert Task.await(reader) == ""
      assert time in 200..700
    end

    test "may name SIGKILL, and the same signal again" do
      {p, reader} =
        start_read_by_task(sh(@telling), teardown: [sigint: 50, sigint: 50, sigkill: 50])

      assert Exile.Process.await_exit(p, 800) == {:ok, 137}
      assert Task.await(reader) == "INT\nINT\n"
    end

    test "stops when the command ends" do
      {p, reader} =
        start_read_by_task(
          sh(
            "trap 'echo int; exit 6' INT; trap 'echo term' TERM; echo ready; while :; do sleep 5 & wait; done"
          ),
          teardown: [sigint: 10_000, sigterm: 10_000]
        )

      assert Exile.Process.await_exit(p, 4_000) == {:ok, 6}
      assert Task.await(reader) == "int\n"
    end

    test "does not signal a command that ends by itself" do
      {p, reader} =
        start_read_by_task(sh("echo ready; read line; exit 8"), teardown: [sigkill: 0])

      assert Exile.Process.await_exit(p, 20_000) == {:ok, 8}
      assert Task.await(reader) == ""
    end
  end
end
