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
end
