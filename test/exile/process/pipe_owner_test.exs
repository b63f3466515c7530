defmodule Exile.Process.PipeOwnerTest do
  use Exile.Case

  import Exile.ProcessHelpers

  alias Exile.Process, as: Command

  @not_ours {:error, :pipe_closed_or_invalid_caller}

  # Calls the functions that are sent to it.
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

  # By the external form of a pid: node name, number, serial, creation.
  defp remote_pid do
    :erlang.binary_to_term(<<131, 88, 119, 3, "x@y", 1::32, 0::32, 1::32>>)
  end

  describe "change_pipe_owner/3" do
    test "lets another process read, write and close, and the old owner no more" do
      {:ok, p} = Command.start_link(["cat"], stderr: :consume)
      worker = worker()

      assert Command.change_pipe_owner(p, :stdin, worker) == :ok
      assert Command.write(p, "x") == @not_ours
      assert call(worker, fn -> Command.write(p, "hi") end) == :ok

      assert Command.change_pipe_owner(p, :stdout, worker) == :ok
      assert Command.read(p) == @not_ours
      assert call(worker, fn -> Command.read(p) end) == {:ok, "hi"}

      assert Command.close_stdin(p) == @not_ours
      assert call(worker, fn -> Command.close_stdin(p) end) == :ok

      assert Command.change_pipe_owner(p, :stderr, worker) == :ok
      assert Command.read_stderr(p) == @not_ours
      assert call(worker, fn -> Command.read_stderr(p) end) == :eof

      stop(worker)
      Command.await_exit(p)
    end

    test "moves one pipe and leaves the others" do
      {:ok, p} = Command.start_link(["cat"])
      worker = worker()
      :ok = Command.change_pipe_owner(p, :stdin, worker)
      assert call(worker, fn -> Command.read(p) end) == @not_ours
      assert call(worker, fn -> Command.write(p, "hi") end) == :ok
      assert Command.read(p) == {:ok, "hi"}
      stop(worker)
      Command.await_exit(p)
    end

    test "moves a pipe back and forth, as often as one likes" do
      {:ok, p} = Command.start_link(["cat"])
      workers = [self() | for(_ <- 1..3, do: worker())]

      for n <- 1..200 do
        from = Enum.random(workers)
        :ok = Command.change_pipe_owner(p, :stdin, from)
        to = Enum.random(workers)
        :ok = Command.change_pipe_owner(p, :stdout, to)
        here? = &(&1 == self())

        write = fn -> Command.write(p, "#{n}") end
        assert :ok == if(here?.(from), do: write.(), else: call(from, write))
        read = fn -> Command.read(p) end
        assert {:ok, "#{n}"} == if(here?.(to), do: read.(), else: call(to, read))
      end

      # Only the last of them count as owners.
      :ok = Command.change_pipe_owner(p, :stdin, self())
      :ok = Command.change_pipe_owner(p, :stdout, self())
      for worker <- workers, worker != self(), do: stop(worker)
      assert Command.write(p, "alone") == :ok
      assert Command.read(p) == {:ok, "alone"}
      Command.await_exit(p)
    end

    test "may be called by any process, for any other" do
      {:ok, p} = Command.start_link(["cat"])
      [stranger, worker] = [worker(), worker()]
      assert call(stranger, fn -> Command.change_pipe_owner(p, :stdin, worker) end) == :ok
      assert call(worker, fn -> Command.write(p, "hi") end) == :ok
      assert call(stranger, fn -> Command.change_pipe_owner(p, :stdin, stranger) end) == :ok
      assert call(stranger, fn -> Command.write(p, "ho") end) == :ok
      for process <- [stranger, worker], do: stop(process)
      Command.await_exit(p)
    end

    test "to the caller, who owns it, changes nothing" do
      {:ok, p} = Command.start_link(["cat"])
      for _ <- 1..10, do: assert(Command.change_pipe_owner(p, :stdin, self()) == :ok)
      assert Command.write(p, "hi") == :ok
      assert Command.read(p) == {:ok, "hi"}
      Command.await_exit(p)
    end

    test "to the process that waits in a read leaves it waiting" do
      {:ok, p} = Command.start_link(["cat"])
      reader = waiting_task(p, :stdout, fn -> Command.read(p) end)
      for _ <- 1..10, do: assert(Command.change_pipe_owner(p, :stdout, reader.pid) == :ok)
      :ok = Command.write(p, "hi")
      assert Task.await(reader) == {:ok, "hi"}
      Command.await_exit(p)
    end

    test "to a dead process closes the pipe" do
      {:ok, p} = Command.start_link(["cat"])
      assert Command.change_pipe_owner(p, :stdin, dead_process()) == :ok
      assert Command.read(p) == :eof
      assert Command.write(p, "x") == @not_ours
      assert Command.change_pipe_owner(p, :stdin, self()) == @not_ours
      assert Command.await_exit(p) == {:ok, 0}
    end

    test "is refused for a closed pipe, and for one that is none" do
      {:ok, p} = Command.start_link(["cat"])
      :ok = Command.close_stdin(p)
      assert Command.change_pipe_owner(p, :stdin, self()) == @not_ours
      assert Command.change_pipe_owner(p, :stderr, self()) == @not_ours
      Command.await_exit(p)
      assert Command.change_pipe_owner(p, :stdout, self()) == @not_ours
    end

    test "works on a command that has ended: what it wrote can be read by the new owner" do
      {:ok, p} = Command.start_link(["echo", "bye"])
      eventually(fn -> Command.os_pid(p) == :undefined end)
      worker = worker()
      assert Command.change_pipe_owner(p, :stdout, worker) == :ok
      assert call(worker, fn -> Command.read(p) end) == {:ok, "bye\n"}
      assert call(worker, fn -> Command.read(p) end) == :eof
      stop(worker)
      Command.await_exit(p)
    end

    test "of anything but a pipe and a process of this node raises" do
      {:ok, p} = Command.start_link(["cat"])

      for bad <- [:stdio, "stdin", nil, 0] do
        message = "expected :stdin, :stdout or :stderr, got: #{inspect(bad)}"
        assert_raise ArgumentError, message, fn -> Command.change_pipe_owner(p, bad, self()) end
      end

      for bad <- [:init, nil, make_ref(), remote_pid()] do
        message = "expected the pid of a process on this node, got: #{inspect(bad)}"
        assert_raise ArgumentError, message, fn -> Command.change_pipe_owner(p, :stdin, bad) end
      end

      assert Command.write(p, "still mine") == :ok
      Command.await_exit(p)
    end
  end

  describe "the owner of a pipe" do
    test "takes the pipe along when it returns, raises or is killed: the command sees end-of-file" do
      for die <- [fn -> :ok end, fn -> exit(:reason) end, fn -> Process.exit(self(), :kill) end] do
        {:ok, p} = Command.start_link(["cat"])
        test = self()

        {pid, monitor} =
          spawn_monitor(fn ->
            :ok = Command.change_pipe_owner(p, :stdin, self())
            :ok = Command.write(p, "last words")
            send(test, :written)
            receive do: (:die -> die.())
          end)

        assert_receive :written, 5_000
        send(pid, :die)
        assert read_all(p) == "last words"
        assert_receive {:DOWN, ^monitor, _, _, _}
        assert Command.write(p, "x") == @not_ours
        assert Command.await_exit(p) == {:ok, 0}
      end
    end

    test "of an output takes it along: a command that goes on writing gets SIGPIPE" do
      {:ok, p} = Command.start_link(["yes"])

      task =
        Task.async(fn ->
          :ok = Command.change_pipe_owner(p, :stdout, self())
          Command.read(p)
        end)

      assert {:ok, "y\n" <> _} = Task.await(task)
      eventually(fn -> Command.os_pid(p) == :undefined end)
      assert Command.await_exit(p) == {:ok, 141}
    end

    test "takes it along when it dies waiting" do
      {:ok, p} = Command.start_link(["cat"])
      reader = waiting_task(p, :stdin, fn -> Command.write(p, :binary.copy("x", 10_000_000)) end)
      Task.shutdown(reader, :brutal_kill)
      assert byte_size(read_all(p)) > 0
      assert Command.await_exit(p) == {:ok, 0}

      {:ok, p} = Command.start_link(["sleep", "60"])
      reader = waiting_task(p, :stdout, fn -> Command.read(p) end)
      Task.shutdown(reader, :brutal_kill)
      eventually(fn -> Command.change_pipe_owner(p, :stdout, self()) == @not_ours end)
    end

    test "that handed it on may die: the pipe is the new owner's" do
      {:ok, p} = Command.start_link(["cat"])
      worker = worker()
      :ok = Command.change_pipe_owner(p, :stdin, worker)
      :ok = Command.change_pipe_owner(p, :stdin, self())
      stop(worker)
      assert Command.write(p, "mine") == :ok
      assert Command.read(p) == {:ok, "mine"}
      Command.await_exit(p)
    end

    test "survives the owner of the command, and is told that the command has ended" do
      test = self()

      {owner, monitor} =
        spawn_monitor(fn ->
          {:ok, p} = Command.start_link(sh("echo hi; exec sleep 60"))
          :ok = Command.change_pipe_owner(p, :stdout, test)
          :ok = Command.change_pipe_owner(p, :stdin, test)
          send(test, {:started, p})
          receive do: (:die -> :ok)
        end)

      assert_receive {:started, p}, 5_000
      assert read_lines(p, 1) == ["hi"]
      send(owner, :die)
      assert_receive {:DOWN, ^monitor, _, _, _}
      assert Command.read(p) == :eof
      eventually(fn -> Command.os_pid(p) == :undefined end)
      assert Command.write(p, "x") == {:error, :epipe}
      assert Command.close_stdin(p) == :ok
      assert Command.close_stdout(p) == :ok
    end
  end
end
