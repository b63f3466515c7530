defmodule Exile.Process.ReadTest do
  use Exile.Case

  import Exile.ProcessHelpers

  @not_ours {:error, :pipe_closed_or_invalid_caller}

  # Prints "early" on both outputs. A background process keeps the outputs open, waits for a line
  # on standard input, prints "late" on both and ends.
  @late "exec 3<&0; (read line <&3; echo late; echo late >&2) & echo early; echo early >&2"

  # Prints the pid of a background process that keeps the outputs open, and continues.
  @holder "sleep 60 & echo $!; exec sleep 60"

  # The three functions, and the pipes that each reads.
  @functions [
    {&Exile.Process.read/1, [:stdout]},
    {&Exile.Process.read_stderr/1, [:stderr]},
    {&Exile.Process.read_any/1, [:stdout, :stderr]}
  ]

  defp with_each(fun) do
    for {read, pipes} <- @functions, do: fun.(read, pipes)
  end

  describe "read/3" do
    test "reads what is available" do
      {:ok, p} = Exile.Process.start_link(sh("echo one; read line; echo two"))
      assert Exile.Process.read(p) == {:ok, "one\n"}
      :ok = Exile.Process.write(p, "\n")
      assert Exile.Process.read(p) == {:ok, "two\n"}
      assert Exile.Process.read(p) == :eof
      Exile.Process.await_exit(p)
    end

    test "reads every byte" do
      every_byte = :binary.list_to_bin(Enum.to_list(0..255))
      {:ok, p} = Exile.Process.start_link(["cat"])
      :ok = Exile.Process.write(p, every_byte)
      assert Exile.Process.read(p) == {:ok, every_byte}
      Exile.Process.await_exit(p)
    end

    test "waits until data is available" do
      {:ok, p} = Exile.Process.start_link(["cat"])
      reader = waiting_task(p, :stdout, fn -> Exile.Process.read(p) end)
      :ok = Exile.Process.write(p, "at last")
      assert Task.await(reader) == {:ok, "at last"}
      Exile.Process.await_exit(p)
    end

    test "reads single bytes" do
      {:ok, p} = Exile.Process.start_link(["printf", "abc"])
      assert Exile.Process.read(p, 1) == {:ok, "a"}
      assert Exile.Process.read(p, 1) == {:ok, "b"}
      assert Exile.Process.read(p, 1) == {:ok, "c"}
      assert Exile.Process.read(p, 1) == :eof
      Exile.Process.await_exit(p)
    end

    test "reads exactly what is available, even when more is asked for" do
      {:ok, p} = Exile.Process.start_link(["cat"])
      :ok = Exile.Process.write(p, "abcd")
      assert Exile.Process.read(p, 4) == {:ok, "abcd"}
      :ok = Exile.Process.write(p, "abcd")
      assert Exile.Process.read(p, 5) == {:ok, "abcd"}
      :ok = Exile.Process.write(p, "abcd")
      assert Exile.Process.read(p, 1_000_000_000) == {:ok, "abcd"}
      Exile.Process.await_exit(p)
    end

    test "never returns more than asked for, 65,535 bytes by default, or an empty binary" do
      {:ok, p} = Exile.Process.start_link(["head", "-c", "3000000", "/dev/zero"])
      assert Enum.max(sizes(fn -> Exile.Process.read(p) end)) in 1..65_535
      Exile.Process.await_exit(p)

      for max <- [1_000, 65_536, 65_537, 10_000_000] do
        {:ok, p} = Exile.Process.start_link(["head", "-c", "300000", "/dev/zero"])
        sizes = sizes(fn -> Exile.Process.read(p, max) end)
        assert Enum.sum(sizes) == 300_000
        assert Enum.min(sizes) > 0 and Enum.max(sizes) <= max
        Exile.Process.await_exit(p)
      end
    end

    test "keeps every byte and their order, whatever sizes are asked for" do
      data = :rand.bytes(1_000_000)
      {:ok, p} = Exile.Process.start_link(["cat"])

      writer =
        Task.async(fn ->
          :ok = Exile.Process.change_pipe_owner(p, :stdin, self())
          :ok = Exile.Process.write(p, data)
          Exile.Process.close_stdin(p)
        end)

      read =
        Stream.repeatedly(fn ->
          Exile.Process.read(p, :rand.uniform(Enum.random([10, 5_000, 200_000])))
        end)
        |> Enum.take_while(&(&1 != :eof))
        |> Enum.map_join(fn {:ok, piece} -> piece end)

      assert read == data
      assert Task.await(writer) == :ok
      Exile.Process.await_exit(p)
    end

    test "with a maximum that is not a positive integer raises" do
      {:ok, p} = Exile.Process.start_link(["echo"])

      for bad <- [0, -1, 1.0, nil, :infinity, "1"] do
        message = ~r/positive integer, got: #{Regex.escape(inspect(bad))}/
        assert_raise ArgumentError, message, fn -> Exile.Process.read(p, bad) end
        assert_raise ArgumentError, message, fn -> Exile.Process.read_stderr(p, bad) end
        assert_raise ArgumentError, message, fn -> Exile.Process.read_any(p, bad) end
      end

      Exile.Process.await_exit(p)
    end

    test "takes a maximum of any size" do
      {:ok, p} = Exile.Process.start_link(["echo"], stderr: :consume)
      assert Exile.Process.read(p, Integer.pow(10, 30)) == {:ok, "\n"}
      assert Exile.Process.read_stderr(p, Integer.pow(10, 30)) == :eof
      assert Exile.Process.read_any(p, Integer.pow(10, 30)) == :eof
      Exile.Process.await_exit(p)
    end

    test "blocks a command that writes more than the pipe holds" do
      {:ok, p} =
        Exile.Process.start_link(sh("head -c 10000000 /dev/zero; echo done >&2"), stderr: :consume)

      # The command cannot finish before its output is read.
      {:ok, piece} = Exile.Process.read(p)
      stderr = waiting_task(p, :stderr, fn -> Exile.Process.read_stderr(p) end)
      assert byte_size(piece) + Enum.sum(sizes(fn -> Exile.Process.read(p) end)) == 10_000_000
      assert Task.await(stderr) == {:ok, "done\n"}
      Exile.Process.await_exit(p)
    end
  end

  describe "read_stderr/3" do
    test "reads standard error, apart from standard output" do
      {:ok, p} = Exile.Process.start_link(sh("echo out; echo err >&2"), stderr: :consume)
      assert Exile.Process.read_stderr(p) == {:ok, "err\n"}
      assert Exile.Process.read_stderr(p) == :eof
      assert Exile.Process.read(p) == {:ok, "out\n"}
      Exile.Process.await_exit(p)
    end

    test "reads at most what was asked for" do
      {:ok, p} = Exile.Process.start_link(sh("printf abc >&2"), stderr: :consume)
      assert Exile.Process.read_stderr(p, 1) == {:ok, "a"}
      assert Exile.Process.read_stderr(p, 2) == {:ok, "bc"}
      assert Exile.Process.read_stderr(p, 2) == :eof
      Exile.Process.await_exit(p)
    end
  end

  describe "read_any/3" do
    test "reads from the pipe that has data, and returns its name" do
      {:ok, p} =
        Exile.Process.start_link(sh("echo out; read line; echo err >&2"), stderr: :consume)

      assert Exile.Process.read_any(p) == {:ok, {:stdout, "out\n"}}
      :ok = Exile.Process.write(p, "\n")
      assert Exile.Process.read_any(p) == {:ok, {:stderr, "err\n"}}
      assert Exile.Process.read_any(p) == :eof
      assert Exile.Process.read_any(p) == :eof
      Exile.Process.await_exit(p)
    end

    test "wakes for either pipe, and leaves no message from the other" do
      for {number, name} <- [{"1", :stdout}, {"2", :stderr}] do
        {:ok, p} =
          Exile.Process.start_link(sh("read line; echo hi >&#{number}"), stderr: :consume)

        reader =
          waiting_task(p, [:stdout, :stderr], fn -> {Exile.Process.read_any(p), messages()} end)

        :ok = Exile.Process.write(p, "\n")
        assert Task.await(reader) == {{:ok, {name, "hi\n"}}, []}
        Exile.Process.await_exit(p)
      end
    end

    test "takes no data from a process that became the owner of one pipe meanwhile" do
      script = "sleep 60 & echo $!; read line; echo out; exec sleep 60"
      {:ok, p} = Exile.Process.start_link(sh(script), stderr: :consume)
      [holder] = read_numbers(p, 1)

      first =
        waiting_task(p, [:stdout, :stderr], fn -> {Exile.Process.read_any(p), messages()} end)

      # The first process is suspended, so it learns of both the output and the loss of a pipe
      # when the second one already waits.
      :erlang.suspend_process(first.pid)
      :ok = Exile.Process.write(p, "\n")
      eventually(fn -> Process.info(first.pid, :message_queue_len) == {:message_queue_len, 1} end)
      second = waiting_task(p, :stderr, fn -> {Exile.Process.read_stderr(p), messages()} end)
      :erlang.resume_process(first.pid)
      assert Task.await(first) == {{:ok, {:stdout, "out\n"}}, []}

      :ok = Exile.Process.kill(p, :sigkill)
      assert Task.await(second) == {:eof, []}
      kill_os_process(holder)
    end

    test "reads at most what was asked for" do
      {:ok, p} = Exile.Process.start_link(sh("printf abc >&2"), stderr: :consume)
      assert Exile.Process.read_any(p, 2) == {:ok, {:stderr, "ab"}}
      assert Exile.Process.read_any(p, 2) == {:ok, {:stderr, "c"}}
      Exile.Process.await_exit(p)
    end

    test "continues with one pipe when the other is at end-of-file" do
      {:ok, p} = Exile.Process.start_link(sh("exec 2>&-; read line; echo out"), stderr: :consume)
      :ok = Exile.Process.write(p, "\n")
      assert Exile.Process.read_any(p) == {:ok, {:stdout, "out\n"}}
      assert Exile.Process.read_any(p) == :eof
      Exile.Process.await_exit(p)

      {:ok, p} =
        Exile.Process.start_link(sh("exec 1>&-; read line; echo err >&2"), stderr: :consume)

      :ok = Exile.Process.write(p, "\n")
      assert Exile.Process.read_any(p) == {:ok, {:stderr, "err\n"}}
      assert Exile.Process.read_any(p) == :eof
      Exile.Process.await_exit(p)
    end

    test "continues with one pipe when the other is closed or has another owner" do
      {:ok, p} = Exile.Process.start_link(sh("read line; echo err >&2"), stderr: :consume)
      :ok = Exile.Process.close_stdout(p)
      :ok = Exile.Process.write(p, "\n")
      assert Exile.Process.read_any(p) == {:ok, {:stderr, "err\n"}}
      assert Exile.Process.read_any(p) == :eof
      Exile.Process.await_exit(p)

      {:ok, p} =
        Exile.Process.start_link(sh("read line; echo out; echo err >&2"), stderr: :consume)

      other =
        waiting_task(p, :stderr, fn ->
          {Exile.Process.read_stderr(p), Exile.Process.read_any(p)}
        end)

      :ok = Exile.Process.write(p, "\n")
      assert Exile.Process.read_any(p) == {:ok, {:stdout, "out\n"}}
      assert Exile.Process.read_any(p) == :eof
      assert Task.await(other) == {{:ok, "err\n"}, :eof}
      Exile.Process.await_exit(p)
    end

    test "reads only standard output if standard error is not consumed" do
      {:ok, p} = Exile.Process.start_link(["echo", "out"])
      assert Exile.Process.read_any(p) == {:ok, {:stdout, "out\n"}}
      assert Exile.Process.read_any(p) == :eof
      Exile.Process.await_exit(p)
    end

    test "starves neither of two pipes that always have data" do
      script = "head -c 30000 /dev/zero; head -c 30000 /dev/zero >&2"
      {:ok, p} = Exile.Process.start_link(sh(script), stderr: :consume)
      eventually(fn -> Exile.Process.os_pid(p) == :undefined end)
      tags = for _ <- 1..400, do: p |> Exile.Process.read_any(50) |> elem(1) |> elem(0)
      %{stdout: stdout, stderr: stderr} = Enum.frequencies(tags)
      assert stdout > 100 and stderr > 100
      Exile.Process.await_exit(p)
    end

    test "reads from both outputs when both are flooded" do
      {:ok, p} = Exile.Process.start_link(sh("yes out & exec yes err >&2"), stderr: :consume)
      for tag <- [:stdout, :stderr, :stdout, :stderr], do: wait_for(p, tag)
      assert {:ok, _} = Exile.Process.await_exit(p, 200)
    end

    test "keeps the bytes of each pipe in order" do
      script = "seq 1 20000 & seq 20000 -1 1 >&2; wait"
      {:ok, p} = Exile.Process.start_link(sh(script), stderr: :consume)

      read =
        Stream.repeatedly(fn -> Exile.Process.read_any(p, :rand.uniform(5_000)) end)
        |> Enum.take_while(&(&1 != :eof))
        |> Enum.group_by(fn {:ok, {tag, _}} -> tag end, fn {:ok, {_, piece}} -> piece end)

      assert Enum.join(read.stdout) == Enum.map_join(1..20_000, &"#{&1}\n")
      assert Enum.join(read.stderr) == Enum.map_join(20_000..1//-1, &"#{&1}\n")
      assert_no_message()
      Exile.Process.await_exit(p)
    end
  end

  describe "read/3, read_stderr/3 and read_any/3" do
    test "are :eof at the end, repeatedly" do
      with_each(fn read, _pipes ->
        {:ok, p} = Exile.Process.start_link(["true"], stderr: :consume)
        for _ <- 1..5, do: assert(read.(p) == :eof)
        Exile.Process.await_exit(p)
      end)
    end

    test "are :eof when the command has closed its outputs but still runs" do
      with_each(fn read, _pipes ->
        {:ok, p} = Exile.Process.start_link(sh("exec >&- 2>&-; exec sleep 60"), stderr: :consume)
        for _ <- 1..3, do: assert(read.(p) == :eof)
        assert {:ok, _} = Exile.Process.os_pid(p)
      end)
    end

    test "return what the command wrote before it ended, then :eof" do
      with_each(fn read, _pipes ->
        {:ok, p} = Exile.Process.start_link(sh("echo bye; echo bye >&2"), stderr: :consume)
        eventually(fn -> Exile.Process.os_pid(p) == :undefined end)
        assert {:ok, _} = read.(p)
        Exile.Process.await_exit(p)
      end)
    end

    test "are :eof when the command ends while the reader waits" do
      with_each(fn read, pipes ->
        {:ok, p} = Exile.Process.start_link(["sleep", "60"], stderr: :consume)
        reader = waiting_task(p, pipes, fn -> {read.(p), messages()} end)
        :ok = Exile.Process.kill(p, :sigkill)
        assert Task.await(reader) == {:eof, []}
      end)
    end

    test "are :eof when the command ends, even if a background process holds the pipes" do
      with_each(fn read, pipes ->
        {:ok, p} = Exile.Process.start_link(sh(@holder), stderr: :consume)
        [holder] = read_numbers(p, 1)
        reader = waiting_task(p, pipes, fn -> {read.(p), read.(p), messages()} end)
        :ok = Exile.Process.kill(p, :sigkill)
        assert Task.await(reader) == {:eof, :eof, []}
        assert os_process_alive?(holder)
        kill_os_process(holder)
      end)
    end

    test "do not wait at all when the command has ended and a background process holds the pipes" do
      with_each(fn read, _pipes ->
        {:ok, p} = Exile.Process.start_link(sh("sleep 60 & echo $!; echo >&2"), stderr: :consume)
        eventually(fn -> Exile.Process.os_pid(p) == :undefined end)
        [holder] = read_numbers(p, 1)
        assert Exile.Process.read_stderr(p) == {:ok, "\n"}
        assert read.(p) == :eof
        kill_os_process(holder)
        Exile.Process.await_exit(p)
      end)
    end

    test "return later what a background process writes after the command has ended" do
      {:ok, p} = Exile.Process.start_link(sh(@late), stderr: :consume)
      assert Exile.Process.read(p) == {:ok, "early\n"}
      assert Exile.Process.read_stderr(p) == {:ok, "early\n"}
      assert Exile.Process.read(p) == :eof
      assert Exile.Process.os_pid(p) == :undefined
      assert Exile.Process.write(p, "\n") == :ok

      eventually(fn -> Exile.Process.read(p) == {:ok, "late\n"} end)
      eventually(fn -> Exile.Process.read_any(p) == {:ok, {:stderr, "late\n"}} end)
      assert Exile.Process.read_any(p) == :eof
      Exile.Process.await_exit(p)
    end

    test "return when the pipe gets another owner, which may go on reading" do
      with_each(fn read, pipes ->
        {:ok, p} =
          Exile.Process.start_link(["sh", "-c", "read line; echo hi; echo hi >&2"],
            stderr: :consume
          )

        reader = waiting_task(p, pipes, fn -> {read.(p), messages()} end)
        for pipe <- pipes, do: :ok = Exile.Process.change_pipe_owner(p, pipe, self())
        assert Task.await(reader) == {@not_ours, []}
        :ok = Exile.Process.write(p, "\n")
        assert {:ok, _} = read.(p)
        Exile.Process.await_exit(p)
      end)
    end

    test "return when the pipe that they wait for is taken and closed" do
      with_each(fn read, pipes ->
        {:ok, p} = Exile.Process.start_link(["sleep", "60"], stderr: :consume)
        reader = waiting_task(p, pipes, fn -> {read.(p), messages()} end)

        for pipe <- pipes do
          :ok = Exile.Process.change_pipe_owner(p, pipe, self())
          :ok = close(p, pipe)
        end

        assert Task.await(reader) == {@not_ours, []}
      end)
    end

    test "return when the pipe that they wait for is given to a dead process" do
      with_each(fn read, pipes ->
        {:ok, p} = Exile.Process.start_link(["sleep", "60"], stderr: :consume)
        reader = waiting_task(p, pipes, fn -> {read.(p), messages()} end)
        for pipe <- pipes, do: :ok = Exile.Process.change_pipe_owner(p, pipe, dead_process())
        assert Task.await(reader) == {@not_ours, []}
      end)
    end

    @tag :capture_log
    test "return when the owner of the command dies while they wait" do
      with_each(fn read, pipes ->
        test = self()

        {owner, monitor} =
          spawn_monitor(fn ->
            {:ok, p} = Exile.Process.start_link(["sleep", "60"], stderr: :consume)
            send(test, {:started, p})
            Process.sleep(:infinity)
          end)

        assert_receive {:started, p}, 5_000
        reader = waiting_task(p, pipes, fn -> {read.(p), messages()} end)
        Process.exit(owner, :kill)
        assert Task.await(reader) == {:eof, []}
        assert_receive {:DOWN, ^monitor, _, _, _}
      end)
    end

    test "are refused to a process that does not own the pipe, and no data is lost" do
      with_each(fn read, _pipes ->
        {:ok, p} = Exile.Process.start_link(sh("echo hi; echo hi >&2"), stderr: :consume)
        assert Task.await(Task.async(fn -> read.(p) end)) == @not_ours
        assert {:ok, _} = read.(p)
        Exile.Process.await_exit(p)
      end)
    end

    test "are refused after the pipe is closed" do
      {:ok, p} = Exile.Process.start_link(sh("read line; echo hi; echo hi >&2"), stderr: :consume)
      :ok = Exile.Process.close_stdout(p)
      assert Exile.Process.read(p) == @not_ours
      :ok = Exile.Process.close_stderr(p)
      assert Exile.Process.read_stderr(p) == @not_ours
      assert Exile.Process.read_any(p) == @not_ours
      Exile.Process.await_exit(p)
      assert Exile.Process.read(p) == @not_ours
    end
  end

  describe "a timeout" do
    # The three functions, with the name that each gives to what comes from standard output.
    defp each_with_timeout(fun) do
      fun.(&Exile.Process.read/3, & &1, "")
      fun.(&Exile.Process.read_stderr/3, & &1, " >&2")
      fun.(&Exile.Process.read_any/3, &{:stdout, &1}, "")
      fun.(&Exile.Process.read_any/3, &{:stderr, &1}, " >&2")
    end

    test "returns when nothing has come in time, and loses nothing" do
      each_with_timeout(fn read, tagged, to ->
        {:ok, p} =
          Exile.Process.start_link(sh("read x; echo one#{to}; read x; echo two#{to}"),
            stderr: :consume
          )

        assert read.(p, 100, 0) == {:error, :timeout}
        {time, result} = timed(fn -> read.(p, 100, 50) end)
        assert result == {:error, :timeout}
        assert time in 50..5_000
        :ok = Exile.Process.write(p, "\n")
        assert read.(p, 100, 60_000) == {:ok, tagged.("one\n")}
        assert read.(p, 100, 1) == {:error, :timeout}
        :ok = Exile.Process.write(p, "\n")
        assert read.(p, 2, :infinity) == {:ok, tagged.("tw")}
        assert read.(p, 100, 60_000) == {:ok, tagged.("o\n")}
        assert read.(p, 100, 60_000) == :eof
        assert Exile.Process.await_exit(p) == {:ok, 0}
        assert Process.info(self(), :messages) == {:messages, []}
      end)
    end

    test "of nothing still returns what is there" do
      each_with_timeout(fn read, tagged, to ->
        {:ok, p} = Exile.Process.start_link(sh("echo here#{to}"), stderr: :consume)
        eventually(fn -> not Exile.Process.alive?(p) end)
        assert read.(p, 100, 0) == {:ok, tagged.("here\n")}
        assert read.(p, 100, 0) == :eof
        assert Exile.Process.await_exit(p) == {:ok, 0}
      end)
    end

    test "that passes again and again while output comes loses no byte and leaves no message" do
      for {read, untagged} <- [
            {&Exile.Process.read/3, & &1},
            {&Exile.Process.read_any/3, &elem(&1, 1)}
          ] do
        script = "i=0; while [ $i -lt 300 ]; do echo $i; i=$((i + 1)); done"
        {:ok, p} = Exile.Process.start_link(sh(script), stderr: :consume)
        output = read_with_timeouts(p, read, untagged, [])
        assert output == Enum.map_join(0..299, &"#{&1}\n")
        assert Exile.Process.await_exit(p) == {:ok, 0}
        assert Process.info(self(), :messages) == {:messages, []}
      end
    end

    defp read_with_timeouts(p, read, untagged, read_so_far) do
      case read.(p, 7, :rand.uniform(2) - 1) do
        {:ok, data} -> read_with_timeouts(p, read, untagged, [read_so_far, untagged.(data)])
        {:error, :timeout} -> read_with_timeouts(p, read, untagged, read_so_far)
        :eof -> IO.iodata_to_binary(read_so_far)
      end
    end

    test "is milliseconds or :infinity" do
      {:ok, p} = Exile.Process.start_link(["cat"], stderr: :consume)

      for read <- [&Exile.Process.read/3, &Exile.Process.read_stderr/3, &Exile.Process.read_any/3],
          bad <- [-1, 1.5, nil, "1", 0x1_0000_0000] do
        message = "expected a timeout in milliseconds or :infinity, got: #{inspect(bad)}"
        assert_raise ArgumentError, message, fn -> read.(p, 1, bad) end
      end

      assert Exile.Process.await_exit(p) == {:ok, 0}
    end
  end

  describe "a full mailbox" do
    @unrelated 100_000

    test "does not slow reads, and nothing in it is lost or reordered" do
      assert_not_slowed(&Exile.Process.read/1)
    end

    test "does not slow reads from either pipe, and nothing in it is lost or reordered" do
      assert_not_slowed(&Exile.Process.read_any/1)
    end

    # Compares reads that have to wait, before and after the mailbox is filled. Scanning the
    # mailbox for each wait would make them about thirty times as slow.
    defp assert_not_slowed(read) do
      {:ok, p} = Exile.Process.start_link(["cat"], stderr: :consume)
      reader = self()

      writer =
        Task.async(fn ->
          :ok = Exile.Process.change_pipe_owner(p, :stdin, self())
          send(reader, :ready)
          write_when_waiting(p, reader)
        end)

      assert_receive :ready
      empty = time_of_reads(p, read)
      for n <- 1..@unrelated, do: send(self(), {:unrelated, n})
      full = time_of_reads(p, read)
      Task.shutdown(writer, :brutal_kill)

      assert {:messages, messages} = Process.info(self(), :messages)
      assert messages == for(n <- 1..@unrelated, do: {:unrelated, n})
      assert full < 10 * empty, "#{full} us with a full mailbox, #{empty} us with an empty one"

      for n <- 1..@unrelated, do: assert_received({:unrelated, ^n})
      Exile.Process.await_exit(p)
    end

    defp write_when_waiting(p, reader) do
      case Process.info(reader, [:status, :current_function]) do
        [status: :waiting, current_function: {Exile.Runtime.Pipe, _, _}] ->
          :ok = Exile.Process.write(p, "x")

        _ ->
          :erlang.yield()
      end

      write_when_waiting(p, reader)
    end

    defp time_of_reads(p, read) do
      one = fn -> :timer.tc(fn -> for _ <- 1..100, do: {:ok, _} = read.(p) end) end
      1..10 |> Enum.map(fn _ -> elem(one.(), 0) end) |> Enum.min()
    end
  end

  defp sizes(read) do
    Stream.repeatedly(read)
    |> Enum.take_while(&(&1 != :eof))
    |> Enum.map(fn {:ok, data} -> byte_size(data) end)
  end

  defp wait_for(p, tag) do
    unless match?({:ok, {^tag, _}}, Exile.Process.read_any(p)), do: wait_for(p, tag)
  end

  defp close(p, :stdout), do: Exile.Process.close_stdout(p)
  defp close(p, :stderr), do: Exile.Process.close_stderr(p)

  defp messages do
    {:messages, messages} = Process.info(self(), :messages)
    messages
  end
end
