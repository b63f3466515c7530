defmodule Exile.SupervisionTest do
  use Exile.Case

  import ExUnit.CaptureLog
  import Exile.ProcessHelpers, only: [read_lines: 2]

  alias Exile.{LeftBehind, VM}

  defmodule Worker do
    @moduledoc "Runs a command with a child and a grandchild, and sends their ids to the test."

    use GenServer

    # Starts a child that ignores SIGTERM, and a grandchild.
    @script "trap '' TERM; sleep 60 & sh -c 'sleep 60 & echo $!; wait' & trap - TERM; echo $$; wait"

    def child_spec({name, _} = args) do
      %{id: name, start: {GenServer, :start_link, [__MODULE__, args, []]}}
    end

    @impl true
    def init({name, test}) do
      {:ok, p} = Exile.Process.start_link(["sh", "-c", @script], stderr: :disable)
      os_pids = p |> read_lines(2) |> Enum.map(&String.to_integer/1)
      send(test, {name, self(), os_pids})
      {:ok, p}
    end

    @impl true
    def handle_cast(:crash, _), do: raise("a fault")
  end

  @names [:one, :two, :three]

  # Returns the supervisor and the workers, as `{pid, os_pids}` by name.
  defp supervise(options) do
    children = for name <- @names, do: {Worker, {name, self()}}
    {:ok, supervisor} = Supervisor.start_link(children, options)
    {supervisor, started(@names)}
  end

  defp started(names) do
    Map.new(names, fn name ->
      assert_receive {^name, pid, os_pids}
      {name, {pid, os_pids}}
    end)
  end

  defp os_pids(workers), do: Enum.flat_map(workers, fn {_, {_, os_pids}} -> os_pids end)

  defp gone?(workers), do: not Enum.any?(os_pids(workers), &os_process_alive?/1)

  defp crash(workers, name), do: GenServer.cast(elem(workers[name], 0), :crash)

  # Adds to the counts what `count` commands use: handles, pipes, and monitors of the owners.
  defp of_commands(before, count) do
    # Two pipes and the exit fd, which without pidfds is a pipe whose two ends are open.
    descriptors = if Exile.Native.exit_source() == :portable, do: 4, else: 3

    before
    |> Map.update!(:children, &(&1 + count))
    |> Map.update!(:os_children, &(&1 + count))
    |> Map.update!(:pipes, &(&1 + 2 * count))
    |> Map.update!(:monitors, &(&1 + 3 * count))
    |> Map.update!(:descriptors, &(&1 + descriptors * count))
  end

  describe "the commands of supervised processes" do
    for {strategy, restarted} <- [
          one_for_one: [:two],
          rest_for_one: [:two, :three],
          one_for_all: [:one, :two, :three]
        ] do
      test "end with those that crash or are restarted, the others run on: #{strategy}" do
        capture_log(fn ->
          before = LeftBehind.count()
          {supervisor, workers} = supervise(strategy: unquote(strategy), max_restarts: 100)
          LeftBehind.assert_nothing(of_commands(before, 3))

          last =
            for _ <- 1..3, reduce: workers do
              workers ->
                crash(workers, :two)
                again = started(unquote(restarted))
                old = Map.take(workers, unquote(restarted))
                eventually(fn -> gone?(old) end)
                workers = Map.merge(workers, again)
                assert Enum.all?(os_pids(workers), &os_process_alive?/1)
                # The counts are as before: nothing of the old commands is left.
                LeftBehind.assert_nothing(of_commands(before, 3))
                workers
            end

          :ok = Supervisor.stop(supervisor)
          eventually(fn -> gone?(last) end)
          LeftBehind.assert_nothing(before)
        end)
      end
    end

    test "all end when there are too many restarts" do
      Process.flag(:trap_exit, true)

      capture_log(fn ->
        before = LeftBehind.count()
        {supervisor, workers} = supervise(strategy: :one_for_one, max_restarts: 1)
        crash(workers, :one)
        again = started([:one])
        crash(again, :one)
        assert_receive {:EXIT, ^supervisor, :shutdown}
        eventually(fn -> gone?(workers) and gone?(again) end)
        LeftBehind.assert_nothing(before)
        assert_no_message()
      end)
    end

    test "end when the supervisor is killed" do
      Process.flag(:trap_exit, true)
      before = LeftBehind.count()
      {supervisor, workers} = supervise(strategy: :one_for_one)
      Process.exit(supervisor, :kill)
      assert_receive {:EXIT, ^supervisor, :killed}
      eventually(fn -> gone?(workers) end)
      LeftBehind.assert_nothing(before)
    end
  end

  # Runs the program in another VM, because Exile is stopped in it.
  defp vm(program, expected) do
    mark = VM.mark()

    port =
      VM.open(
        """
        Application.put_env(:exile, :guard, true)
        {:ok, _} = Application.ensure_all_started(:exile)
        Logger.configure(level: :none)

        run = fn ->
          {:ok, p} = Exile.Process.start_link(["sh", "-c", "trap '' TERM; sleep 600 & echo r; wait"])
          {:ok, "r\\n"} = Exile.Process.read(p)
          p
        end

        # Kills the process of that name and waits for its successor.
        restarted = fn name ->
          old = Process.whereis(name)
          ref = Process.monitor(old)
          Process.exit(old, :kill)
          receive(do: ({:DOWN, ^ref, _, _, :killed} -> :ok))
          wait = fn wait -> Process.whereis(name) || (Process.sleep(1) && wait.(wait)) end
          true = wait.(wait) != old
        end

        #{program}
        """,
        mark
      )

    on_exit(fn ->
      for {os_pid, _} <- VM.marked(mark), do: Exile.ProcessHelpers.kill_os_process(os_pid)
    end)

    vm = VM.os_pid(port)
    assert_receive {^port, {:data, {:eol, ^expected}}}, 30_000
    {port, mark, vm}
  end

  describe "an application with a tree of such processes" do
    test "stops with the VM and leaves no command" do
      program = """
      children = for n <- 1..5, do: %{id: n, start: {Agent, :start_link, [fn -> run.() end]}}
      {:ok, _} = Supervisor.start_link(children, strategy: :one_for_all)
      IO.puts("runs")
      IO.gets("")
      System.stop(6)
      Process.sleep(:infinity)
      """

      {port, mark, vm} = vm(program, "runs")
      assert length(VM.marked(mark)) >= 10
      VM.go_on(port)
      assert_receive {^port, {:exit_status, 6}}, 30_000
      assert VM.marked(mark) == []
      eventually(fn -> VM.guard(vm) == nil end)
    end
  end

  describe "the shutdown process and the guard" do
    test "ignore stray calls, casts and messages" do
      program = """
      for name <- [:exile_shutdown, Exile.Runtime.Guard] do
        pid = Process.whereis(name)

        for message <- [:stray, {make_ref(), :ok}, {:select, nil, make_ref(), :ready_input}, {:EXIT, self(), :normal}] do
          send(pid, message)
        end

        GenServer.cast(pid, :stray)

        {:timeout, _} =
          try do
            GenServer.call(pid, :stray, 50)
          catch
            :exit, reason -> reason
          end

        wait = fn wait -> Process.info(pid, :message_queue_len) == {:message_queue_len, 0} || wait.(wait) end
        wait.(wait)
        ^pid = Process.whereis(name)
      end

      p = run.()
      :ok = Application.stop(:exile)
      :undefined = Exile.Process.os_pid(p)
      IO.puts("well")
      IO.gets("")
      """

      {port, mark, vm} = vm(program, "well")
      eventually(fn -> VM.zombies(vm) == [] and VM.guard(vm) == nil end)
      assert [{^vm, _}] = Enum.reject(VM.marked(mark), fn {_, line} -> line =~ "child_setup" end)
      VM.go_on(port)
      assert_receive {^port, {:exit_status, 0}}, 30_000
    end
  end

  describe "when it is killed," do
    test "the shutdown process restarts, commands keep running and end with the application" do
      program = """
      commands = for _ <- 1..5, do: run.()
      for _ <- 1..3, do: restarted.(:exile_shutdown)
      true = Enum.all?(commands, &match?({:ok, _}, Exile.Process.os_pid(&1)))
      more = for _ <- 1..5, do: run.()
      :ok = Application.stop(:exile)
      [:undefined] = Enum.uniq(Enum.map(commands ++ more, &Exile.Process.os_pid/1))
      IO.puts("stopped")
      IO.gets("")
      """

      {port, mark, vm} = vm(program, "stopped")
      others = Enum.reject(VM.marked(mark), fn {_, line} -> line =~ "child_setup" end)
      assert [{^vm, _}] = others
      # The guard exits last.
      eventually(fn -> VM.zombies(vm) == [] and VM.guard(vm) == nil end)
      VM.go_on(port)
      assert_receive {^port, {:exit_status, 0}}, 30_000
    end

    test "the guard's server restarts with one guard, which gets reports of all commands" do
      program = """
      commands = for _ <- 1..5, do: run.()
      for _ <- 1..3, do: restarted.(Exile.Runtime.Guard)
      true = Enum.all?(commands, &match?({:ok, _}, Exile.Process.os_pid(&1)))
      IO.puts("restarted")
      IO.gets("")
      """

      {port, mark, vm} = vm(program, "restarted")
      eventually(fn -> length(guards(vm)) == 1 end)
      [guard] = guards(vm)
      # The guard has three streams, a descriptor for the VM, and one for each reported command.
      eventually(fn -> length(File.ls!("/proc/#{guard}/fd")) >= 3 + 1 + 5 end)
      System.cmd("kill", ["-KILL", "#{vm}"])
      assert_receive {^port, {:exit_status, 137}}, 30_000
      eventually(fn -> VM.marked(mark) == [] and guards(vm) == [] end)
    end
  end

  defp guards(vm) do
    for entry <- File.ls!("/proc"),
        entry =~ ~r/^\d+$/,
        {:ok, line} <- [File.read("/proc/#{entry}/cmdline")],
        line =~ "exile_guard\0#{vm}\0",
        do: String.to_integer(entry)
  end
end
