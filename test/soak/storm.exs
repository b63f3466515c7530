# Runs tens of thousands of short commands and kills everything that can die at random moments:
#
#     mix run test/soak/storm.exs [commands] [seed]
#
# Every status must arrive exactly once and be correct. Afterwards the counts must be what they
# were before: descriptors, processes, zombies, handles, Erlang processes, and memory as reported
# by the allocators. Run by script/soak.

unless Code.ensure_loaded?(Exile.LeftBehind) do
  Code.require_file("../support/left_behind.ex", __DIR__)
end

defmodule Storm do
  alias Exile.LeftBehind
  alias Exile.Process, as: P

  @workers 16
  @signals [sigterm: 15, sigkill: 9, sigint: 2, sighup: 1, sigusr1: 10]

  def run(count, seed) do
    IO.puts("#{count} commands, seed #{seed}, #{Exile.Native.exit_source()}")
    # The first round creates everything that is created once and kept.
    workers(500, seed)
    settle()
    before = LeftBehind.count()
    {processes, memory} = {length(Process.list()), memory()}

    shutdown_killer = spawn_link(fn -> kill_shutdowns(0) end)
    {time, results} = :timer.tc(fn -> workers(count, seed + 1) end)
    send(shutdown_killer, {:stop, self()})
    kills = receive do: ({:killed, kills} -> kills)

    settle()
    LeftBehind.assert_nothing(before)
    {processes_now, memory_now} = {length(Process.list()), memory()}
    IO.puts("#{round(count / time * 1_000_000)} commands a second")
    IO.inspect(results, label: "by scenario")
    IO.puts("shutdown processes killed: #{kills}")
    IO.inspect(before, label: "before and after")
    IO.puts("Erlang processes: #{processes} before, #{processes_now} after")
    IO.puts("memory: #{div(memory, 1024)} KiB before, #{div(memory_now, 1024)} KiB after")

    if processes_now != processes, do: raise("Erlang processes were left behind")
    # The VM's own caches and tables vary by less than this.
    if memory_now > memory + 2 * 1_048_576, do: raise("memory was left behind")
    IO.puts("nothing was left behind, every status arrived")
  end

  defp workers(count, seed) do
    1..@workers
    |> Enum.map(fn worker ->
      Task.async(fn ->
        :rand.seed(:exsss, {seed, worker, 0})
        Process.flag(:trap_exit, true)
        Enum.frequencies_by(1..div(count, @workers), fn _ -> one() end)
      end)
    end)
    |> Task.await_many(:infinity)
    |> Enum.reduce(%{}, &Map.merge(&1, &2, fn _, a, b -> a + b end))
  end

  # Kills Exile's own process repeatedly, but not so often that its supervisor gives up.
  defp kill_shutdowns(kills) do
    receive do
      {:stop, storm} -> send(storm, {:killed, kills})
    after
      2_000 ->
        Process.exit(Process.whereis(:exile_shutdown), :kill)
        kill_shutdowns(kills + 1)
    end
  end

  defp one do
    scenario =
      Enum.random([
        :exits,
        :exits,
        :exits,
        :signalled,
        :streamed,
        :piped,
        :piped_and_killed,
        :piped_to_nothing,
        :halted,
        :owner_killed,
        :dropped,
        :pipe_owner_killed,
        :input_fails,
        :input_killed,
        :reader_killed,
        :reader_killed_between_reads,
        :owner_restarted,
        :not_found
      ])

    scenario(scenario)
    no_message(scenario)
    scenario
  end

  defp scenario(:exits) do
    code = :rand.uniform(256) - 1
    {:ok, p} = P.start_link(["sh", "-c", "exit #{code}"])
    expect({:ok, code}, P.await_exit(p, :infinity))
    expect({:ok, code}, P.await_exit(p, :infinity))
  end

  defp scenario(:signalled) do
    {signal, number} = Enum.random(@signals)
    {:ok, p} = P.start_link(["sleep", "60"])
    pause()
    expect(:ok, P.kill(p, signal))
    expect({:ok, 128 + number}, P.await_exit(p, :infinity))
    expect({:error, :esrch}, P.kill(p, signal))
    expect(:undefined, P.os_pid(p))
  end

  defp scenario(:streamed) do
    data = :binary.copy("x", :rand.uniform(200_000))
    expect(data, Exile.stream!(["cat"], input: data) |> Enum.join())
  end

  defp scenario(:piped) do
    data = :binary.copy("x", :rand.uniform(200_000))
    code = :rand.uniform(2) - 1
    stages = [["cat"], ["sh", "-c", "cat; exit #{code}"], ["cat"]]
    elements = Enum.to_list(Exile.stream(stages, input: data))
    {output, [exit]} = Enum.split(elements, -1)
    expect({data, {:exit, {:status, code}}}, {Enum.join(output), exit})
  end

  defp scenario(:piped_and_killed) do
    killed(fn -> Exile.stream!([["yes"], ["cat"], ["cat"]], stderr: :consume) |> Stream.run() end)
  end

  defp scenario(:piped_to_nothing) do
    stages = Enum.shuffle([["sleep", "60"], ["cat"], ["no-such-program"]])

    try do
      Stream.run(Exile.stream!(stages))
      raise "it ran"
    rescue
      error in Exile.Process.Error ->
        expect({:enoent, "no-such-program"}, {error.reason, error.subject})
    end
  end

  defp scenario(:halted) do
    expect(["y"], Exile.stream!(["yes"], ignore_epipe: true, max_chunk_size: 1) |> Enum.take(1))
  end

  defp scenario(:owner_killed) do
    killed(fn ->
      {:ok, p} = P.start_link(["sleep", "60"])
      P.read(p)
    end)
  end

  # The handle is dropped at once; the command ends a little later.
  defp scenario(:dropped) do
    {:ok, _} = P.start_link(["sh", "-c", "exit 3"], stderr: :consume)
  end

  defp scenario(:pipe_owner_killed) do
    {:ok, p} = P.start_link(["cat"])

    killed(fn ->
      P.change_pipe_owner(p, :stdin, self())
      P.write(p, :binary.copy("x", 1_000_000))
    end)

    # The input is closed already, or still belongs to this process if the other one was killed
    # before it became the owner.
    P.close_stdin(p)
    read_all(p)
    expect({:ok, 0}, P.await_exit(p, :infinity))
  end

  defp scenario(:input_fails) do
    input = Stream.map(1..3, fn n -> if n == 3, do: raise("storm"), else: "x" end)

    try do
      Exile.stream!(["cat"], input: input) |> Stream.run()
      raise "the input's error was lost"
    rescue
      error in RuntimeError -> expect("storm", error.message)
    end
  end

  defp scenario(:input_killed) do
    storm = self()

    input = fn sink ->
      send(storm, {:input, self()})
      Enum.into(Stream.cycle(["x"]), sink)
    end

    killer =
      spawn_link(fn ->
        receive do
          {:input, pid} ->
            pause()
            Process.exit(pid, :kill)
        end
      end)

    forward = fn sink ->
      send(killer, {:input, self()})
      input.(sink)
    end

    reason =
      try do
        Stream.run(Exile.stream!(["cat"], input: forward))
        :normal
      catch
        :exit, reason -> reason
      end

    expect(:killed, reason)
    receive do: ({:input, _} -> :ok)
    receive do: ({:EXIT, ^killer, :normal} -> :ok)
  end

  # The pipes are full while the reader does something else.
  defp scenario(:reader_killed_between_reads) do
    storm = self()

    {pid, ref} =
      spawn_monitor(fn ->
        Enum.each(Exile.stream!(["yes"]), fn _ ->
          send(storm, {:element, self()})
          receive do: (:next -> :ok)
        end)
      end)

    for _ <- 1..:rand.uniform(3) do
      receive do: ({:element, ^pid} -> send(pid, :next))
    end

    receive do: ({:element, ^pid} -> :ok)
    Process.exit(pid, :kill)
    receive do: ({:DOWN, ^ref, _, _, :killed} -> :ok)
  end

  # The owner runs under a supervisor that restarts it with a new command until max_restarts.
  defp scenario(:owner_restarted) do
    storm = self()

    owner = fn ->
      {:ok, _} = P.start_link(["sleep", "60"])
      send(storm, {:owner, self()})
    end

    child = %{id: :owner, start: {Agent, :start_link, [owner]}}
    {:ok, supervisor} = Supervisor.start_link([child], strategy: :one_for_one, max_restarts: 2)

    for _ <- 1..3 do
      receive do: ({:owner, pid} -> Process.exit(pid, :kill))
    end

    receive do: ({:EXIT, ^supervisor, :shutdown} -> :ok)
  end

  defp scenario(:reader_killed) do
    killed(fn -> Exile.stream!(["yes"], input: Stream.cycle(["x"])) |> Stream.run() end)
  end

  defp scenario(:not_found) do
    {:error, %Exile.Process.Error{reason: :enoent}} = P.start_link(["no-such-program"])
  end

  # Runs `fun` in a process, kills it after a random pause, and waits until it is dead.
  defp killed(fun) do
    {pid, ref} = spawn_monitor(fun)
    pause()
    Process.exit(pid, :kill)
    receive do: ({:DOWN, ^ref, _, _, _} -> :ok)
  end

  # Pauses for up to four milliseconds, which may end before, during or after a spawn.
  defp pause do
    until = System.monotonic_time(:microsecond) + :rand.uniform(4_000)
    pause_until(until)
  end

  defp pause_until(until) do
    if System.monotonic_time(:microsecond) < until do
      :erlang.yield()
      pause_until(until)
    end
  end

  defp read_all(p), do: if(match?({:ok, _}, P.read(p)), do: read_all(p))

  defp expect(expected, expected), do: :ok

  defp expect(expected, got) do
    raise "expected #{inspect(expected, limit: 5)}, got #{inspect(got, limit: 5)}"
  end

  defp no_message(scenario) do
    receive do
      message -> raise "a message was left by #{scenario}: #{inspect(message)}"
    after
      0 -> :ok
    end
  end

  defp settle do
    Process.sleep(1_500)
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
  end

  defp memory, do: :erlang.memory(:total)
end

[count, seed] =
  case System.argv() do
    [] -> [100_000, :rand.uniform(1_000_000)]
    [count] -> [String.to_integer(count), :rand.uniform(1_000_000)]
    [count, seed] -> [String.to_integer(count), String.to_integer(seed)]
  end

Storm.run(count, seed)
