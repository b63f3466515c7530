defmodule Exile.SpawnersTest do
  use Exile.Case

  import ExUnit.CaptureLog
  import Exile.ProcessHelpers, only: [kill_os_process: 1, timed: 1]

  @count 60

  # The number of unanswered spawn requests.
  defp requests, do: Exile.Native.counts()[:requests]

  describe "many commands that are started at once" do
    # The program is open for writing, so starting it takes a while and fails.
    @describetag :tmp_dir

    setup %{tmp_dir: dir} do
      path = Path.join(dir, "busy")
      File.cp!("/bin/true", path)
      # The file is closed when the test process ends.
      File.open!(path, [:append])
      {:ok, busy: path}
    end

    # Tasks that all start the program at once.
    defp starters(busy) do
      for _ <- 1..@count, do: Task.async(fn -> Exile.Process.start_link([busy]) end)
    end

    defp unfinished(tasks), do: Enum.count(tasks, &Process.alive?(&1.pid))

    test "do not block the VM's threads for files", %{busy: busy} do
      tasks = starters(busy)
      eventually(fn -> requests() > @count / 2 end)
      for _ <- 1..20, do: File.stat!(busy)
      assert unfinished(tasks) > @count / 2

      for result <- Task.await_many(tasks, 30_000) do
        assert {:error, %Exile.Process.Error{reason: :etxtbsy}} = result
      end
    end

    test "run even if others are killed while they wait", %{busy: busy} do
      Process.flag(:trap_exit, true)

      for _ <- 1..3 do
        tasks = starters(busy)
        eventually(fn -> requests() > @count / 2 end)
        {killed, others} = tasks |> Enum.shuffle() |> Enum.split(div(@count, 2))
        for task <- killed, do: Process.exit(task.pid, :kill)
        for result <- Task.await_many(others, 30_000), do: assert({:error, _} = result)
        for task <- tasks, do: assert_receive({:EXIT, pid, _} when pid == task.pid)
        for task <- killed, do: assert_receive({:DOWN, ref, _, _, _} when ref == task.ref)
        eventually(fn -> requests() == 0 end)
      end
    end

    test "never run when their owners are killed before their turn", %{
      busy: busy,
      tmp_dir: dir
    } do
      tasks = starters(busy)
      eventually(fn -> requests() > @count / 2 end)
      file = Path.join(dir, "ran")
      waiting = requests()

      owners =
        for _ <- 1..10, do: spawn(fn -> {:ok, _} = Exile.Process.start_link(["touch", file]) end)

      eventually(fn -> requests() > waiting or unfinished(tasks) == 0 end)
      for owner <- owners, do: Process.exit(owner, :kill)
      assert unfinished(tasks) > 0, "it was their turn before they were killed"
      Task.await_many(tasks, 30_000)
      eventually(fn -> requests() == 0 and Exile.Native.counts()[:spawns] == 0 end)
      refute File.exists?(file)
    end

    test "all run" do
      tasks =
        for n <- 1..200 do
          Task.async(fn ->
            {:ok, p} = Exile.Process.start_link(sh("exit #{n}"))
            Exile.Process.await_exit(p, :infinity)
          end)
        end

      assert Task.await_many(tasks, 60_000) == for(n <- 1..200, do: {:ok, n})
    end
  end

  # Another process holds a lease on the program. Its execution hangs in the kernel, as on a file
  # system whose server does not answer, until the lease is released or for 45 seconds.
  describe "a program whose execution hangs" do
    @describetag :tmp_dir

    @holder """
    import fcntl, os, signal, sys
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
    held = os.open(sys.argv[1], os.O_RDWR)
    fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    print("held", flush=True)
    signal.pause()
    """

    cond do
      :os.type() != {:unix, :linux} -> @describetag skip: "leases are known on Linux alone"
      !System.find_executable("python3") -> @describetag skip: "python3 is needed to take a lease"
      true -> :ok
    end

    setup %{tmp_dir: dir} do
      path = Path.join(dir, "hangs")
      File.cp!("/bin/true", path)
      python = System.find_executable("python3")
      arguments = ["-c", @holder, path]
      port = Port.open({:spawn_executable, python}, [:binary, line: 100, args: arguments])
      assert_receive {^port, {:data, {:eol, "held"}}}, 10_000
      {:os_pid, holder} = Port.info(port, :os_pid)
      on_exit(fn -> kill_os_process(holder) end)
      {:ok, hangs: path, holder: holder}
    end

    # Starts processes that hang while they start the program. Each sends its result to the test.
    defp hanging(path, count, options \\ []) do
      test = self()

      starters =
        for _ <- 1..count do
          spawn(fn -> send(test, {:result, self(), Exile.Process.start_link([path], options)}) end)
        end

      eventually(fn -> requests() == count end)
      # Every request that a spawner has taken is a child that waits for its program.
      eventually(fn -> children() != [] end)
      starters
    end

    defp children, do: Exile.LeftBehind.os_children()

    # No spawner is busy any more.
    defp assert_nothing_hangs do
      eventually(fn -> Exile.Native.counts()[:spawns] == 0 end)
      assert children() == []
    end

    defp assert_result(starter, reason, path) do
      assert_receive {:result, ^starter, {:error, error}}
      assert %Exile.Process.Error{reason: ^reason, subject: ^path} = error
    end

    test "is :etimedout for a caller that gives up, and nothing is left", %{hangs: path} do
      {time, result} = timed(fn -> Exile.Process.start_link([path], start_timeout: 100) end)
      assert {:error, %Exile.Process.Error{operation: :exec} = error} = result
      assert {error.reason, error.subject} == {:etimedout, path}
      assert time in 100..5_000
      assert_no_message()
      assert_nothing_hangs()
    end

    test "is :etimedout for many callers that give up", %{hangs: path} do
      starters = hanging(path, 20, start_timeout: 400)
      for starter <- starters, do: assert_result(starter, :etimedout, path)
      assert_nothing_hangs()
    end

    test "is :etimedout at once when start_timeout is 0", %{hangs: path} do
      for _ <- 1..20 do
        assert {:error, %{reason: :etimedout}} =
                 Exile.Process.start_link([path], start_timeout: 0)
      end

      assert_no_message()
      assert_nothing_hangs()
    end

    test "is raised by a stream", %{hangs: path} do
      error =
        assert_raise Exile.Process.Error, fn ->
          Stream.run(Exile.stream!([path], start_timeout: 100))
        end

      assert error.reason == :etimedout
      assert_nothing_hangs()
    end

    test "is killed when its callers are killed", %{hangs: path} do
      starters = hanging(path, 20)
      for starter <- starters, do: Process.exit(starter, :kill)
      assert_nothing_hangs()
      assert requests() == 0
      refute_received {:result, _, _}
    end

    test "does not delay other programs", %{hangs: path} do
      starters = hanging(path, 12)

      for _ <- 1..3 do
        {time, result} = timed(fn -> Exile.Process.start_link(["true"]) end)
        assert {:ok, p} = result
        assert Exile.Process.await_exit(p) == {:ok, 0}
        # The others hang for 45 seconds.
        assert time < 5_000
      end

      for starter <- starters, do: Process.exit(starter, :kill)
      assert_nothing_hangs()
    end

    # This runs in its own VM with the initial spawners, because spawners never end.
    test "holds up no other program for long, though not all began to hang at once", %{
      hangs: path
    } do
      program = """
      {:ok, _} = Application.ensure_all_started(:exile)
      {:ok, _} = Exile.Process.start_link(["true"])
      Process.sleep(200)
      start = fn -> spawn(fn -> Exile.Process.start_link([#{inspect(path)}]) end) end
      for _ <- 1..4, do: {start.(), Process.sleep(30)}
      for _ <- 1..200, do: start.()
      wait = fn wait -> Exile.Native.counts()[:requests] == 204 || wait.(wait) end
      wait.(wait)
      {time, {:ok, _}} = :timer.tc(fn -> Exile.Process.start_link(["true"]) end)
      IO.write(div(time, 1000))
      """

      arguments = ["-pa", Application.app_dir(:exile, "ebin"), "-e", program]
      {time, 0} = System.cmd("elixir", arguments)
      # It would take more than 6,000 ms if only three spawners were added every 100 ms.
      assert String.to_integer(time) < 4_000
    end

    test "holds no pipe of other commands open", %{hangs: path} do
      {:ok, reads} = Exile.Process.start_link(["cat"])
      {:ok, writes} = Exile.Process.start_link(["yes"])
      starters = hanging(path, 4)

      {time, _} =
        timed(fn ->
          assert Exile.Process.close_stdin(reads) == :ok
          assert Exile.Process.read(reads) == :eof
          assert Exile.Process.close_stdout(writes) == :ok
          eventually(fn -> Exile.Process.os_pid(writes) == :undefined end)
        end)

      assert time < 5_000
      assert Exile.Process.await_exit(reads) == {:ok, 0}
      assert Exile.Process.await_exit(writes) == {:ok, 141}
      for starter <- starters, do: Process.exit(starter, :kill)
      assert_nothing_hangs()
    end

    test "runs as soon as it no longer hangs", %{hangs: path, holder: holder} do
      starters = hanging(path, 8)
      kill_os_process(holder)
      for starter <- starters, do: assert_receive({:result, ^starter, {:ok, _}}, 10_000)
    end

    test "does not delay the stop of the application", %{hangs: path} do
      on_exit(fn -> {:ok, _} = Application.ensure_all_started(:exile) end)
      {:ok, other} = Exile.Process.start_link(["sleep", "600"])
      starters = hanging(path, 12)
      {time, _} = timed(fn -> capture_log(fn -> Application.stop(:exile) end) end)
      assert time < 3_000
      assert children() == []
      assert Exile.Process.os_pid(other) == :undefined
      for starter <- starters, do: assert_result(starter, :ecanceled, path)
      assert_nothing_hangs()
    end
  end
end
