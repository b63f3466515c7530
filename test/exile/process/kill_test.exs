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
        for bad <- [
              :term,
              :SIGTERM,
              :sigfoo,
              nil,
              true,
              :"",
              0,
              -15,
              65,
              15.0,
              "sigterm",
              ~c"sigterm",
              self()
            ] do
          message = "expected a signal like :sigterm or its number, got: #{inspect(bad)}"
          assert_raise ArgumentError, message, fn -> Exile.Process.kill(p, bad) end
        end
      end

      check.()
      assert Exile.Process.await_exit(p) == {:ok, 0}
      check.()
    end
  end

  describe "kill/3" do
    test "with :group signals what the command started, too" do
      {:ok, p} = Exile.Process.start_link(sh("sleep 60 >/dev/null & echo $!; wait"))
      [background] = read_numbers(p, 1)
      assert Exile.Process.kill(p, :sigkill, :group) == :ok
      assert Exile.Process.await_exit(p) == {:ok, 137}
      eventually(fn -> not os_process_alive?(background) end)
    end

    test "with :process signals the command alone" do
      {:ok, p} = Exile.Process.start_link(sh("sleep 60 >/dev/null & echo $!; wait"))
      [background] = read_numbers(p, 1)
      assert Exile.Process.kill(p, :sigkill, :process) == :ok
      assert Exile.Process.await_exit(p) == {:ok, 137}
      assert os_process_alive?(background)
      kill_os_process(background)
    end

    test "with :group is :esrch after the exit of the command, though others are left" do
      {:ok, p} = Exile.Process.start_link(sh("sleep 60 >/dev/null & echo $!"))
      [background] = read_numbers(p, 1)
      assert Exile.Process.await_exit(p) == {:ok, 0}
      assert Exile.Process.kill(p, :sigkill, :group) == {:error, :esrch}
      assert os_process_alive?(background)
      kill_os_process(background)
    end

    test "takes the numbers of signals, also of those that have no name" do
      for {signal, status} <- [{15, 143}, {9, 137}, {34, 162}, {64, 192}],
          to <- [:process, :group] do
        {:ok, p} = Exile.Process.start_link(["sleep", "60"])
        assert Exile.Process.kill(p, signal, to) == :ok
        assert Exile.Process.await_exit(p, :infinity) == {:ok, status}
      end
    end

    test "to anything else raises" do
      {:ok, p} = Exile.Process.start_link(["cat"])

      for bad <- [:all, nil, "group", 1] do
        message = "expected :process or :group, got: #{inspect(bad)}"
        assert_raise ArgumentError, message, fn -> Exile.Process.kill(p, :sigterm, bad) end
      end

      assert Exile.Process.await_exit(p) == {:ok, 0}
    end
  end

  describe "exit_status/1 and alive?/1" do
    test "say that a command runs and then how it ended, to any process" do
      {:ok, p} = Exile.Process.start_link(sh("read x; exit 3"))
      ask = fn -> {Exile.Process.exit_status(p), Exile.Process.alive?(p)} end
      assert Task.await(Task.async(ask)) == {:running, true}
      assert ask.() == {:running, true}
      assert Exile.Process.await_exit(p) == {:ok, 3}
      assert Task.await(Task.async(ask)) == {{:exited, 3}, false}
      assert ask.() == {{:exited, 3}, false}
    end

    test "know the end before it is awaited" do
      {:ok, p} = Exile.Process.start_link(["true"])
      eventually(fn -> not Exile.Process.alive?(p) end)
      assert Exile.Process.exit_status(p) == {:exited, 0}
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end

    test "name the signal, or give its number if it has no name" do
      for {signal, named} <- [{:sigterm, :sigterm}, {9, :sigkill}, {40, 40}] do
        {:ok, p} = Exile.Process.start_link(["sleep", "60"])
        :ok = Exile.Process.kill(p, signal)
        {:ok, _} = Exile.Process.await_exit(p, :infinity)
        assert Exile.Process.exit_status(p) == {:signaled, named, false}
      end
    end
  end

  describe "inspect/1" do
    test "shows the command and what has become of it" do
      {:ok, p} = Exile.Process.start_link(["sh", "-c", "read x; exit 3"])
      {:ok, os_pid} = Exile.Process.os_pid(p)
      command = ~S(["sh", "-c", "read x; exit 3"])
      assert inspect(p) == "#Exile.Process<#{command}, os_pid: #{os_pid}, running>"
      {:ok, 3} = Exile.Process.await_exit(p)
      assert inspect(p) == "#Exile.Process<#{command}, exited with 3>"

      {:ok, p} = Exile.Process.start_link(["cat"])
      :ok = Exile.Process.kill(p, :sigkill)
      {:ok, 137} = Exile.Process.await_exit(p)
      assert inspect(p) == ~S(#Exile.Process<["cat"], ended by sigkill>)
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
