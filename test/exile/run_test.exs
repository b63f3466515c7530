defmodule Exile.RunTest do
  use Exile.Case

  import Exile.ProcessHelpers

  alias Exile.Process.Error
  alias Exile.Result

  # What must be as before in the caller, whatever becomes of the command.
  defp traces do
    {Process.info(self(), [:messages, :links, :monitors]), Process.get()}
  end

  defp untraced(fun) do
    before = traces()
    result = fun.()
    assert traces() == before
    result
  end

  describe "run/2" do
    test "returns both outputs and the status" do
      assert {:ok, %Result{} = result} =
               untraced(fn -> Exile.run(sh("echo out; echo err >&2; exit 0")) end)

      assert %{stdout: "out\n", stderr: "err\n", status: 0, signal: nil, truncated: []} = result

      assert result.stages == [
               %{command: sh("echo out; echo err >&2; exit 0"), status: 0, signal: nil}
             ]

      assert result.duration in 1..60_000_000
    end

    test "reads both outputs at once, whatever their sizes" do
      for {out, err} <- [{3_000_000, 0}, {0, 3_000_000}, {3_000_000, 2_000_000}] do
        script =
          "head -c #{err} /dev/zero >&2; head -c #{out} /dev/zero; head -c #{err} /dev/zero >&2"

        assert {:ok, result} = Exile.run(sh(script))
        assert byte_size(result.stdout) == out
        assert byte_size(result.stderr) == 2 * err
      end
    end

    test "gives the command its input, of any kind" do
      for input <- [
            "data",
            ["da", "ta"],
            &Enum.into(["data"], &1),
            Exile.stream!(["printf", "data"])
          ] do
        assert {:ok, %{stdout: "data"}} = untraced(fn -> Exile.run(["cat"], input: input) end)
      end

      assert {:ok, %{stdout: ""}} = Exile.run(["cat"])
    end

    test "takes the options of commands" do
      assert Exile.run!(["pwd"], cd: "/").stdout == "/\n"
      assert Exile.run!(["printenv", "X"], env: [X: 1]).stdout == "1\n"
      assert Exile.run!(sh("umask"), umask: 0o027).stdout == "0027\n"
    end

    test "returns an error with all that there was when the status is another than 0" do
      script = "echo out; echo first >&2; echo last >&2; exit 3"
      assert {:error, %Error{} = error} = untraced(fn -> Exile.run(sh(script)) end)
      assert %{reason: {:status, 3}, operation: :run, subject: "sh", stage: nil} = error
      assert %{stdout: "out\n", stderr: "first\nlast\n", status: 3, signal: nil} = error.result
      assert Exception.message(error) == ~S("sh" exited with status 3: last)
    end

    test "names the signal that ended the command" do
      assert {:error, error} = Exile.run(sh("echo out; kill -TERM $$"))
      assert %{reason: {:signal, :sigterm}, result: %{stdout: "out\n", status: 143}} = error
      assert error.result.signal == :sigterm
      assert Exception.message(error) == ~S("sh" was ended by SIGTERM)

      assert {:error, %{reason: {:signal, 40}}} = Exile.run(sh("kill -40 $$"))
    end

    test "returns why a command could not be started" do
      assert {:error, error} = untraced(fn -> Exile.run(["no-such-program"]) end)

      assert %Error{reason: :enoent, operation: :exec, subject: "no-such-program", result: nil} =
               error

      assert {:error, %{reason: :enoent, operation: :cd}} = Exile.run(["true"], cd: "/no/such")

      assert {:error, %{reason: :enoent, operation: :input}} =
               Exile.run(["cat"], input: {:file, "/no"})
    end

    test "raises what the evaluation of the input raised, and ends the command" do
      input = Stream.map(1..3, fn _ -> raise "oops" end)

      assert_raise RuntimeError, "oops", fn ->
        untraced(fn -> Exile.run(["cat"], input: input) end)
      end

      input = Stream.map(1..3, fn _ -> throw(:ball) end)
      assert catch_throw(Exile.run(["cat"], input: input)) == :ball
    end

    test "leaves nothing in a caller that traps exits" do
      Process.flag(:trap_exit, true)
      untraced(fn -> Exile.run(["cat"], input: ["x"]) end)
      untraced(fn -> Exile.run(["false"], input: ["x"]) end)
      untraced(fn -> Exile.run(["sleep", "60"], input: Stream.cycle(["x"]), timeout: 50) end)
      untraced(fn -> Exile.run(["yes"], input: Stream.cycle(["x"]), max_output: 10) end)
    end

    test "misuse raises, and names the option and the value" do
      for {options, message} <- [
            {[stdout: :pipe],
             "invalid value for option :stdout: expected :capture, :disable, {:into, collectable}, " <>
               "{:file, path} or {:file, path, :append}, got: :pipe"},
            {[stdout: {:into, 1}],
             "invalid value for option :stdout: expected :capture, :disable, {:into, collectable}, " <>
               "{:file, path} or {:file, path, :append}, got: {:into, 1}"},
            {[stderr: :consume],
             "invalid value for option :stderr: expected :capture, :tail, :console, " <>
               ":redirect_to_stdout, :disable, {:file, path} or {:file, path, :append}, got: :consume"},
            {[lines: 0],
             "invalid value for option :lines: expected a boolean or the most bytes of a line, got: 0"},
            {[max_output: -1],
             "invalid value for option :max_output: expected a number of bytes, {:head, bytes}, " <>
               "{:tail, bytes} or :infinity, got: -1"},
            {[success: 0],
             "invalid value for option :success: expected a list of exit statuses or :any, got: 0"},
            {[success: [256]],
             "invalid value for option :success: expected a list of exit statuses or :any, got: [256]"},
            {[timeout: 1.5],
             "invalid value for option :timeout: expected milliseconds or :infinity, got: 1.5"}
          ] do
        assert_raise ArgumentError, message, fn -> Exile.run(["true"], options) end
      end

      assert_raise ArgumentError,
                   ~r/^unknown option :max_chunk_size with value 1; the known/,
                   fn ->
                     Exile.run(["true"], max_chunk_size: 1)
                   end
    end

    test "an option that is nil has its default" do
      options = [stdout: nil, stderr: nil, max_output: nil, timeout: nil, success: nil, cd: nil]
      assert {:ok, %{stdout: "out\n", stderr: ""}} = Exile.run(["echo", "out"], options)
    end
  end

  describe "a pipeline" do
    test "has the output of the last and the standard error of all" do
      commands = [sh("echo one >&2; echo b; echo a"), ["sort"], sh("echo three >&2; cat")]
      assert {:ok, result} = untraced(fn -> Exile.run(commands) end)
      assert result.stdout == "a\nb\n"
      assert result.stderr |> String.split() |> Enum.sort() == ["one", "three"]
      assert Enum.map(result.stages, & &1.command) == commands
      assert Enum.map(result.stages, & &1.status) == [0, 0, 0]
    end

    test "fails with the first of its commands that does, and has the status of each" do
      assert {:error, error} =
               Exile.run([["true"], sh("exit 4"), sh("exit 5"), sh("kill -KILL $$")])

      assert %{reason: {:status, 4}, stage: {2, 4}, subject: "sh"} = error

      assert Enum.map(error.result.stages, &{&1.status, &1.signal}) ==
               [{0, nil}, {4, nil}, {5, nil}, {137, :sigkill}]

      assert error.result.status == 4
      assert Exception.message(error) == ~S|"sh" (stage 2 of 4) exited with status 4|
    end

    test "does not fail because a command stopped reading" do
      assert {:ok, result} = Exile.run([["yes"], ["head", "-n", "1"]])
      assert %{stdout: "y\n", status: 0} = result
      assert Enum.map(result.stages, & &1.signal) == [:sigpipe, nil]
    end
  end

  describe ":success" do
    test "lists the statuses that are no failure" do
      assert {:ok, %{status: 1}} = Exile.run(["false"], success: [0, 1])
      assert {:ok, %{status: 3}} = Exile.run(sh("exit 3"), success: [3])
      assert {:error, %{reason: {:status, 0}}} = Exile.run(["true"], success: [3])
      assert {:ok, %{status: 143, signal: :sigterm}} = Exile.run(sh("kill $$"), success: [143])

      assert {:error, %{reason: {:status, 2}}} =
               Exile.run([["false"], sh("exit 2")], success: [0, 1])
    end

    test "may be :any" do
      for status <- [0, 1, 255] do
        assert {:ok, %{status: ^status}} = Exile.run(sh("exit #{status}"), success: :any)
      end

      assert {:ok, %{status: 137}} = Exile.run(sh("kill -KILL $$"), success: :any)
    end

    test "does not cover a timeout" do
      assert {:error, %{reason: :timeout}} =
               Exile.run(["sleep", "60"], success: :any, timeout: 20)
    end
  end

  describe ":timeout" do
    test "ends the command, and what it wrote stays" do
      {time, {:error, error}} =
        timed(fn ->
          untraced(fn -> Exile.run(sh("echo begun; exec sleep 60"), timeout: 100) end)
        end)

      assert %Error{reason: :timeout, operation: :run, subject: "sh"} = error
      assert %{stdout: "begun\n", status: 143, signal: :sigterm} = error.result
      assert time in 100..10_000
      assert Exception.message(error) == ~S("sh" did not end within the time that :timeout allows)
    end

    test "is a timeout also if the command then exits with 0" do
      script = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done"
      assert {:error, %{reason: :timeout, result: result}} = Exile.run(sh(script), timeout: 200)
      assert %{stdout: "ready\n", status: 0} = result
    end

    test "is not put off by a command that never stops writing" do
      assert {:error, %{reason: :timeout, result: result}} =
               Exile.run(["yes"], timeout: 100, max_output: {:tail, 10})

      assert result.stdout == "y\ny\ny\ny\ny\n"
    end

    test "is not put off by a background child that holds an output, which is ended" do
      script = "sleep 60 & echo $!"
      assert {:error, %{reason: :timeout, result: result}} = Exile.run(sh(script), timeout: 200)
      # The command itself had ended. What it left in the background is not ours.
      background = result.stdout |> String.trim() |> String.to_integer()
      assert result.status == 0
      kill_os_process(background)
    end

    test "covers a command that has closed its outputs" do
      script = "exec >&- 2>&-; exec sleep 60"
      assert {:error, %{reason: :timeout}} = Exile.run(sh(script), timeout: 100)
    end

    test "covers an output that goes to a file, and none" do
      for stdout <- [{:file, "/dev/null"}, :disable] do
        options = [stdout: stdout, stderr: :console, timeout: 100]

        assert {:error, %{reason: :timeout, result: %{stdout: nil, stderr: nil}}} =
                 Exile.run(["sleep", "60"], options)
      end
    end

    test "names the first command of a pipeline that held it up" do
      commands = [["true"], sh("exec <&- >&-; exec sleep 60"), ["cat"]]
      assert {:error, error} = Exile.run(commands, timeout: 200)
      assert %{reason: :timeout, subject: "sh"} = error
      assert Enum.map(error.result.stages, & &1.status) == [0, 143, 0]
    end

    test "is not reached by a command that is quick" do
      assert {:ok, %{stdout: "hi\n"}} =
               Exile.run(["echo", "hi"], timeout: 60_000, idle_timeout: 60_000)
    end

    test "is kept by the teardown that was given" do
      script = "trap 'echo int; exit 7' INT; echo ready; while :; do sleep 0.05; done"
      options = [timeout: 200, teardown: [sigint: 60_000]]
      assert {:error, %{reason: :timeout, result: %{status: 7}}} = Exile.run(sh(script), options)
    end
  end

  describe "a limit that is exceeded" do
    test "is the first one, whatever a command that ends still writes" do
      script = "trap 'yes | head -c 1000; exit' TERM; echo; while :; do sleep 0.05; done"
      assert {:error, error} = Exile.run(sh(script), timeout: 200, max_output: 10)
      assert %{reason: :timeout, result: %{truncated: [_ | _]}} = error
    end

    test "comes with the status of the command that it names" do
      commands = [["yes"], sh("head -n 1; exec <&-; exec sleep 60")]
      assert {:error, error} = Exile.run(commands, timeout: 300)
      assert %{reason: :timeout, subject: "sh", stage: {2, 2}} = error
      assert %{status: 143, signal: :sigterm} = error.result
      assert Enum.map(error.result.stages, & &1.status) == [141, 143]
    end

    test "names no command where the output is that of all" do
      assert {:error, error} = Exile.run([sh("yes >&2"), ["cat"]], max_output: 3)
      assert %{reason: :max_output, subject: nil, stage: nil} = error

      assert Exception.message(error) =~
               "a command of the pipeline wrote more than :max_output allows"

      assert {:error, error} = Exile.run([["yes"], ["cat"]], max_output: 3)
      assert %{subject: "cat", stage: {2, 2}, result: %{stdout: "y\ny"}} = error
    end
  end

  describe ":idle_timeout" do
    test "is not hidden by a background child that holds one output while another command runs" do
      commands = [sh("exec sleep 60"), sh("exec <&- 2>&-; sleep 60 & echo $!")]
      options = [drain_timeout: 100, idle_timeout: 500]
      assert {:error, %{reason: :idle_timeout, result: result}} = Exile.run(commands, options)
      result.stdout |> String.trim() |> String.to_integer() |> kill_os_process()
    end

    test "ends a command that has been silent for too long" do
      script = "for i in 1 2 3 4 5; do echo $i; sleep 0.05; done; exec sleep 60"
      assert {:error, error} = untraced(fn -> Exile.run(sh(script), idle_timeout: 2_000) end)
      assert %{reason: :idle_timeout, result: %{stdout: "1\n2\n3\n4\n5\n"}} = error

      assert Exception.message(error) ==
               ~S("sh" wrote nothing for the time that :idle_timeout allows)
    end

    test "begins anew with all output, also on standard error" do
      script = "for i in 1 2 3 4 5 6 7 8; do echo $i >&2; sleep 0.3; done"

      assert {:ok, %{stderr: "1\n2\n3\n4\n5\n6\n7\n8\n"}} =
               Exile.run(sh(script), idle_timeout: 2_000)
    end
  end

  describe ":max_output" do
    test "as a number makes more an error, with just as many bytes" do
      for bytes <- [0, 1, 1_000, 100_000] do
        assert {:error, error} = untraced(fn -> Exile.run(["yes"], max_output: bytes) end)
        assert %{reason: :max_output, subject: "yes"} = error
        assert error.result.stdout == String.duplicate("y\n", bytes) |> binary_part(0, bytes)
        assert error.result.truncated == [:stdout]
        assert Exception.message(error) == ~S("yes" wrote more than :max_output allows)
      end
    end

    test "allows as many bytes as it says" do
      assert {:ok, %{stdout: "12345", truncated: []}} =
               Exile.run(["printf", "12345"], max_output: 5)

      assert {:error, %{reason: :max_output}} = Exile.run(["printf", "123456"], max_output: 5)
    end

    test "holds for each output by itself" do
      script = "printf 12345; printf 12345 >&2"
      assert {:ok, %{stdout: "12345", stderr: "12345"}} = Exile.run(sh(script), max_output: 5)
      assert {:error, %{result: result}} = Exile.run(sh("yes >&2"), max_output: 3)
      assert %{stdout: "", stderr: "y\ny", truncated: [:stderr]} = result
    end

    test "keeps the first bytes, or the last, and reads the rest" do
      script = "seq 100000; echo done >&2"
      all = Enum.map_join(1..100_000, &"#{&1}\n")

      for bytes <- [0, 1, 10, 70_000, byte_size(all) - 1] do
        assert {:ok, head} = Exile.run(sh(script), max_output: {:head, bytes})
        assert head.stdout == binary_part(all, 0, bytes)
        assert {:ok, tail} = Exile.run(sh(script), max_output: {:tail, bytes})
        assert tail.stdout == binary_part(all, byte_size(all) - bytes, bytes)
        assert :stdout in head.truncated and :stdout in tail.truncated
      end

      for limit <- [{:head, byte_size(all)}, {:tail, byte_size(all)}, {:tail, 10_000_000}] do
        assert {:ok, %{stdout: ^all, stderr: "done\n", truncated: []}} =
                 Exile.run(sh(script), max_output: limit)
      end
    end

    test "keeps the last bytes however the output is cut" do
      script = "i=0; while [ $i -lt 200 ]; do printf $i,; i=$((i + 1)); done"
      all = Enum.map_join(0..199, &"#{&1},")

      for bytes <- [1, 2, 3, 50] do
        assert {:ok, %{stdout: tail}} = Exile.run(sh(script), max_output: {:tail, bytes})
        assert tail == binary_part(all, byte_size(all) - bytes, bytes)
      end
    end
  end

  describe ":stdout and :stderr" do
    test "go elsewhere, and are nil in the result" do
      path = Path.join(System.tmp_dir!(), "exile-run-#{System.unique_integer([:positive])}")
      on_exit(fn -> File.rm(path) end)

      assert {:ok, %{stdout: nil, stderr: ""}} = Exile.run(["echo", "a"], stdout: {:file, path})
      assert {:ok, %{stdout: nil}} = Exile.run(["echo", "b"], stdout: {:file, path, :append})
      assert File.read!(path) == "a\nb\n"

      assert {:ok, %{stdout: nil, stderr: nil}} =
               Exile.run(sh("echo a; echo b >&2"), stdout: :disable, stderr: :disable)

      assert {:ok, %{stdout: "a\nb\n", stderr: nil}} =
               Exile.run(sh("echo a; echo b >&2"), stderr: :redirect_to_stdout)
    end

    test "fills a collectable" do
      assert {:ok, %{stdout: chunks, stderr: "err\n"}} =
               untraced(fn -> Exile.run(sh("echo out; echo err >&2"), stdout: {:into, []}) end)

      assert Enum.join(chunks) == "out\n"
      assert {:ok, %{stdout: "a\n"}} = Exile.run(["echo", "a"], stdout: {:into, ""})
      assert {:ok, %{stdout: %MapSet{}}} = Exile.run(["echo", "a"], stdout: {:into, MapSet.new()})
    end

    test "closes a collectable when the input fails" do
      path = Path.join(System.tmp_dir!(), "exile-run-#{System.unique_integer([:positive])}")
      on_exit(fn -> File.rm(path) end)
      # A process of this VM has the file open, and monitors the caller.
      before = monitored_by()
      into = File.stream!(path, [:utf8])
      input = Stream.map([1], fn _ -> raise "no input" end)

      assert_raise RuntimeError, "no input", fn ->
        Exile.run(["cat"], input: input, stdout: {:into, into})
      end

      assert {:error, %{reason: :enoent}} = Exile.run(["no-such-program"], stdout: {:into, into})

      eventually(fn -> monitored_by() == before end)
    end

    test "halts a collectable that refuses a line, also the last one without a newline" do
      for output <- ["no\\nyes", "yes\\nno"] do
        into = %Exile.Picky{refuses: "no", pid: self()}
        run = fn -> Exile.run(["printf", output], lines: true, stdout: {:into, into}) end
        assert_raise RuntimeError, "refused", run
        assert_received :halt
        refute_received :done
      end
    end

    defp monitored_by,
      do: for(pid when is_pid(pid) <- elem(Process.info(self(), :monitored_by), 1), do: pid)

    test "raises what the collectable raises, and ends the command" do
      # Only pairs go into a map. Which error says so depends on the version of Elixir.
      assert catch_error(untraced(fn -> Exile.run(["yes"], stdout: {:into, %{}}) end))

      assert_raise File.Error, fn ->
        untraced(fn -> Exile.run(["yes"], stdout: {:into, File.stream!("/no/such/file")}) end)
      end
    end
  end

  describe "stderr: :tail" do
    test "keeps the last 8,192 bytes, whatever :max_output is" do
      script = sh("head -c 100000 /dev/zero >&2; printf 'the end' >&2; exit 1")
      assert {:error, %{result: result}} = Exile.run(script, stderr: :tail, max_output: 10)
      assert byte_size(result.stderr) == 8_192
      assert String.ends_with?(result.stderr, "the end")
      assert result.truncated == [:stderr]

      assert {:ok, %{stderr: "short", truncated: []}} =
               Exile.run(sh("printf short >&2"), stderr: :tail)
    end

    test "is in the result of a limit, and a binary also with :lines" do
      script = sh("echo slow >&2; echo one; sleep 60")

      assert {:error, error} =
               untraced(fn -> Exile.run(script, stderr: :tail, lines: true, timeout: 200) end)

      assert {error.result.stdout, error.result.stderr} == {["one"], "slow\n"}
      assert Exception.message(error) =~ ~r/: slow$/
    end

    test "does not wait for other programs that hold standard error open" do
      script = sh("sleep 60 >/dev/null & echo $!; echo why >&2; exit 7")
      assert {:error, error} = untraced(fn -> Exile.run(script, stderr: :tail) end)
      kill_os_process(String.trim(error.result.stdout))
      assert {error.reason, error.result.stderr} == {{:status, 7}, "why\n"}
    end
  end

  describe ":lines" do
    test "makes lists of lines of both outputs" do
      script = sh("printf 'a\\n\\nb\\r\\n'; printf '1\\n2' >&2")
      assert {:ok, result} = untraced(fn -> Exile.run(script, lines: true) end)
      assert {result.stdout, result.stderr} == {["a", "", "b\r"], ["1", "2"]}
      assert {:ok, %{stdout: [], stderr: []}} = Exile.run(["true"], lines: true)
      assert {:ok, %{stdout: "a\n"}} = Exile.run(["echo", "a"], lines: false)
    end

    test "finds the lines however the output is cut" do
      for _ <- 1..20 do
        parts = for _ <- 1..Enum.random(1..30), do: Enum.random(["a", "\n", "bc", "\r\n", ""])
        input = Stream.each(parts, fn _ -> :erlang.yield() end)
        assert {:ok, %{stdout: lines}} = Exile.run(["cat"], input: input, lines: true)
        assert lines == lines_of(Enum.join(parts))
      end
    end

    test "has all of many lines, and no copy of more than them" do
      assert {:ok, %{stdout: lines}} = Exile.run(["seq", "200000"], lines: true)
      assert length(lines) == 200_000
      assert List.last(lines) == "200000"
      assert :binary.referenced_byte_size(hd(lines)) < 100
    end

    test "gives a collectable lines" do
      assert Exile.run!(["printf", "a\\nb"], lines: true, stdout: {:into, []}).stdout == [
               "a",
               "b"
             ]
    end

    test "makes a longer line an error, with the lines before it" do
      assert {:error, error} =
               untraced(fn -> Exile.run(sh("printf 'ab\\n12345\\ncd\\n'"), lines: 4) end)

      assert error.reason == :line_too_long
      assert error.result.stdout == ["ab"]
      assert Exception.message(error) == ~S("sh" wrote a line that is longer than :lines allows)
      assert {:error, %{reason: :line_too_long}} = Exile.run(["cat", "/dev/zero"], lines: 1_000)
    end

    test "shares the output with :max_output, which counts bytes" do
      command = ["printf", "one\\ntwo\\nthree\\n"]
      assert {:error, error} = Exile.run(command, lines: true, max_output: 5)
      assert {error.reason, error.result.stdout} == {:max_output, ["one", "t"]}
      assert {:ok, result} = Exile.run(command, lines: true, max_output: {:head, 5})
      assert {result.stdout, result.truncated} == {["one", "t"], [:stdout]}
      assert {:ok, result} = Exile.run(command, lines: true, max_output: {:tail, 8})
      assert {result.stdout, result.truncated} == {["o", "three"], [:stdout]}
    end

    test "leaves the last line of standard error to the message" do
      assert {:error, error} = Exile.run(sh("echo one >&2; echo two >&2; exit 1"), lines: true)
      assert Exception.message(error) == ~S("sh" exited with status 1: two)
    end
  end

  describe "run!/2" do
    test "returns the result, or raises the error" do
      assert Exile.run!(["echo", "hi"]).stdout == "hi\n"

      error = assert_raise Error, fn -> Exile.run!(sh("echo out; exit 9")) end
      assert %{reason: {:status, 9}, result: %{stdout: "out\n"}} = error
      assert_raise Error, ~r/no such file/, fn -> Exile.run!(["no-such-program"]) end
    end
  end
end
