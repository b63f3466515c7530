defmodule Exile.Process.KillTest do
  use Exile.Case

  import Exile.ProcessHelpers

  # The signals that end a program, with their numbers on Linux.
  @ending [
    sighup: 1,
    sigint: 2,
    sigquit: 3,
    sigill: 4,
    sigtrap: 5,
    sigabrt: 6,
    sigbus: 7,
    sigfpe: 8,
    sigkill: 9,
    sigusr1: 10,
    sigsegv: 11,
    sigusr2: 12,
    sigpipe: 13,
    sigalrm: 14,
    sigterm: 15,
    sigstkflt: 16,
    sigxcpu: 24,
    sigxfsz: 25,
    sigvtalrm: 26,
    sigprof: 27,
    sigio: 29,
    sigpwr: 30,
    sigsys: 31
  ]

  describe "kill/2" do
    for {signal, number} <- @ending do
      test "with #{inspect(signal)} ends sleep with status #{128 + number}" do
        # Some signals would leave a core file.
        {:ok, p} = Exile.Process.start_link(sh("ulimit -c 0; echo ready; exec sleep 60"))
        assert read_lines(p, 1) == ["ready"]
        assert Exile.Process.kill(p, unquote(signal)) == :ok
        assert Exile.Process.await_exit(p, :infinity) == {:ok, unquote(128 + number)}
      end
    end

    test "with signals that end nothing leaves the command running" do
      {:ok, p} = Exile.Process.start_link(["cat"])

      for signal <- [:sigcont, :sigchld, :sigurg, :sigwinch] do
        assert Exile.Process.kill(p, signal) == :ok
      end

      :ok = Exile.Process.write(p, "hi")
      assert Exile.Process.read(p) == {:ok, "hi"}
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end

    test "can stop and continue a command" do
      {:ok, p} = Exile.Process.start_link(["cat"])
      {:ok, os_pid} = Exile.Process.os_pid(p)
      assert Exile.Process.kill(p, :sigstop) == :ok
      eventually(fn -> File.read!("/proc/#{os_pid}/stat") =~ ") T " end)
      :ok = Exile.Process.write(p, "hi")
      assert Exile.Process.kill(p, :sigcont) == :ok
      assert Exile.Process.read(p) == {:ok, "hi"}
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end

    test "runs the command's signal handler" do
      {:ok, p} =
        Exile.Process.start_link(
          sh("trap 'echo usr1; exit 7' USR1; echo ready; while :; do sleep 5 & wait; done")
        )

      assert read_lines(p, 1) == ["ready"]
      assert Exile.Process.kill(p, :sigusr1) == :ok
      assert read_lines(p, 1) == ["usr1"]
      assert Exile.Process.await_exit(p) == {:ok, 7}
    end

    test "signals the command alone and not what it started" do
      {:ok, p} = Exile.Process.start_link(sh("sleep 60 >/dev/null & echo $!; wait"))
      [background] = read_numbers(p, 1)
      assert Exile.Process.kill(p, :sigkill) == :ok
      assert Exile.Process.await_exit(p) == {:ok, 137}
      assert os_process_alive?(background)
      kill_os_process(background)
    end

    test "may be called by any process" do
      {:ok, p} = Exile.Process.start_link(["sleep", "60"])
      assert Task.await(Task.async(fn -> Exile.Process.kill(p, :sigterm) end)) == :ok
      assert Exile.Process.await_exit(p) == {:ok, 143}
    end

    test "is :esrch after the exit, awaited or not" do
      {:ok, p} = Exile.Process.start_link(["true"])
      eventually(fn -> Exile.Process.os_pid(p) == :undefined end)
      assert Exile.Process.kill(p, :sigterm) == {:error, :esrch}
      assert Exile.Process.await_exit(p) == {:ok, 0}
      assert Exile.Process.kill(p, :sigterm) == {:error, :esrch}
      assert Exile.Process.kill(p, :sigkill) == {:error, :esrch}
      assert Exile.Process.kill(p, :sigcont) == {:error, :esrch}
    end

    test "with an invalid signal raises, before the exit and after it" do
      {:ok, p} = Exile.Process.start_link(["cat"])

      check = fn ->
        for bad <- [:term, :SIGTERM, :sigfoo, nil, true, :"", 15, "sigterm", ~c"sigterm", self()] do
          message = "expected a signal like :sigterm, got: #{inspect(bad)}"
          assert_raise ArgumentError, message, fn -> Exile.Process.kill(p, bad) end
        end
      end

      check.()
      assert Exile.Process.await_exit(p) == {:ok, 0}
      check.()
    end
  end

  describe "os_pid/1" do
    test "is the process id that the command sees" do
      {:ok, p} = Exile.Process.start_link(sh("echo $$; exec cat"))
      [os_pid] = read_numbers(p, 1)
      assert Exile.Process.os_pid(p) == {:ok, os_pid}
      assert os_process_alive?(os_pid)
      Exile.Process.await_exit(p)
    end

    test "is :undefined after the exit, awaited or not" do
      {:ok, p} = Exile.Process.start_link(["true"])
      eventually(fn -> Exile.Process.os_pid(p) == :undefined end)
      assert Exile.Process.await_exit(p) == {:ok, 0}
      assert Exile.Process.os_pid(p) == :undefined
    end

    test "may be called by any process, too" do
      {:ok, p} = Exile.Process.start_link(["cat"])
      assert Task.await(Task.async(fn -> Exile.Process.os_pid(p) end)) == Exile.Process.os_pid(p)
      Exile.Process.await_exit(p)
    end

    test "is known while the command is stopped" do
      {:ok, p} = Exile.Process.start_link(["sleep", "60"])
      :ok = Exile.Process.kill(p, :sigstop)
      assert {:ok, _} = Exile.Process.os_pid(p)
    end
  end
end
