defmodule Exile.Process.ChaosTest do
  @moduledoc """
  Several processes make random calls with random options on several commands, in random order.

  The tests check what must always be true: a call returns only results that it may return, no
  call hangs once its command is gone, no message is left with a caller, and at the end nothing
  is left behind.

  * `EXILE_CHAOS_SECONDS` - how long each test runs. Default: 2
  * `EXILE_CHAOS_SEED` - the seed of the first round, as printed by a failure
  """

  use Exile.Case

  @moduletag :capture_log
  @moduletag timeout: :infinity

  # No call takes nearly this long, even on a loaded machine.
  @deadline 20_000

  @workers 12

  @not_ours {:error, :pipe_closed_or_invalid_caller}
  @pipes [:stdin, :stdout, :stderr]

  # Runs `round` with one seed after the other until the time is over.
  defp rounds(round) do
    seconds = "EXILE_CHAOS_SECONDS" |> System.get_env("2") |> String.to_integer()
    first = System.get_env("EXILE_CHAOS_SEED") || "#{:rand.uniform(1_000_000_000)}"
    deadline = System.monotonic_time(:millisecond) + seconds * 1000
    rounds(round, String.to_integer(first), deadline)
  end

  defp rounds(round, seed, deadline) do
    :rand.seed(:exsss, seed)

    try do
      round.(seed)
    rescue
      error ->
        IO.puts(:stderr, "\nThis happened with EXILE_CHAOS_SEED=#{seed}")
        reraise error, __STACKTRACE__
    end

    if System.monotonic_time(:millisecond) < deadline, do: rounds(round, seed + 1, deadline)
  end

  describe "start_link/2" do
    test "with random commands and options starts, returns an error or raises ArgumentError" do
      rounds(fn _seed ->
        command = command()
        options = options()

        case attempt(fn -> Exile.Process.start_link(command, options) end) do
          {:ok, %Exile.Process{} = p} ->
            assert {:ok, status} = Exile.Process.await_exit(p, 200)
            assert status in 0..255

          {:error, %Exile.Process.Error{} = error} ->
            assert is_binary(Exception.message(error))

          {:raised, message} ->
            assert message != "argument error"

          other ->
            flunk("#{inspect({command, options})}: #{inspect(other)}")
        end

        assert_no_message()
      end)
    end
  end

  describe "all functions" do
    test "called in random order by several processes on several commands leave nothing behind" do
      rounds(fn seed ->
        before = Exile.LeftBehind.count()
        test = self()
        workers = for n <- 1..@workers, do: spawn_monitor(fn -> worker(test, {seed, n}) end)
        pids = Enum.map(workers, &elem(&1, 0))

        commands =
          for pid <- pids do
            assert_receive {:started, ^pid, started}, @deadline
            started
          end

        for pid <- pids, do: send(pid, {:go, List.flatten(commands), pids})

        # A call may wait for another process that waits, too. So processes and commands are
        # disturbed now and then, and at the end all commands are killed.
        for _ <- 1..@workers do
          Process.sleep(:rand.uniform(5))
          disturb(Enum.random(pids), commands |> List.flatten() |> Enum.random())
        end

        for p <- List.flatten(commands), do: Exile.Process.kill(p, :sigkill)
        for {pid, monitor} <- workers, do: assert_ended(pid, monitor)
        # Close the pipes that the test became the owner of.
        for p <- List.flatten(commands), pipe <- @pipes, do: close(p, pipe)
        Exile.LeftBehind.assert_nothing(before)
        assert_no_message()
      end)
    end
  end

  defp disturb(pid, p) do
    case :rand.uniform(5) do
      n when n in 1..2 -> Process.exit(pid, :kill)
      3 -> Process.exit(pid, :shutdown)
      4 -> Exile.Process.kill(p, signal())
      5 -> Exile.Process.change_pipe_owner(p, Enum.random(@pipes), Enum.random([pid, self()]))
    end
  end

  defp assert_ended(pid, monitor) do
    receive do
      {:DOWN, ^monitor, :process, ^pid, reason} ->
        assert reason in [:normal, :killed, :shutdown], Exception.format_exit(reason)
    after
      @deadline ->
        flunk("a call hangs: #{inspect(Process.info(pid, [:current_stacktrace, :messages]))}")
    end
  end

  # Owns some commands and makes random calls on all commands.
  defp worker(test, seed) do
    :rand.seed(:exsss, :erlang.phash2(seed))
    if :rand.uniform(2) == 1, do: Process.flag(:trap_exit, true)
    started = for _ <- 1..:rand.uniform(2), do: start()
    send(test, {:started, self(), started})

    receive do
      {:go, commands, pids} -> for _ <- 1..25, do: call(Enum.random(commands), pids)
    end

    {:messages, messages} = Process.info(self(), :messages)
    # The exit signals of `disturb/2` are expected.
    [] = Enum.reject(messages, &match?({:EXIT, ^test, :shutdown}, &1))
  end

  # Their background processes are short-lived, because a random signal may not reach them.
  defp start do
    command =
      Enum.random([
        ["cat"],
        ["true"],
        ["yes"],
        ["sleep", "60"],
        sh("cat >&2"),
        sh("trap '' TERM INT; sleep 3"),
        sh("yes & exec yes >&2"),
        sh("exec 0<&-; sleep 0.01; exit 3"),
        sh("exec 3<&0; (cat <&3; sleep 0.1) & echo hi")
      ])

    stderr = Enum.random([:consume, :consume, :disable, :redirect_to_stdout])
    {:ok, p} = Exile.Process.start_link(command, stderr: stderr)
    p
  end

  defp call(p, pids) do
    pipe = Enum.random(@pipes)

    case :rand.uniform(14) do
      1 ->
        p |> Exile.Process.read(size()) |> one_of([:eof, @not_ours])

      2 ->
        p |> Exile.Process.read_stderr(size()) |> one_of([:eof, @not_ours])

      n when n in [3, 4] ->
        p |> Exile.Process.read_any(size()) |> one_of([:eof, @not_ours])

      5 ->
        p |> Exile.Process.write(iodata()) |> one_of([:ok, {:error, :epipe}, @not_ours])

      6 ->
        p |> close(pipe) |> one_of([:ok, @not_ours])

      n when n in 7..9 ->
        p |> Exile.Process.change_pipe_owner(pipe, Enum.random(pids)) |> one_of([:ok, @not_ours])

      10 ->
        p |> Exile.Process.change_pipe_owner(pipe, self()) |> one_of([:ok, @not_ours])

      11 ->
        p |> Exile.Process.kill(signal()) |> one_of([:ok, {:error, :esrch}])

      12 ->
        p |> Exile.Process.os_pid() |> one_of([:undefined])

      13 ->
        await_exit(p)

      14 ->
        :erlang.garbage_collect()
    end
  end

  defp await_exit(%{owner: owner} = p) when owner == self() do
    # Called rarely, because it ends the command.
    if :rand.uniform(4) == 1, do: p |> Exile.Process.await_exit(:rand.uniform(50)) |> one_of([])
  end

  defp await_exit(p),
    do:
      {:raised, "await_exit/2 must be called" <> _} =
        attempt(fn -> Exile.Process.await_exit(p) end)

  defp one_of({:ok, _}, _others), do: :ok

  defp one_of(result, others),
    do: if(result in others, do: :ok, else: exit({:unexpected, result}))

  defp close(p, :stdin), do: Exile.Process.close_stdin(p)
  defp close(p, :stdout), do: Exile.Process.close_stdout(p)
  defp close(p, :stderr), do: Exile.Process.close_stderr(p)

  defp attempt(fun) do
    fun.()
  rescue
    error in ArgumentError -> {:raised, Exception.message(error)}
  end

  # Generators

  defp signal,
    do: Enum.random([:sigterm, :sigkill, :sigstop, :sigcont, :sighup, :sigusr1, :sigpipe])

  defp size, do: Enum.random([1, 10, 65_535, 1_000_000])

  defp iodata do
    Enum.random([
      "",
      "x",
      [[], "a", [?b | "c"]],
      :binary.copy("x", :rand.uniform(300_000)),
      List.duplicate("part", :rand.uniform(3_000))
    ])
  end

  defp command do
    case :rand.uniform(8) do
      1 -> garbage()
      2 -> ["true" | garbage()]
      3 -> ["true", garbage()]
      4 -> ["no-such-program-" <> bytes()]
      5 -> ["/no/such/directory/" <> bytes()]
      _ -> ["true" | for(_ <- 1..:rand.uniform(4), do: bytes())]
    end
  end

  defp options do
    if :rand.uniform(20) == 1,
      do: garbage(),
      else: for(_ <- 0..(:rand.uniform(3) - 1)//1, do: option())
  end

  defp option do
    Enum.random([
      fn ->
        {:cd, Enum.random(["/", "/tmp", ".", nil, "/no/such/directory", "/dev/null", ""])}
      end,
      fn -> {:env, for(_ <- 1..:rand.uniform(3), do: {"EXILE_" <> bytes(), bytes()})} end,
      fn -> {:env, Map.new([{"EXILE_" <> bytes(), Enum.random([nil, false, bytes()])}])} end,
      fn -> {:env, [garbage() | garbage()]} end,
      fn -> {:env, [{garbage(), garbage()}]} end,
      fn -> {:clear_env, Enum.random([true, false])} end,
      fn -> {:stderr, Enum.random([:console, :redirect_to_stdout, :disable, :consume])} end,
      fn -> {:teardown, [{signal(), :rand.uniform(100)}, {:sigterm, :rand.uniform(1_000)}]} end,
      fn -> {:teardown, [{garbage(), garbage()} | garbage()]} end,
      fn -> {Enum.random([:cd, :env, :clear_env, :stderr, :teardown, :unknown]), garbage()} end,
      fn -> {garbage(), garbage()} end
    ]).()
  end

  # Random bytes, mostly without NUL.
  defp bytes do
    bytes = :rand.bytes(:rand.uniform(20) - 1)
    if :rand.uniform(10) == 1, do: bytes, else: :binary.replace(bytes, <<0>>, "0", [:global])
  end

  defp garbage do
    Enum.random([
      fn -> nil end,
      fn -> [] end,
      fn -> %{} end,
      fn -> {} end,
      fn -> 0 end,
      fn -> -1.5 end,
      fn -> Integer.pow(2, 100) end,
      fn -> self() end,
      fn -> make_ref() end,
      fn -> &is_nil/1 end,
      fn -> :atom end,
      fn -> ~c"charlist" end,
      fn -> <<1::3>> end,
      fn -> MapSet.new([1]) end,
      fn -> bytes() end,
      fn -> [bytes() | bytes()] end,
      fn -> [garbage()] end,
      fn -> {garbage(), garbage()} end,
      fn -> %{garbage() => garbage()} end,
      fn -> [{garbage(), garbage()}] end
    ]).()
  end
end
