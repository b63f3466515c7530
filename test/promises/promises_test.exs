defmodule Exile.PromisesTest do
  @moduledoc """
  Tests every row of the table in README about what happens when something ends, and the limits
  that README states, in the same words. The last test compares the words. Further tests about
  these rows are those of the functions concerned, `end_of_vm_test.exs` and
  `supervision_test.exs`.
  """

  use Exile.Case

  import Exile.ProcessHelpers, only: [kill_os_process: 1, read_all: 1, read_lines: 2]

  alias Exile.VM

  @moduletag :capture_log

  # A command with a child. Both ignore the signals that can be ignored, and print their ids.
  @stubborn "trap '' TERM INT HUP PIPE; sleep 60 & echo $$ $!; while :; do sleep 1; done"

  @time 10_000

  defp numbers(line), do: line |> String.split() |> Enum.map(&String.to_integer/1)
  defp numbers_of(p), do: p |> read_lines(1) |> hd() |> numbers()

  defp assert_gone(os_pids) do
    eventually(fn -> not Enum.any?(os_pids, &os_process_alive?/1) end)
  end

  # Runs `fun` in a process that owns what it starts, then ends the process in one of three ways.
  defp in_process(ending, fun) do
    test = self()

    {pid, ref} =
      spawn_monitor(fn ->
        send(test, {:result, fun.()})

        case ending do
          :returns -> :ok
          :raises -> raise "oops"
          :is_killed -> Process.exit(self(), :kill)
        end
      end)

    assert_receive {:result, result}
    assert_receive {:DOWN, ^ref, _, ^pid, _}
    result
  end

  defp milliseconds(fun) do
    {time, :ok} = :timer.tc(fun)
    div(time, 1000)
  end

  describe "the command, by itself" do
    test "readers get the rest of its output and then `:eof`, writers `:epipe`, its owner the status" do
      {:ok, p} = Exile.Process.start_link(sh("echo the rest; exit 3"))
      eventually(fn -> Exile.Process.os_pid(p) == :undefined end)
      assert Exile.Process.write(p, "x") == {:error, :epipe}
      assert Exile.Process.read(p) == {:ok, "the rest\n"}
      assert Exile.Process.read(p) == :eof
      assert Exile.Process.await_exit(p) == {:ok, 3}
    end

    test "what it left in the background is left alone" do
      {:ok, p} = Exile.Process.start_link(sh("sleep 60 >&- 2>&- & echo $!"))
      [background] = numbers_of(p)
      assert Exile.Process.await_exit(p) == {:ok, 0}
      # This is longer than a teardown takes.
      Process.sleep(700)
      assert os_process_alive?(background)
      kill_os_process(background)
    end
  end

  # Reads the first line of a command that does not exit by itself, then calls `next` in the
  # reader. Returns how many milliseconds later the command and its child are gone.
  defp reader_ends(next) do
    test = self()

    {reader, ref} =
      spawn_monitor(fn ->
        sh(@stubborn)
        |> Exile.stream!(ignore_epipe: true, stderr: :disable)
        |> Stream.take(1)
        |> Enum.each(fn element ->
          send(test, {:element, element})
          receive(do: (:go_on -> next.()))
        end)
      end)

    assert_receive {:element, element}

    milliseconds(fn ->
      send(reader, :go_on)
      assert_receive {:DOWN, ^ref, _, _, _}
      assert_gone(numbers(element))
    end)
  end

  describe "the stream's reader: has enough, raises" do
    @tag :tmp_dir
    test "the pipes are closed, the command has 250 ms to end by itself", %{tmp_dir: dir} do
      script = "echo $$; read line; sleep 0.1; echo by itself >ended"
      input = Stream.repeatedly(fn -> Process.sleep(:infinity) end)
      stream = Exile.stream!(sh(script), input: input, cd: dir, ignore_epipe: true)
      assert [_] = Enum.take(stream, 1)
      assert File.read!(Path.join(dir, "ended")) == "by itself\n"
    end

    for {how, next} <- [{"has enough", quote(do: :ok)}, {"raises", quote(do: raise("oops"))}] do
      test "then its process group is ended, in half a second more (the reader #{how})" do
        assert reader_ends(fn -> unquote(next) end) in 250..2_000
      end
    end
  end

  describe "the stream's reader is killed" do
    test "the pipes are closed, its process group is ended, in under a second" do
      assert reader_ends(fn -> Process.exit(self(), :kill) end) < 2_000
    end
  end

  describe "the owner of a command: returns, raises, is killed" do
    for ending <- [:returns, :raises, :is_killed] do
      test "the pipes are closed, its process group is ended, in under a second (the owner #{ending})" do
        os_pids =
          in_process(unquote(ending), fn ->
            {:ok, p} = Exile.Process.start_link(sh(@stubborn), stderr: :disable)
            numbers_of(p)
          end)

        assert milliseconds(fn -> assert_gone(os_pids) end) < 2_000
      end
    end

    test "also what is left of it when the command ended first because its pipe was closed" do
      for leader <- ["exec cat", "exec yes"] do
        os_pids =
          in_process(:is_killed, fn ->
            script = "trap '' TERM; sleep 60 & trap - TERM; echo $$ $!; #{leader}"
            {:ok, p} = Exile.Process.start_link(sh(script), stderr: :disable)
            {:ok, output} = Exile.Process.read(p)
            output |> String.split("\n") |> hd() |> numbers()
          end)

        assert milliseconds(fn -> assert_gone(os_pids) end) < 2_000
      end
    end

    test "a :teardown that you give is kept to, however long it takes" do
      script = "trap 'sleep 1.2; echo done; exit' TERM; echo ready; while :; do sleep 0.01; done"

      test = self()

      in_process(:is_killed, fn ->
        {:ok, p} =
          Exile.Process.start_link(sh(script), stderr: :disable, teardown: [sigterm: 60_000])

        {:ok, "ready\n"} = Exile.Process.read(p)
        :ok = Exile.Process.change_pipe_owner(p, :stdout, test)
        send(test, {:command, p})
      end)

      assert_receive {:command, p}
      assert Exile.Process.read(p) == {:ok, "done\n"}
      assert Exile.Process.read(p) == :eof
    end

    test "between two reads of much output" do
      os_pids =
        in_process(:is_killed, fn ->
          {:ok, p} = Exile.Process.start_link(sh("echo $$; exec yes"), stderr: :disable)
          {:ok, output} = Exile.Process.read(p)
          [os_pid | _] = String.split(output, "\n")
          {:ok, _} = Exile.Process.read(p)
          [String.to_integer(os_pid)]
        end)

      assert_gone(os_pids)
    end
  end

  describe "the last handle of a command is garbage" do
    # In its own function, so that no variable refers to the handle afterwards.
    defp start_and_forget(command) do
      {:ok, p} = Exile.Process.start_link(command, stderr: :consume)
      {:ok, output} = Exile.Process.read(p)
      output
    end

    test "a command that runs lives on with its owner" do
      [os_pid] =
        in_process(:is_killed, fn ->
          [os_pid] = numbers(start_and_forget(sh("echo $$; exec sleep 60")))
          for _ <- 1..3, do: :erlang.garbage_collect()
          true = os_process_alive?(os_pid)
          [os_pid]
        end)

      assert_gone([os_pid])
    end

    test "of one that has ended nothing is left" do
      before = Exile.LeftBehind.count()
      for _ <- 1..20, do: start_and_forget(["echo", "hi"])

      eventually(fn ->
        :erlang.garbage_collect()
        Exile.LeftBehind.count() == before
      end)
    end
  end

  describe "a suspended stream is garbage" do
    defp suspend_and_forget(stream) do
      reducer = fn element, _ -> {:suspend, element} end
      {:suspended, element, _} = Enumerable.reduce(stream, {:cont, nil}, reducer)
      element
    end

    test "its process group is ended as if the reader were killed" do
      os_pids = numbers(suspend_and_forget(Exile.stream!(sh(@stubborn), stderr: :disable)))

      eventually(fn ->
        :erlang.garbage_collect()
        not Enum.any?(os_pids, &os_process_alive?/1)
      end)
    end
  end

  describe "the owner of a pipe" do
    for ending <- [:returns, :raises, :is_killed] do
      test "the pipe is closed; the command sees end-of-file, or `EPIPE` (it #{ending})" do
        {:ok, reading} = Exile.Process.start_link(["cat"])
        {:ok, writing} = Exile.Process.start_link(["yes"])

        in_process(unquote(ending), fn ->
          :ok = Exile.Process.change_pipe_owner(reading, :stdin, self())
          :ok = Exile.Process.change_pipe_owner(writing, :stdout, self())
          :ok = Exile.Process.write(reading, "all of it")
        end)

        assert read_all(reading) == "all of it"
        assert Exile.Process.await_exit(reading) == {:ok, 0}
        # 141 is SIGPIPE, which is sent with EPIPE.
        assert Exile.Process.await_exit(writing, :infinity) == {:ok, 141}
      end
    end
  end

  describe "the evaluation of a stream's input" do
    test "the command is ended, and the stream raises what the input raised" do
      test = self()

      input = fn sink ->
        Enum.into(["x"], sink)
        os_pids = receive(do: ({:os_pids, os_pids} -> os_pids))
        send(test, {:os_pids, os_pids})
        raise ArgumentError, "of the input"
      end

      evaluation = fn sink ->
        send(test, {:evaluation, self()})
        input.(sink)
      end

      stream = Exile.stream!(sh(@stubborn), input: evaluation, stderr: :disable)

      assert_raise ArgumentError, "of the input", fn ->
        Enum.each(stream, fn element ->
          assert_receive {:evaluation, pid}
          send(pid, {:os_pids, numbers(element)})
        end)
      end

      assert_receive {:os_pids, os_pids}
      assert_gone(os_pids)
    end

    test "is killed: the same, as an exit" do
      test = self()

      input = fn _sink ->
        send(test, {:evaluation, self()})
        Process.sleep(:infinity)
      end

      stream = Exile.stream!(sh(@stubborn), input: input, stderr: :disable)

      assert catch_exit(
               Enum.each(stream, fn element ->
                 send(test, {:os_pids, numbers(element)})
                 assert_receive {:evaluation, pid}
                 Process.exit(pid, :kill)
               end)
             ) == :killed

      assert_receive {:os_pids, os_pids}
      assert_gone(os_pids)
    end
  end

  # The VM runs a command of each kind.
  @kinds [:plain, :stubborn, :stopped, :parent]

  defp signal(name, os_pid), do: System.cmd("kill", ["-" <> name, "#{os_pid}"])

  defp nothing_left(mark), do: eventually(fn -> VM.marked(mark) == [] end, @time)

  defp end_the_rest(mark) do
    for {os_pid, _} <- VM.marked(mark), do: kill_os_process(os_pid)
    nothing_left(mark)
  end

  describe "the application `:exile`, or the VM by `System.stop/1` or SIGTERM" do
    test "every command gets its teardown, all at once" do
      program = """
      {:ok, _} = Application.ensure_all_started(:exile)
      commands = for _ <- 1..10 do
        script = "trap 'echo INT' INT; trap 'echo TERM' TERM; echo ready; while :; do sleep 0.01; done"
        {:ok, p} = Exile.Process.start_link(["sh", "-c", script], teardown: [sigint: 200, sigterm: 200])
        {:ok, "ready\\n"} = Exile.Process.read(p)
        p
      end
      {time, :ok} = :timer.tc(fn -> Application.stop(:exile) end)
      read = fn read, p, all ->
        case Exile.Process.read(p) do
          {:ok, data} -> read.(read, p, all <> data)
          :eof -> all
        end
      end
      ["INT\\nTERM\\n"] = Enum.uniq(Enum.map(commands, &read.(read, &1, "")))
      IO.puts(if time < 2_000_000, do: "in time", else: "took \#{time} us")
      """

      mark = VM.mark()
      port = VM.open("Logger.configure(level: :none)\n" <> program, mark)
      assert_receive {^port, {:data, {:eol, "in time"}}}, @time
      assert_receive {^port, {:exit_status, 0}}, @time
      assert VM.marked(mark) == []
    end

    for {how, finale} <- [{"System.stop/1", "System.stop(3)"}, {"SIGTERM", ""}] do
      test "the VM ends when their process groups are gone (by #{how})" do
        {port, mark} = VM.start(@kinds, 1, unquote(finale))
        if unquote(finale) == "", do: signal("TERM", VM.os_pid(port)), else: VM.go_on(port)
        assert_receive {^port, {:exit_status, _}}, @time
        assert VM.marked(mark) == []
      end
    end
  end

  describe "the VM by `System.halt/1`, by `kill -9` or in a crash" do
    @describetag skip:
                   Exile.Native.guard_is_needed() &&
                     "commands are not bound to the VM by the kernel"

    for {how, finale} <- [
          {"System.halt/1", "System.halt(4)"},
          {"kill -9", ~s|System.cmd("kill", ["-KILL", System.pid()])|},
          {"a crash", ~s|System.cmd("kill", ["-SEGV", System.pid()])|}
        ] do
      test "the kernel kills every command at that moment. What the commands had started lives on (#{how})" do
        {port, mark} = VM.start([:plain, :parent], 1, unquote(finale))
        VM.go_on(port)
        assert_receive {^port, {:exit_status, _}}, @time

        eventually(
          fn -> match?([{_, "sleep 600 "}, {_, "sleep 600 "}], VM.marked(mark)) end,
          @time
        )

        end_the_rest(mark)
      end

      test "unless the guard runs: `config :exile, guard: true` (#{how})" do
        {port, mark} = VM.start(@kinds, 1, unquote(finale), guard: true)
        VM.go_on(port)
        assert_receive {^port, {:exit_status, _}}, @time
        nothing_left(mark)
      end
    end
  end

  describe "the guard is killed" do
    test "it is started again and told of the commands that run" do
      {port, mark} = VM.start(@kinds, 1, "", guard: true)
      vm = VM.os_pid(port)
      guard = VM.guard(vm)
      signal("KILL", guard)
      eventually(fn -> VM.guard(vm) not in [nil, guard] end, @time)
      # The guard holds a descriptor for each reported command.
      eventually(fn -> length(File.ls!("/proc/#{VM.guard(vm)}/fd")) >= length(@kinds) end, @time)
      signal("KILL", vm)
      assert_receive {^port, {:exit_status, 137}}, @time
      nothing_left(mark)
    end
  end

  describe "the limits of these promises:" do
    @escape "setsid sh -c 'echo $$; exec sleep 600' & wait"

    test "a descendant that makes a process group or session of its own is not ended with the rest" do
      {:ok, p} = Exile.Process.start_link(sh(@escape))
      [escaped] = numbers_of(p)
      assert Exile.Process.await_exit(p, 400) == {:ok, 143}
      Process.sleep(300)
      assert os_process_alive?(escaped)
      kill_os_process(escaped)
    end

    test "nor by the guard" do
      program = """
      Application.put_env(:exile, :guard, true)
      {:ok, _} = Application.ensure_all_started(:exile)
      {:ok, p} = Exile.Process.start_link(["sh", "-c", #{inspect(@escape)}], stderr: :disable)
      {:ok, _} = Exile.Process.read(p)
      System.cmd("kill", ["-KILL", System.pid()])
      """

      mark = VM.mark()
      port = VM.open(program, mark)
      vm = VM.os_pid(port)
      assert_receive {^port, {:exit_status, 137}}, @time
      eventually(fn -> VM.guard(vm) == nil end, @time)
      assert [{_, "sleep 600 "}] = VM.marked(mark)
      end_the_rest(mark)
    end

    @other_user ~w(setpriv --reuid 65534 --regid 65534 --clear-groups)
    for {guard, what} <- [false: "outlives a VM that is killed", true: "is ended by the guard"] do
      unless match?(
               {_, 0},
               System.cmd("setpriv", tl(@other_user) ++ ["true"], stderr_to_stdout: true)
             ) do
        @tag skip: "only root can become another user"
      end

      test "a command that becomes another user #{what}" do
        script = "#{Enum.join(@other_user, " ")} sh -c 'echo ready; exec sleep 600'"

        program = """
        Application.put_env(:exile, :guard, #{unquote(guard)})
        {:ok, _} = Application.ensure_all_started(:exile)
        {:ok, p} = Exile.Process.start_link(["sh", "-c", "exec #{script}"], stderr: :disable)
        {:ok, "ready\\n"} = Exile.Process.read(p)
        System.cmd("kill", ["-KILL", System.pid()])
        """

        mark = VM.mark()
        port = VM.open(program, mark)
        vm = VM.os_pid(port)
        assert_receive {^port, {:exit_status, 137}}, @time
        eventually(fn -> VM.guard(vm) == nil end, @time)
        if unquote(guard), do: nothing_left(mark), else: assert([_] = VM.marked(mark))
        end_the_rest(mark)
      end
    end
  end

  test "every row of the table in README is here, in its words" do
    section =
      File.read!("README.md")
      |> String.split("## What happens when something ends\n")
      |> Enum.at(1)
      |> String.split("\n<!-- MDOC -->")
      |> hd()

    rows =
      for [_, what] <- Regex.scan(~r/^\| (.*?) \| .* \|$/m, section),
          what != "what ends",
          do: what

    described = for %{tags: %{describe: describe}} <- __MODULE__.__ex_unit__().tests, do: describe
    assert rows -- ["---" | described] == []
    assert length(rows) > 5
    assert section =~ "The limits of these promises:"
  end
end
