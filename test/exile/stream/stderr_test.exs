defmodule Exile.Stream.StderrTest do
  use Exile.Case

  import Exile.StreamSteps

  describe "stderr: :console" do
    @describetag :tmp_dir

    test "goes to the standard error of the VM, and is the default", %{tmp_dir: dir} do
      for options <- ["", "stderr: :console", "use_stderr: false"] do
        code =
          ~s|IO.inspect(Enum.to_list(Exile.stream!(["sh", "-c", "echo out; echo err >&2"], [#{options}])))|

        assert run_vm(code, dir) == {~s|["out\\n"]\n|, "err\n"}
      end
    end

    test "goes there for stream/2, too", %{tmp_dir: dir} do
      code = ~s|Stream.run(Exile.stream(["sh", "-c", "echo err >&2; exit 3"]))|
      assert run_vm(code, dir) == {"", "err\n"}
    end
  end

  describe "stderr: :disable" do
    @describetag :tmp_dir

    test "goes nowhere", %{tmp_dir: dir} do
      code =
        ~s|IO.inspect(Enum.to_list(Exile.stream!(["sh", "-c", "echo out; echo err >&2"], stderr: :disable)))|

      assert run_vm(code, dir) == {~s|["out\\n"]\n|, ""}
    end

    test "accepts any amount" do
      stream = Exile.stream!(sh("head -c 5000000 /dev/zero >&2; echo done"), stderr: :disable)
      assert Enum.to_list(stream) == ["done\n"]
    end
  end

  describe "stderr: :redirect_to_stdout" do
    test "is merged into the output, in the order of writing" do
      script = sh("for n in 1 2 3 4 5; do echo o$n; echo e$n >&2; done")
      expected = Enum.map_join(1..5, &"o#{&1}\ne#{&1}\n")
      assert Enum.join(Exile.stream!(script, stderr: :redirect_to_stdout)) == expected

      elements = Enum.to_list(Exile.stream(script, stderr: :redirect_to_stdout))
      assert {output, [{:exit, {:status, 0}}]} = Enum.split(elements, -1)
      assert Enum.join(output) == expected
    end

    test "ends when both have ended" do
      stream = Exile.stream!(sh("exec >&-; echo late >&2"), stderr: :redirect_to_stdout)
      assert Enum.to_list(stream) == ["late\n"]
    end
  end

  describe "stderr: :consume" do
    test "gives tagged elements of both outputs" do
      for options <- [[stderr: :consume], [use_stderr: true]] do
        script = sh("echo out; echo err >&2; exit 0")
        assert sorted(Exile.stream!(script, options)) == [stderr: "err\n", stdout: "out\n"]

        assert sorted(Exile.stream(script, options)) ==
                 [exit: {:status, 0}, stderr: "err\n", stdout: "out\n"]
      end
    end

    test "works when only one output, or none, is used" do
      consume = &Enum.to_list(Exile.stream!(sh(&1), stderr: :consume))
      assert consume.("echo out") == [stdout: "out\n"]
      assert consume.("echo err >&2") == [stderr: "err\n"]
      assert consume.("true") == []
      assert consume.("exec >&-; echo err >&2") == [stderr: "err\n"]
      assert consume.("exec 2>&-; echo out") == [stdout: "out\n"]
      assert consume.("exec >&- 2>&-; sleep 0.1") == []
    end

    test "gives alternating elements in their order" do
      test = self()

      input = fn sink ->
        send(test, {:input, self()})
        Enum.into(Stream.repeatedly(fn -> receive(do: (:go_on -> "\n")) end), sink)
      end

      script = "for n in 1 2 3 4 5; do echo o$n; read _; echo e$n >&2; read _; done"
      stream = Exile.stream!(sh(script), stderr: :consume, input: input, ignore_epipe: true)
      {first, go} = step(stream)
      assert_receive {:input, input}

      {last, elements} =
        Enum.reduce(2..10, {go, [first]}, fn _, {go, elements} ->
          send(input, :go_on)
          {element, go} = step(go)
          {go, [element | elements]}
        end)

      assert Enum.reverse(elements) ==
               Enum.flat_map(1..5, &[stdout: "o#{&1}\n", stderr: "e#{&1}\n"])

      send(input, :go_on)
      assert step(last) == :done
      assert_quiet()
    end

    test "does not let a flood on one output block the other" do
      size = 10_000_000

      for {flood, other} <- [{"1", "2"}, {"2", "1"}] do
        script = "head -c #{size} /dev/zero >&#{flood}; echo done >&#{other}"
        counts = count(Exile.stream!(sh(script), stderr: :consume))
        assert counts |> Map.values() |> Enum.sort() == [5, size]
      end
    end

    test "starves neither output when both are flooded" do
      script = "yes >&2 & exec yes"
      stream = Exile.stream!(sh(script), stderr: :consume, ignore_epipe: true)

      # If one of them starved, this would not end.
      Enum.reduce_while(stream, %{stdout: 0, stderr: 0}, fn {tag, data}, counts ->
        counts = Map.update!(counts, tag, &(&1 + byte_size(data)))
        if Enum.min(Map.values(counts)) > 1_000_000, do: {:halt, counts}, else: {:cont, counts}
      end)

      assert_no_command()
    end

    test "keeps the order within each output" do
      script = "for n in $(seq 1000); do echo $n; echo $n >&2; done"
      elements = Enum.to_list(Exile.stream!(sh(script), stderr: :consume))
      numbers = Enum.map_join(1..1000, &"#{&1}\n")

      for tag <- [:stdout, :stderr] do
        assert elements |> Keyword.get_values(tag) |> Enum.join() == numbers
      end
    end

    test "bounds the size of the elements of both outputs, which are never empty" do
      script = "head -c 100000 /dev/zero >&2; head -c 100000 /dev/zero"

      for size <- [1_000, 65_536] do
        options = [stderr: :consume, max_chunk_size: size]

        for {_, data} <- Exile.stream!(sh(script), options) do
          assert byte_size(data) in 1..size
        end
      end

      options = [stderr: :consume, max_chunk_size: 1]

      assert sorted(Exile.stream!(sh("printf ab; printf cd >&2"), options)) ==
               [stderr: "c", stderr: "d", stdout: "a", stdout: "b"]
    end

    test "leaves no message when it waits for both outputs and one becomes ready" do
      test = self()

      # The input continues only when the reader is blocked, so the reader always has to wait
      # for both outputs.
      input = fn sink ->
        for _ <- 1..100 do
          wait_until_blocked(test)
          Enum.into(["\n"], sink)
        end
      end

      script = "while read _; do echo o; echo e >&2; done"

      for element <- Exile.stream!(sh(script), stderr: :consume, input: input) do
        assert {_, _} = element
        assert_no_message()
      end

      assert_quiet()
    end
  end

  defp sorted(stream), do: stream |> Enum.to_list() |> Enum.sort()

  defp count(stream) do
    Enum.reduce(stream, %{}, fn {tag, data}, counts ->
      Map.update(counts, tag, byte_size(data), &(&1 + byte_size(data)))
    end)
  end

  # Runs `code` in another VM; returns its standard output and standard error.
  defp run_vm(code, dir) do
    stderr = Path.join(dir, "stderr")
    ebin = Application.app_dir(:exile, "ebin")
    code = "{:ok, _} = Application.ensure_all_started(:exile); " <> code
    script = ~s(exec elixir -pa "$1" -e "$2" 2>"$3")
    {output, 0} = System.cmd("sh", ["-c", script, "sh", ebin, code, stderr])
    {output, File.read!(stderr)}
  end

  describe "stderr: :tail" do
    alias Exile.Stream.AbnormalExit

    defp failure(stream), do: assert_raise(AbnormalExit, fn -> Stream.run(stream) end)

    test "gives elements of standard output alone, and no failure where there is none" do
      script = sh("echo out; echo err >&2; echo more")
      assert script |> Exile.stream!(stderr: :tail) |> Enum.join() == "out\nmore\n"

      assert script |> Exile.stream!(stderr: :tail, lines: true) |> Enum.to_list() == [
               "out",
               "more"
             ]

      assert script |> Exile.stream(stderr: :tail, lines: true) |> Enum.to_list() ==
               ["out", "more", {:exit, {:status, 0}}]
    end

    test "shows what was written in the failure, and its last line in the message" do
      error =
        failure(
          Exile.stream!(sh("echo first >&2; echo 'no such codec' >&2; exit 1"), stderr: :tail)
        )

      assert error.stderr == "first\nno such codec\n"

      assert Exception.message(error) ==
               ~S|program exited with exit status: 1 ("sh": no such codec)|

      error = failure(Exile.stream!(sh("echo 'out of memory' >&2; kill -TERM $$"), stderr: :tail))

      assert Exception.message(error) ==
               ~S|program exited with exit status: 143 ("sh" was ended by SIGTERM: out of memory)|
    end

    test "shows no more of a line that is written anew than its last state" do
      script = sh("printf '10 %%\\r20 %%\\rno space left\\r\\n' >&2; exit 1")
      error = failure(Exile.stream!(script, stderr: :tail))
      assert Exception.message(error) =~ ~S|("sh": no space left)|
    end

    test "shows what all commands of a pipeline wrote" do
      pipeline = [sh("echo one >&2; exit 2"), sh("cat; echo two >&2"), sh("cat")]
      error = failure(Exile.stream!(pipeline, stderr: :tail))
      assert error.stderr |> String.split() |> Enum.sort() == ["one", "two"]

      assert Exception.message(error) =~
               ~r/^program exited with exit status: 2 \("sh", stage 1 of 3: /
    end

    test "keeps the last 8,192 bytes, however many there are, and holds up no command" do
      script = sh("head -c 50000000 /dev/zero >&2; printf 'the end' >&2; exit 4")
      before = :erlang.memory(:binary)
      error = failure(Exile.stream!(script, stderr: :tail))
      assert :erlang.memory(:binary) - before < 5_000_000
      assert byte_size(error.stderr) == 8_192
      assert String.ends_with?(error.stderr, <<0, "the end">>)
      # No message shows bytes as they are.
      assert String.printable?(Exception.message(error))
    end

    test "is in the errors of limits" do
      for options <- [[timeout: 200], [idle_timeout: 200], [lines: 3]] do
        stream =
          Exile.stream!(
            sh("echo 'far too slow' >&2; echo long; sleep 60"),
            [stderr: :tail] ++ options
          )

        error = assert_raise Exile.Process.Error, fn -> Stream.run(stream) end
        assert error.stderr == "far too slow\n"
        assert Exception.message(error) =~ ~r/: far too slow$/
      end
    end

    test "is in the failure of an early stop" do
      stream = Exile.stream!(sh("echo warning >&2; exec yes"), stderr: :tail)
      error = assert_raise AbnormalExit, fn -> Enum.take(stream, 1) end
      assert error.exit_status == :epipe
      assert error.stderr == "warning\n"
    end

    test "counts as output for :idle_timeout" do
      script = sh("for i in 1 2 3 4 5 6; do echo $i >&2; sleep 0.1; done; exit 5")
      assert failure(Exile.stream!(script, stderr: :tail, idle_timeout: 400)).exit_status == 5
    end

    test "is kept where standard output goes to a file" do
      error =
        failure(
          Exile.stream!(sh("echo hidden; echo why >&2; exit 6"),
            stdout: {:file, "/dev/null"},
            stderr: :tail
          )
        )

      assert error.stderr == "why\n"
    end

    test "does not wait for other programs that hold standard error open" do
      stream =
        Exile.stream!(sh("sleep 60 >/dev/null & echo $!; echo why >&2; exit 7"), stderr: :tail)

      test = self()
      error = assert_raise AbnormalExit, fn -> Enum.each(stream, &send(test, {:sleep, &1})) end
      assert_received {:sleep, sleep}
      Exile.ProcessHelpers.kill_os_process(String.trim(sleep))
      assert {error.exit_status, error.stderr} == {7, "why\n"}
    end

    test "of a stream that is the input of another is its own" do
      inner = Exile.stream!(sh("echo inner >&2; exit 8"), stderr: :tail)
      error = failure(Exile.stream!(["cat"], input: inner))
      assert {error.command, error.stderr} == {sh("echo inner >&2; exit 8"), "inner\n"}
    end

    test "is for streams and run, not for processes" do
      message =
        "invalid value for option :stderr: expected :console, :redirect_to_stdout, :disable, :consume, " <>
          "{:file, path} or {:file, path, :append}, got: :tail"

      assert_raise ArgumentError, message, fn ->
        Exile.Process.start_link(["true"], stderr: :tail)
      end
    end
  end

  describe "stderr: {:file, path}" do
    @describetag :tmp_dir

    setup context, do: {:ok, path: Path.join(context.tmp_dir, "errors")}

    test "is the file that a command writes to, which is made or truncated", %{path: path} do
      for script <- ["echo out; echo a long line >&2", "echo out; echo err >&2"],
          do: assert(Enum.join(Exile.stream!(sh(script), stderr: {:file, path})) == "out\n")

      assert File.read!(path) == "err\n"

      assert {:ok, %{stderr: nil}} =
               Exile.run(sh("echo more >&2"), stderr: {:file, path, :append})

      {:ok, p} = Exile.Process.start_link(sh("echo and more >&2"), stderr: {:file, path, :append})
      assert Exile.Process.await_exit(p) == {:ok, 0}
      assert File.read!(path) == "err\nmore\nand more\n"
    end

    test "is shared by the commands of a pipeline", %{path: path} do
      pipeline = for n <- 1..3, do: sh("cat; echo #{n} >&2")
      assert pipeline |> Exile.stream!(stderr: {:file, path}) |> Enum.to_list() == []
      assert path |> File.read!() |> String.split() |> Enum.sort() == ["1", "2", "3"]
    end

    test "is shared with standard output that goes to the same", %{path: path} do
      script = sh("for i in 1 2 3; do echo out $i; echo err $i >&2; done")
      assert {:ok, _} = Exile.run(script, stdout: {:file, path}, stderr: {:file, path})
      assert File.read!(path) == "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n"
    end

    test "is named when it cannot be opened, and nothing runs", %{path: path} do
      missing = Path.join(path, "no/such/file")

      for start <- [
            &Exile.run/2,
            &Exile.Process.start_link/2,
            fn argv, options -> Exile.run([["true"], argv], options) end
          ] do
        assert {:error, error} = start.(["touch", path], stderr: {:file, missing})
        assert {error.operation, error.reason, error.subject} == {:errors, :enoent, missing}

        assert Exception.message(error) ==
                 "could not open the file for standard error #{inspect(missing)}: " <>
                   "no such file or directory (enoent)"

        refute File.exists?(path)
      end
    end

    test "must not have a NUL byte in its name" do
      message = ~S(the file of :stderr must not contain a NUL byte, got: <<97, 0, 98>>)
      options = [stderr: {:file, "a\0b"}]
      assert_raise ArgumentError, message, fn -> Exile.stream!(["true"], options) end
    end
  end
end
