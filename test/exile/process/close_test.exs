defmodule Exile.Process.CloseTest do
  use Exile.Case

  import Exile.ProcessHelpers

  alias Exile.Process, as: Command

  @not_ours {:error, :pipe_closed_or_invalid_caller}

  describe "close_stdin/1" do
    test "shows the command end-of-file after what was written" do
      {:ok, p} = Command.start_link(["wc", "-c"])
      :ok = Command.write(p, "12345")
      assert Command.close_stdin(p) == :ok
      assert read_all(p) =~ ~r/^ *5\n$/
      assert Command.await_exit(p) == {:ok, 0}
    end

    test "leaves the outputs open" do
      {:ok, p} = Command.start_link(sh("cat; echo out; echo err >&2"), stderr: :consume)
      :ok = Command.close_stdin(p)
      assert Command.read(p) == {:ok, "out\n"}
      assert Command.read_stderr(p) == {:ok, "err\n"}
      Command.await_exit(p)
    end

    test "works on a pipe that a write has filled" do
      {:ok, p} = Command.start_link(["sleep", "60"])
      filler = waiting_task(p, :stdin, fn -> Command.write(p, :binary.copy("x", 1_000_000)) end)
      :ok = Command.change_pipe_owner(p, :stdin, self())
      assert Command.close_stdin(p) == :ok
      assert Task.await(filler) == @not_ours
    end
  end

  describe "close_stdout/1" do
    test "gives a command that goes on writing SIGPIPE" do
      {:ok, p} = Command.start_link(["yes"])
      {:ok, _} = Command.read(p)
      assert Command.close_stdout(p) == :ok
      eventually(fn -> Command.os_pid(p) == :undefined end)
      assert Command.await_exit(p) == {:ok, 128 + 13}
    end

    test "leaves the other pipes open" do
      {:ok, p} = Command.start_link(sh("cat >&2"), stderr: :consume)
      :ok = Command.close_stdout(p)
      :ok = Command.write(p, "through")
      assert Command.read_stderr(p) == {:ok, "through"}
      Command.await_exit(p)
    end
  end

  describe "close_stderr/1" do
    test "gives a command that goes on writing SIGPIPE, and leaves the other pipes open" do
      {:ok, p} = Command.start_link(sh("(yes >&2; echo $?) | cat"), stderr: :consume)
      assert Command.close_stderr(p) == :ok
      # A shell that waits for a program tells its end by signal 13 in this way.
      assert read_lines(p, 1) == ["141"]
      assert Command.await_exit(p) == {:ok, 0}
    end

    test "is refused where standard error is not consumed" do
      {:ok, p} = Command.start_link(["true"])
      assert Command.close_stderr(p) == @not_ours
      Command.await_exit(p)
    end
  end

  describe "close_stdin/1, close_stdout/1 and close_stderr/1" do
    @functions [&Command.close_stdin/1, &Command.close_stdout/1, &Command.close_stderr/1]

    test "are :ok once, and then refused" do
      {:ok, p} = Command.start_link(["cat"], stderr: :consume)

      for close <- @functions do
        assert close.(p) == :ok
        assert close.(p) == @not_ours
        assert close.(p) == @not_ours
      end

      assert Command.await_exit(p) == {:ok, 0}
    end

    test "are refused to a process that does not own the pipe, which stays open" do
      {:ok, p} = Command.start_link(["cat"], stderr: :consume)
      task = Task.async(fn -> for close <- @functions, do: close.(p) end)
      assert Task.await(task) == [@not_ours, @not_ours, @not_ours]
      :ok = Command.write(p, "still open")
      assert Command.read(p) == {:ok, "still open"}
      Command.await_exit(p)
    end

    test "are :ok after the command has ended, and refused after await_exit/2, which closes" do
      {:ok, p} = Command.start_link(["true"], stderr: :consume)
      eventually(fn -> Command.os_pid(p) == :undefined end)
      for close <- @functions, do: assert(close.(p) == :ok)
      Command.await_exit(p)

      {:ok, p} = Command.start_link(["true"], stderr: :consume)
      Command.await_exit(p)
      for close <- @functions, do: assert(close.(p) == @not_ours)
    end
  end
end
