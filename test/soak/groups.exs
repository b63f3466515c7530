# Checks that the processes a command has started end with it, whatever ends the command:
#
#     mix run test/soak/groups.exs [groups of each kind]
#
# Each command leads a process group with a `sleep` in the background. The leader waits, writes
# or reads, so it may end because a pipe is closed, before it is signalled. Every way to end a
# command from outside is tried on every kind of leader. Run by script/soak.

defmodule Groups do
  alias Exile.Process, as: P

  # Groups run concurrently so that they interfere with each other.
  @at_once 10

  # How many owners each VM has in the "VM stops" case.
  @in_a_vm 20

  # A group is gone within half a second, or a little later on a loaded machine.
  @patience 10_000
  @pause 20

  def run(count) do
    :ok = :logger.set_primary_config(:level, :none)
    IO.puts("#{count} groups for each end, statuses by #{Exile.Native.exit_source()}")

    ends = [
      {"its owner is killed", &owner_killed/1},
      {"its owner raises", &owner_raises/1},
      {"its owner returns", &owner_returns/1},
      {"the reader of a stream is killed", &reader_killed/1},
      {"the reader of a stream raises", &reader_raises/1},
      {"the reader of a stream has enough", &reader_has_enough/1},
      {"a suspended stream is dropped", &dropped/1}
    ]

    left = for {name, job} <- ends, do: report(name, count, fn -> many(count, job) end)
    left = [report("the VM stops", count, fn -> stop_vms(count) end) | left]
    if Enum.sum(left) > 0, do: System.halt(1)
  end

  defp report(name, count, job) do
    holders = job.()
    left = left(System.monotonic_time(:millisecond) + @patience)
    for holder <- holders, is_pid(holder), do: Process.exit(holder, :kill)
    IO.puts("#{name}: #{left} of #{count} left")
    _ = System.cmd("pkill", ["-KILL", "-f", "^sleep #{mark()}$"])
    left
  end

  # The argument of `sleep`, unique to this run, so that its processes can be found.
  def mark, do: "9" <> String.pad_leading(System.pid(), 8, "0")

  def leaders(mark) do
    for rest <- ["echo hi; wait", "exec yes", "echo hi; exec cat"],
        do: ["sh", "-c", "sleep #{mark} & #{rest}"]
  end

  defp many(count, job) do
    leaders = leaders(mark())

    1..count
    |> Task.async_stream(&job.(Enum.at(leaders, rem(&1, 3))),
      max_concurrency: @at_once,
      timeout: :infinity
    )
    |> Enum.map(fn {:ok, result} -> result end)
  end

  defp left(deadline) do
    count = length(sleepers())

    if count == 0 or System.monotonic_time(:millisecond) > deadline do
      count
    else
      Process.sleep(@pause)
      left(deadline)
    end
  end

  defp sleepers do
    line = "sleep\0#{mark()}\0"
    for pid <- File.ls!("/proc"), File.read("/proc/#{pid}/cmdline") == {:ok, line}, do: pid
  end

  defp owner_killed(command) do
    {pid, ref} = owner(command, fn -> Process.sleep(:infinity) end)
    receive do: ({:ready, ^pid} -> Process.exit(pid, :kill))
    receive do: ({:DOWN, ^ref, _, _, :killed} -> :ok)
  end

  defp owner_raises(command) do
    {_, ref} = owner(command, fn -> raise "it raises" end)
    receive do: ({:DOWN, ^ref, _, _, {_, _}} -> :ok)
  end

  defp owner_returns(command) do
    {_, ref} = owner(command, fn -> :ok end)
    receive do: ({:DOWN, ^ref, _, _, :normal} -> :ok)
  end

  defp owner(command, last) do
    test = self()

    spawn_monitor(fn ->
      {:ok, p} = P.start_link(command)
      {:ok, _} = P.read(p)
      send(test, {:ready, self()})
      last.()
    end)
  end

  defp reader_killed(command) do
    test = self()

    {pid, ref} =
      spawn_monitor(fn ->
        stream(command) |> Enum.each(fn _ -> send(test, {:ready, self()}) end)
      end)

    receive do: ({:ready, ^pid} -> Process.exit(pid, :kill))
    receive do: ({:DOWN, ^ref, _, _, :killed} -> :ok)
  end

  # The input never ends; otherwise the leader that reads would exit by itself.
  defp stream(command) do
    input = Stream.repeatedly(fn -> Process.sleep(:infinity) end)
    Exile.stream!(command, input: input, ignore_epipe: true)
  end

  defp reader_raises(command) do
    try do
      stream(command) |> Enum.each(fn _ -> raise "it raises" end)
    rescue
      error in RuntimeError -> error.message
    end
  end

  defp reader_has_enough(command) do
    stream(command) |> Enum.take(1)
  end

  # The process that enumerated the stream stays alive.
  defp dropped(command) do
    test = self()

    pid =
      spawn(fn ->
        begin(command)
        :erlang.garbage_collect()
        send(test, {:ready, self()})
        Process.sleep(:infinity)
      end)

    receive do: ({:ready, ^pid} -> pid)
  end

  defp begin(command) do
    {:suspended, _, continue} =
      Enumerable.reduce(stream(command), {:cont, nil}, fn _, _ -> {:suspend, nil} end)

    is_function(continue)
  end

  # The owners are supervised. The supervisor stops first, then the application, then the VM.
  defp stop_vms(count) do
    path = Enum.flat_map(:code.get_path(), &["-pa", to_string(&1)])

    program = """
    {:ok, _} = Application.ensure_all_started(:exile)
    :ok = :logger.set_primary_config(:level, :none)
    test = self()
    owner = fn command ->
      spawn_link(fn ->
        {:ok, p} = Exile.Process.start_link(command)
        {:ok, _} = Exile.Process.read(p)
        send(test, :ready)
        Process.sleep(:infinity)
      end)
    end
    children = for n <- 1..#{@in_a_vm}, command = Enum.at(#{inspect(leaders(mark()))}, rem(n, 3)) do
      %{id: n, start: {:erlang, :apply, [fn -> {:ok, owner.(command)} end, []]}, shutdown: :brutal_kill}
    end
    {:ok, supervisor} = Supervisor.start_link(children, strategy: :one_for_one)
    for _ <- children, do: receive(do: (:ready -> :ok))
    Supervisor.stop(supervisor)
    :ok = Application.stop(:exile)
    System.halt(0)
    """

    for _ <- 1..max(div(count, @in_a_vm), 1) do
      {"", 0} = System.cmd("elixir", path ++ ["-e", program])
    end
  end
end

{count, ""} = Integer.parse(List.first(System.argv()) || "100")
Groups.run(count)
