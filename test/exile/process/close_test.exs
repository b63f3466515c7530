defmodule Exile.Process.CloseTest do
  use Exile.Case

  import Exile.ProcessHelpers

  @not_ours {:error, :pipe_closed_or_invalid_caller}

  describe "close_stdin/1" do
    test "shows the command end-of-file after what was written" do
      {:ok, p} = Exile.Process.start_link(["wc", "-c"])
      :ok = Exile.Process.write(p, "12345")
      assert Exile.Process.close_stdin(p) == :ok
      assert read_all(p) =~ ~r/^ *5\n$/
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end

    test "leaves the outputs open" do
      {:ok, p} = Exile.Process.start_link(sh("cat; echo out; echo err >&2"), stderr: :consume)
      :ok = Exile.Process.close_stdin(p)
      assert Exile.Process.read(p) == {:ok, "out\n"}
      assert Exile.Process.read_stderr(p) == {:ok, "err\n"}
      Exile.Process.await_exit(p)
    end

    test "works on a pipe that a write has filled" do
      {:ok, p} = Exile.Process.start_link(["sleep", "60"])

      filler =
        waiting_task(p, :stdin, fn -> Exile.Process.write(p, :binary.copy("x", 1_000_000)) end)

      :ok = Exile.Process.change_pipe_owner(p, :stdin, self())
      assert Exile.Process.close_stdin(p) == :ok
      assert Task.await(filler) == @not_ours
    end
  end

  describe "close_stdout/1" do
    test "gives a command that goes on writing SIGPIPE" do
      {:ok, p} = Exile.Process.start_link(["yes"])
      {:ok, _} = Exile.Process.read(p)
      assert Exile.Process.close_stdout(p) == :ok
      eventually(fn -> Exile.Process.os_pid(p) == :undefined end)
      assert Exile.Process.await_exit(p) == {:ok, 128 + 13}
    end

    test "leaves the other pipes open" do
      {:ok, p} = Exile.Process.start_link(sh("cat >&2"), stderr: :consume)
      :ok = Exile.Process.close_stdout(p)
      :ok = Exile.Process.write(p, "through")
      assert Exile.Process.read_stderr(p) == {:ok, "through"}
      Exile.Process.await_exit(p)
    end
  end

  describe "close_stderr/1" do
    test "gives a command that goes on writing SIGPIPE, and leaves the other pipes open" do
      {:ok, p} = Exile.Process.start_link(sh("(yes >&2; echo $?) | cat"), stderr: :consume)
      assert Exile.Process.close_stderr(p) == :ok
      # A shell reports with 141 that signal 13 ended a program.
      assert read_lines(p, 1) == ["141"]
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end

    test "is refused if standard error is not consumed" do
      {:ok, p} = Exile.Process.start_link(["true"])
      assert Exile.Process.close_stderr(p) == @not_ours
      Exile.Process.await_exit(p)
    end
  end

  describe "close_stdin/1, close_stdout/1 and close_stderr/1" do
    @functions [
      &Exile.Process.close_stdin/1,
      &Exile.Process.close_stdout/1,
      &Exile.Process.close_stderr/1
    ]

    test "are :ok once, and then refused" do
      {:ok, p} = Exile.Process.start_link(["cat"], stderr: :consume)

      for close <- @functions do
        assert close.(p) == :ok
        assert close.(p) == @not_ours
        assert close.(p) == @not_ours
      end

      assert Exile.Process.await_exit(p) == {:ok, 0}
    end

    test "are refused to a process that does not own the pipe, which stays open" do
      {:ok, p} = Exile.Process.start_link(["cat"], stderr: :consume)
      task = Task.async(fn -> for close <- @functions, do: close.(p) end)
      assert Task.await(task) == [@not_ours, @not_ours, @not_ours]
      :ok = Exile.Process.write(p, "still open")
      assert Exile.Process.read(p) == {:ok, "still open"}
      Exile.Process.await_exit(p)
    end

    test "are :ok after the command has ended, and refused after await_exit/2, which closes" do
      {:ok, p} = Exile.Process.start_link(["true"], stderr: :consume)
      eventually(fn -> Exile.Process.os_pid(p) == :undefined end)
      for close <- @functions, do: assert(close.(p) == :ok)
      Exile.Process.await_exit(p)

      {:ok, p} = Exile.Process.start_link(["true"], stderr: :consume)
      Exile.Process.await_exit(p)
      for close <- @functions, do: assert(close.(p) == @not_ours)
    end
  end
end
