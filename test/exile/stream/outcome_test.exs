defmodule Exile.Stream.OutcomeTest do
  use Exile.Case

  import Exile.StreamSteps

  # For every way an enumeration can end: the state of the reader, and of all that ran for it.

  # A command with a child in its group. Both ignore SIGTERM; it prints their process ids.
  @family "trap '' TERM; sleep 60 & echo $$ $!; "

  # An input that sends its pid and that of its feeder to the test, then sleeps. With `trap`, it
  # ignores exit signals.
  defp sleeping(test, trap) do
    fn _sink ->
      Process.flag(:trap_exit, trap)
      {:links, [feeder]} = Process.info(self(), :links)
      send(test, {:input, self(), feeder})
      Process.sleep(:infinity)
    end
  end

  defp numbers(line), do: line |> String.split() |> Enum.map(&String.to_integer/1)

  defp assert_all_gone(os_pids), do: Enum.each(os_pids, &assert_gone/1)

  describe "the mailbox, links and monitors of the reader" do
    # An enumeration for each way to end.
    defp outcomes do
      wait = fn _ -> Process.sleep(:infinity) end
      fail = fn _ -> raise "input" end

      %{
        "success" => fn -> Enum.to_list(Exile.stream!(~w(cat), input: ["a"])) end,
        "success without input" => fn -> Enum.to_list(Exile.stream!(~w(echo a))) end,
        "success with both outputs" => fn ->
          Enum.to_list(Exile.stream!(sh("echo a; echo b >&2"), stderr: :consume))
        end,
        "a status" => fn -> Enum.to_list(Exile.stream(sh("cat; exit 3"), input: ["a"])) end,
        "a failure" => fn -> Enum.to_list(Exile.stream!(sh("exit 3"), input: wait)) end,
        "no such program" => fn -> Enum.to_list(Exile.stream!(["no-such-program"])) end,
        "no such directory" => fn ->
          Enum.to_list(Exile.stream!(~w(cat), cd: "/no/such", input: ["a"]))
        end,
        "a program that takes too long to start" => fn ->
          Enum.to_list(Exile.stream(~w(echo a), start_timeout: 0))
        end,
        "input that is not read" => fn ->
          Enum.to_list(Exile.stream!(~w(true), input: Stream.cycle(["a"])))
        end,
        "input that fails" => fn -> Enum.to_list(Exile.stream!(~w(sleep 60), input: fail)) end,
        "a reader who stops early" => fn -> Enum.take(Exile.stream!(~w(yes)), 1) end,
        "a reader who stops early, with input" => fn ->
          Enum.take(Exile.stream!(~w(cat), input: Stream.cycle(["a"])), 1)
        end,
        "a reader who raises" => fn ->
          Enum.each(Exile.stream!(~w(cat), input: Stream.cycle(["a"])), fn _ -> raise "reader" end)
        end,
        "a reader who throws" => fn -> Enum.each(Exile.stream!(~w(yes)), &throw/1) end,
        "exit_timeout" => fn ->
          Enum.to_list(Exile.stream(sh("exec >&-; sleep 60"), exit_timeout: 20, input: wait))
        end,
        "drain_timeout" => fn ->
          script = sh("(sleep 0.3; echo late) & echo now")
          Enum.to_list(Exile.stream!(script, drain_timeout: 20, input: ["a"]))
        end,
        "a pipeline" => fn -> Enum.to_list(Exile.stream!([~w(yes), ~w(head -n 1), ~w(cat)])) end,
        "an output that goes to a file" => fn ->
          Enum.to_list(Exile.stream!(~w(cat), stdout: {:file, "/dev/null"}, input: ["a"]))
        end,
        "a stream that goes on in another process" => fn ->
          {_, go} = step(Exile.stream!(~w(cat), input: ["a", "b"], max_chunk_size: 1))
          test = self()
          ref = make_ref()
          pid = spawn(fn -> send(test, {ref, rest(go)}) end)
          assert_receive {^ref, ["b"]}
          assert_ended(pid)
        end
      }
    end

    for trap <- [false, true] do
      test "are as before, whatever the outcome#{if trap, do: ", when it traps exits"}" do
        Process.flag(:trap_exit, unquote(trap))
        other = spawn_link(fn -> receive do: (:end -> :ok) end)
        monitor = Process.monitor(other)
        send(self(), :first)
        send(self(), {:select, make_ref(), make_ref(), :ready_input})
        {:messages, messages} = Process.info(self(), :messages)

        for {name, outcome} <- outcomes() do
          try do
            outcome.()
          rescue
            _ -> :raised
          catch
            _, _ -> :thrown
          end

          left = Process.info(self(), [:messages, :links, :monitors])

          assert {name, left} ==
                   {name, [messages: messages, links: [other], monitors: [process: other]]}

          assert_no_command()
        end

        assert Process.info(self(), :messages) == {:messages, messages}
        Process.demonitor(monitor, [:flush])
        Process.unlink(other)
        send(other, :end)
      end
    end
  end

  describe "a suspended stream that is dropped" do
    # Begins the stream in another process, whose stack keeps no reference to it.
    defp dropped(command, options) do
      test = self()

      reader =
        spawn(fn ->
          begin = fn ->
            {element, _go} = step(Exile.stream!(command, options))
            send(test, {:element, element})
          end

          begin.()
          receive do: (:collect -> :erlang.garbage_collect())
          receive do: (:end -> :ok)
        end)

      assert_receive {:element, element}
      {reader, element}
    end

    test "ends its commands with their groups while its reader lives" do
      for options <- [[], [teardown: [sigterm: 10]], [exit_timeout: :infinity]] do
        {reader, line} = dropped(sh(@family <> "wait"), options)
        send(reader, :collect)
        assert_all_gone(numbers(line))
        assert Process.alive?(reader)
        send(reader, :end)
        assert_ended(reader)
      end
    end

    test "ends all stages of a pipeline" do
      {reader, line} = dropped([sh("trap '' PIPE; echo $$; exec sleep 60"), ~w(cat)], [])
      send(reader, :collect)
      assert_all_gone(numbers(line))
      assert_no_command()
      send(reader, :end)
      assert_ended(reader)
    end

    for trap <- [false, true] do
      test "ends the evaluation of its input#{if trap, do: ", which traps exits"}" do
        {reader, line} = dropped(sh(@family <> "wait"), input: sleeping(self(), unquote(trap)))
        assert_receive {:input, input, feeder}
        send(reader, :collect)
        assert_all_gone(numbers(line))
        assert_ended(feeder)
        assert_ended(input)
        assert Process.alive?(reader)
        send(reader, :end)
        assert_ended(reader)
      end
    end

    test "ends an input that waits for a command that does not read" do
      {reader, line} = dropped(sh(@family <> "wait"), input: Stream.cycle(["x"]))
      send(reader, :collect)
      assert_all_gone(numbers(line))
      send(reader, :end)
      assert_ended(reader)
    end

    test "ends when its last reader, which is not the first, is killed" do
      script = sh("echo $$; read _; echo more; exec sleep 60")
      {line, go} = step(Exile.stream!(script, input: late(self())))
      assert_receive {:input, input}
      send(input, :go_on)
      test = self()

      other =
        spawn(fn ->
          {element, _go} = step(go)
          send(test, {:element, element})
          Process.sleep(:infinity)
        end)

      assert_receive {:element, "more\n"}
      Process.exit(other, :kill)
      assert_all_gone(numbers(line))
      assert_raise Exile.Process.Error, fn -> step(go) end
      assert_quiet()
    end

    test "lives as long as it is not garbage" do
      {line, go} = step(Exile.stream!(sh("echo $$; read _; echo more"), input: late(self())))
      assert_receive {:input, input}
      for _ <- 1..5, do: :erlang.garbage_collect()
      for _ <- 1..5, do: :erlang.garbage_collect(input)
      assert os_process_alive?(number(line))
      send(input, :go_on)
      assert rest(go) == ["more\n"]
      assert_quiet()
    end

    defp late(test) do
      fn sink ->
        send(test, {:input, self()})
        receive do: (:go_on -> Enum.into(["\n"], sink))
      end
    end
  end

  describe "what a command that ended by itself left in the background" do
    test "lives on after the stream is collected and its reader has ended" do
      test = self()

      for {script, options} <- [
            {"sleep 60 & echo $!", [drain_timeout: 0]},
            {"sleep 60 >/dev/null & echo $!; cat", [input: ["x"]]}
          ] do
        reader =
          spawn(fn ->
            begin = fn ->
              send(test, {:elements, Enum.to_list(Exile.stream!(sh(script), options))})
            end

            begin.()
            :erlang.garbage_collect()
          end)

        assert_receive {:elements, elements}
        [background | _] = elements |> Enum.join() |> String.split("\n")
        assert_ended(reader)
        eventually(fn -> Enum.all?(Exile.Native.counts(), &(elem(&1, 1) == 0)) end)
        assert os_process_alive?(number(background))
        {_, 0} = System.cmd("kill", [background])
      end
    end
  end

  describe "a reader who is blocked" do
    test "keeps its stream alive through garbage collections" do
      stream = Exile.stream!(sh("echo $$; read _; echo more"), input: late(self()))
      reader = Task.async(fn -> Enum.join(stream) end)
      assert_receive {:input, input}
      wait_until_blocked(reader.pid)
      for _ <- 1..5, do: :erlang.garbage_collect(reader.pid)
      send(input, :go_on)
      assert Task.await(reader) =~ ~r/^\d+\nmore\n$/
    end

    test "that is killed ends an input that traps exits and sleeps" do
      test = self()

      for script <- [@family <> "wait", @family <> "exec >&-; wait"] do
        reader =
          spawn(fn ->
            stream = Exile.stream!(sh(script), input: sleeping(test, true))
            Enum.each(stream, &send(test, {:element, &1}))
          end)

        assert_receive {:element, line}
        assert_receive {:input, input, feeder}
        wait_until_blocked(reader)
        Process.exit(reader, :kill)
        assert_ended(feeder)
        assert_ended(input)
        assert_all_gone(numbers(line))
        assert_no_command()
      end
    end

    test "that is killed while it stops early ends everything" do
      test = self()

      reader =
        spawn(fn ->
          stream =
            Exile.stream(sh("trap '' PIPE; " <> @family <> "wait"),
              input: sleeping(test, true),
              exit_timeout: :infinity
            )

          Enum.take(Stream.each(stream, &send(test, {:element, &1})), 1)
        end)

      assert_receive {:element, line}
      assert_receive {:input, input, feeder}
      # The stream is halted after its input has ended.
      assert_ended(input)
      assert_ended(feeder)
      assert Enum.all?(numbers(line), &os_process_alive?/1)
      Process.exit(reader, :kill)
      assert_all_gone(numbers(line))
    end
  end

  describe "a :teardown that is given" do
    # The command takes longer to exit after the signal than the default teardown would wait.
    @slow "trap 'sleep 1; echo done >>$0; exit 0' TERM; trap '' PIPE; echo ready; "
    @on "while :; do sleep 0.01; done"

    defp slow(dir, script), do: ["sh", "-c", @slow <> script, Path.join(dir, "done")]
    defp done?(dir), do: File.exists?(Path.join(dir, "done"))

    @tag :tmp_dir
    test "is followed when the reader stops early", %{tmp_dir: dir} do
      stream = Exile.stream!(slow(dir, @on), teardown: [sigterm: 30_000])
      assert Enum.take(stream, 1) == ["ready\n"]
      assert done?(dir)
    end

    @tag :tmp_dir
    test "is followed when the reader raises", %{tmp_dir: dir} do
      stream = Exile.stream!(slow(dir, @on), teardown: [sigterm: 30_000])
      assert_raise RuntimeError, "reader", fn -> Enum.each(stream, fn _ -> raise "reader" end) end
      assert done?(dir)
    end

    @tag :tmp_dir
    test "is followed after :exit_timeout", %{tmp_dir: dir} do
      command = slow(dir, "exec >&- 2>&-; " <> @on)
      stream = Exile.stream(command, exit_timeout: 50, teardown: [sigterm: 30_000])
      assert Enum.to_list(stream) == ["ready\n", {:exit, {:status, 0}}]
      assert done?(dir)
    end

    @tag :tmp_dir
    test "is followed when the input fails", %{tmp_dir: dir} do
      test = self()

      input = fn _ ->
        send(test, {:input, self()})
        receive do: (:go_on -> raise "input")
      end

      stream = Exile.stream!(slow(dir, @on), input: input, teardown: [sigterm: 30_000])
      assert {"ready\n", go} = step(stream)
      assert_receive {:input, input}
      send(input, :go_on)
      assert_raise RuntimeError, "input", fn -> step(go) end
      assert done?(dir)
    end

    for {input, name} <- [{false, ""}, {true, ", with input"}] do
      @tag :tmp_dir
      test "is followed when the reader dies#{name}", %{tmp_dir: dir} do
        test = self()
        input = if unquote(input), do: sleeping(test, true)

        reader =
          spawn(fn ->
            stream = Exile.stream!(slow(dir, @on), input: input, teardown: [sigterm: 30_000])
            Enum.each(stream, &send(test, {:element, &1}))
          end)

        assert_receive {:element, "ready\n"}
        if unquote(input), do: assert_receive({:input, _, _})
        Process.exit(reader, :kill)
        assert_no_command()
        assert done?(dir)
      end
    end

    @tag :tmp_dir
    test "is followed when the stream is dropped", %{tmp_dir: dir} do
      {reader, "ready\n"} = dropped(slow(dir, @on), teardown: [sigterm: 30_000])
      send(reader, :collect)
      assert_no_command()
      assert done?(dir)
      send(reader, :end)
      assert_ended(reader)
    end
  end

  describe "the feeder, killed by another process," do
    for trap <- [false, true], stream <- [:stream!, :stream] do
      test "ends everything, and #{stream}/2 raises#{if trap, do: ", when the input traps exits"}" do
        test = self()
        input = sleeping(test, unquote(trap))
        stream = apply(Exile, unquote(stream), [sh(@family <> "wait"), [input: input]])

        reader =
          spawn(fn ->
            outcome =
              try do
                Enum.each(stream, &send(test, {:element, &1}))
              catch
                kind, reason -> {kind, reason}
              end

            send(test, {:outcome, outcome})
          end)

        assert_receive {:element, line}
        assert_receive {:input, input, feeder}
        wait_until_blocked(reader)
        Process.exit(feeder, :kill)
        assert_receive {:outcome, {:exit, :killed}}
        assert_ended(input)
        assert_all_gone(numbers(line))
        assert_ended(reader)
      end
    end
  end

  describe "the process of the input, killed by another process," do
    test "ends everything, and the stream exits with its reason" do
      test = self()

      for stream <- [&Exile.stream!/2, &Exile.stream/2], trap <- [false, true] do
        stream = stream.(sh(@family <> "wait"), input: sleeping(test, trap))
        assert {line, go} = step(stream)
        assert_receive {:input, input, feeder}
        Process.exit(input, :kill)
        assert catch_exit(step(go)) == :killed
        assert_all_gone(numbers(line))
        assert_ended(feeder)
        assert_quiet()
      end
    end
  end

  describe "a sink used by a process that does not own it" do
    test "raises an error that says so, and the stream is not affected" do
      test = self()

      input = fn sink ->
        task =
          Task.async(fn ->
            assert_raise Exile.Process.Error, fn -> Enum.into(["x"], sink) end
          end)

        send(test, {:error, Task.await(task)})
        :ok = Enum.into(["y"], sink)
      end

      assert Enum.join(Exile.stream!(~w(cat), input: input)) == "y"
      assert_receive {:error, error}
      assert error.reason == :pipe_closed_or_invalid_caller
      assert Exception.message(error) =~ "belongs to another process"
    end
  end
end
