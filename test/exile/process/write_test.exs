defmodule Exile.Process.WriteTest do
  use Exile.Case

  import Exile.ProcessHelpers

  @not_ours {:error, :pipe_closed_or_invalid_caller}

  # More bytes than any pipe holds.
  @too_much 8 * 1024 * 1024

  # Reads nothing. A background process keeps its standard input open even after it is killed.
  # Prints the pid of the background process.
  @holder "exec 3<&0; sleep 60 <&3 >/dev/null & echo $!; exec sleep 60"

  # Writes iodata to `cat` and returns the output.
  defp through_cat(iodata) do
    {:ok, p} = Exile.Process.start_link(["cat"])

    writer =
      Task.async(fn ->
        :ok = Exile.Process.change_pipe_owner(p, :stdin, self())
        assert Exile.Process.write(p, iodata) == :ok
        assert Exile.Process.close_stdin(p) == :ok
      end)

    output = read_all(p)
    Task.await(writer)
    assert Exile.Process.await_exit(p) == {:ok, 0}
    output
  end

  describe "write/3" do
    test "writes a binary" do
      assert through_cat("hello") == "hello"
    end

    test "writes every byte" do
      every_byte = :binary.list_to_bin(Enum.to_list(0..255))
      assert through_cat(every_byte) == every_byte
    end

    test "writes iodata of all kinds" do
      assert through_cat(["a", ?b, [["c"], [], ?d | "e"], "" | "f"]) == "abcdef"
    end

    test "writes sub-binaries" do
      <<_::3, bits::binary-size(1000), _::5>> = :rand.bytes(1001)
      <<_::binary-size(10), bytes::binary-size(500), _::binary>> = bits
      assert through_cat([bits, bytes]) == bits <> bytes
    end

    test "returns at once for empty iodata, even while the pipe is full" do
      {:ok, p} = Exile.Process.start_link(["cat"])

      for empty <- ["", [], [""], [[], [""], []]],
          do: assert(Exile.Process.write(p, empty) == :ok)

      Exile.Process.close_stdin(p)
      assert read_all(p) == ""
      Exile.Process.await_exit(p)

      {:ok, p} = Exile.Process.start_link(["sleep", "60"])

      blocked =
        waiting_task(p, :stdin, fn -> Exile.Process.write(p, String.duplicate("x", @too_much)) end)

      :ok = Exile.Process.change_pipe_owner(p, :stdin, self())
      assert Task.await(blocked) == @not_ours
      assert Exile.Process.write(p, []) == :ok
    end

    test "writes thousands of parts in order, including empty ones" do
      parts =
        for n <- 1..5_000, do: if(rem(n, 3) == 0, do: "", else: String.duplicate("#{n},", 30))

      assert through_cat(parts) == IO.iodata_to_binary(parts)
    end

    test "writes thousands of large parts, which are not copied together, in order" do
      parts =
        for n <- 1..2_100, do: [if(rem(n, 7) == 0, do: "", else: <<n::size(1_000)-unit(8)>>)]

      assert hash(through_cat(parts)) == hash(parts)
    end

    test "writes parts of random sizes in a random nesting" do
      for _ <- 1..20 do
        iodata = random_iodata(5)
        assert through_cat(iodata) == IO.iodata_to_binary(iodata)
      end
    end

    test "writes more than a pipe holds while the command reads" do
      data = :rand.bytes(3 * 1024 * 1024 + 1)
      {:ok, p} = Exile.Process.start_link(["md5sum"])
      assert Exile.Process.write(p, data) == :ok
      Exile.Process.close_stdin(p)
      assert {:ok, <<sum::binary-size(32), _::binary>>} = Exile.Process.read(p)
      assert sum == Base.encode16(hash(data), case: :lower)
      Exile.Process.await_exit(p)
    end

    test "moves 64 MiB while another process reads them back" do
      block = :rand.bytes(1024 * 1024)
      parts = for n <- 1..64, do: [<<n>>, block]
      assert hash(through_cat(parts)) == hash(parts)
    end

    test "is :ok as soon as everything is in the pipe, even if the command reads nothing" do
      {:ok, p} = Exile.Process.start_link(["sleep", "60"])
      assert Exile.Process.write(p, "nobody reads this") == :ok
    end

    test "waits while the command does not read, and continues when it does" do
      {:ok, p} = Exile.Process.start_link(["md5sum"])
      :ok = Exile.Process.kill(p, :sigstop)
      data = :rand.bytes(@too_much)

      writer =
        waiting_task(p, :stdin, fn ->
          :ok = Exile.Process.write(p, data)
          :ok = Exile.Process.write(p, "more")
          Exile.Process.close_stdin(p)
        end)

      assert Task.yield(writer, 0) == nil
      :ok = Exile.Process.kill(p, :sigcont)
      assert Task.await(writer) == :ok
      assert {:ok, <<sum::binary-size(32), _::binary>>} = Exile.Process.read(p)
      assert sum == Base.encode16(hash([data, "more"]), case: :lower)
      Exile.Process.await_exit(p)
    end

    test "is :epipe when the command has closed its input" do
      {:ok, p} = Exile.Process.start_link(sh("exec 0<&-; echo closed; sleep 60"))
      assert read_lines(p, 1) == ["closed"]
      assert Exile.Process.write(p, "x") == {:error, :epipe}
      assert Exile.Process.write(p, "x") == {:error, :epipe}
      assert Exile.Process.write(p, String.duplicate("x", @too_much)) == {:error, :epipe}
      assert Exile.Process.close_stdin(p) == :ok
    end

    test "is :epipe when the command has ended" do
      {:ok, p} = Exile.Process.start_link(["true"])
      eventually(fn -> Exile.Process.os_pid(p) == :undefined end)
      assert Exile.Process.write(p, "x") == {:error, :epipe}
      Exile.Process.await_exit(p)
    end

    test "is :epipe when the command ends while the writer waits" do
      {:ok, p} = Exile.Process.start_link(["sleep", "60"])
      data = String.duplicate("x", @too_much)
      writer = waiting_task(p, :stdin, fn -> Exile.Process.write(p, data) end)
      Exile.Process.kill(p, :sigkill)
      assert Task.await(writer) == {:error, :epipe}
    end

    test "is :epipe when the command closes its input while the writer waits" do
      script = "trap 'exec 0<&-' USR1; echo ready; while :; do sleep 0.01 </dev/null; done"
      {:ok, p} = Exile.Process.start_link(sh(script))
      assert read_lines(p, 1) == ["ready"]
      data = String.duplicate("x", @too_much)
      writer = waiting_task(p, :stdin, fn -> Exile.Process.write(p, data) end)
      :ok = Exile.Process.kill(p, :sigusr1)
      assert Task.await(writer) == {:error, :epipe}
    end

    test "that waits returns when the command ends, though a background process holds the pipe" do
      {:ok, p} = Exile.Process.start_link(sh(@holder))
      [holder] = read_numbers(p, 1)
      data = String.duplicate("x", @too_much)
      writer = waiting_task(p, :stdin, fn -> Exile.Process.write(p, data) end)
      Exile.Process.kill(p, :sigkill)
      assert Task.await(writer) == {:error, :epipe}
      assert os_process_alive?(holder)
      kill_os_process(holder)
    end

    test "does not wait at all when the command has ended and a background process holds the pipe" do
      {:ok, p} = Exile.Process.start_link(sh(@holder))
      [holder] = read_numbers(p, 1)
      Exile.Process.kill(p, :sigkill)
      eventually(fn -> Exile.Process.os_pid(p) == :undefined end)
      assert Exile.Process.write(p, String.duplicate("x", @too_much)) == {:error, :epipe}
      kill_os_process(holder)
    end

    test "that waits returns when the pipe gets another owner, which may use it" do
      {:ok, p} = Exile.Process.start_link(sh("read line; cat"))
      data = String.duplicate("x", @too_much)
      writer = waiting_task(p, :stdin, fn -> Exile.Process.write(p, data) end)
      :ok = Exile.Process.change_pipe_owner(p, :stdin, self())
      assert Task.await(writer) == @not_ours
      assert Exile.Process.close_stdin(p) == :ok
    end

    test "that waits returns when the pipe is taken and closed" do
      {:ok, p} = Exile.Process.start_link(["sleep", "60"])
      data = String.duplicate("x", @too_much)
      writer = waiting_task(p, :stdin, fn -> Exile.Process.write(p, data) end)
      :ok = Exile.Process.change_pipe_owner(p, :stdin, self())
      :ok = Exile.Process.close_stdin(p)
      assert Task.await(writer) == @not_ours
    end

    test "that waits returns when the pipe is given to a dead process" do
      {:ok, p} = Exile.Process.start_link(["cat"])
      data = String.duplicate("x", @too_much)
      writer = waiting_task(p, :stdin, fn -> Exile.Process.write(p, data) end)
      assert Exile.Process.change_pipe_owner(p, :stdin, dead_process()) == :ok
      assert Task.await(writer) == @not_ours
    end

    test "is refused to a process that does not own the pipe" do
      {:ok, p} = Exile.Process.start_link(["cat"])
      assert Task.await(Task.async(fn -> Exile.Process.write(p, "x") end)) == @not_ours
      assert Task.await(Task.async(fn -> Exile.Process.write(p, "") end)) == @not_ours
      assert Exile.Process.write(p, "mine") == :ok
      assert Exile.Process.read(p) == {:ok, "mine"}
      Exile.Process.await_exit(p)
    end

    test "is refused after the pipe is closed" do
      {:ok, p} = Exile.Process.start_link(["cat"])
      :ok = Exile.Process.close_stdin(p)
      assert Exile.Process.write(p, "x") == @not_ours
      Exile.Process.await_exit(p)
    end

    test "with invalid iodata raises ArgumentError and writes nothing" do
      {:ok, p} = Exile.Process.start_link(["cat"])

      for bad <- [:a, nil, 1, ["a", :b], [256], [-1], %{}, ["a" | 1], <<1::3>>] do
        assert_raise ArgumentError, fn -> Exile.Process.write(p, bad) end
      end

      Exile.Process.close_stdin(p)
      assert Exile.Process.read(p) == :eof
      Exile.Process.await_exit(p)
    end

    test "leaves no message with the caller, however often it waits" do
      {:ok, p} = Exile.Process.start_link(["wc", "-c"])
      for _ <- 1..20, do: :ok = Exile.Process.write(p, :binary.copy("x", 1024 * 1024))
      assert_no_message()
      Exile.Process.close_stdin(p)
      assert read_all(p) =~ "#{20 * 1024 * 1024}"
      Exile.Process.await_exit(p)
      assert_no_message()
    end
  end

  defp hash(data), do: :erlang.md5(data)

  defp random_iodata(depth) do
    case :rand.uniform(4) do
      1 when depth > 0 -> for _ <- 1..:rand.uniform(20), do: random_iodata(depth - 1)
      1 -> []
      2 -> (:rand.uniform(256) - 1) |> List.wrap()
      3 -> :rand.bytes(:rand.uniform(200) - 1)
      4 -> :rand.bytes(:rand.uniform(5_000))
    end
  end

  describe "a timeout of write/3" do
    test "returns what was not written, and the rest can be written later" do
      for data <- [
            :binary.copy("x", 1_000_000),
            List.duplicate("0123456789", 100_000),
            for(n <- 1..300_000, do: [Integer.to_string(n), ?\n])
          ] do
        {:ok, p} = Exile.Process.start_link(["cat"])
        {:error, {:timeout, rest}} = Exile.Process.write(p, data, 20)
        assert IO.iodata_length(rest) in 1..(IO.iodata_length(data) - 1)
        writer = Task.async(fn -> hand_over_and_write(p, rest) end)
        assert read_all(p) == IO.iodata_to_binary(data)
        assert Task.await(writer) == :ok
        assert Exile.Process.await_exit(p) == {:ok, 0}
        assert Process.info(self(), :messages) == {:messages, []}
      end
    end

    defp hand_over_and_write(p, data) do
      :ok = Exile.Process.change_pipe_owner(p, :stdin, self())
      Exile.Process.write(p, data, 60_000)
    end

    test "of nothing writes what there is room for" do
      {:ok, p} = Exile.Process.start_link(["sleep", "60"])
      assert Exile.Process.write(p, "abc", 0) == :ok
      {:error, {:timeout, rest}} = Exile.Process.write(p, :binary.copy("x", 10_000_000), 0)
      {:error, {:timeout, again}} = Exile.Process.write(p, rest, 0)
      assert IO.iodata_length(again) == IO.iodata_length(rest)
      :ok = Exile.Process.kill(p, :sigkill)
      eventually(fn -> not Exile.Process.alive?(p) end)
      assert Exile.Process.write(p, "x", 0) == {:error, :epipe}
      assert Exile.Process.await_exit(p) == {:ok, 137}
    end

    test "is milliseconds or :infinity" do
      {:ok, p} = Exile.Process.start_link(["cat"])

      for bad <- [-1, 1.5, nil, "1", 0x1_0000_0000] do
        message = "expected a timeout in milliseconds or :infinity, got: #{inspect(bad)}"
        assert_raise ArgumentError, message, fn -> Exile.Process.write(p, "x", bad) end
      end

      assert Exile.Process.await_exit(p) == {:ok, 0}
    end
  end
end
