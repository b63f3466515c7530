defmodule Exile.Stream.HaltTest do
  use Exile.Case

  import Exile.StreamSteps

  alias Exile.Stream.AbnormalExit

  # "About a second", with a margin for a loaded machine.
  @soon 3_000

  describe "a reader who stops early" do
    test "gets an :epipe from stream!/2, and nothing from stream/2" do
      error = assert_raise AbnormalExit, fn -> Enum.take(Exile.stream!(~w(yes)), 1) end

      assert error == %AbnormalExit{
               exit_status: :epipe,
               command: ["yes"],
               message:
                 "program exited due to :epipe error " <>
                   "(\"yes\": its reader stopped early, see :ignore_epipe)"
             }

      assert [<<"y\n", _::binary>>] = Enum.take(Exile.stream(~w(yes)), 1)
      assert_quiet()
    end

    test "gets nothing from either with :ignore_epipe" do
      for stream <- both(~w(yes), ignore_epipe: true, max_chunk_size: 2) do
        assert Enum.take(stream, 3) == ["y\n", "y\n", "y\n"]
        assert Enum.at(stream, 2) == "y\n"
        assert Enum.find(stream, &(&1 == "y\n")) == "y\n"
        assert stream |> Stream.take_while(&(&1 == "n\n")) |> Enum.to_list() == []
        assert Enum.zip([1, 2], stream) == [{1, "y\n"}, {2, "y\n"}]
      end

      assert_quiet()
    end

    test "before the first element runs nothing" do
      assert Enum.take(Exile.stream!(["no-such-program"]), 0) == []
    end

    test "at any element except the last gets :epipe from a command that keeps running" do
      for n <- 1..3 do
        stream = Exile.stream!(sh("printf abc; exec sleep 60"), max_chunk_size: 1)
        {ms, _} = timed(fn -> assert_raise AbnormalExit, fn -> Enum.take(stream, n) end end)
        assert ms < @soon
        assert_no_command()
        assert_quiet()
      end
    end

    test "at exactly the last element of a command that exits with 0 gets no error" do
      for stream <- both(sh("printf abc"), max_chunk_size: 1) do
        assert Enum.take(stream, 3) == ["a", "b", "c"]
        assert Enum.take(stream, 4) |> Enum.take(3) == ["a", "b", "c"]
      end

      assert_quiet()
    end

    test "at any element gets no error from a command that wrote everything and exited with 0" do
      for n <- 1..3 do
        assert length(Enum.take(Exile.stream!(sh("printf abc"), max_chunk_size: 1), n)) == n
      end
    end

    test "at the last element of stream/2 gets the exit" do
      stream = Exile.stream(sh("printf abc; exit 3"), max_chunk_size: 1)
      assert Enum.take(stream, 4) == ["a", "b", "c", {:exit, {:status, 3}}]
      assert Enum.take(stream, 3) == ["a", "b", "c"]
      assert_quiet()
    end

    test "gets the status of a command that fails because its output is not read" do
      # The command continues when its input is closed, which happens when its output is no
      # longer read.
      input = fn _ -> Process.sleep(:infinity) end
      script = sh("trap '' TERM; echo ready; cat; exit 3")

      error =
        assert_raise AbnormalExit, fn -> Enum.take(Exile.stream!(script, input: input), 1) end

      assert error.exit_status == 3
      assert Enum.take(Exile.stream(script, input: input), 1) == ["ready\n"]
      ignoring = Exile.stream!(script, input: input, ignore_epipe: true)
      assert Enum.take(ignoring, 1) == ["ready\n"]
      assert_quiet()
    end
  end

  describe "the command of a reader who stops early" do
    test "sees its pipes closed at once, and has a chance to end by itself" do
      input = fn _ -> Process.sleep(:infinity) end
      # If a signal ended the command, that would be raised.
      stream = Exile.stream!(sh("echo ready; exec cat >/dev/null"), input: input)
      assert Enum.take(stream, 1) == ["ready\n"]
      assert_quiet()
    end

    test "is terminated with its process group if it does not end" do
      # Three generations, all of which ignore SIGTERM.
      script = """
      sh -c 'trap "" TERM; sleep 60 & echo $! $$; wait' &
      trap '' TERM PIPE
      wait
      """

      assert {line, go} = step(Exile.stream!(sh(script), ignore_epipe: true))
      os_pids = line |> String.split() |> Enum.map(&String.to_integer/1)
      {ms, _} = timed(fn -> halt(go) end)
      assert ms < @soon
      for os_pid <- os_pids, do: assert_gone(os_pid)
    end

    test "may ignore SIGPIPE, SIGTERM and its closed input" do
      for {signals, input} <- [{"PIPE", nil}, {"PIPE TERM HUP INT", Stream.cycle(["x"])}] do
        script = "trap '' #{signals}; echo $$; while :; do sleep 0.1; echo more; done"

        stream = Exile.stream!(sh(script), input: input, stderr: :disable)
        enough = fn -> Enum.find(stream, &send(self(), {:line, &1})) end
        {ms, error} = timed(fn -> assert_raise AbnormalExit, enough end)
        assert error.exit_status == :epipe
        assert ms < @soon
        assert_received {:line, line}
        assert_gone(number(line))
        assert_quiet()
      end
    end

    test "may be stopped" do
      assert {line, go} = step(Exile.stream!(sh("echo $$; kill -STOP $$"), ignore_epipe: true))
      eventually(fn -> File.read!("/proc/#{number(line)}/stat") =~ ") T " end)
      {ms, _} = timed(fn -> halt(go) end)
      assert ms < @soon
      assert_gone(number(line))
    end

    test "gets the signals of :teardown" do
      script = "trap 'exit 7' INT; trap '' TERM; echo ready; sleep 60; exit 8"
      stream = Exile.stream!(sh(script), teardown: [sigint: 500])
      error = assert_raise AbnormalExit, fn -> Enum.take(stream, 1) end
      assert error.exit_status == 7
    end

    test "gets the whole :teardown, however long it takes" do
      # The command needs more time after the signal than the default teardown allows.
      script =
        "trap 'sleep 1; exit 7' INT; trap '' PIPE; echo ready; while :; do sleep 0.01; done"

      stream = Exile.stream!(sh(script), teardown: [sigint: 30_000])
      {ms, error} = timed(fn -> assert_raise AbnormalExit, fn -> Enum.take(stream, 1) end end)
      assert error.exit_status == 7
      assert ms in 1_250..30_000
    end

    test "gets the whole :teardown after its :exit_timeout" do
      script = "trap '' TERM PIPE; trap 'exit 7' INT; echo ready; while :; do sleep 0.01; done"

      stream =
        Exile.stream!(sh(script), exit_timeout: 300, teardown: [sigterm: 700, sigint: 30_000])

      {ms, error} = timed(fn -> assert_raise AbnormalExit, fn -> Enum.take(stream, 1) end end)
      assert error.exit_status == 7
      assert ms in 1_000..30_000
    end

    test "has the whole :exit_timeout to end by itself" do
      script = "trap '' PIPE; trap 'exit 7' TERM; echo ready; sleep 0.6; exit 0"

      for stream <- both(sh(script), exit_timeout: 30_000) do
        {ms, elements} = timed(fn -> Enum.take(stream, 1) end)
        assert elements == ["ready\n"]
        assert ms in 500..30_000
      end

      # Without :exit_timeout, the command has less time.
      error = assert_raise AbnormalExit, fn -> Enum.take(Exile.stream!(sh(script)), 1) end
      assert error.exit_status == 7
    end

    test "is awaited with exit_timeout: :infinity, and gets no signal" do
      script = "trap 'exit 7' TERM; trap '' PIPE; echo ready; sleep 1.2; exit 0"
      stream = Exile.stream!(sh(script), exit_timeout: :infinity, teardown: [sigterm: 0])
      {ms, elements} = timed(fn -> Enum.take(stream, 1) end)
      assert elements == ["ready\n"]
      assert ms >= 1_000
    end

    test "gets its signals at once with exit_timeout: 0" do
      script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done"
      stream = Exile.stream!(sh(script), exit_timeout: 0)
      error = assert_raise AbnormalExit, fn -> Enum.take(stream, 1) end
      assert error.exit_status == 7
    end

    test "keeps its background children if it had exited by itself" do
      script = "sleep 60 >/dev/null 2>&1 & echo $!; echo $$ >&2"
      stream = Exile.stream!(sh(script), stderr: :consume)
      assert {first, go} = step(stream)
      assert {second, go} = step(go)
      assert [stderr: itself, stdout: background] = Enum.sort([first, second])
      assert_gone(number(itself))
      halt(go)
      assert os_process_alive?(number(background))
      System.cmd("kill", [String.trim(background)])
    end

    test "that ends because its pipes are closed is ended with its group" do
      for script <- ["sleep 60 & echo $!; exec cat", "sleep 60 >/dev/null & echo $!; exec yes"] do
        wait = fn _ -> Process.sleep(:infinity) end
        stream = Exile.stream!(sh(script), input: wait, ignore_epipe: true)
        assert {text, go} = step(stream)
        [background | _] = String.split(text, "\n")
        halt(go)
        assert_gone(number(background))
      end
    end
  end

  describe "the input of a reader who stops early" do
    test "ends, whatever it is doing" do
      test = self()

      inputs = [
        &Enum.into(Stream.cycle(["x"]), &1),
        &Enum.into([:binary.copy("x", 10_000_000)], &1),
        fn sink -> Enum.into(["x"], sink) && receive(do: (:never -> :ok)) end,
        fn sink ->
          Process.flag(:trap_exit, true)
          Enum.into(["x"], sink) && receive(do: (:never -> :ok))
        end,
        fn sink -> Enum.into(["x"], sink) && spin() end
      ]

      for input <- inputs, stream <- [&Exile.stream!/2, &Exile.stream/2] do
        input = fn sink ->
          send(test, {:input, self()})
          input.(sink)
        end

        stream = stream.(~w(cat), input: input, ignore_epipe: true)
        {ms, [_]} = timed(fn -> Enum.take(stream, 1) end)
        assert ms < @soon
        assert_receive {:input, pid}
        assert_ended(pid)
        assert_no_command()
        assert_quiet()
      end
    end

    test "may end at the same moment" do
      Process.flag(:trap_exit, true)

      for _ <- 1..300 do
        turns = :rand.uniform(100_000)

        input = fn sink ->
          Enum.into(["x"], sink)
          spin(turns)
        end

        assert Enum.take(Exile.stream(~w(cat), input: input), 1) == ["x"]
      end

      assert_quiet()
    end

    test "that is another Exile stream ends with its command" do
      inner = Exile.stream!(sh("trap '' PIPE; echo $$; exec sleep 60"))
      assert {line, go} = step(Exile.stream!(~w(cat), input: inner, ignore_epipe: true))
      halt(go)
      assert_gone(number(line))
      assert_no_command()
    end

    test "that fails then raises its own error" do
      # The input raises while the stream is still being enumerated.
      test = self()

      input = fn sink ->
        Process.flag(:trap_exit, true)
        Enum.into(["x"], sink)
        send(test, {:input, self()})
        receive do: (:go_on -> raise("offended"))
      end

      stream = Exile.stream!(~w(cat), input: input, ignore_epipe: true)

      enough = fn "x" ->
        assert_receive {:input, pid}
        send(pid, :go_on)
        assert_ended(pid)
      end

      assert_raise RuntimeError, "offended", fn -> Enum.find(stream, enough) end
      assert_quiet()
    end
  end

  # Elixir's streams between a command and its reader halt the command in the same way whether the
  # reader has stopped early or failed.
  describe "a command that is read through another stream" do
    @scripts [
      "exec yes",
      "echo ready; cat; exit 3",
      "trap '' PIPE TERM; echo ready; while :; do sleep 0.01; done"
    ]

    test "ends, and the reader that fails keeps its own error" do
      failures = [
        {:error, fn -> raise "mine" end, %RuntimeError{message: "mine"}},
        {:throw, fn -> throw(:mine) end, :mine},
        {:exit, fn -> exit(:mine) end, :mine}
      ]

      input = fn _ -> Process.sleep(:infinity) end

      for {name, way} <- ways(), script <- @scripts, {kind, fail, reason} <- failures do
        stream = way.(Exile.stream!(sh(script), input: input, stderr: :disable, exit_timeout: 0))

        outcome =
          try do
            Enum.each(stream, fn _ -> fail.() end)
          catch
            kind, reason -> {kind, reason}
          end

        assert {name, script, outcome} == {name, script, {kind, reason}}
        assert_no_command()
        assert_quiet()
      end
    end

    test "ends without an error of its own when the reader stops early" do
      for {name, way} <- suspending_ways(), script <- @scripts do
        stream = way.(Exile.stream!(sh(script), input: fn _ -> Process.sleep(:infinity) end))
        assert {^name, [_]} = {name, Enum.take(stream, 1)}
        assert_no_command()
        assert_quiet()
      end

      assert [{_, 1}, {_, 2}] = Enum.zip(Exile.stream!(~w(yes)), [1, 2])
      assert [{_, 1}, {_, 2}] = Enum.zip(Exile.stream(~w(yes)), [1, 2])
      assert_no_command()
    end

    test "fails as it would without that stream when it is read to its end" do
      for {name, way} <- ways() do
        stream = way.(Exile.stream!(sh("echo ready; exit 3")))
        error = assert_raise AbnormalExit, fn -> Stream.run(stream) end
        assert {name, error.exit_status} == {name, 3}
      end
    end

    # These take one element at a time, and halt their source when their reader stops.
    defp suspending_ways do
      [
        transform: &Stream.transform(&1, nil, fn x, nil -> {[x], nil} end),
        transform_and_after:
          &Stream.transform(&1, fn -> nil end, fn x, nil -> {[x], nil} end, fn nil -> :ok end),
        flat_map: &Stream.flat_map(&1, fn x -> [x] end),
        zip: &Stream.zip(&1, Stream.cycle([1])),
        zip_with: &Stream.zip_with([Stream.cycle([1]), &1], fn elements -> elements end)
      ]
    end

    defp ways do
      suspending_ways() ++
        [
          inner: &Stream.flat_map([1], fn 1 -> &1 end),
          concat: &Stream.concat([[], &1, ["after"]]),
          intersperse: &Stream.intersperse(&1, ", "),
          chunk_every: &Stream.chunk_every(&1, 1),
          two: &(&1 |> Stream.intersperse(", ") |> Stream.flat_map(fn x -> [x] end))
        ]
    end
  end

  defp both(command, options) do
    [Exile.stream!(command, options), Exile.stream(command, options)]
  end

  defp spin, do: spin()

  defp spin(0), do: :ok
  defp spin(turns), do: spin(turns - 1)
end
