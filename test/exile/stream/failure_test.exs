defmodule Exile.Stream.FailureTest do
  use Exile.Case

  import ExUnit.CaptureLog, only: [capture_log: 1]
  import Exile.StreamSteps

  alias Exile.Stream.AbnormalExit

  # Commands that write nothing and do not end. Some close their output; one ignores SIGTERM.
  @silent [
    ["sleep", "60"],
    ["sh", "-c", "exec >&-; sleep 60"],
    ["sh", "-c", "exec sleep 60 >&-"],
    ["sh", "-c", "trap '' TERM; sleep 60"]
  ]

  describe "the exit status" do
    test "0 ends both streams without an error" do
      assert Enum.to_list(Exile.stream!(sh("echo hi"))) == ["hi\n"]
      assert Enum.to_list(Exile.stream(sh("echo hi"))) == ["hi\n", {:exit, {:status, 0}}]
    end

    test "other than 0 is raised by stream!/2, after the last element" do
      test = self()

      for status <- [1, 2, 10, 126, 127, 128, 254, 255] do
        command = sh("echo hi; exit #{status}")
        stream = Exile.stream!(command)

        error =
          assert_raise AbnormalExit, fn -> Enum.each(stream, &send(test, {:element, &1})) end

        assert error == %AbnormalExit{
                 exit_status: status,
                 command: command,
                 message: "program exited with exit status: #{status} (\"sh\")"
               }

        assert_receive {:element, "hi\n"}
        assert_quiet()
      end
    end

    test "is the last element of stream/2" do
      for status <- [1, 2, 10, 126, 127, 128, 254, 255] do
        stream = Exile.stream(sh("echo hi; exit #{status}"))
        assert Enum.to_list(stream) == ["hi\n", {:exit, {:status, status}}]
        assert Enum.to_list(Exile.stream(sh("exit #{status}"))) == [{:exit, {:status, status}}]
      end

      assert_quiet()
    end

    test "of a command that was ended by a signal is 128 plus the signal's number" do
      for {signal, number} <- [HUP: 1, INT: 2, KILL: 9, USR1: 10, SEGV: 11, PIPE: 13, TERM: 15] do
        script = sh("echo hi; kill -#{signal} $$; sleep 60")
        assert Enum.to_list(Exile.stream(script)) == ["hi\n", {:exit, {:status, 128 + number}}]

        message =
          "program exited with exit status: #{128 + number} (\"sh\" was ended by SIG#{signal})"

        error = assert_raise AbnormalExit, message, fn -> Stream.run(Exile.stream!(script)) end
        assert error.exit_status == 128 + number
        assert error.signal == :"sig#{signal |> Atom.to_string() |> String.downcase()}"
      end

      assert_quiet()
    end

    test "is raised where the stream is consumed, through any number of lazy steps" do
      stream = Exile.stream!(sh("echo a; exit 4")) |> Stream.map(& &1) |> Stream.chunk_every(10)
      assert_raise AbnormalExit, fn -> Enum.to_list(stream) end
      assert_raise AbnormalExit, fn -> for _ <- stream, do: :ok end
      assert_raise AbnormalExit, fn -> Enum.to_list(Stream.zip(stream, stream)) end
    end

    test "is not hidden by :ignore_epipe" do
      stream = Exile.stream!(sh("cat; exit 3"), input: "x", ignore_epipe: true)
      assert_raise AbnormalExit, ~r/: 3 \("/, fn -> Stream.run(stream) end
    end

    test "is awaited after the output has ended" do
      script = sh("echo hi; exec >&-; sleep 0.3; exit 5")
      assert Enum.to_list(Exile.stream(script)) == ["hi\n", {:exit, {:status, 5}}]
    end
  end

  describe "AbnormalExit" do
    test "can be made of a status or :epipe" do
      assert AbnormalExit.exception(10) == %AbnormalExit{
               exit_status: 10,
               message: "program exited with exit status: 10"
             }

      assert AbnormalExit.exception(:epipe) == %AbnormalExit{
               exit_status: :epipe,
               message: "program exited due to :epipe error"
             }
    end
  end

  describe "a command that cannot be started" do
    @describetag :tmp_dir

    test "raises Exile.Process.Error with its name and the reason, from both functions", %{
      tmp_dir: dir
    } do
      file = Path.join(dir, "no-program")
      File.write!(file, "text")
      executable = Path.join(dir, "no-format")
      File.write!(executable, "no known format")
      File.chmod!(executable, 0o755)

      cases = [
        {["no-such-program"], [], :enoent, "no-such-program", "no such file or directory"},
        {["/no/such/program"], [], :enoent, "/no/such/program", "no such file or directory"},
        {[file], [], :eacces, file, "permission denied"},
        {[dir <> "/."], [], :eacces, dir <> "/.", "permission denied"},
        {[file <> "/x"], [], :enotdir, file <> "/x", "not a directory"},
        {[executable], [], :enoexec, executable, "exec"},
        {["echo", String.duplicate("x", 3_000_000)], [], :e2big, "echo", "too long"},
        {["echo"], [cd: "/no/such/directory"], :enoent, "/no/such/directory", "no such file"},
        {["echo"], [cd: file], :enotdir, file, "not a directory"}
      ]

      for {command, options, reason, subject, words} <- cases,
          stream <- both(command, options),
          trap <- [false, true] do
        Process.flag(:trap_exit, trap)
        error = assert_raise Exile.Process.Error, fn -> Enum.to_list(stream) end
        assert error.reason == reason
        assert Exception.message(error) =~ subject
        assert Exception.message(error) =~ words
        assert_quiet()
      end
    end

    test "does not have its input evaluated" do
      test = self()
      input = fn _sink -> send(test, :evaluated) end

      for stream <- both(["no-such-program"], input: input) do
        assert_raise Exile.Process.Error, fn -> Stream.run(stream) end
      end

      assert_quiet()
    end

    test "raises again each time, and can start later", %{tmp_dir: dir} do
      path = Path.join(dir, "program")
      stream = Exile.stream!([path])
      for _ <- 1..2, do: assert_raise(Exile.Process.Error, fn -> Stream.run(stream) end)
      File.write!(path, "#!/bin/sh\necho here\n")
      File.chmod!(path, 0o755)
      assert Enum.join(stream) == "here\n"
    end
  end

  for {name, kind} <- [{"an exception", :error}, {"a throw", :throw}, {"an exit", :exit}] do
    describe "#{name} in the input" do
      @kind kind

      test "is raised again where the stream is enumerated, with its stack trace" do
        for stream <- both(~w(cat), input: fn _ -> fail(@kind) end) do
          assert {@kind, reason, stack} = caught(fn -> Stream.run(stream) end)
          assert reason == reason(@kind)
          assert Enum.any?(stack, &match?({__MODULE__, :fail, 1, _}, &1))
          assert_no_command()
          assert_quiet()
        end
      end

      test "after some elements is raised too" do
        input = Stream.map(1..10, &if(&1 < 5, do: "x", else: fail(@kind)))

        for stream <- both(~w(cat), input: input) do
          assert {@kind, reason, _} = caught(fn -> Stream.run(stream) end)
          assert reason == reason(@kind)
        end
      end

      test "reaches a reader that waits for a silent command, and the command is ended" do
        test = self()

        input = fn _sink ->
          wait_until_blocked(test)
          fail(@kind)
        end

        [sleep | others] = Enum.map(@silent, &Exile.stream!(&1, input: input))

        for stream <- [Exile.stream(~w(sleep 60), input: input), sleep | others] do
          {ms, caught} = timed(fn -> caught(fn -> Stream.run(stream) end) end)
          assert {@kind, reason, stack} = caught
          assert reason == reason(@kind)
          assert Enum.any?(stack, &match?({__MODULE__, :fail, 1, _}, &1))
          assert ms < 3_000
          assert_no_command()
          assert_quiet()
        end
      end

      test "reaches a reader that reads both outputs" do
        test = self()

        input = fn _sink ->
          wait_until_blocked(test)
          fail(@kind)
        end

        stream = Exile.stream!(~w(sleep 60), stderr: :consume, input: input)
        assert {@kind, reason, _} = caught(fn -> Stream.run(stream) end)
        assert reason == reason(@kind)
        assert_no_command()
      end

      test "reaches a reader that traps exits, and leaves no message" do
        Process.flag(:trap_exit, true)
        stream = Exile.stream!(~w(cat), input: fn _ -> fail(@kind) end)
        assert {@kind, _, _} = caught(fn -> Stream.run(stream) end)
        assert_quiet()
      end

      test "while the stream is suspended is raised when it is resumed" do
        test = self()

        input = fn sink ->
          send(test, {:input, self()})
          Enum.into(["x"], sink)
          receive do: (:go_on -> fail(@kind))
        end

        assert {"x", go} = step(Exile.stream!(~w(cat), input: input))
        assert_receive {:input, pid}
        send(pid, :go_on)
        assert_ended(pid)
        assert_no_command()
        assert {@kind, reason, _} = caught(fn -> step(go) end)
        assert reason == reason(@kind)
        assert_quiet()
      end

      test "takes precedence over the status of the command" do
        input = fn sink ->
          Enum.into(["x"], sink)
          fail(@kind)
        end

        for stream <- both(sh("cat; exit 3"), input: input) do
          assert {@kind, reason, _} = caught(fn -> Stream.run(stream) end)
          assert reason == reason(@kind)
        end
      end

      test "ends the whole process group of the command" do
        test = self()
        input = fn _ -> receive do: (:go_on -> fail(@kind)) end

        input = fn sink ->
          send(test, {:input, self()})
          input.(sink)
        end

        stream = Exile.stream!(sh("sleep 60 & echo $!; wait"), input: input)
        assert {line, go} = step(stream)
        assert_receive {:input, pid}
        send(pid, :go_on)
        assert {@kind, _, _} = caught(fn -> step(go) end)
        assert_gone(number(line))
      end
    end

    describe "#{name} in the consumer" do
      @kind kind

      test "is passed on unchanged, and the command is ended" do
        commands = [
          ~w(yes),
          sh("echo x; sleep 60"),
          sh("echo x; exec >&-; sleep 60"),
          sh("echo x; exit 3")
        ]

        deaf = Exile.stream!(sh("trap '' TERM PIPE; echo x; while :; do sleep 1; done"))

        for stream <- [deaf | Enum.flat_map(commands, &both(&1, []))] do
          {ms, caught} = timed(fn -> caught(fn -> Enum.each(stream, &fail(@kind, &1)) end) end)
          assert {@kind, reason, stack} = caught
          assert reason == reason(@kind)
          assert Enum.any?(stack, &match?({__MODULE__, :fail, 1, _}, &1))
          assert ms < 3_000
          assert_no_command()
          assert_quiet()
        end
      end

      test "ends the input, whatever the input is doing" do
        test = self()

        inputs = [
          Stream.cycle(["x"]),
          fn sink -> Enum.into(["x"], sink) && Process.sleep(:infinity) end,
          fn sink ->
            Process.flag(:trap_exit, true)
            Enum.into(["x"], sink) && Process.sleep(:infinity)
          end
        ]

        for input <- inputs do
          input = fn sink ->
            send(test, {:input, self()})
            if is_function(input, 1), do: input.(sink), else: Enum.into(input, sink)
          end

          stream = Exile.stream!(~w(cat), input: input)
          assert {@kind, _, _} = caught(fn -> Enum.each(stream, &fail(@kind, &1)) end)
          assert_receive {:input, pid}
          assert_ended(pid)
          assert_no_command()
          assert_quiet()
        end
      end

      test "at any element is passed on unchanged" do
        for n <- 1..4 do
          stream = Exile.stream!(sh("printf abcd; exit 3"), max_chunk_size: 1)

          reduce = fn ->
            Enum.reduce(stream, 1, &if(&2 == n, do: fail(@kind, &1), else: &2 + 1))
          end

          assert {@kind, reason, _} = caught(reduce)
          assert reason == reason(@kind)
          assert_quiet()
        end
      end

      test "at the last element of stream/2 is passed on unchanged" do
        stream = Exile.stream(sh("exit 3"))
        assert {@kind, reason, _} = caught(fn -> Enum.each(stream, &fail(@kind, &1)) end)
        assert reason == reason(@kind)
        assert_quiet()
      end

      test "in a lazy step is passed on unchanged" do
        stream = Stream.map(Exile.stream!(~w(yes)), &fail(@kind, &1))
        assert {@kind, reason, _} = caught(fn -> Enum.take(stream, 5) end)
        assert reason == reason(@kind)
        assert_no_command()
        assert_quiet()
      end

      test "leaves nothing with a consumer that traps exits" do
        Process.flag(:trap_exit, true)
        stream = Exile.stream!(~w(cat), input: Stream.cycle(["x"]))
        assert {@kind, _, _} = caught(fn -> Enum.each(stream, &fail(@kind, &1)) end)
        assert_no_command()
        assert_quiet()
      end
    end
  end

  describe "a failing input" do
    test "logs nothing" do
      log =
        capture_log(fn ->
          for kind <- [:error, :throw, :exit] do
            caught(fn -> Stream.run(Exile.stream!(~w(cat), input: fn _ -> fail(kind) end)) end)
          end

          assert_no_command()
        end)

      assert log == ""
    end

    test "that is another Exile stream fails as its commands fail" do
      inner = Exile.stream!(sh("echo x; exit 7"))
      stream = Exile.stream!(~w(cat), input: inner)
      error = assert_raise AbnormalExit, ~r/: 7 \("/, fn -> Stream.run(stream) end
      assert {error.stage, error.command} == {1, sh("echo x; exit 7")}
      stream = Exile.stream(~w(cat), input: inner)
      assert Enum.to_list(stream) == ["x\n", {:exit, {:status, 7}}]
      assert_quiet()

      inner = Exile.stream!(["no-such-program"])
      assert_raise Exile.Process.Error, fn -> Stream.run(Exile.stream!(~w(cat), input: inner)) end
    end

    test "whose linked processes exit exits with their reason" do
      input = fn _sink ->
        spawn_link(fn -> exit(:from_below) end)
        Process.sleep(:infinity)
      end

      for stream <- both(~w(sleep 60), input: input) do
        assert {:exit, :from_below, _} = caught(fn -> Stream.run(stream) end)
        assert_no_command()
        assert_quiet()
      end
    end

    test "that exits normally before its end exits the reader normally" do
      stream = Exile.stream!(~w(cat), input: fn _ -> exit(:normal) end)
      assert {:exit, :normal, _} = caught(fn -> Stream.run(stream) end)
    end
  end

  describe "the input process, ended from outside," do
    test "exits the reader with the reason, even while it waits for a silent command" do
      test = self()

      for command <- @silent, {signal, reason} <- [kill: :killed, shutdown: :shutdown] do
        input = fn _sink ->
          send(test, {:input, self()})
          Process.sleep(:infinity)
        end

        {killer, ref} =
          spawn_monitor(fn ->
            receive do
              input ->
                wait_until_blocked(test)
                Process.exit(input, signal)
            end
          end)

        input = fn sink ->
          send(killer, self())
          input.(sink)
        end

        assert {:exit, ^reason, _} =
                 caught(fn -> Stream.run(Exile.stream!(command, input: input)) end)

        assert_receive {:input, _}
        assert_receive {:DOWN, ^ref, _, _, :normal}
        assert_no_command()
        assert_quiet()
      end
    end
  end

  describe "the death of the consumer" do
    test "for any reason ends command and input, even an input that traps exits" do
      # The commands ignore SIGTERM, so ending them takes a while. All run at the same time.
      script = "trap '' TERM; sleep 60 & echo $$ $!; wait"

      consumers =
        for how <- [:kill, :shutdown, :crash, :normal], trap <- [false, true] do
          {how, consume_silently(script, trap)}
        end

      for {how, {consumer, _, _}} <- consumers do
        if how == :normal, do: send(consumer, :return), else: Process.exit(consumer, how)
      end

      for {_, {consumer, os_pids, input}} <- consumers do
        assert_ended(consumer)
        assert_ended(input)
        Enum.each(os_pids, &assert_gone/1)
      end
    end

    test "logs nothing" do
      log =
        capture_log(fn ->
          for how <- [:kill, :shutdown, :crash] do
            {consumer, _, input} = consume_silently("echo; exec sleep 60", false)
            Process.exit(consumer, how)
            assert_ended(input)
            assert_no_command()
          end
        end)

      assert log == ""
    end

    test "while it waits for the command ends command and input" do
      test = self()

      for command <- @silent do
        input = fn _sink ->
          Process.flag(:trap_exit, true)
          send(test, {:input, self()})
          Process.sleep(:infinity)
        end

        consumer = spawn(fn -> Stream.run(Exile.stream!(command, input: input)) end)
        assert_receive {:input, input}
        wait_until_blocked(consumer)
        Process.exit(consumer, :kill)
        assert_ended(input)
        assert_no_command()
      end
    end

    test "in the middle of a flood ends the command" do
      test = self()

      consumer =
        spawn(fn -> Enum.each(Exile.stream!(~w(yes)), fn _ -> send(test, :element) end) end)

      assert_receive :element
      Process.exit(consumer, :kill)
      assert_ended(consumer)
      assert_no_command()
      flush(:element)
    end
  end

  # Starts a process that enumerates the first element of a command. Returns the process, the
  # numbers in the element, and the process of the input, which does nothing.
  defp consume_silently(script, trap) do
    test = self()

    input = fn _sink ->
      Process.flag(:trap_exit, trap)
      send(test, {:input, self()})
      Process.sleep(:infinity)
    end

    consumer =
      spawn(fn ->
        {line, _go} = step(Exile.stream!(sh(script), input: input))
        send(test, {:line, line})
        receive do: (:return -> :ok)
      end)

    assert_receive {:line, line}
    assert_receive {:input, input}
    {consumer, line |> String.split() |> Enum.map(&String.to_integer/1), input}
  end

  defp both(command, options) do
    [Exile.stream!(command, options), Exile.stream(command, options)]
  end

  defp fail(kind, _element), do: fail(kind)

  # The call is not in tail position, so that this function is in the stack trace.
  defp fail(kind) do
    [apply(:erlang, kind, [reason(kind)])]
  end

  defp reason(:error), do: %ArithmeticError{message: "as it was"}
  defp reason(_kind), do: {:as, "it", :was}

  defp caught(fun) do
    fun.()
    flunk("nothing was raised")
  catch
    kind, reason -> {kind, reason, __STACKTRACE__}
  end

  defp flush(message) do
    receive do
      ^message -> flush(message)
    after
      0 -> :ok
    end
  end
end
