defmodule Exile.Stream.PipelineTest do
  use Exile.Case

  import Exile.StreamSteps

  alias Exile.Stream.AbnormalExit

  # Prints the pipes that are its input and its output.
  @pipes "exec 3>&1; readlink /proc/self/fd/0 /proc/self/fd/3 >&2; exec 3>&-"

  defp pipes(text), do: Regex.scan(~r/pipe:\[\d+\]/, text) |> List.flatten()

  defp vm_pipes do
    for fd <- File.ls!("/proc/self/fd"),
        {:ok, "pipe:" <> _ = target} <- [File.read_link("/proc/self/fd/#{fd}")],
        do: target
  end

  describe "a list of commands" do
    test "gives the output of the last command" do
      pipeline = [~w(printf b\\na\\nb\\n), ~w(sort -u), ~w(wc -l)]
      assert pipeline |> Exile.stream!() |> Enum.join() |> String.trim() == "2"
      assert Enum.to_list(Exile.stream([~w(echo hi), ~w(cat)])) == ["hi\n", {:exit, {:status, 0}}]
    end

    test "with one element is that command" do
      assert Enum.join(Exile.stream!([~w(echo hi)])) == "hi\n"
      error = assert_raise AbnormalExit, fn -> Stream.run(Exile.stream!([~w(false)])) end
      assert error == AbnormalExit.exception(exit_status: 1, command: ["false"])
    end

    test "may be long" do
      stream = Exile.stream!(List.duplicate(~w(cat), 50), input: "through")
      assert Enum.join(stream) == "through"
    end

    test "passes large data from the input through all stages unchanged" do
      data = :crypto.strong_rand_bytes(5_000_000)
      stream = Exile.stream!([~w(cat), ~w(cat), ~w(cat)], input: [data])
      assert digest(stream) == digest([data])
    end

    test "is joined by pipes that the VM does not hold" do
      pipeline = [sh("#{@pipes}; cat"), sh("#{@pipes}; cat"), sh("#{@pipes}; cat")]
      test = self()

      # All pipes are in use, because every stage waits until the input is closed.
      stream =
        Exile.stream!(pipeline,
          stderr: :consume,
          input: fn _ ->
            send(test, {:input, self()})
            receive(do: (:done -> :ok))
          end
        )

      assert {{:stderr, first}, go} = step(stream)
      assert_receive {:input, input}
      mine = vm_pipes()
      send(input, :done)
      assert Process.alive?(self())

      said = for {:stderr, text} <- [{:stderr, first} | rest(go)], into: "", do: text

      assert [in1, out1, in2, out2, in3, out3] = pipes_in_order(said)
      assert {out1, out2} == {in2, in3}
      assert in1 in mine and out3 in mine
      refute out1 in mine or out2 in mine
    end

    # Each stage prints two pipes, and the stages print in any order. The pipes form one chain.
    defp pipes_in_order(said) do
      pairs = said |> pipes() |> Enum.chunk_every(2)
      ins = Enum.map(pairs, &hd/1)
      outs = Enum.map(pairs, &List.last/1)
      [first] = ins -- outs
      follow(first, pairs)
    end

    defp follow(pipe, pairs) do
      case Enum.find(pairs, &(hd(&1) == pipe)) do
        [from, to] -> [from, to | follow(to, pairs)]
        nil -> []
      end
    end

    test "runs all its stages concurrently" do
      # Each stage waits for the output of the one before it, so they must run concurrently.
      pipeline = [sh("echo go; sleep 0.2; echo end"), sh("read x; echo $x; cat"), ~w(cat)]
      assert Enum.join(Exile.stream!(pipeline)) == "go\nend\n"
    end

    test "has options that apply to every stage" do
      pipeline = [sh("pwd; echo $A"), sh("pwd; echo $A; cat")]
      stream = Exile.stream!(pipeline, cd: "/", env: %{"A" => "1"})
      assert Enum.join(stream) == "/\n1\n/\n1\n"
    end

    test "runs again for each enumeration" do
      stream = Exile.stream!([~w(echo hi), ~w(cat)])
      for _ <- 1..3, do: assert(Enum.join(stream) == "hi\n")
    end

    test "may be suspended, and resumed in another process" do
      assert {"1\n", go} =
               step(Exile.stream!([sh("echo 1; read x; echo $x"), ~w(cat)], input: late()))

      task = Task.async(fn -> rest(go) end)
      assert Task.await(task) == ["2\n"]
      assert_quiet()
    end

    # An input that is written only after the first element has been read.
    defp late do
      Stream.map([2], fn n ->
        Process.sleep(50)
        "#{n}\n"
      end)
    end

    test "slows a fast first stage down to the reader's pace" do
      stream = Exile.stream!([~w(yes), ~w(cat), ~w(cat)], ignore_epipe: true)
      before = :erlang.memory(:total)
      assert Enum.count(Stream.take(stream, 20), &(Process.sleep(10) && &1)) == 20
      assert :erlang.memory(:total) - before < 5_000_000
    end
  end

  describe "standard error of a pipeline" do
    test "is consumed from all stages together" do
      stream =
        Exile.stream!([sh("echo one >&2; echo x"), sh("echo two >&2; cat")], stderr: :consume)

      elements = Enum.to_list(stream)
      assert for({:stdout, data} <- elements, into: "", do: data) == "x\n"
      assert for({:stderr, data} <- elements, into: "", do: data) |> lines() == ["one", "two"]
    end

    test "goes to each stage's own output with :redirect_to_stdout" do
      pipeline = [sh("echo one >&2"), sh("echo two >&2; tr a-z A-Z")]
      stream = Exile.stream!(pipeline, stderr: :redirect_to_stdout)
      assert stream |> Enum.join() |> lines() == ["ONE", "two"]
    end

    test "does not end before the last stage that may write to it" do
      stream =
        Exile.stream!([sh("exec >&-; sleep 0.3; echo late >&2"), ~w(cat)], stderr: :consume)

      assert Enum.to_list(stream) == [stderr: "late\n"]
    end

    defp lines(text), do: text |> String.split("\n", trim: true) |> Enum.sort()
  end

  describe "a pipeline fails when a stage fails:" do
    test "the exception names the stage and its command" do
      bad = sh("cat >/dev/null; exit 3")

      for {pipeline, stage} <- [
            {[sh("exit 3"), ~w(cat), ~w(cat)], 1},
            {[~w(echo x), bad, ~w(cat)], 2},
            {[~w(echo x), ~w(cat), bad], 3}
          ] do
        error = assert_raise AbnormalExit, fn -> Stream.run(Exile.stream!(pipeline)) end
        command = Enum.at(pipeline, stage - 1)
        assert %{exit_status: 3, stage: ^stage, command: ^command} = error

        assert Exception.message(error) ==
                 "program exited with exit status: 3 (#{inspect(hd(command))}, stage #{stage} of 3)"

        assert List.last(Enum.to_list(Exile.stream(pipeline))) == {:exit, {:status, 3}}
        assert_quiet()
      end
    end

    test "if several fail, the first is named" do
      pipeline = [sh("exit 4"), sh("cat; exit 5"), sh("cat; exit 6")]

      assert_raise AbnormalExit, ~r/: 4 \("sh", stage 1 of 3\b/, fn ->
        Stream.run(Exile.stream!(pipeline))
      end
    end

    test "and when a signal ends a stage" do
      pipeline = [sh("kill -TERM $$"), ~w(cat)]

      assert_raise AbnormalExit, ~r/: 143 \("sh", stage 1 of /, fn ->
        Stream.run(Exile.stream!(pipeline))
      end
    end

    test "its earlier output is read before that" do
      test = self()
      stream = Exile.stream!([sh("echo partial; exit 9"), ~w(cat)])
      assert_raise AbnormalExit, fn -> Enum.each(stream, &send(test, {:element, &1})) end
      assert_received {:element, "partial\n"}
    end

    test "but not when SIGPIPE ends a stage because the next one stopped reading" do
      for stream <- [
            Exile.stream!([~w(yes), ~w(head -n 1)]),
            Exile.stream!([~w(yes), ~w(cat), ~w(head -n 1)]),
            Exile.stream!(~w(head -n 1), input: Exile.stream!(~w(yes)))
          ] do
        assert Enum.to_list(stream) == ["y\n"]
        assert Enum.take(stream, 1) == ["y\n"]
        assert_quiet()
      end

      assert Enum.to_list(Exile.stream([~w(yes), ~w(true)])) == [{:exit, {:status, 0}}]
    end

    test "and when SIGPIPE ends the last stage" do
      stream = Exile.stream!([~w(echo), sh("kill -PIPE $$")])
      assert_raise AbnormalExit, ~r/: 141 \("sh", stage 2 of 2\b/, fn -> Stream.run(stream) end
    end

    test "but not when there is more input than it reads" do
      pipeline = [~w(cat), ~w(head -c 2)]
      input = Stream.cycle(["x"])
      assert Enum.to_list(Exile.stream!(pipeline, input: input)) == ["xx"]
      assert Enum.to_list(Exile.stream(pipeline, input: input)) == ["xx", {:exit, {:status, 0}}]
      inner = Exile.stream!(~w(head -c 2), input: input)
      assert Enum.to_list(Exile.stream!(~w(cat), input: inner)) == ["xx"]
      assert_quiet()
    end

    test "an input that fails ends all stages and raises its own error" do
      input = Stream.map(1..3, fn n -> if n == 3, do: raise("input"), else: "x" end)

      for pipeline <- [[~w(cat), ~w(cat)], [sh("cat; sleep 60"), ~w(sleep 60)]] do
        stream = Exile.stream!(pipeline, input: input)
        assert_raise RuntimeError, "input", fn -> Stream.run(stream) end
        assert_no_command()
        assert_quiet()
      end
    end
  end

  describe "a pipeline with a command that cannot be started" do
    test "raises Exile.Process.Error that names it, and leaves nothing of the others" do
      for index <- 0..2 do
        pipeline = List.replace_at(List.duplicate(~w(sleep 60), 3), index, ["no-such-program"])

        for stream <- [Exile.stream!(pipeline), Exile.stream(pipeline, stderr: :consume)] do
          error = assert_raise Exile.Process.Error, fn -> Stream.run(stream) end
          assert {error.reason, error.subject} == {:enoent, "no-such-program"}
          assert_no_command()
          assert_quiet()
        end
      end
    end
  end

  describe "the end of a pipeline" do
    @stubborn "trap '' TERM; echo ready; while :; do sleep 1; done"

    test "reaches all stages in about a second when the reader stops early" do
      for pipeline <- [
            [sh(@stubborn), sh("trap '' TERM; cat; cat")],
            [sh("echo ready; kill -STOP $$"), ~w(cat)],
            [~w(yes), ~w(cat), ~w(cat)]
          ] do
        stream = Exile.stream!(pipeline, ignore_epipe: true)
        {ms, [_]} = timed(fn -> Enum.take(stream, 1) end)
        assert ms < 3_000
        assert_no_command()
        assert_quiet()
      end
    end

    test "early is reported by the stage that failed, not one whose reader stopped" do
      stream = Exile.stream!([~w(yes), sh("head -n 1; exit 5")])
      assert_raise AbnormalExit, ~r/: 5 \("sh", stage 2 of 2\b/, fn -> Enum.take(stream, 1) end

      assert_raise AbnormalExit, ~r/:epipe/, fn ->
        Enum.take(Exile.stream!([~w(yes), ~w(cat)]), 1)
      end
    end

    test "reaches all stages when the reader raises, throws or is killed" do
      test = self()
      stream = Exile.stream!([~w(yes), ~w(cat)])
      assert_raise RuntimeError, fn -> Enum.each(stream, fn _ -> raise "reader" end) end
      assert_no_command()
      assert catch_throw(Enum.each(stream, fn _ -> throw(:ball) end)) == :ball
      assert_no_command()

      reader =
        spawn(fn ->
          Enum.each(stream, fn _ ->
            send(test, :reading)
            Process.sleep(:infinity)
          end)
        end)

      assert_receive :reading, 5_000
      Process.exit(reader, :kill)
      assert_no_command()
      assert_quiet()
    end

    test "is awaited at every stage, as in a shell" do
      {ms, elements} = timed(fn -> Enum.to_list(Exile.stream!([~w(sleep 0.5), ~w(echo hi)])) end)
      assert elements == ["hi\n"]
      assert ms >= 500
    end

    test "that does not come within :exit_timeout is forced, and the late stage is named" do
      stream = Exile.stream!([sh("exec >&-; sleep 60"), ~w(cat)], exit_timeout: 100)
      {ms, error} = timed(fn -> assert_raise AbnormalExit, fn -> Stream.run(stream) end end)
      assert ms < 3_000
      assert {error.stage, error.exit_status} == {1, 143}

      assert Exception.message(error) ==
               "program exited with exit status: 143 (\"sh\", stage 1 of 2, did not exit within " <>
                 "100 ms after its output had ended)"

      assert_no_command()
      assert_quiet()
    end

    test "does not wait longer than :drain_timeout for what others hold open" do
      for options <- [[], [stderr: :consume]] do
        pipeline = [~w(echo in), sh("sleep 61 & cat")]
        stream = Exile.stream!(pipeline, [drain_timeout: 100] ++ options)
        {ms, elements} = timed(fn -> Enum.to_list(stream) end)
        assert Enum.map(elements, &untagged/1) == ["in\n"]
        assert ms < 3_000
        assert_quiet()
      end

      kill_all("sleep 61")
    end

    defp untagged({:stdout, data}), do: data
    defp untagged(data), do: data

    # The background processes of the commands are no longer children of the VM.
    defp kill_all(line) do
      for entry <- File.ls!("/proc"),
          entry =~ ~r/^\d+$/,
          {:ok, found} <- [File.read("/proc/#{entry}/cmdline")],
          String.replace(String.trim(found, <<0>>), <<0>>, " ") == line,
          do: System.cmd("kill", ["-KILL", entry])
    end

    test "leaves no process behind when a stage is killed from outside" do
      assert {number, go} = step(Exile.stream!([sh("echo $$; exec sleep 60"), ~w(cat)]))
      System.cmd("kill", ["-KILL", String.trim(number)])
      assert_raise AbnormalExit, ~r/: 137 \("sh", stage 1 of 2\b/, fn -> rest(go) end
      assert_quiet()
    end
  end

  describe "a stream as the input of another" do
    test "is joined by a pipe that the VM does not hold" do
      inner = Exile.stream!(~w(sleep 0.2))
      outer = Exile.stream!(sh("readlink /proc/self/fd/0; cat"), input: inner)
      assert {pipe, go} = step(outer)
      refute String.trim(pipe) in vm_pipes()
      assert rest(go) == []
    end

    test "keeps its own options, and its own input" do
      inner = Exile.stream!(sh("pwd; cat"), cd: "/", input: ["from ", "here\n"])
      outer = Exile.stream!(sh("cat; pwd"), cd: "/tmp", input: inner)
      assert Enum.join(outer) == "/\nfrom here\n/tmp\n"
    end

    test "is enumerated when its elements are tagged" do
      inner = Exile.stream!(~w(echo hi), stderr: :consume)

      assert_raise ArgumentError, ~r/iodata/, fn ->
        Stream.run(Exile.stream!(~w(cat), input: inner))
      end

      untag = Stream.map(inner, fn {_, data} -> data end)
      assert Enum.join(Exile.stream!(~w(cat), input: untag)) == "hi\n"
    end
  end

  describe "stdout: {:file, path}" do
    @describetag :tmp_dir

    test "is written by the command itself, and the stream has no elements", %{tmp_dir: dir} do
      path = Path.join(dir, "out")
      link = sh("exec 3>&1; readlink /proc/self/fd/3 >&2; echo hi")
      stream = Exile.stream!(link, stdout: {:file, path}, stderr: :consume)
      assert Enum.to_list(stream) == [stderr: Path.expand(path) <> "\n"]
      assert File.read!(path) == "hi\n"
      assert Enum.to_list(Exile.stream!(~w(echo hi), stdout: {:file, path})) == []

      assert Enum.to_list(Exile.stream(~w(false), stdout: {:file, path})) == [
               {:exit, {:status, 1}}
             ]

      assert File.read!(path) == ""
    end

    test "empties the file, or writes at its end with :append", %{tmp_dir: dir} do
      path = Path.join(dir, "out")
      File.write!(path, "a long first line\n")
      Stream.run(Exile.stream!(~w(echo one), stdout: {:file, path}))
      Stream.run(Exile.stream!(~w(echo two), stdout: {:file, path, :append}))
      assert File.read!(path) == "one\ntwo\n"
      other = Path.join(dir, "other")
      Stream.run(Exile.stream!(~w(echo new), stdout: {:file, other, :append}))
      assert File.read!(other) == "new\n"
    end

    test "applies to the last of several commands", %{tmp_dir: dir} do
      {from, to} = {Path.join(dir, "from"), Path.join(dir, "to")}
      File.write!(from, "b\na\n")
      pipeline = [~w(sort), ~w(tr a-z A-Z)]
      Stream.run(Exile.stream!(pipeline, input: {:file, from}, stdout: {:file, to}))
      assert File.read!(to) == "A\nB\n"
      assert_quiet()
    end

    test "takes standard error, too, with :redirect_to_stdout", %{tmp_dir: dir} do
      path = Path.join(dir, "out")
      options = [stdout: {:file, path}, stderr: :redirect_to_stdout]
      Stream.run(Exile.stream!(sh("echo out; echo err >&2"), options))
      assert File.read!(path) == "out\nerr\n"
    end

    test "fails like any stream", %{tmp_dir: dir} do
      path = Path.join(dir, "out")
      stream = Exile.stream!(sh("echo x; exit 2"), stdout: {:file, path})
      assert_raise AbnormalExit, ~r/: 2 \("/, fn -> Stream.run(stream) end
      assert_quiet()
    end

    test "is written to the end whatever :exit_timeout says", %{tmp_dir: dir} do
      path = Path.join(dir, "out")
      script = sh("for i in 1 2 3; do echo $i; sleep 0.1; done")
      Stream.run(Exile.stream!(script, stdout: {:file, path}, exit_timeout: 10))
      assert File.read!(path) == "1\n2\n3\n"
    end

    test "raises Exile.Process.Error when the file cannot be opened, and runs nothing", %{
      tmp_dir: dir
    } do
      fifo = Path.join(dir, "fifo")
      {_, 0} = System.cmd("mkfifo", [fifo])

      for {path, reason} <- [{dir, :eisdir}, {Path.join(dir, "no/dir"), :enoent}, {fifo, :enxio}] do
        error =
          assert_raise Exile.Process.Error, fn ->
            Stream.run(Exile.stream!(~w(echo hi), stdout: {:file, path}))
          end

        assert {error.reason, error.operation, error.subject} == {reason, :output, path}
        assert Exception.message(error) =~ "could not open the output"
        assert_quiet()
      end
    end

    test "as the input of another stream is enumerated, and empty", %{tmp_dir: dir} do
      inner = Exile.stream!(~w(echo hi), stdout: {:file, Path.join(dir, "out")})
      assert Enum.join(Exile.stream!(~w(cat), input: inner)) == ""
    end

    test "of the wrong kind raises an ArgumentError that names it" do
      for wrong <- [:pipe, "out", {:file, 1}, {:file, "a\0b"}, {:file, "a", :write}] do
        assert_raise ArgumentError, ~r/:stdout/, fn -> Exile.stream!(~w(cat), stdout: wrong) end
      end
    end
  end

  describe "a pipeline of the wrong kind" do
    test "raises an ArgumentError that names it" do
      for wrong <- [[[]], [["a"], "b"], [["a"], []], [["a"] | ["b"]], [["a"], ["b\0"]]] do
        assert_raise ArgumentError, fn -> Exile.stream!(wrong) end
      end
    end
  end
end
