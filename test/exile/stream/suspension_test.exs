defmodule Exile.Stream.SuspensionTest do
  use Exile.Case

  import Exile.StreamSteps

  describe "a stream that is suspended" do
    test "continues in the same process where it was" do
      for stream <- both(sh("printf abc"), max_chunk_size: 1) do
        assert {"a", go} = step(stream)
        assert {"b", go} = step(go)
        assert {"c", go} = step(go)

        if stream.on_failure == :tell do
          assert {{:exit, {:status, 0}}, go} = step(go)
          assert step(go) == :done
        else
          assert step(go) == :done
        end

        assert_quiet()
      end
    end

    test "may be suspended again before it is resumed" do
      assert {"a", go} = step(Exile.stream!(sh("printf ab"), max_chunk_size: 1))
      assert {:suspended, :other, go} = go.({:suspend, :other})
      assert {"b", go} = step(go)
      assert {:suspended, :other, go} = go.({:suspend, :other})
      assert step(go) == :done
    end

    test "may be halted after its last element, the exit" do
      assert {{:exit, {:status, 0}}, go} = step(Exile.stream(~w(true)))
      assert {:suspended, :other, go} = go.({:suspend, :other})
      assert go.({:halt, :last}) == {:halted, :last}
    end

    test "can be halted" do
      assert {_, go} = step(Exile.stream!(~w(yes), ignore_epipe: true))
      halt(go)
      assert_no_command()
      assert_quiet()
    end

    test "raises the failure of its command when it is resumed" do
      assert {"hi\n", go} = step(Exile.stream!(sh("echo hi; exit 5")))
      assert_raise Exile.Stream.AbnormalExit, ~r/: 5 \("/, fn -> step(go) end
      assert_quiet()
    end

    test "and not resumed ends with its process" do
      test = self()

      process =
        spawn(fn ->
          {line, _go} = step(Exile.stream!(sh("echo $$; exec sleep 60")))
          send(test, {:line, line})
        end)

      assert_receive {:line, line}
      assert_ended(process)
      assert_gone(number(line))
    end
  end

  describe "a stream that is resumed in another process" do
    test "does not affect the first process while that is alive" do
      for trap <- [false, true], stderr <- [:console, :consume] do
        Process.flag(:trap_exit, trap)
        options = [max_chunk_size: 2, stderr: stderr, input: &Enum.into(["a\n", "b\n"], &1)]
        element = if stderr == :consume, do: &{:stdout, &1}, else: & &1
        assert {first, go} = step(Exile.stream!(~w(cat), options))
        assert first == element.("a\n")
        assert in_another(fn -> rest(go) end) == [element.("b\n")]
        assert_quiet()
      end
    end

    test "can move back and forth between processes" do
      input = for n <- 1..20, do: "#{rem(n, 10)}"
      assert {"1", go} = step(Exile.stream!(~w(cat), input: input, max_chunk_size: 1))

      {go, elements} =
        for n <- 2..20, reduce: {go, ["1"]} do
          {go, elements} ->
            step = fn -> step(go) end
            {element, go} = if rem(n, 3) == 0, do: step.(), else: in_another(step, :stay)
            {go, [element | elements]}
        end

      assert Enum.reverse(elements) == input
      assert step(go) == :done
      dismiss()
      assert_quiet()
    end

    test "does not notice that the first process ends" do
      test = self()

      for how <- [:normal, :shutdown, :kill, :crash] do
        first =
          spawn(fn ->
            send(test, step(Exile.stream!(~w(cat), input: talker(test))))
            receive do: (:return -> exit(how))
          end)

        assert_receive {:input, input}
        send(input, {:say, "a"})
        assert_receive {"a", go}
        send(input, {:say, "b"})
        assert {"b", go} = step(go)
        if how == :kill, do: Process.exit(first, :kill), else: send(first, :return)
        assert_ended(first)
        send(input, {:say, "c"})
        assert {"c", go} = step(go)
        send(input, :done)
        assert step(go) == :done
        assert_quiet()
      end
    end

    test "without input does not notice that the first process is killed" do
      test = self()
      script = "trap 'echo signal; exit 3' USR1; echo $$; while :; do sleep 0.01; done"

      for stderr <- [:console, :consume] do
        element = if stderr == :consume, do: &{:stdout, &1}, else: & &1

        first =
          spawn(fn ->
            send(test, step(Exile.stream([sh(script), ~w(cat)], stderr: stderr)))
            Process.sleep(:infinity)
          end)

        assert_receive {line, go} when is_function(go)
        line = if stderr == :consume, do: elem(line, 1), else: line
        # The stream is resumed here, and suspended again.
        assert {:suspended, :mine, go} = go.({:suspend, :mine})
        Process.exit(first, :kill)
        assert_ended(first)
        {_, 0} = System.cmd("kill", ["-USR1", String.trim(line)])
        assert rest(go) == [element.("signal\n"), {:exit, {:status, 3}}]
        assert_quiet()
      end
    end

    test "raises Exile.Process.Error when the first process is dead, and the command has ended" do
      test = self()

      for how <- [:normal, :kill], stream <- [&Exile.stream!/2, &Exile.stream/2] do
        first =
          spawn(fn ->
            input = fn _ ->
              send(test, {:input, self()})
              Process.sleep(:infinity)
            end

            send(test, step(stream.(sh("echo $$; exec sleep 60"), input: input)))
            receive do: (:return -> :ok)
          end)

        assert_receive {line, go} when is_function(go)
        assert_receive {:input, input}
        if how == :kill, do: Process.exit(first, :kill), else: send(first, :return)
        assert_ended(first)
        {ms, error} = timed(fn -> assert_raise Exile.Process.Error, fn -> step(go) end end)
        assert Exception.message(error) =~ "\"sh\""
        assert ms < 3_000
        assert_ended(input)
        assert_gone(number(line))
        assert_quiet()
      end
    end

    test "can be halted there" do
      test = self()

      for input <- [nil, Stream.cycle(["x"])] do
        stream = Exile.stream!(sh("echo $$; exec sleep 60"), input: input, ignore_epipe: true)
        assert {line, go} = step(stream)
        assert in_another(fn -> halt(go) end) == :ok
        assert_gone(number(line))
        assert_quiet()
      end

      # The first process is dead, so its command is gone already.
      first = spawn(fn -> send(test, step(Exile.stream(sh("echo $$; exec sleep 60")))) end)
      assert_receive {line, go} when is_function(go)
      assert_ended(first)
      assert halt(go) == :ok
      assert_gone(number(line))
      assert_quiet()
    end

    test "raises failures of the command, the input or the consumer there" do
      assert {"hi\n", go} = step(Exile.stream!(sh("echo hi; exit 5")))
      assert %Exile.Stream.AbnormalExit{exit_status: 5} = in_another(fn -> rescued(go) end)

      test = self()

      input = fn sink ->
        Enum.into(["hi\n"], sink)
        send(test, {:input, self()})
        receive do: (:go_on -> raise("wrong"))
      end

      assert {"hi\n", go} = step(Exile.stream!(~w(cat), input: input))
      assert_receive {:input, input}

      assert %RuntimeError{message: "wrong"} =
               in_another(fn ->
                 reader = self()

                 spawn_link(fn ->
                   wait_until_blocked(reader)
                   send(input, :go_on)
                 end)

                 rescued(go)
               end)

      assert_no_command()

      go = start_with(~w(yes), fn _element, :go_on -> raise "consumer" end)
      assert %RuntimeError{message: "consumer"} = in_another(fn -> rescued(go, :go_on) end)
      assert_no_command()
      assert_quiet()
    end

    test "ends with that process while the first one is alive" do
      stream = Exile.stream!(sh("echo $$; echo second; exec sleep 60"), max_chunk_size: 100)
      test = self()
      assert {line, go} = step(stream)
      os_pid = line |> String.split("\n") |> hd() |> number()

      other =
        spawn(fn ->
          reader = self()
          spawn_link(fn -> wait_until_blocked(reader) && send(test, :blocked) end)
          rest(go)
        end)

      assert_receive :blocked
      Process.exit(other, :kill)
      assert_ended(other)
      assert_gone(os_pid)
      assert_quiet()
    end

    test "gets the rest of stderr, too" do
      script = sh("echo o1; echo e1 >&2; read _; echo o2; echo e2 >&2")
      stream = Exile.stream!(script, stderr: :consume, input: talker(self()))
      assert {first, go} = step(stream)
      assert {second, go} = step(go)
      assert Enum.sort([first, second]) == [stderr: "e1\n", stdout: "o1\n"]
      assert_receive {:input, input}
      send(input, {:say, "\n"})
      send(input, :done)
      assert Enum.sort(in_another(fn -> rest(go) end)) == [stderr: "e2\n", stdout: "o2\n"]
      assert_quiet()
    end
  end

  describe "Stream.zip" do
    test "runs two streams side by side" do
      letters = Exile.stream!(sh("printf abc"), max_chunk_size: 1)
      digits = Exile.stream!(~w(cat), input: ["123"], max_chunk_size: 1)
      assert Enum.to_list(Stream.zip(letters, digits)) == [{"a", "1"}, {"b", "2"}, {"c", "3"}]
      assert_quiet()
    end

    test "ends the longer stream when the shorter one ends" do
      letters = Exile.stream!(sh("printf abc"), max_chunk_size: 1)
      endless = Exile.stream!(~w(yes), max_chunk_size: 2, ignore_epipe: true)
      expected = for letter <- ~w(a b c), do: {letter, "y\n"}
      assert Enum.to_list(Stream.zip(letters, endless)) == expected
      assert Enum.to_list(Stream.zip([letters, endless])) == expected
      assert_no_command()
      assert_quiet()
    end

    test "ends both when the consumer stops early" do
      endless = Exile.stream!(~w(yes), max_chunk_size: 2, ignore_epipe: true)
      assert Enum.take(Stream.zip(endless, endless), 2) == [{"y\n", "y\n"}, {"y\n", "y\n"}]
      assert_no_command()
      assert_quiet()
    end

    test "ends both when the consumer raises, or one of them fails" do
      endless = Exile.stream!(~w(yes), max_chunk_size: 2, ignore_epipe: true)

      assert_raise RuntimeError, "consumer", fn ->
        # Stream.zip itself does not halt streams that it has just begun.
        Enum.reduce(Stream.zip(endless, endless), 1, fn
          _, 1 -> 2
          _, 2 -> raise "consumer"
        end)
      end

      assert_no_command()
      failing = Exile.stream!(sh("printf ab; exit 6"), max_chunk_size: 1)

      assert_raise Exile.Stream.AbnormalExit, ~r/: 6 \("/, fn ->
        Stream.run(Stream.zip(endless, failing))
      end

      assert_no_command()
      assert_quiet()
    end
  end

  describe "Stream.transform, Stream.concat and Stream.flat_map" do
    test "suspend and resume streams like any other" do
      stream = Exile.stream!(sh("printf abc"), max_chunk_size: 1)
      twice = Stream.concat(stream, stream)
      assert Enum.to_list(Stream.zip(twice, 1..5)) |> length() == 5
      assert Enum.zip(Stream.flat_map(1..2, fn _ -> stream end), 1..6) |> length() == 6
      assert_quiet()
    end
  end

  defp both(command, options) do
    [Exile.stream!(command, options), Exile.stream(command, options)]
  end

  # An input that sends its pid to the test, and writes what it is sent.
  defp talker(test) do
    fn sink ->
      send(test, {:input, self()})
      talk(sink)
    end
  end

  defp talk(sink) do
    receive do
      {:say, what} ->
        :ok = Enum.into([what], sink)
        talk(sink)

      :done ->
        :ok
    end
  end

  # Returns the result of `fun` in another process, which then ends, or stays until dismissed.
  defp in_another(fun, then \\ :end) do
    test = self()
    ref = make_ref()

    pid =
      spawn(fn ->
        send(test, {ref, fun.(), Process.info(self(), :messages)})
        if then == :stay, do: receive(do: (:dismissed -> :ok))
      end)

    if then == :stay, do: Process.put(:others, [pid | Process.get(:others, [])])
    assert_receive {^ref, result, {:messages, []}}, 10_000
    if then == :end, do: assert_ended(pid)
    result
  end

  defp dismiss do
    for pid <- Process.delete(:others) do
      send(pid, :dismissed)
      assert_ended(pid)
    end
  end

  # Returns the continuation after the first element of a stream; `fun` reduces later elements.
  defp start_with(command, fun) do
    reducer = fn
      _element, :start -> {:suspend, :started}
      element, acc -> fun.(element, acc)
    end

    stream = Exile.stream!(command)
    {:suspended, :started, go} = Enumerable.reduce(stream, {:cont, :start}, reducer)
    go
  end

  defp rescued(go, acc \\ nil) do
    go.({:cont, acc})
  rescue
    error -> error
  end
end
