defmodule Exile.EndOfVMTest do
  use ExUnit.Case

  import Exile.Case, only: [eventually: 2]

  alias Exile.VM

  @moduletag timeout: 120_000
  @moduletag :end_of_vm

  @kinds [:plain, :stubborn, :stopped, :parent]
  @each 50
  @time 20_000

  # The commands themselves, for ends at which nobody can do anything for their children.
  defp commands(mark) do
    for {os_pid, line} <- VM.marked(mark), line =~ "ready" or line =~ "beam", do: {os_pid, line}
  end

  defp ends(port, status) do
    assert_receive {^port, {:exit_status, ^status}}, @time
  end

  describe "nothing is left of 200 commands, their children included," do
    test "after System.stop" do
      {port, mark} = VM.start(@kinds, @each, "System.stop(3)")
      eventually(fn -> length(VM.marked(mark)) >= VM.size(@kinds, @each) end, @time)
      VM.go_on(port)
      ends(port, 3)
      assert VM.marked(mark) == []
    end

    test "after SIGTERM to the VM" do
      {port, mark} = VM.start(@kinds, @each, "")
      vm = VM.os_pid(port)
      System.cmd("kill", ["-TERM", "#{vm}"])
      ends(port, 0)
      assert VM.marked(mark) == []
    end

    test "after the application has stopped, while the VM goes on" do
      {port, mark} =
        VM.start(@kinds, @each, ~s|Application.stop(:exile); IO.puts("stopped"); IO.gets("")|)

      VM.go_on(port)
      assert_receive {^port, {:data, {:eol, "stopped"}}}, @time
      assert [{_, vm}] = VM.marked(mark) |> Enum.reject(fn {_, line} -> line =~ "child_setup" end)
      assert vm =~ "beam"
      System.cmd("kill", ["-KILL", "#{VM.os_pid(port)}"])
      ends(port, 137)
    end

    test "after kill -9 of the VM, with the guard" do
      {port, mark} = VM.start(@kinds, @each, "", guard: true)
      vm = VM.os_pid(port)
      assert VM.guard(vm)
      System.cmd("kill", ["-KILL", "#{vm}"])
      ends(port, 137)
      eventually(fn -> VM.marked(mark) == [] and VM.guard(vm) == nil end, @time)
    end

    test "after System.halt, with the guard" do
      {port, mark} = VM.start(@kinds, @each, "System.halt(4)", guard: true)
      vm = VM.os_pid(port)
      VM.go_on(port)
      ends(port, 4)
      eventually(fn -> VM.marked(mark) == [] and VM.guard(vm) == nil end, @time)
    end

    test "after kill -9 of the guard and then of the VM" do
      {port, mark} = VM.start(@kinds, @each, "", guard: true)
      vm = VM.os_pid(port)
      guard = VM.guard(vm)
      System.cmd("kill", ["-KILL", "#{guard}"])
      eventually(fn -> VM.guard(vm) not in [nil, guard] end, @time)
      wait_for_descriptors(VM.guard(vm), @each * length(@kinds))
      System.cmd("kill", ["-KILL", "#{vm}"])
      ends(port, 137)
      eventually(fn -> VM.marked(mark) == [] end, @time)
    end
  end

  describe "no command is left, even without the guard," do
    test "after kill -9 of the VM" do
      {port, mark} = VM.start(@kinds, @each, "")
      System.cmd("kill", ["-KILL", "#{VM.os_pid(port)}"])
      ends(port, 137)
      eventually(fn -> commands(mark) == [] end, @time)
      end_the_rest(mark)
    end

    test "after System.halt" do
      {port, mark} = VM.start(@kinds, @each, "System.halt(4)")
      VM.go_on(port)
      ends(port, 4)
      eventually(fn -> commands(mark) == [] end, @time)
      end_the_rest(mark)
    end
  end

  test "nothing is left of commands that are being spawned when the VM is killed" do
    for guard <- [true, false], delay <- [5, 20, 50] do
      mark = "exile-test-#{System.unique_integer([:positive])}-#{System.pid()}"

      program = """
      Application.put_env(:exile, :guard, #{guard})
      {:ok, _} = Application.ensure_all_started(:exile)
      IO.puts("ready")
      for _ <- 1..4, do: spawn(fn ->
        for _ <- Stream.cycle([1]), do: Exile.Process.start_link(["sleep", "600"])
      end)
      Process.sleep(:infinity)
      """

      port = VM.open(program, mark)
      assert_receive {^port, {:data, {:eol, "ready"}}}, 60_000
      # Not a wait for something: the moment of the kill is what is being varied.
      Process.sleep(delay)
      System.cmd("kill", ["-KILL", "#{VM.os_pid(port)}"])
      ends(port, 137)
      eventually(fn -> VM.marked(mark) == [] end, @time)
    end
  end

  test "a guard leaves alone what a command that ended by itself left in the background" do
    mark = "exile-test-#{System.unique_integer([:positive])}-#{System.pid()}"

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
    System.cmd("kill", ["-KILL", "#{vm}"])
    ends(port, 137)
    eventually(fn -> VM.guard(vm) == nil end, @time)
    assert [{_, "sleep 600 "}] = VM.marked(mark)
    end_the_rest(mark)
  end

  defp wait_for_descriptors(os_pid, count) do
    eventually(fn -> length(File.ls!("/proc/#{os_pid}/fd")) >= count end, @time)
  end

  defp end_the_rest(mark) do
    for {os_pid, _} <- VM.marked(mark), do: System.cmd("kill", ["-KILL", "#{os_pid}"])
    eventually(fn -> VM.marked(mark) == [] end, @time)
  end
end
