defmodule Exile.Process.PipeOwnerTest do
  use Exile.Case

  import Exile.ProcessHelpers

  @not_ours {:error, :pipe_closed_or_invalid_caller}

  # Starts a process that calls the functions sent to it.
  defp worker do
    test = self()
    spawn_link(fn -> work(test) end)
  end

  defp work(test) do
    receive do
      {:call, fun} ->
        send(test, {:result, self(), fun.()})
        work(test)

      :stop ->
        :ok
    end
  end

  defp call(worker, fun) do
    send(worker, {:call, fun})
    assert_receive {:result, ^worker, result}, 5_000
    result
  end

  defp stop(worker) do
    monitor = Process.monitor(worker)
    send(worker, :stop)
    assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
  end

  # Decodes the external form of a pid: node name, number, serial, creation.
  defp remote_pid do
    :erlang.binary_to_term(<<131, 88, 119, 3, "x@y", 1::32, 0::32, 1::32>>)
  end

  describe "change_pipe_owner/3" do
    test "lets only the new owner read, write and close" do
      {:ok, p} = Exile.Process.start_link(["cat"], stderr: :consume)
      worker = worker()

      assert Exile.Process.change_pipe_owner(p, :stdin, worker) == :ok
      assert Exile.Process.write(p, "x") == @not_ours
      assert call(worker, fn -> Exile.Process.write(p, "hi") end) == :ok

      assert Exile.Process.change_pipe_owner(p, :stdout, worker) == :ok
      assert Exile.Process.read(p) == @not_ours
      assert call(worker, fn -> Exile.Process.read(p) end) == {:ok, "hi"}

      assert Exile.Process.close_stdin(p) == @not_ours
      assert call(worker, fn -> Exile.Process.close_stdin(p) end) == :ok

      assert Exile.Process.change_pipe_owner(p, :stderr, worker) == :ok
      assert Exile.Process.read_stderr(p) == @not_ours
      assert call(worker, fn -> Exile.Process.read_stderr(p) end) == :eof

      stop(worker)
      Exile.Process.await_exit(p)
    end

    test "moves one pipe and leaves the others" do
      {:ok, p} = Exile.Process.start_link(["cat"])
      worker = worker()
      :ok = Exile.Process.change_pipe_owner(p, :stdin, worker)
      assert call(worker, fn -> Exile.Process.read(p) end) == @not_ours
      assert call(worker, fn -> Exile.Process.write(p, "hi") end) == :ok
      assert Exile.Process.read(p) == {:ok, "hi"}
      stop(worker)
      Exile.Process.await_exit(p)
    end

    test "moves a pipe back and forth any number of times" do
      {:ok, p} = Exile.Process.start_link(["cat"])
      workers = [self() | for(_ <- 1..3, do: worker())]

      for n <- 1..200 do
        from = Enum.random(workers)
        :ok = Exile.Process.change_pipe_owner(p, :stdin, from)
        to = Enum.random(workers)
        :ok = Exile.Process.change_pipe_owner(p, :stdout, to)
        here? = &(&1 == self())

        write = fn -> Exile.Process.write(p, "#{n}") end
        assert :ok == if(here?.(from), do: write.(), else: call(from, write))
        read = fn -> Exile.Process.read(p) end
        assert {:ok, "#{n}"} == if(here?.(to), do: read.(), else: call(to, read))
      end

      # Only the last owners matter.
      :ok = Exile.Process.change_pipe_owner(p, :stdin, self())
      :ok = Exile.Process.change_pipe_owner(p, :stdout, self())
      for worker <- workers, worker != self(), do: stop(worker)
      assert Exile.Process.write(p, "alone") == :ok
      assert Exile.Process.read(p) == {:ok, "alone"}
      Exile.Process.await_exit(p)
    end

    test "may be called by any process, for any other" do
      {:ok, p} = Exile.Process.start_link(["cat"])
      [stranger, worker] = [worker(), worker()]
      assert call(stranger, fn -> Exile.Process.change_pipe_owner(p, :stdin, worker) end) == :ok
      assert call(worker, fn -> Exile.Process.write(p, "hi") end) == :ok
      assert call(stranger, fn -> Exile.Process.change_pipe_owner(p, :stdin, stranger) end) == :ok
      assert call(stranger, fn -> Exile.Process.write(p, "ho") end) == :ok
      for process <- [stranger, worker], do: stop(process)
      Exile.Process.await_exit(p)
    end

    test "to the caller that owns it already changes nothing" do
      {:ok, p} = Exile.Process.start_link(["cat"])
      for _ <- 1..10, do: assert(Exile.Process.change_pipe_owner(p, :stdin, self()) == :ok)
      assert Exile.Process.write(p, "hi") == :ok
      assert Exile.Process.read(p) == {:ok, "hi"}
      Exile.Process.await_exit(p)
    end

    test "to a process that waits in a read leaves it waiting" do
      {:ok, p} = Exile.Process.start_link(["cat"])
      reader = waiting_task(p, :stdout, fn -> Exile.Process.read(p) end)
      for _ <- 1..10, do: assert(Exile.Process.change_pipe_owner(p, :stdout, reader.pid) == :ok)
      :ok = Exile.Process.write(p, "hi")
      assert Task.await(reader) == {:ok, "hi"}
      Exile.Process.await_exit(p)
    end

    test "to a dead process closes the pipe" do
      {:ok, p} = Exile.Process.start_link(["cat"])
      assert Exile.Process.change_pipe_owner(p, :stdin, dead_process()) == :ok
      assert Exile.Process.read(p) == :eof
      assert Exile.Process.write(p, "x") == @not_ours
      assert Exile.Process.change_pipe_owner(p, :stdin, self()) == @not_ours
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end

    test "is refused for a closed pipe and for a pipe that does not exist" do
      {:ok, p} = Exile.Process.start_link(["cat"])
      :ok = Exile.Process.close_stdin(p)
      assert Exile.Process.change_pipe_owner(p, :stdin, self()) == @not_ours
      assert Exile.Process.change_pipe_owner(p, :stderr, self()) == @not_ours
      Exile.Process.await_exit(p)
      assert Exile.Process.change_pipe_owner(p, :stdout, self()) == @not_ours
    end

    test "works after the command has ended: the new owner can read the output" do
      {:ok, p} = Exile.Process.start_link(["echo", "bye"])
      eventually(fn -> Exile.Process.os_pid(p) == :undefined end)
      worker = worker()
      assert Exile.Process.change_pipe_owner(p, :stdout, worker) == :ok
      assert call(worker, fn -> Exile.Process.read(p) end) == {:ok, "bye\n"}
      assert call(worker, fn -> Exile.Process.read(p) end) == :eof
      stop(worker)
      Exile.Process.await_exit(p)
    end

    test "of anything but a pipe and a process of this node raises" do
      {:ok, p} = Exile.Process.start_link(["cat"])

      for bad <- [:stdio, "stdin", nil, 0] do
        message = "expected :stdin, :stdout or :stderr, got: #{inspect(bad)}"

        assert_raise ArgumentError, message, fn ->
          Exile.Process.change_pipe_owner(p, bad, self())
        end
      end

      for bad <- [:init, nil, make_ref(), remote_pid()] do
        message = "expected the pid of a process on this node, got: #{inspect(bad)}"

        assert_raise ArgumentError, message, fn ->
          Exile.Process.change_pipe_owner(p, :stdin, bad)
        end
      end

      assert Exile.Process.write(p, "still mine") == :ok
      Exile.Process.await_exit(p)
    end
  end

  describe "the owner of a pipe" do
    test "closes it by returning, raising or being killed: the command sees end-of-file" do
      for die <- [fn -> :ok end, fn -> exit(:reason) end, fn -> Process.exit(self(), :kill) end] do
        {:ok, p} = Exile.Process.start_link(["cat"])
        test = self()

        {pid, monitor} =
          spawn_monitor(fn ->
            :ok = Exile.Process.change_pipe_owner(p, :stdin, self())
            :ok = Exile.Process.write(p, "last words")
            send(test, :written)
            receive do: (:die -> die.())
          end)

        assert_receive :written, 5_000
        send(pid, :die)
        assert read_all(p) == "last words"
        assert_receive {:DOWN, ^monitor, _, _, _}
        assert Exile.Process.write(p, "x") == @not_ours
        assert Exile.Process.await_exit(p) == {:ok, 0}
      end
    end

    test "of an output closes it by ending: a command that goes on writing gets SIGPIPE" do
      {:ok, p} = Exile.Process.start_link(["yes"])

      task =
        Task.async(fn ->
          :ok = Exile.Process.change_pipe_owner(p, :stdout, self())
          Exile.Process.read(p)
        end)

      assert {:ok, "y\n" <> _} = Task.await(task)
      eventually(fn -> Exile.Process.os_pid(p) == :undefined end)
      assert Exile.Process.await_exit(p) == {:ok, 141}
    end

    test "closes it by dying while it waits" do
      {:ok, p} = Exile.Process.start_link(["cat"])

      reader =
        waiting_task(p, :stdin, fn -> Exile.Process.write(p, :binary.copy("x", 10_000_000)) end)

      Task.shutdown(reader, :brutal_kill)
      assert byte_size(read_all(p)) > 0
      assert Exile.Process.await_exit(p) == {:ok, 0}

      {:ok, p} = Exile.Process.start_link(["sleep", "60"])
      reader = waiting_task(p, :stdout, fn -> Exile.Process.read(p) end)
      Task.shutdown(reader, :brutal_kill)
      eventually(fn -> Exile.Process.change_pipe_owner(p, :stdout, self()) == @not_ours end)
    end

    test "may die after passing it on: the pipe is the new owner's" do
      {:ok, p} = Exile.Process.start_link(["cat"])
      worker = worker()
      :ok = Exile.Process.change_pipe_owner(p, :stdin, worker)
      :ok = Exile.Process.change_pipe_owner(p, :stdin, self())
      stop(worker)
      assert Exile.Process.write(p, "mine") == :ok
      assert Exile.Process.read(p) == {:ok, "mine"}
      Exile.Process.await_exit(p)
    end

    test "survives the owner of the command, and sees that the command has ended" do
      test = self()

      {owner, monitor} =
        spawn_monitor(fn ->
          {:ok, p} = Exile.Process.start_link(sh("echo hi; exec sleep 60"))
          :ok = Exile.Process.change_pipe_owner(p, :stdout, test)
          :ok = Exile.Process.change_pipe_owner(p, :stdin, test)
          send(test, {:started, p})
          receive do: (:die -> :ok)
        end)

      assert_receive {:started, p}, 5_000
      assert read_lines(p, 1) == ["hi"]
      send(owner, :die)
      assert_receive {:DOWN, ^monitor, _, _, _}
      assert Exile.Process.read(p) == :eof
      eventually(fn -> Exile.Process.os_pid(p) == :undefined end)
      assert Exile.Process.write(p, "x") == {:error, :epipe}
      assert Exile.Process.close_stdin(p) == :ok
      assert Exile.Process.close_stdout(p) == :ok
    end
  end
end
