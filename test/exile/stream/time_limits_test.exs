defmodule Exile.Stream.TimeLimitsTest do
  use Exile.Case

  import Exile.ProcessHelpers

  alias Exile.Process.Error

  # Both kinds of streams raise after a timeout.
  defp each_stream(fun) do
    for stream <- [&Exile.stream!/2, &Exile.stream/2], do: fun.(stream)
  end

  # What is read until the timeout, and its error.
  defp read_until_error(stream) do
    test = self()
    error = assert_raise Error, fn -> Enum.each(stream, &send(test, {:read, &1})) end
    {read([]), error}
  end

  defp read(elements) do
    receive do
      {:read, element} -> read([element | elements])
    after
      0 -> Enum.reverse(elements)
    end
  end

  describe ":timeout" do
    test "ends the commands after what they have written" do
      each_stream(fn stream ->
        script = "echo $$; exec sleep 60"

        {time, {[os_pid], error}} =
          timed(fn -> read_until_error(stream.(sh(script), timeout: 100)) end)

        assert %Error{reason: :timeout, operation: :run, subject: "sh", result: nil} = error
        assert time in 100..10_000
        refute os_process_alive?(os_pid |> String.trim() |> String.to_integer())
        assert Process.info(self(), :messages) == {:messages, []}
      end)
    end

    test "includes the time that the reader takes, and is not put off by output" do
      each_stream(fn stream ->
        assert {[_ | _], %{reason: :timeout}} = read_until_error(stream.(["yes"], timeout: 50))
      end)
    end

    test "lets what a command writes while it ends reach the reader" do
      script = "trap 'echo ending; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
      {elements, error} = read_until_error(Exile.stream!(sh(script), timeout: 200))
      assert Enum.join(elements) == "ready\nending\n"
      assert error.reason == :timeout
    end

    test "covers an input that never comes" do
      input = Stream.map([1], fn _ -> receive(do: (:never -> "")) end)

      assert {[], %{reason: :timeout}} =
               read_until_error(Exile.stream!(["cat"], input: input, timeout: 50))
    end

    test "covers the exit of a command that has closed its output" do
      stream = Exile.stream!(sh("exec >&-; exec sleep 60"), timeout: 100)
      assert {[], %{reason: :timeout}} = read_until_error(stream)
    end

    test "goes on while the stream is suspended" do
      stream = Exile.stream!(sh("echo one; exec sleep 60"), timeout: 300)
      suspend = fn element, _ -> {:suspend, element} end
      {:suspended, "one\n", resume} = Enumerable.reduce(stream, {:cont, nil}, suspend)
      receive after: (400 -> :ok)
      assert_raise Error, ~r/did not end within/, fn -> resume.({:cont, nil}) end
    end

    test "covers a reader that stops early, whatever time the command has then" do
      script = "trap '' PIPE TERM; echo $$; exec sleep 60"

      for exit_timeout <- [:infinity, 60_000], reader <- [:enough, :halted, :raises] do
        stream = Exile.stream!(sh(script), timeout: 500, exit_timeout: exit_timeout)

        {time, _} =
          timed(fn ->
            try do
              case reader do
                :enough -> Enum.take(stream, 1)
                :halted -> stream |> Stream.flat_map(&[&1]) |> Enum.take(1)
                :raises -> Enum.each(stream, fn _ -> raise "oops" end)
              end
            rescue
              _ -> :ok
            end
          end)

        assert time < 10_000
      end
    end

    test "loses nothing that was written before it, however slow the reader is" do
      script = "head -c 300000 /dev/zero; exec sleep 60"

      read = fn chunk, count ->
        receive after: (if(count == 0, do: 2_500, else: 0) -> count + byte_size(chunk))
      end

      stream = Exile.stream!(sh(script), timeout: 100)
      test = self()

      assert_raise Error, fn ->
        Enum.reduce(stream, 0, fn chunk, count -> tap(read.(chunk, count), &send(test, &1)) end)
      end

      # The command fills the pipe until the timeout; what it could not write yet is its own loss.
      counts = Process.info(self(), :messages) |> elem(1)
      assert List.last(counts) >= 65_536
      for count <- counts, do: assert_received(^count)
    end

    test "leaves the early stop of a reader as it is" do
      assert Exile.stream!(["yes"], timeout: 60_000, ignore_epipe: true) |> Enum.take(1) != []
    end
  end

  describe ":idle_timeout" do
    test "ends commands that write nothing for too long" do
      each_stream(fn stream ->
        script = "for i in 1 2 3; do echo $i; sleep 0.05; done; exec sleep 60"
        {elements, error} = read_until_error(stream.(sh(script), idle_timeout: 2_000))
        assert Enum.join(elements) == "1\n2\n3\n"
        assert %{reason: :idle_timeout, subject: "sh"} = error
      end)
    end

    test "does not count the time that the reader takes" do
      stream = Exile.stream!(sh("echo 1; echo 2"), idle_timeout: 1_000, max_chunk_size: 2)

      slow = fn element ->
        receive after: (1_200 -> element)
      end

      assert Enum.map(stream, slow) == ["1\n", "2\n"]
    end
  end

  describe ":success" do
    test "lists the statuses that are no failure" do
      assert Exile.stream!(sh("echo a; exit 1"), success: [0, 1]) |> Enum.to_list() == ["a\n"]
      assert Exile.stream!(sh("echo a; exit 9"), success: :any) |> Enum.to_list() == ["a\n"]

      message = "program exited with exit status: 2 (\"sh\")"

      assert_raise Exile.Stream.AbnormalExit, message, fn ->
        Exile.stream!(sh("exit 2"), success: [0, 1]) |> Stream.run()
      end
    end

    test "does not change the status that stream/2 returns" do
      for success <- [[0], [0, 3], :any] do
        stream = Exile.stream(sh("exit 3"), success: success)
        assert Enum.to_list(stream) == [{:exit, {:status, 3}}]
      end
    end

    test "holds for each command of a pipeline" do
      commands = [["false"], ["cat"]]
      assert Exile.stream!(commands, success: [0, 1]) |> Enum.to_list() == []
      assert Exile.stream(commands) |> Enum.to_list() == [{:exit, {:status, 1}}]
      assert Exile.stream(commands, success: [0, 1]) |> Enum.to_list() == [{:exit, {:status, 0}}]
    end
  end
end
