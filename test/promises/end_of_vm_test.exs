defmodule Exile.EndOfVMTest do
  use ExUnit.Case

  import Exile.Case, only: [eventually: 2]

  alias Exile.VM

  @moduletag timeout: 120_000
  @moduletag :end_of_vm

  @kinds [:plain, :stubborn, :stopped, :parent]
  @each 50
  @time 20_000

  # Where the kernel does not bind commands to the VM, the guard must end them, and a command runs
  # briefly before the guard knows of it.
  @unbound Exile.Native.guard_is_needed() && "commands are not bound to the VM by the kernel"

  # Only the commands themselves, for cases in which nothing can end their children.
  defp commands(mark) do
    for {os_pid, line} <- VM.marked(mark), line =~ "ready" or line =~ "beam", do: {os_pid, line}
  end

  defp ends(port, status) do
    assert_receive {^port, {:exit_status, ^status}}, @time
  end

  # No file may be left in the directory of the library, however the VM ends.
  setup do
    native = Application.app_dir(:exile, "priv/native")
    files = File.ls!(native)
    on_exit(fn -> assert File.ls!(native) == files end)
  end

  describe "nothing is left of 200 commands, their children included," do
    for {guard, with_guard} <- [{false, ""}, {true, ", with the guard"}] do
      @guard guard

      test "after System.stop" <> with_guard do
        {port, mark} = VM.start(@kinds, @each, "System.stop(3)", guard: @guard)
        vm = VM.os_pid(port)
        assert length(VM.marked(mark)) >= VM.size(@kinds, @each)
        VM.go_on(port)
        ends(port, 3)
        assert_nothing(mark, vm)
      end

      test "after SIGTERM to the VM" <> with_guard do
        {port, mark} = VM.start(@kinds, @each, "", guard: @guard)
        vm = VM.os_pid(port)
        signal("TERM", vm)
        ends(port, 0)
        assert_nothing(mark, vm)
      end

      test "after the application has stopped, while the VM goes on" <> with_guard do
        finale = ~s|Application.stop(:exile); IO.puts("stopped"); IO.gets("")|
        {port, mark} = VM.start(@kinds, @each, finale, guard: @guard)
        vm = VM.os_pid(port)
        assert VM.guard(vm) != nil == @guard
        VM.go_on(port)
        assert_receive {^port, {:data, {:eol, "stopped"}}}, @time

        assert [{^vm, _}] =
                 VM.marked(mark) |> Enum.reject(fn {_, line} -> line =~ "child_setup" end)

        # The guard exits last.
        eventually(fn -> VM.zombies(vm) == [] and VM.guard(vm) == nil end, @time)
        signal("KILL", vm)
        ends(port, 137)
      end
    end

    test "after kill -9 of the VM, with the guard" do
      {port, mark} = VM.start(@kinds, @each, "", guard: true)
      vm = VM.os_pid(port)
      assert VM.guard(vm)
      signal("KILL", vm)
      ends(port, 137)
      eventually(fn -> VM.marked(mark) == [] and VM.guard(vm) == nil end, @time)
      assert_nothing(mark, vm)
    end

    test "after System.halt, with the guard" do
      {port, mark} = VM.start(@kinds, @each, "System.halt(4)", guard: true)
      vm = VM.os_pid(port)
      VM.go_on(port)
      ends(port, 4)
      eventually(fn -> VM.marked(mark) == [] and VM.guard(vm) == nil end, @time)
      assert_nothing(mark, vm)
    end

    test "after kill -9 of the guard and then of the VM" do
      {port, mark} = VM.start(@kinds, @each, "", guard: true)
      vm = VM.os_pid(port)
      guard = VM.guard(vm)
      signal("KILL", guard)
      eventually(fn -> VM.guard(vm) not in [nil, guard] end, @time)
      wait_for_descriptors(VM.guard(vm), @each * length(@kinds))
      signal("KILL", vm)
      ends(port, 137)
      eventually(fn -> VM.marked(mark) == [] end, @time)
    end
  end

  describe "no command is left, even without the guard," do
    @describetag skip: @unbound

    test "after kill -9 of the VM" do
      {port, mark} = VM.start(@kinds, @each, "")
      signal("KILL", VM.os_pid(port))
      ends(port, 137)
      eventually(fn -> commands(mark) == [] end, @time)

      # Their children live on: two of each :parent, and the sleep of each :stubborn shell.
      assert length(VM.marked(mark)) == 3 * @each
      end_the_rest(mark)
    end

    test "after System.halt" do
      {port, mark} = VM.start(@kinds, @each, "System.halt(4)")
      VM.go_on(port)
      ends(port, 4)
      eventually(fn -> commands(mark) == [] end, @time)

      # Their children live on: two of each :parent, and the sleep of each :stubborn shell.
      assert length(VM.marked(mark)) == 3 * @each
      end_the_rest(mark)
    end
  end

  describe "nothing is left of commands that are being spawned" do
    # At any time some commands wait for a spawner, some are being spawned, and many run.
    @spawning """
    {:ok, _} = Application.ensure_all_started(:exile)
    for _ <- 1..200, do: {:ok, _} = Exile.Process.start_link(["sleep", "600"])
    spawners = for _ <- 1..8, do: spawn(fn ->
      for _ <- Stream.cycle([1]), do: Exile.Process.start_link(["sleep", "600"])
    end)
    IO.puts("ready")
    """

    # How many milliseconds after the start of the storm the VM is ended.
    @moments [0, 30]

    # Starts a VM that evaluates `finale` while it spawns, or that the test ends from outside.
    defp storm(moment, finale, guard) do
      mark = VM.mark()

      program = """
      Application.put_env(:exile, :guard, #{guard})
      #{@spawning}
      Process.sleep(#{moment})
      #{finale}
      Process.sleep(:infinity)
      """

      port = VM.open(program, mark)
      vm = VM.os_pid(port)
      assert_receive {^port, {:data, {:eol, "ready"}}}, 60_000
      {port, mark, vm}
    end

    for {how, finale, signals, status, guard} <- [
          {"when System.stop is called", "System.stop(3)", [], 3, false},
          {"when System.halt is called", "System.halt(4)", [], 4, false},
          {"when the VM gets SIGTERM", "", ["TERM"], 0, false},
          {"when the VM is killed", "", ["KILL"], 137, false},
          {"when the VM is killed, with the guard", "", ["KILL"], 137, true}
        ] do
      @tag skip: status in [4, 137] && @unbound
      test how do
        for moment <- @moments do
          {port, mark, vm} = storm(moment, unquote(finale), unquote(guard))

          for signal <- unquote(signals) do
            Process.sleep(moment)
            signal(signal, vm)
          end

          ends(port, unquote(status))
          eventually(fn -> VM.marked(mark) == [] and VM.guard(vm) == nil end, @time)
          assert_nothing(mark, vm)
        end
      end
    end

    test "when the application stops while the spawning processes live on" do
      program = """
      {:ok, _} = Application.ensure_all_started(:exile)

      for _ <- 1..200, do: spawn(fn ->
        Exile.Process.start_link(["sleep", "600"])
        Process.sleep(:infinity)
      end)

      Process.sleep(20)
      Application.stop(:exile)
      IO.puts("stopped")
      Process.sleep(:infinity)
      """

      mark = VM.mark()
      port = VM.open("Logger.configure(level: :none)\n" <> program, mark)
      vm = VM.os_pid(port)
      assert_receive {^port, {:data, {:eol, "stopped"}}}, @time
      commands = fn -> for {os_pid, "sleep" <> _} <- VM.marked(mark), do: os_pid end
      # Commands whose spawn was under way may take a moment to disappear.
      eventually(fn -> commands.() == [] and VM.zombies(vm) == [] end, 2_000)
      signal("KILL", vm)
      ends(port, 137)
    end
  end

  test "a guard that starts during a spawn gets a report of the command" do
    mark = VM.mark()
    program = Path.join(VM.tmp_dir(mark), "busy")

    # A program that is open for writing cannot be executed; the spawn retries for about 60 ms.
    program = """
    Application.put_env(:exile, :guard, false)
    {:ok, _} = Application.ensure_all_started(:exile)
    File.write!(#{inspect(program)}, "#!/bin/sh\nsleep 600 & echo ready; wait")
    File.chmod!(#{inspect(program)}, 0o700)

    meet = fn meet ->
      {:ok, file} = File.open(#{inspect(program)}, [:append, :raw])
      server = self()
      spawner = spawn(fn ->
        Process.flag(:trap_exit, true)
        result = Exile.Process.start_link(#{inspect([program])}, stderr: :disable)
        send(server, {:spawned, result})
        Process.sleep(:infinity)
      end)
      Process.sleep(10)
      {:ok, guard} = Exile.Runtime.Guard.start_link([])
      again = fn ->
        GenServer.stop(guard)
        Process.exit(spawner, :kill)
        File.close(file)
        meet.(meet)
      end
      receive do
        {:spawned, _} -> again.()
      after
        0 ->
          File.close(file)
          receive do
            {:spawned, {:ok, p}} -> p
            {:spawned, {:error, _}} -> again.()
          end
      end
    end

    meet.(meet)
    IO.puts("ready")
    Process.sleep(:infinity)
    """

    port = VM.open(program, mark)
    assert_receive {^port, {:data, {:eol, "ready"}}}, 60_000
    vm = VM.os_pid(port)
    eventually(fn -> for({_, "sleep" <> _} <- VM.marked(mark), do: 1) == [1] end, @time)
    signal("KILL", vm)
    ends(port, 137)
    eventually(fn -> VM.marked(mark) == [] and VM.guard(vm) == nil end, @time)
  end

  test "the guard leaves the background children of a command that ended by itself alone" do
    mark = VM.mark()

    program = """
    Application.put_env(:exile, :guard, true)
    {:ok, _} = Application.ensure_all_started(:exile)
    {:ok, p} = Exile.Process.start_link(["sh", "-c", "sleep 600 >/dev/null & exit 5"], stderr: :disable)
    {:ok, 5} = Exile.Process.await_exit(p)
    IO.puts("ready")
    Process.sleep(:infinity)
    """

    port = VM.open(program, mark)
    assert_receive {^port, {:data, {:eol, "ready"}}}, 60_000
    vm = VM.os_pid(port)
    assert VM.guard(vm)
    signal("KILL", vm)
    ends(port, 137)
    eventually(fn -> VM.guard(vm) == nil end, @time)
    assert [{_, "sleep 600 "}] = VM.marked(mark)
    end_the_rest(mark)
  end

  defp wait_for_descriptors(os_pid, count) do
    eventually(fn -> length(File.ls!("/proc/#{os_pid}/fd")) >= count end, @time)
  end

  defp assert_nothing(mark, vm) do
    # Without pidfds, Exile does not see when the last, killed members of a group are gone.
    if Exile.Native.exit_source() == :portable do
      eventually(fn -> VM.marked(mark) == [] end, 1_000)
    else
      assert VM.marked(mark) == []
    end

    eventually(fn -> VM.guard(vm) == nil end, @time)
    assert File.ls!(VM.tmp_dir(mark)) == []
  end

  defp signal(name, os_pid), do: System.cmd("kill", ["-" <> name, "#{os_pid}"])

  defp end_the_rest(mark) do
    for {os_pid, _} <- VM.marked(mark), do: signal("KILL", os_pid)
    eventually(fn -> VM.marked(mark) == [] end, @time)
  end
end
