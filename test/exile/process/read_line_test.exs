defmodule Exile.Process.ReadLineTest do
  use Exile.Case

  import Exile.Process
  import Exile.ProcessHelpers

  defp all_lines(p, max \\ 1_048_576) do
    case read_line(p, max, 10_000) do
      {:ok, line} -> [line | all_lines(p, max)]
      :eof -> []
    end
  end

  defp cat(output) do
    {:ok, p} = start_link(["cat"])
    :ok = write(p, output)
    :ok = close_stdin(p)
    p
  end

  describe "read_line/3" do
    test "returns one line after the other, without newlines" do
      for output <- ["", "\n", "a", "a\n", "a\nb", "a\n\nb\n", "\n\n", "a\r\nb\r\n", "\0\n\xFF\n"] do
        p = cat(output)
        assert all_lines(p) == lines_of(output)
        assert read_line(p) == :eof
        assert await_exit(p) == {:ok, 0}
      end
    end

    test "returns lines as they come, without waiting for more" do
      {:ok, p} = start_link(["cat"])

      for word <- ~w(one two three) do
        :ok = write(p, [word, "\n"])
        assert read_line(p) == {:ok, word}
      end
    end

    test "finds the lines however they are split" do
      for _ <- 1..20 do
        output =
          for _ <- 1..Enum.random(1..50),
              into: "",
              do: Enum.random(["", "a", "\n", "\r\n", "bcd"])

        {:ok, p} = start_link(["cat"])
        # A process of its own: the pipes are small where many are in use.
        writer = Task.async(fn -> feed(p, output) end)
        assert all_lines(p) == lines_of(output)
        assert Task.await(writer) == :ok
      end
    end

    test "returns a line that is longer than any read, and the one after it" do
      long = :binary.copy("0123456789", 100_000)
      p = start_writer(long <> "\nnext")
      assert read_line(p) == {:ok, long}
      assert read_line(p) == {:ok, "next"}
      assert read_line(p) == :eof
    end

    test "accepts lines of exactly the most bytes" do
      assert all_lines(cat("1234\n\n123\n1234"), 4) == ["1234", "", "123", "1234"]
    end

    test "loses nothing of a line that is too long" do
      for rest <- ["\nnext\n", "", "678\n"] do
        p = cat("12345" <> rest)
        assert read_line(p, 4) == {:error, :line_too_long}
        assert read_line(p, 3) == {:error, :line_too_long}
        assert read(p, 2) == {:ok, "12"}
        assert all_lines(p) == lines_of("345" <> rest)
      end
    end

    test "takes little memory for half a gigabyte without a newline" do
      {:ok, p} = start_link(["head", "-c", "500000000", "/dev/zero"])
      before = resident()
      assert read_line(p) == {:error, :line_too_long}
      assert read_line(p) == {:error, :line_too_long}
      assert resident() - before < 8_000_000
      assert p |> count(0) == 500_000_000
    end

    test "loses nothing when it times out" do
      {:ok, p} = start_link(["cat"])
      :ok = write(p, "begun ")
      assert read_line(p, 100, 20) == {:error, :timeout}
      assert read_line(p, 100, 0) == {:error, :timeout}
      assert_no_message()
      :ok = write(p, "ended\n")
      assert read_line(p, 100, 5_000) == {:ok, "begun ended"}
    end

    test "times out also while a line that never ends keeps coming" do
      {:ok, p} = start_link(["cat", "/dev/zero"])
      assert {time, {:error, :timeout}} = timed(fn -> read_line(p, 0xFFFF_FFFF, 50) end)
      assert time < 2_000
    end

    test "is over when the command exits, though its descendants hold the output open" do
      {:ok, p} = start_link(sh("sleep 60 & printf \"$!\\na\\nb\""))
      assert [sleep, "a", "b"] = all_lines(p)
      kill_os_process(sleep)
    end

    test "blocks until the pipe belongs to another, who gets the line that has begun" do
      {:ok, p} = start_link(["cat"])
      :ok = write(p, "begun ")
      first = waiting_task(p, :stdout, fn -> read_line(p) end)
      second = waiting_task(p, :stdout, fn -> read_line(p) end)
      assert Task.await(first) == {:error, :pipe_closed_or_invalid_caller}
      :ok = write(p, "ended\n")
      assert Task.await(second) == {:ok, "begun ended"}
    end

    test "is for the owner of an open pipe alone" do
      {:ok, p} = start_link(["cat"])
      invalid = {:error, :pipe_closed_or_invalid_caller}
      assert fn -> read_line(p) end |> Task.async() |> Task.await() == invalid
      :ok = close_stdout(p)
      assert read_line(p) == invalid
    end

    test "accepts a positive integer and a timeout" do
      {:ok, p} = start_link(["cat"])

      for max <- [0, -1, nil, true],
          do: assert_raise(ArgumentError, ~r/#{inspect(max)}/, fn -> read_line(p, max) end)

      for timeout <- [-1, nil, 1.5],
          do:
            assert_raise(ArgumentError, ~r/#{inspect(timeout)}/, fn ->
              read_line(p, 1, timeout)
            end)
    end
  end

  describe "what was read beyond a line" do
    test "belongs to the pipe, whatever reads it" do
      {:ok, p} = start_link(sh("printf 'line\nmore'; printf error >&2"), stderr: :consume)
      assert read_line(p) == {:ok, "line"}
      assert {:ok, "error"} = read_stderr(p)
      assert read_any(p, 2) == {:ok, {:stdout, "mo"}}
      assert read(p, 1) == {:ok, "r"}
      assert read_until(p, "e") == {:ok, "e", "e"}
      assert read(p) == :eof
    end

    test "goes with the pipe to another owner, and through close_stdin/1" do
      {:ok, p} = start_link(["cat"])
      :ok = write(p, "line\nmore\n")
      assert read_line(p) == {:ok, "line"}
      :ok = close_stdin(p)

      task =
        Task.async(fn ->
          :ok = change_pipe_owner(p, :stdout, self())
          {read_line(p), read_line(p)}
        end)

      assert Task.await(task) == {{:ok, "more"}, :eof}
    end

    test "is dropped by await_exit/2" do
      p = cat("line\nmore\nand more\n")
      assert read_line(p) == {:ok, "line"}
      assert await_exit(p) == {:ok, 0}
      assert read_line(p) == {:error, :pipe_closed_or_invalid_caller}
    end

    # All kinds of reads, at random, return together what was written.
    test "is never lost, doubled or out of order" do
      for _ <- 1..30 do
        parts = ["", "a", "bc", "\n", "\r\n", "stop", :binary.copy("x", 3_000), "\n\n"]
        output = for _ <- 1..Enum.random(1..200), into: "", do: Enum.random(parts)
        {:ok, p} = start_link(["cat"])
        writer = Task.async(fn -> feed(p, output) end)
        taken = take_all(p, [])
        # Whether the last line has a newline, a line does not say.
        assert output in [taken, taken <> "\n"]
        assert Task.await(writer) == :ok
      end
    end
  end

  defp take_all(p, taken) do
    max = Enum.random([1, 2, 100, 70_000])

    case Enum.random([:read, :read_line, :read_until, :hand_over]) do
      :read ->
        read(p, max) |> taken(taken, p)

      :read_line ->
        case read_line(p, max) do
          {:ok, line} -> p |> take_all([{:line, line} | taken])
          other -> taken(other, taken, p)
        end

      :read_until ->
        case read_until(p, Enum.random(["stop", "\n", ~r/[b-t]+/]), Enum.random([0, 10])) do
          {:ok, data, match} ->
            assert String.ends_with?(data, match)
            take_all(p, [data | taken])

          {:eof, rest} ->
            finish([rest | taken])

          {:error, reason} when reason in [:timeout, :no_match] ->
            take_all(p, taken)
        end

      :hand_over ->
        test = self()

        part =
          Task.async(fn ->
            :ok = change_pipe_owner(p, :stdout, self())
            result = read(p, max)
            :ok = change_pipe_owner(p, :stdout, test)
            result
          end)

        part |> Task.await() |> taken(taken, p)
    end
  end

  defp taken({:ok, data}, taken, p), do: take_all(p, [data | taken])
  defp taken({:error, :line_too_long}, taken, p), do: take_all(p, taken)
  defp taken(:eof, taken, _p), do: finish(taken)

  # Each line stands for itself and its newline.
  defp finish(taken) do
    {last, taken} = taken |> Enum.drop_while(&(&1 == "")) |> List.pop_at(0, "")
    last = with {:line, line} <- last, do: line

    taken
    |> Enum.map(&with {:line, line} <- &1, do: [line, "\n"])
    |> Enum.reverse([last])
    |> IO.iodata_to_binary()
  end

  # Writes in pieces of any size, and closes the input.
  defp feed(p, output) do
    :ok = change_pipe_owner(p, :stdin, self())
    feed_on(p, output)
  end

  defp feed_on(p, ""), do: close_stdin(p)

  defp feed_on(p, output) do
    size = min(Enum.random([1, 1, 2, 7, 5_000]), byte_size(output))
    :ok = write(p, binary_part(output, 0, size))
    # Others may run, so that the pieces are read one by one, or not.
    :erlang.yield()
    feed_on(p, binary_part(output, size, byte_size(output) - size))
  end

  defp start_writer(output) do
    {:ok, p} = start_link(["cat"])

    spawn_link(fn ->
      :ok = change_pipe_owner(p, :stdin, self())
      :ok = write(p, output)
    end)

    p
  end

  defp count(p, counted) do
    case read(p) do
      {:ok, data} -> count(p, counted + byte_size(data))
      :eof -> counted
    end
  end

  # In bytes, of the whole VM: what the handle of a pipe keeps is no binary of the VM.
  defp resident do
    "/proc/self/statm"
    |> File.read!()
    |> String.split()
    |> Enum.at(1)
    |> String.to_integer()
    |> Kernel.*(4096)
  end
end
