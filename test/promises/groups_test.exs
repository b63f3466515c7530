defmodule Exile.GroupsTest do
  @moduledoc """
  When a command is ended because its owner or reader has gone, no process of its group is left.
  This includes the case that the leader exits first because its pipe was closed.
  """

  use Exile.Case

  alias Exile.VM

  @moduletag :capture_log

  @count 20

  # Leaders with a background child that ignores SIGTERM. All print "ready".
  @child "trap '' TERM; sleep 600 & trap - TERM; echo ready; "
  @leaders [
    {"waits", @child <> "wait"},
    {"writes", @child <> "exec yes"},
    {"reads", @child <> "exec cat"}
  ]

  @endings [
    {"is killed", quote(do: fn -> Process.exit(self(), :kill) end)},
    {"raises", quote(do: fn -> raise "oops" end)},
    {"returns", quote(do: fn -> :ok end)}
  ]

  # Calls `run` in @count processes, and returns when the command of each is ready. `run` gets a
  # function that it calls when its command is ready. The returned function lets the processes
  # go on and waits until all of them have ended.
  defp in_processes(run) do
    test = self()

    processes =
      for _ <- 1..@count do
        spawn_monitor(fn ->
          run.(fn ->
            send(test, {:ready, self()})
            receive do: (:go_on -> :ok)
          end)
        end)
      end

    for {pid, _} <- processes, do: assert_receive({:ready, ^pid}, 20_000)

    fn ->
      for {pid, _} <- processes, do: send(pid, :go_on)
      for {pid, ref} <- processes, do: assert_receive({:DOWN, ^ref, _, ^pid, _}, 20_000)
    end
  end

  defp options(mark), do: [env: [{"EXILE_TEST_MARK", mark}], stderr: :disable]

  # Each command is a leader and a child.
  defp assert_all_there(mark), do: eventually(fn -> length(VM.marked(mark)) == 2 * @count end)

  defp assert_none_left(mark), do: eventually(fn -> VM.marked(mark) == [] end)

  describe "none of 20 groups is left when the owner of each command" do
    for {what, script} <- @leaders, {how, ending} <- @endings do
      test "#{how}: the leader #{what}" do
        mark = VM.mark()

        go_on =
          in_processes(fn ready ->
            {:ok, p} = Exile.Process.start_link(sh(unquote(script)), options(mark))
            {:ok, "ready\n" <> _} = Exile.Process.read(p)
            ready.()
            unquote(ending).()
          end)

        assert_all_there(mark)
        go_on.()
        assert_none_left(mark)
      end
    end
  end

  describe "none of 20 groups is left when the reader of each stream" do
    for {what, script} <- @leaders,
        {how, ending} <- @endings,
        input <- [:none, :evaluated],
        # Without input, it would exit by itself.
        {what, input} != {"reads", :none} do
      how = if how == "returns", do: "has enough", else: how
      with_input = if input == :evaluated, do: ", its input is being evaluated", else: ""

      test "#{how}: the leader #{what}#{with_input}" do
        mark = VM.mark()
        input = if unquote(input) == :evaluated, do: fn _sink -> Process.sleep(:infinity) end

        go_on =
          in_processes(fn ready ->
            sh(unquote(script))
            |> Exile.stream!([input: input, ignore_epipe: true] ++ options(mark))
            |> Stream.take(1)
            |> Enum.each(fn "ready\n" <> _ ->
              ready.()
              unquote(ending).()
            end)
          end)

        assert_all_there(mark)
        go_on.()
        assert_none_left(mark)
      end
    end
  end

  # When the first command exits, the others exit one after the other, before they are signalled.
  describe "none of 20 pipelines is left when the reader" do
    @reads "sleep 600 & exec cat"
    @pipeline [
      ["sh", "-c", "echo ready; exec sleep 600"] | List.duplicate(["sh", "-c", @reads], 6)
    ]

    for {how, ending} <- @endings do
      test if(how == "returns", do: "has enough", else: how) do
        mark = VM.mark()

        go_on =
          in_processes(fn ready ->
            Exile.stream!(@pipeline, [ignore_epipe: true] ++ options(mark))
            |> Stream.take(1)
            |> Enum.each(fn "ready\n" ->
              ready.()
              unquote(ending).()
            end)
          end)

        eventually(fn -> length(VM.marked(mark)) == (1 + 6 * 2) * @count end, 20_000)
        go_on.()
        assert_none_left(mark)
      end
    end

    # Whether a command exits before it is claimed depends on microseconds.
    test "is killed, repeatedly and all readers at once" do
      for _ <- 1..8 do
        mark = VM.mark()
        test = self()

        readers =
          for _ <- 1..10 do
            spawn(fn ->
              Exile.stream!(@pipeline, options(mark))
              |> Enum.each(fn "ready\n" -> send(test, {:ready, self()}) end)
            end)
          end

        for pid <- readers, do: assert_receive({:ready, ^pid}, 20_000)
        for pid <- readers, do: Process.exit(pid, :kill)
        assert_none_left(mark)
      end
    end
  end

  describe "none of 20 groups is left when" do
    for {what, script} <- @leaders do
      test "their owners' supervisor stops: the leader #{what}" do
        mark = VM.mark()

        start = fn ->
          {:ok, p} = Exile.Process.start_link(sh(unquote(script)), options(mark))
          {:ok, "ready\n" <> _} = Exile.Process.read(p)
          p
        end

        children = for n <- 1..@count, do: %{id: n, start: {Agent, :start_link, [start]}}
        {:ok, supervisor} = Supervisor.start_link(children, strategy: :one_for_one)
        assert_all_there(mark)
        :ok = Supervisor.stop(supervisor)
        assert_none_left(mark)
      end
    end
  end

  # A VM chooses the source of exits when it starts, so each source needs its own VM.
  for source <- ["auto", "wait", "portable"] do
    describe "none of 60 groups is left, with exit source #{source}, when" do
      @source source

      test "the owners are killed" do
        {port, mark, vm} = vm(@source, "for owner <- owners, do: Process.exit(owner, :kill)")
        eventually(fn -> others(mark, vm) == [] end)
        leave(port)
      end

      test "the application stops" do
        {port, mark, vm} = vm(@source, "Application.stop(:exile)")

        # Where a group cannot be reached without its leader, it is killed when the leader exits,
        # and Exile does not see when its members are gone.
        if @source == "auto",
          do: assert(others(mark, vm) == []),
          else: eventually(fn -> others(mark, vm) == [] end, 1_000)

        leave(port)
      end
    end
  end

  defp vm(source, finale) do
    mark = VM.mark()
    scripts = for {_, script} <- @leaders, do: script

    program = """
    Logger.configure(level: :none)
    {:ok, _} = Application.ensure_all_started(:exile)
    parent = self()

    owners =
      for script <- #{inspect(scripts)}, _ <- 1..#{@count} do
        spawn(fn ->
          {:ok, p} = Exile.Process.start_link(["sh", "-c", script], stderr: :disable)
          {:ok, "ready\\n" <> _} = Exile.Process.read(p)
          send(parent, {:ready, self()})
          Process.sleep(:infinity)
        end)
      end

    for owner <- owners, do: receive(do: ({:ready, ^owner} -> :ok))
    IO.puts("ready")
    IO.gets("")
    #{finale}
    IO.puts("done")
    IO.gets("")
    """

    port = VM.open(program, mark, env: [{"EXILE_EXIT_SOURCE", source}])
    vm = VM.os_pid(port)
    assert_receive {^port, {:data, {:eol, "ready"}}}, 60_000
    eventually(fn -> length(others(mark, vm)) == 2 * @count * length(@leaders) end)
    VM.go_on(port)
    assert_receive {^port, {:data, {:eol, "done"}}}, 20_000
    {port, mark, vm}
  end

  # All processes except the VM and its helper for ports.
  defp others(mark, vm) do
    for {os_pid, line} <- VM.marked(mark), os_pid != vm, not (line =~ "child_setup"), do: os_pid
  end

  defp leave(port) do
    VM.go_on(port)
    assert_receive {^port, {:exit_status, 0}}, 20_000
  end
end
