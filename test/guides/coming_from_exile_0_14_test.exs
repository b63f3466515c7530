defmodule Exile.ComingFromExile014Test do
  @moduledoc """
  Tests every row of the guide "Coming from exile 0.14". Each `describe` is the first column of a
  row, in the same words; the last test compares them.
  """

  use Exile.Case

  import Exile.ProcessHelpers, only: [dead_process: 0, read_numbers: 2]

  alias Exile.Stream.AbnormalExit

  @moduletag :capture_log

  @guide "guides/coming_from_exile_0_14.md"

  # Ignores the signals that can be ignored, and prints its own pid and that of its child.
  @stubborn "trap '' TERM INT HUP PIPE; sleep 60 & echo $$; echo $!; while :; do sleep 1; done"

  # More bytes than a pipe holds.
  @much 1_000_000

  # Longer than anything here may take, except the waits under test.
  @soon 3_000

  defp milliseconds(fun) do
    {time, result} = :timer.tc(fun)
    {div(time, 1000), result}
  end

  defp assert_gone(os_pids),
    do: eventually(fn -> not Enum.any?(os_pids, &os_process_alive?/1) end)

  defp wait_for_end(p), do: eventually(fn -> Exile.Process.os_pid(p) == :undefined end)

  defp endless, do: Stream.repeatedly(fn -> "hello" end)

  defp script(context, content) do
    path = Path.join(context.tmp_dir, "script")
    File.write!(path, content)
    File.chmod!(path, 0o755)
    path
  end

  defp put_env(name, value) do
    on_exit(fn -> System.delete_env(name) end)
    System.put_env(name, value)
  end

  defp failure(stream), do: assert_raise(AbnormalExit, fn -> Enum.to_list(stream) end)

  describe "elements are binaries, or pairs with `stderr: :consume`" do
    test "both" do
      assert Exile.stream!(~w(echo out)) |> Enum.to_list() == ["out\n"]

      assert sh("echo out; echo err >&2") |> Exile.stream!(stderr: :consume) |> Enum.sort() ==
               [stderr: "err\n", stdout: "out\n"]
    end
  end

  describe "the last element of `stream/2` is the exit status" do
    test "of success and of failure" do
      assert Enum.to_list(Exile.stream(~w(true))) == [{:exit, {:status, 0}}]
      assert Enum.to_list(Exile.stream(sh("echo a; exit 10"))) == ["a\n", {:exit, {:status, 10}}]
    end
  end

  describe "`stream!/2` raises `AbnormalExit` when the status is not 0" do
    test "with the status, and with a message that begins in the same words" do
      error = failure(Exile.stream!(sh("exit 10")))
      assert error.exit_status == 10
      assert error.message =~ ~r/^program exited with exit status: 10\b/
      assert Exception.message(error) == error.message
    end
  end

  describe "an option that is `nil` has its default" do
    test "of streams" do
      options = ~w(input stderr max_chunk_size exit_timeout ignore_epipe cd env)a

      for key <- options do
        assert ~w(echo hi) |> Exile.stream!([{key, nil}]) |> Enum.join() == "hi\n"
      end
    end

    test "of processes" do
      {:ok, p} = Exile.Process.start_link(~w(echo hi), cd: nil, env: nil, stderr: nil)
      assert Exile.Process.read(p) == {:ok, "hi\n"}
      assert Exile.Process.read_stderr(p) == {:error, :pipe_closed_or_invalid_caller}
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end
  end

  describe "`max_chunk_size` is 65,536 by default, the size of a read 65,535" do
    test "of a stream" do
      # The reader is slow, so that the pipe fills.
      sizes =
        ~w(head -c 4000000 /dev/zero)
        |> Exile.stream!()
        |> Enum.map(fn chunk ->
          Process.sleep(2)
          byte_size(chunk)
        end)

      assert Enum.max(sizes) == 65_536
      assert Enum.sum(sizes) == 4_000_000
    end

    test "of a process" do
      {:ok, p} = Exile.Process.start_link(~w(head -c 65536 /dev/zero))
      wait_for_end(p)
      assert {:ok, <<_::binary-size(65_535)>>} = Exile.Process.read(p)
      assert {:ok, <<_>>} = Exile.Process.read(p)
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end
  end

  describe "a wrong value of a stream option raises `ArgumentError`" do
    for {key, value} <- [
          max_chunk_size: 0,
          exit_timeout: -1,
          ignore_epipe: :yes,
          stderr: :stdout,
          input: :text
        ] do
      test "#{key}: #{inspect(value)}" do
        assert_raise ArgumentError, fn ->
          Exile.stream!(~w(true), [{unquote(key), unquote(value)}])
        end
      end
    end
  end

  describe "an unknown stream option raises `MatchError` when the stream runs" do
    test "here `ArgumentError` when the stream is made, which lists the known options" do
      error = assert_raise ArgumentError, fn -> Exile.stream!(~w(true), colour: :red) end
      assert error.message =~ ":colour"
      assert error.message =~ ":max_chunk_size"
      assert error.message =~ ":env"
    end
  end

  describe "a missing program raises `MatchError` when the stream runs" do
    test "here `Exile.Process.Error`" do
      stream = Exile.stream!(~w(no-such-program))
      error = assert_raise Exile.Process.Error, fn -> Enum.to_list(stream) end
      assert error.reason == :enoent
    end
  end

  describe "without `:input` the command waits for input that never comes" do
    test "here it sees end-of-file at once" do
      assert Enum.to_list(Exile.stream!(~w(cat))) == []
    end

    test "an input that waits keeps it open" do
      wait = fn _sink -> Process.sleep(:infinity) end
      # 124 is the status of `timeout` when the time is up.
      stream = Exile.stream!(sh("timeout 0.3 cat; echo $?"), input: wait)
      assert Enum.join(stream) == "124\n"
    end
  end

  describe "input that the command does not read is no failure" do
    test "when the output was read to its end" do
      assert Enum.to_list(Exile.stream!(~w(echo hi), input: endless())) == ["hi\n"]
      assert Enum.to_list(Exile.stream(~w(true), input: endless())) == [{:exit, {:status, 0}}]
      assert failure(Exile.stream!(~w(false), input: endless())).exit_status == 1
    end
  end

  describe "an `:input` that raises ends the caller with an exit signal" do
    test "here the stream raises the same error in the caller" do
      for input <- [
            fn _sink -> raise ArgumentError, "of the input" end,
            Stream.map([1], fn _ -> raise ArgumentError, "of the input" end)
          ] do
        assert_raise ArgumentError, "of the input", fn ->
          Enum.to_list(Exile.stream!(~w(cat), input: input))
        end
      end
    end
  end

  describe "`Enum.into(data, sink)` returns `:ok`" do
    test "as often as it is called" do
      input = fn sink ->
        :ok = Enum.into(["a", "b"], sink)
        :ok = Enum.into(["c"], sink)
        [["d"]] |> Stream.into(sink) |> Stream.run()
      end

      assert Exile.stream!(~w(cat), input: input) |> Enum.join() == "abcd"
    end
  end

  describe "a reader who stops early gets `:epipe`, or nothing with `ignore_epipe: true`" do
    test "from a command with input" do
      stream = Exile.stream!(~w(cat), input: endless())
      error = assert_raise AbnormalExit, fn -> Enum.take(stream, 1) end
      assert error.exit_status == :epipe
      assert error.message =~ ~r/^program exited due to :epipe error/

      stream = Exile.stream!(~w(cat), input: endless(), ignore_epipe: true, max_chunk_size: 5)
      assert Enum.take(stream, 1) == ["hello"]
    end
  end

  describe "a reader who stops early gets `:epipe` even if the command ends with status 0" do
    test "here no error" do
      stream = Exile.stream!(sh("read line; echo $line"), input: Stream.cycle(["hello\n"]))
      assert Enum.take(stream, 1) == ["hello\n"]
    end
  end

  describe "a reader who stops early gets the status of a command that has no input" do
    test "here `:epipe` if a signal ended it" do
      error = assert_raise AbnormalExit, fn -> Enum.take(Exile.stream!(~w(yes)), 1) end
      assert error.exit_status == :epipe
    end

    test "otherwise the same" do
      stream =
        Exile.stream!(sh("trap '' PIPE; while echo hello; do :; done; exit 3"), stderr: :disable)

      assert assert_raise(AbnormalExit, fn -> Enum.take(stream, 1) end).exit_status == 3
    end
  end

  describe "`stream/2` raises when the reader stops early" do
    test "here it does not" do
      assert [<<"y", _::binary>>] = Enum.take(Exile.stream(~w(yes)), 1)
      assert [<<"h", _::binary>>] = Enum.take(Exile.stream(~w(cat), input: endless()), 1)
    end
  end

  describe "a reader that stops early through `Stream.transform/3` gets `:epipe`, and so does a reader that raises" do
    setup do
      %{stream: Stream.transform(Exile.stream!(~w(yes)), nil, &{[&1], &2})}
    end

    test "here no error", %{stream: stream} do
      assert [<<"y", _::binary>>] = Enum.take(stream, 1)
    end

    test "or the one that was raised", %{stream: stream} do
      assert_raise RuntimeError, "mine", fn -> Enum.each(stream, fn _ -> raise "mine" end) end
    end
  end

  describe "a reader who stops early waits for a third of `exit_timeout`, 1.6 s by default, before SIGTERM" do
    # The command needs this long to end by itself.
    @slow "echo a; sleep 0.8"

    test "here for all of `:exit_timeout` if it is given" do
      stream = Exile.stream!(sh(@slow), exit_timeout: 2_000)
      {time, elements} = milliseconds(fn -> Enum.take(stream, 1) end)
      assert elements == ["a\n"]
      assert time >= 700
    end

    test "without end if it is :infinity" do
      stream = Exile.stream!(sh(@slow), exit_timeout: :infinity)
      {time, elements} = milliseconds(fn -> Enum.take(stream, 1) end)
      assert elements == ["a\n"]
      assert time >= 700
    end

    test "otherwise for 250 ms" do
      {time, error} =
        milliseconds(fn ->
          assert_raise AbnormalExit, fn -> Enum.take(Exile.stream!(sh("echo a; sleep 60")), 1) end
        end)

      assert error.exit_status == :epipe
      assert time in 250..@soon
    end
  end

  describe "`exit_timeout` is 5 s by default, with SIGTERM after 1.6 s" do
    test "here `:infinity`" do
      assert Enum.to_list(Exile.stream!(sh("exec >&- 2>&-; sleep 1.9"))) == []
    end
  end

  describe "`exit_timeout: n` sends SIGTERM to a command that does not end after its output" do
    test "the same, after `n` milliseconds" do
      command = sh("exec >&- 2>&-; exec sleep 60")

      {time, elements} =
        milliseconds(fn -> Enum.to_list(Exile.stream(command, exit_timeout: 300)) end)

      assert elements == [{:exit, {:status, 143}}]
      assert time in 300..@soon

      error = failure(Exile.stream!(command, exit_timeout: 100))
      assert error.exit_status == 143
      assert error.message =~ ~r/^program exited with exit status: 143\b/
    end
  end

  describe "a command that exits with 0 after the SIGTERM of `exit_timeout` has not failed" do
    test "here it has failed" do
      command = sh("trap 'exit 0' TERM; exec >&- 2>/dev/null; while :; do sleep 0.05; done")
      assert failure(Exile.stream!(command, exit_timeout: 200)).exit_status == 0
    end
  end

  describe "`start_link/2` with a missing program returns `{:error, text}`" do
    test "here an error with a reason, that is text where text is needed" do
      assert {:error, error} = Exile.Process.start_link(~w(no-such-program))
      assert is_exception(error, Exile.Process.Error)
      assert error.reason == :enoent
      assert "#{error}" == Exception.message(error)
      assert "#{error}" =~ "no-such-program"
    end
  end

  describe "`start_link/2` with an unknown option returns `{:error, text}`" do
    test "here it raises `ArgumentError`" do
      assert_raise ArgumentError, ~r/:colour/, fn ->
        Exile.Process.start_link(~w(true), colour: :red)
      end
    end
  end

  describe "`start_link/2` with a `:cd` that is no directory returns `{:error, text}`" do
    test "here an error that says so" do
      assert {:error, error} = Exile.Process.start_link(~w(true), cd: "/no/such/directory")
      assert is_exception(error, Exile.Process.Error)
      assert {error.operation, error.reason} == {:cd, :enoent}
    end
  end

  describe "`rescue error in Exile.Process.Error` and then `error.message`" do
    test "here `Exception.message(error)`" do
      text =
        try do
          Enum.to_list(Exile.stream!(~w(no-such-program)))
        rescue
          error in Exile.Process.Error -> Exception.message(error)
        end

      assert text =~ "no such file or directory"
    end
  end

  describe "a program that cannot be executed exits with status 125" do
    @tag :tmp_dir
    test "here `start_link/2` returns an error", context do
      assert {:error, error} =
               Exile.Process.start_link([script(context, "#!/no/such/interpreter\n")])

      assert error.reason == :enoent
    end
  end

  describe "a script without a `#!` line is run by `/bin/sh`" do
    @tag :tmp_dir
    test "here the error is `:enoexec`", context do
      path = script(context, "echo from a script\n")
      assert {:error, error} = Exile.Process.start_link([path])
      assert error.reason == :enoexec
      assert Enum.join(Exile.stream!(["sh", path])) == "from a script\n"
    end
  end

  describe "names and values in `:env` may be atoms, numbers and charlists" do
    test "in lists and maps" do
      env = [
        {:EXILE_A, :atom},
        {"EXILE_B", 42},
        {~c"EXILE_C", ~c"charlist"},
        {"EXILE_D", 1.5},
        {"EXILE_E", true}
      ]

      for env <- [env, Map.new(env)] do
        output = sh("env | grep ^EXILE_ | sort") |> Exile.stream!(env: env) |> Enum.join()
        assert output == "EXILE_A=atom\nEXILE_B=42\nEXILE_C=charlist\nEXILE_D=1.5\nEXILE_E=true\n"
      end
    end
  end

  describe "`nil` in `:env` unsets a variable" do
    test "that the VM has" do
      put_env("EXILE_A", "of the VM")
      command = sh("echo ${EXILE_A-unset}")
      assert Enum.join(Exile.stream!(command)) == "of the VM\n"
      assert Enum.join(Exile.stream!(command, env: [{"EXILE_A", nil}])) == "unset\n"
    end
  end

  describe "`false` in `:env` is the text `false`, and `\"\"` unsets the variable" do
    test "here `false` unsets the variable, and `\"\"` is an empty value" do
      for name <- ["EXILE_A", "EXILE_B"], do: put_env(name, "of the VM")
      env = [{"EXILE_A", false}, {"EXILE_B", ""}]
      command = sh("echo ${EXILE_A-unset} ${EXILE_B-unset}.")
      assert Enum.join(Exile.stream!(command, env: env)) == "unset .\n"
    end
  end

  describe "the fields `:pid`, `:exit_ref` and `:monitor_ref` of a process" do
    test "are not there" do
      {:ok, p} = Exile.Process.start_link(~w(true))
      for field <- [:pid, :exit_ref, :monitor_ref], do: refute(Map.has_key?(p, field))
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end
  end

  describe "the owner gets messages when the command ends" do
    test "here it gets none" do
      Process.flag(:trap_exit, true)
      {:ok, p} = Exile.Process.start_link(~w(true))
      wait_for_end(p)
      assert_no_message()
      assert Exile.Process.await_exit(p) == {:ok, 0}
      assert_no_message()
    end
  end

  describe "the owner is linked to the command" do
    test "here it is not" do
      links = Process.info(self(), :links)
      {:ok, p} = Exile.Process.start_link(~w(cat))
      assert Process.info(self(), :links) == links
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end

    test "but the command still ends with its owner" do
      test = self()

      {owner, monitor} =
        spawn_monitor(fn ->
          {:ok, p} = Exile.Process.start_link(~w(sleep 60))
          send(test, Exile.Process.os_pid(p))
          Process.sleep(:infinity)
        end)

      assert_receive {:ok, os_pid}
      Process.exit(owner, :kill)
      assert_receive {:DOWN, ^monitor, _, _, :killed}
      assert_gone([os_pid])
    end
  end

  describe "the end of its owner ends a command, but not what it has started" do
    test "here its whole process group is ended" do
      os_pids =
        Task.await(
          Task.async(fn ->
            {:ok, p} = Exile.Process.start_link(sh(@stubborn), stderr: :disable)
            read_numbers(p, 2)
          end)
        )

      assert_gone(os_pids)
    end
  end

  describe "`await_exit/2` closes all pipes of its caller" do
    test "here it closes standard input, and drops what the command still writes" do
      {:ok, p} =
        Exile.Process.start_link(["sh", "-c", "head -c #{@much} /dev/zero && cat && echo done"])

      assert Exile.Process.await_exit(p) == {:ok, 0}
    end

    test "and another process may still write what it has to" do
      {:ok, p} = Exile.Process.start_link(~w(cat))
      test = self()

      writer =
        Task.async(fn ->
          :ok = Exile.Process.change_pipe_owner(p, :stdin, self())
          send(test, :mine)
          Exile.Process.write(p, :binary.copy("x", @much))
        end)

      assert_receive :mine
      assert Exile.Process.await_exit(p, :infinity) == {:ok, 0}
      assert Task.await(writer) == :ok
    end

    test "of both outputs" do
      {:ok, p} =
        Exile.Process.start_link(sh("head -c #{@much} /dev/zero >&2; echo done"), stderr: :consume)

      assert Exile.Process.await_exit(p, :infinity) == {:ok, 0}
    end
  end

  describe "`await_exit/2` returns 128 and the number of the signal that it needed" do
    test "SIGTERM" do
      {:ok, p} = Exile.Process.start_link(~w(sleep 60))
      assert Exile.Process.await_exit(p, 100) == {:ok, 143}
    end

    test "SIGKILL, within the timeout" do
      {:ok, p} = Exile.Process.start_link(sh(@stubborn), stderr: :disable)
      _ = read_numbers(p, 2)
      {time, result} = milliseconds(fn -> Exile.Process.await_exit(p, 400) end)
      assert result == {:ok, 137}
      assert time in 300..@soon
    end
  end

  describe "`await_exit/2` sends SIGTERM and SIGKILL after one and two thirds of the timeout" do
    test "here SIGTERM after a quarter and after half, SIGKILL after three quarters" do
      script = "trap 'echo term' TERM; echo ready; while :; do sleep 0.01; done"
      {:ok, p} = Exile.Process.start_link(sh(script), stderr: :disable)
      assert Exile.Process.read(p) == {:ok, "ready\n"}

      # Another process reads the output, which the owner would drop.
      reader =
        Task.async(fn ->
          :ok = Exile.Process.change_pipe_owner(p, :stdout, self())
          Exile.ProcessHelpers.read_all(p)
        end)

      Exile.ProcessHelpers.wait_until_waiting(reader.pid)
      {time, result} = milliseconds(fn -> Exile.Process.await_exit(p, 1_200) end)
      assert result == {:ok, 137}
      assert time in 900..@soon
      assert Task.await(reader) == "term\nterm\n"
    end

    test "all to the process group" do
      {:ok, p} = Exile.Process.start_link(sh(@stubborn), stderr: :disable)
      os_pids = read_numbers(p, 2)
      assert Exile.Process.await_exit(p, 200) == {:ok, 137}
      assert_gone(os_pids)
    end
  end

  describe "a second `await_exit/2` exits with a timeout" do
    test "here it returns the same status again" do
      {:ok, p} = Exile.Process.start_link(sh("exit 3"))
      assert Exile.Process.await_exit(p) == {:ok, 3}
      assert Exile.Process.await_exit(p) == {:ok, 3}
    end
  end

  describe "`await_exit/2` by a process that is not the owner raises `ArgumentError`" do
    test "at once" do
      {:ok, p} = Exile.Process.start_link(~w(cat))

      task =
        Task.async(fn -> assert_raise ArgumentError, fn -> Exile.Process.await_exit(p) end end)

      Task.await(task)
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end
  end

  describe "the result is `:pipe_closed_or_invalid_caller` for a pipe that is closed or not the caller's" do
    @refused {:error, :pipe_closed_or_invalid_caller}

    test "closed" do
      {:ok, p} = Exile.Process.start_link(~w(cat))
      assert Exile.Process.read_stderr(p) == @refused
      assert Exile.Process.close_stderr(p) == @refused
      assert Exile.Process.close_stdin(p) == :ok
      assert Exile.Process.close_stdin(p) == @refused
      assert Exile.Process.write(p, "x") == @refused
      assert Exile.Process.close_stdout(p) == :ok
      assert Exile.Process.read(p) == @refused
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end

    test "not the caller's" do
      {:ok, p} = Exile.Process.start_link(~w(cat))

      calls = fn ->
        [
          Exile.Process.write(p, "x"),
          Exile.Process.read(p),
          Exile.Process.read_any(p),
          Exile.Process.close_stdin(p)
        ]
      end

      assert Enum.uniq(Task.await(Task.async(calls))) == [@refused]
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end
  end

  describe "`change_pipe_owner/3` of a closed pipe returns `{:error, :closed}`" do
    test "here `{:error, :pipe_closed_or_invalid_caller}`" do
      {:ok, p} = Exile.Process.start_link(~w(cat))
      :ok = Exile.Process.close_stdin(p)
      assert Exile.Process.change_pipe_owner(p, :stdin, self()) == @refused
      assert Exile.Process.change_pipe_owner(p, :stderr, self()) == @refused
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end
  end

  describe "a pipe is closed when its owner ends" do
    test "and when it has ended already" do
      {:ok, p} = Exile.Process.start_link(~w(cat))

      writer =
        Task.async(fn ->
          :ok = Exile.Process.change_pipe_owner(p, :stdin, self())
          Exile.Process.write(p, "Hello World")
        end)

      assert Task.await(writer) == :ok
      assert Exile.Process.read(p) == {:ok, "Hello World"}
      assert Exile.Process.read(p) == :eof
      assert Exile.Process.await_exit(p) == {:ok, 0}

      {:ok, p} = Exile.Process.start_link(~w(cat))
      assert Exile.Process.change_pipe_owner(p, :stdin, dead_process()) == :ok
      assert Exile.Process.read(p) == :eof
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end
  end

  describe "a write to a command that has ended returns `{:error, :epipe}`" do
    test "and its output can still be read" do
      {:ok, p} = Exile.Process.start_link(~w(echo rest))
      wait_for_end(p)
      assert Exile.Process.write(p, "x") == {:error, :epipe}
      assert Exile.Process.read(p) == {:ok, "rest\n"}
      assert Exile.Process.read(p) == :eof
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end
  end

  describe "`read/2` waits for what the command left in the background" do
    test "here it returns `:eof`, and later output comes with a later call" do
      {:ok, p} = Exile.Process.start_link(sh("(sleep 0.5; echo late) & echo $!"))
      [background] = read_numbers(p, 1)
      assert Exile.Process.read(p) == :eof
      assert os_process_alive?(background)
      assert_gone([background])
      assert Exile.Process.read(p) == {:ok, "late\n"}
      assert Exile.Process.read(p) == :eof
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end

    test "a stream waits for it, as it did" do
      assert sh("(sleep 0.3; echo late) & echo now") |> Exile.stream!() |> Enum.join() ==
               "now\nlate\n"
    end
  end

  describe "`read_any/2` asks standard output first" do
    test "here chance decides when both have something" do
      first = fn ->
        {:ok, p} = Exile.Process.start_link(sh("echo out; echo err >&2"), stderr: :consume)
        wait_for_end(p)
        {:ok, {from, _}} = Exile.Process.read_any(p)
        {:ok, {other, _}} = Exile.Process.read_any(p)
        assert Enum.sort([from, other]) == [:stderr, :stdout]
        assert Exile.Process.read_any(p) == :eof
        assert Exile.Process.await_exit(p) == {:ok, 0}
        from
      end

      # The chance that the same one comes first 40 times is about one in a trillion.
      seen = Enum.reduce_while(1..40, [], &seen(&1, &2, first))
      assert Enum.sort(seen) == [:stderr, :stdout]
    end
  end

  defp seen(_, seen, first) do
    seen = Enum.uniq([first.() | seen])
    if length(seen) == 2, do: {:halt, seen}, else: {:cont, seen}
  end

  describe "`kill/2` takes `:sigterm` and `:sigkill`" do
    test "these and every other signal" do
      for {signal, status} <- [sigterm: 143, sigkill: 137, sigint: 130] do
        {:ok, p} = Exile.Process.start_link(~w(sleep 60))
        assert Exile.Process.kill(p, signal) == :ok
        assert Exile.Process.await_exit(p) == {:ok, status}
      end
    end
  end

  describe "`kill/2` returns `{:error, :process_not_alive}` after the end" do
    test "here `{:error, :esrch}`" do
      {:ok, p} = Exile.Process.start_link(~w(true))
      wait_for_end(p)
      assert Exile.Process.kill(p, :sigterm) == {:error, :esrch}
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end
  end

  describe "`os_pid/1` returns `{:ok, pid}`, and `:undefined` after the end" do
    test "of a command" do
      {:ok, p} = Exile.Process.start_link(sh("echo $$; read line"))
      [os_pid] = read_numbers(p, 1)
      assert Exile.Process.os_pid(p) == {:ok, os_pid}
      :ok = Exile.Process.close_stdin(p)
      assert {:ok, 1} = Exile.Process.await_exit(p)
      assert Exile.Process.os_pid(p) == :undefined
    end
  end

  describe "other calls after `await_exit/2` exit with `:noproc`" do
    test "here they return an error, `:undefined` or `:eof`" do
      {:ok, p} = Exile.Process.start_link(~w(cat))
      assert Exile.Process.await_exit(p) == {:ok, 0}
      assert Exile.Process.os_pid(p) == :undefined
      assert Exile.Process.write(p, "x") == @refused
      assert Exile.Process.read(p) in [:eof, @refused]
      assert Exile.Process.close_stdin(p) == @refused
      assert Exile.Process.kill(p, :sigterm) == {:error, :esrch}
    end
  end

  describe "commands ignore SIGPIPE" do
    test "here it has its default" do
      {:ok, p} = Exile.Process.start_link(~w(yes))
      assert {:ok, _} = Exile.Process.read(p)
      assert Exile.Process.close_stdout(p) == :ok
      assert Exile.Process.await_exit(p, :infinity) == {:ok, 141}
    end
  end

  test "every row of the guide is here, and nothing else, in the same words" do
    rows =
      for [_, what, here] <- Regex.scan(~r/^\| (.+?) \| (.+?) \| .*\|$/m, File.read!(@guide)),
          what not in ["with 0.14", "---"] do
        assert here != ""
        what
      end

    described =
      for %{tags: %{describe: describe}} when describe != nil <- __MODULE__.__ex_unit__().tests,
          do: describe

    described = Enum.uniq(described)
    assert rows -- described == []
    assert described -- rows == []
    assert rows == Enum.uniq(rows)
    assert length(rows) > 5
  end
end
