defmodule Exile.Stream.TimeoutTest do
  use Exile.Case

  import Exile.StreamSteps

  alias Exile.Stream.AbnormalExit

  @soon 3_000

  describe ":exit_timeout" do
    @stays ["sh", "-c", "echo hi; exec sleep 60 >&-"]
    @stays_deaf ["sh", "-c", "trap '' TERM; echo hi; exec sleep 60 >&-"]

    test "ends a command that closes its output and keeps running, and stream!/2 says so" do
      stream = Exile.stream!(@stays, exit_timeout: 100)
      {ms, error} = timed(fn -> assert_raise AbnormalExit, fn -> Stream.run(stream) end end)
      assert error.exit_status == 143
      assert error.message =~ "did not exit within 100 ms"
      assert error.message =~ "exit status: 143"
      assert ms in 100..@soon
      assert_no_command()
      assert_quiet()
    end

    test "gives the status of the ended command as the last element of stream/2" do
      stream = Exile.stream(@stays, exit_timeout: 100)
      assert Enum.to_list(stream) == ["hi\n", {:exit, {:status, 143}}]
      assert_no_command()
    end

    test "also ends a command that ignores SIGTERM" do
      stream = Exile.stream(@stays_deaf, exit_timeout: 0)
      {ms, elements} = timed(fn -> Enum.to_list(stream) end)
      assert elements == ["hi\n", {:exit, {:status, 137}}]
      assert ms < @soon
    end

    test "ends the input as well" do
      test = self()

      input = fn _ ->
        Process.flag(:trap_exit, true)
        send(test, {:input, self()})
        Process.sleep(:infinity)
      end

      stream = Exile.stream(@stays, exit_timeout: 100, input: input)
      assert Enum.to_list(stream) == ["hi\n", {:exit, {:status, 143}}]
      assert_receive {:input, input}
      assert_ended(input)
    end

    test "is not hidden by :ignore_epipe" do
      stream = Exile.stream!(@stays, exit_timeout: 50, ignore_epipe: true)
      assert_raise AbnormalExit, fn -> Stream.run(stream) end
    end

    test "does not end a command that exits in time" do
      stream = Exile.stream!(sh("echo hi; exec >&-; sleep 0.2"), exit_timeout: 30_000)
      assert Enum.to_list(stream) == ["hi\n"]
      stream = Exile.stream(sh("exec >&-; sleep 0.2; exit 3"), exit_timeout: 30_000)
      assert Enum.to_list(stream) == [{:exit, {:status, 3}}]
    end

    test "does not start while the output is open" do
      stream = Exile.stream!(sh("sleep 0.8; echo hi; sleep 0.8"), exit_timeout: 700)
      assert Enum.to_list(stream) == ["hi\n"]
    end

    test "starts when both outputs are closed if stderr is consumed" do
      script = sh("exec >&-; sleep 0.5; echo err >&2; exec sleep 60 2>&-")
      stream = Exile.stream(script, stderr: :consume, exit_timeout: 100)
      assert Enum.to_list(stream) == [{:stderr, "err\n"}, {:exit, {:status, 143}}]
    end

    test "is :infinity unless given" do
      stream = Exile.stream!(sh("echo hi; exec >&-; sleep 1"))
      assert {ms, ["hi\n"]} = timed(fn -> Enum.to_list(stream) end)
      assert ms >= 1_000
    end
  end

  describe ":drain_timeout" do
    test "is :infinity unless given: everything that descendants write is read" do
      script = sh("(sleep 0.5; echo late; exit 3) & echo hi")

      for options <- [[], [drain_timeout: :infinity]] do
        assert Enum.to_list(Exile.stream!(script, options)) == ["hi\n", "late\n"]

        assert Enum.to_list(Exile.stream(script, options)) ==
                 ["hi\n", "late\n", {:exit, {:status, 0}}]
      end
    end

    test "ends the stream even if a silent descendant holds the output open, which lives on" do
      for timeout <- [0, 100], stream <- [&Exile.stream!/2, &Exile.stream/2] do
        stream = stream.(sh("sleep 60 & echo $!"), drain_timeout: timeout)
        {ms, [line | last]} = timed(fn -> Enum.to_list(stream) end)
        assert last in [[], [{:exit, {:status, 0}}]]
        assert ms in timeout..(timeout + @soon)
        assert os_process_alive?(number(line))
        kill(line)
        assert_quiet()
      end
    end

    test "also ends a stream that consumes stderr, whichever output is held open" do
      for held <- ["", ">/dev/null", "2>/dev/null"] do
        script = sh("sleep 60 #{held} & echo $!; echo err >&2")
        stream = Exile.stream!(script, stderr: :consume, drain_timeout: 50)
        {ms, elements} = timed(fn -> Enum.to_list(stream) end)
        assert [stderr: "err\n", stdout: line] = Enum.sort(elements)
        assert ms < @soon
        kill(line)
        assert_quiet()
      end
    end

    test "lets descendants write until then" do
      test = self()
      # The descendant writes when it gets a line.
      script = "exec 3<&0; (read _ <&3; echo in time) & echo hi"

      input = fn sink ->
        send(test, {:input, self()})
        receive do: (:go_on -> Enum.into(["\n"], sink))
      end

      stream = Exile.stream!(sh(script), input: input, drain_timeout: 30_000)
      assert {"hi\n", go} = step(stream)
      assert_receive {:input, input}
      send(input, :go_on)
      assert rest(go) == ["in time\n"]
    end

    test "is not prolonged by a descendant that always writes" do
      for timeout <- [0, 100] do
        stream = Exile.stream!(sh("yes & echo $!"), drain_timeout: timeout)
        {ms, elements} = timed(fn -> Enum.take(stream, 1_000_000) end)
        assert length(elements) < 1_000_000
        assert ms < timeout + @soon
        assert_quiet()
      end
    end

    test "is not prolonged by that even if the reader is slower" do
      for options <- [[], [stderr: :consume]] do
        stream = Exile.stream!(sh("yes & exec echo hi"), [drain_timeout: 100] ++ options)
        {ms, _} = timed(fn -> Enum.each(stream, fn _ -> Process.sleep(10) end) end)
        # The stream reads what the pipes hold, possibly in many small pieces, and then ends.
        assert ms < 20_000
        assert_quiet()
      end
    end

    test "0 loses no output of the command itself, however slow the reader is" do
      for script <- ["sleep 60 & echo $! $$;", "yes 3>&1 >/dev/null & echo $! $$;"] do
        # The output fits into the pipe, so the command has ended before the second element is
        # read.
        script = script <> " head -c 60000 /dev/zero; exec echo end"
        assert {line, go} = step(Exile.stream!(sh(script), drain_timeout: 0, max_chunk_size: 999))
        [first | _] = String.split(line, "\n")
        [descendant, os_pid] = String.split(first)
        eventually(fn -> not os_process_alive?(String.to_integer(os_pid)) end)
        output = IO.iodata_to_binary([line | rest(go)])
        kill(descendant)
        assert byte_size(output) == byte_size(first) + 1 + 60_000 + 4
        assert String.ends_with?(output, "end\n")
        assert_quiet()
      end
    end

    test "does not start while the command itself runs" do
      stream = Exile.stream!(sh("echo a; sleep 0.5; echo b"), drain_timeout: 0)
      assert Enum.to_list(stream) == ["a\n", "b\n"]
    end

    test "does not hide the status of the command" do
      script = sh("sleep 60 & echo $!; exit 4")
      assert [line, {:exit, {:status, 4}}] = Enum.to_list(Exile.stream(script, drain_timeout: 0))
      kill(line)
      test = self()
      stream = Exile.stream!(script, drain_timeout: 0)

      assert_raise AbnormalExit, ~r/: 4 \("/, fn ->
        Enum.each(stream, &send(test, {:line, &1}))
      end

      assert_received {:line, line}
      kill(line)
    end
  end

  defp kill(line), do: {_, 0} = System.cmd("kill", [String.trim(line)])
end
