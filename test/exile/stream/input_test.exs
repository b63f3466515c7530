defmodule Exile.Stream.InputTest do
  use Exile.Case

  import Exile.StreamSteps

  @all_bytes :binary.list_to_bin(Enum.to_list(0..255))

  describe "without :input" do
    test "the command sees end-of-file at once and does not wait" do
      assert Enum.to_list(Exile.stream!(~w(cat))) == []
      assert Enum.to_list(Exile.stream(~w(cat))) == [{:exit, {:status, 0}}]
    end

    test "a command may read repeatedly and sees end-of-file each time" do
      assert Enum.join(Exile.stream!(sh("cat; cat; echo done"))) == "done\n"
    end

    test "nil means the same" do
      assert Enum.to_list(Exile.stream!(~w(cat), input: nil)) == []
    end
  end

  describe "input: an enumerable" do
    test "a list of binaries is read in order" do
      assert cat(["one ", "two ", "three"]) == "one two three"
    end

    test "an empty one is end-of-file" do
      assert cat([]) == ""
      assert cat(Stream.take(["x"], 0)) == ""
    end

    test "empty elements are ignored" do
      assert cat(["", [], [[]], "x", ["", []], "y", ""]) == "xy"
      assert cat(["", []]) == ""
    end

    test "elements may be nested iodata" do
      assert cat([["a", [?b, ["c" | "d"]]], [[[[]]], "e"], ~c"fg"]) == "abcdefg"
    end

    test "elements of very many parts are written whole and in order" do
      parts = for n <- 1..20_000, do: [Integer.to_string(n), ?\s]
      assert cat([parts, "end"]) == IO.iodata_to_binary([parts, "end"])
    end

    test "bytes of any value pass unchanged" do
      assert cat([@all_bytes, <<0, 0, 0>>, @all_bytes]) == @all_bytes <> <<0, 0, 0>> <> @all_bytes
    end

    test "a Stream is evaluated lazily every time the command runs" do
      test = self()

      input =
        Stream.map(["a", "b"], fn element ->
          send(test, {:evaluated, element})
          element
        end)

      stream = Exile.stream!(~w(cat), input: input)
      assert_no_message()

      for _ <- 1..2 do
        assert Enum.join(stream) == "ab"
        assert_receive {:evaluated, "a"}
        assert_receive {:evaluated, "b"}
        assert_no_message()
      end
    end

    @tag :tmp_dir
    test "a File.Stream is read whole", %{tmp_dir: dir} do
      path = Path.join(dir, "input")
      File.write!(path, "one\ntwo\n\nthree")
      assert cat(File.stream!(path)) == "one\ntwo\n\nthree"
    end

    test "sets, mapped ranges and functions of two arguments are enumerables, too" do
      assert cat(MapSet.new(["x"])) == "x"
      assert cat(Stream.map(1..3, &Integer.to_string/1)) == "123"
      assert cat(&Enumerable.reduce(["a", "b"], &1, &2)) == "ab"
    end

    test "one-byte elements arrive complete and in order" do
      data = :rand.bytes(20_000)
      assert cat(for <<byte <- data>>, do: <<byte>>) == data
    end

    test "the command reads the same wherever the data is split" do
      data = :rand.bytes(300_000)

      for _ <- 1..20 do
        assert cat(split(data)) == data
      end
    end

    test "one element that is much larger than a pipe is written whole" do
      data = :binary.copy(@all_bytes, 40_000)
      assert digest(Exile.stream!(~w(cat), input: [data])) == digest([data])
    end

    test "another Exile stream is an enumerable" do
      upper = Exile.stream!(~w(tr a-z A-Z), input: ["hello ", "world"])
      assert cat(upper) == "HELLO WORLD"
    end

    test "Exile streams can be chained, and the chain can run again" do
      first = Exile.stream!(sh("seq 1 1000"))
      second = Exile.stream!(~w(grep 7), input: first)
      third = Exile.stream!(~w(wc -l), input: second)
      assert [count] = Enum.to_list(third)
      assert number(count) == Enum.count(1..1000, &(to_string(&1) =~ "7"))
      assert Enum.to_list(third) == [count]
    end

    test "an endless Exile stream is stopped when the command stops reading" do
      stream = Exile.stream!(~w(head -c 4), input: Exile.stream!(~w(yes)))
      assert Enum.join(stream) == "y\ny\n"
    end
  end

  describe "input: a binary" do
    test "is read whole" do
      assert cat("hello") == "hello"
      assert cat(@all_bytes) == @all_bytes
    end

    test "an empty one is end-of-file" do
      assert cat("") == ""
    end

    test "may be larger than a pipe" do
      data = :binary.copy(@all_bytes, 10_000)
      assert cat(data) == data
    end
  end

  describe "input: a function" do
    test "gets a collectable and pushes into it" do
      assert cat(&Enum.into(["a", ["b", ?c]], &1)) == "abc"
      assert cat(&for(n <- 1..3, into: &1, do: to_string(n))) == "123"
    end

    test "may push as often as it wants, or not at all" do
      assert cat(fn sink -> for _ <- 1..3, do: Enum.into(["x", "y"], sink) end) == "xyxyxy"
      assert cat(fn _sink -> :ok end) == ""
    end

    test "what it returns is ignored" do
      for value <- [nil, :error, {:error, :reason}, "more", ["more"], self()] do
        assert cat(fn sink ->
                 Enum.into(["x"], sink)
                 value
               end) == "x"
      end
    end

    test "runs while the output is read" do
      test = self()

      stream =
        Exile.stream!(~w(cat),
          input: fn sink ->
            Enum.into(["ping"], sink)
            send(test, {:input, self()})
            receive do: (:go_on -> Enum.into(["pong"], sink))
          end
        )

      assert {"ping", continuation} = step(stream)
      assert_receive {:input, input}
      send(input, :go_on)
      assert rest(continuation) == ["pong"]
      assert_quiet()
    end

    test "may continue after an interrupted collect" do
      input = fn sink ->
        catch_throw(Enum.into(Stream.map(["a", :enough], &letter/1), sink))
        Enum.into(["b"], sink)
      end

      assert cat(input) == "ab"
    end

    test "programs written for older versions run unchanged" do
      stream =
        Exile.stream!(~w(cat),
          input: fn sink -> Enum.into(1..3 |> Stream.map(&to_string/1), sink) end
        )

      assert Enum.join(stream) == "123"
    end
  end

  describe "input: {:file, path}" do
    @describetag :tmp_dir

    test "the file becomes standard input, whatever bytes it contains", %{tmp_dir: dir} do
      path = file(dir, [@all_bytes, <<0>>, "end"])
      assert cat({:file, path}) == @all_bytes <> <<0>> <> "end"
    end

    test "an empty file is end-of-file", %{tmp_dir: dir} do
      assert cat({:file, file(dir, "")}) == ""
    end

    test "the command gets the file itself, not a pipe", %{tmp_dir: dir} do
      path = file(dir, "hello")
      stream = Exile.stream!(~w(readlink /proc/self/fd/0), input: {:file, path})
      assert Enum.join(stream) == Path.expand(path) <> "\n"
    end

    test "each enumeration reads it from its beginning", %{tmp_dir: dir} do
      stream = Exile.stream!(~w(cat), input: {:file, file(dir, "once more")})
      for _ <- 1..3, do: assert(Enum.join(stream) == "once more")
    end

    test "a relative path is relative to the directory of the VM", %{tmp_dir: dir} do
      path = dir |> file("here") |> Path.relative_to_cwd()
      refute Path.type(path) == :absolute
      assert Enum.join(Exile.stream!(~w(cat), input: {:file, path}, cd: "/")) == "here"
    end

    test "it need not be read to its end", %{tmp_dir: dir} do
      path = file(dir, :binary.copy("x", 1_000_000))
      assert Enum.join(Exile.stream!(~w(head -c 3), input: {:file, path})) == "xxx"
      assert Enum.to_list(Exile.stream(~w(true), input: {:file, path})) == [{:exit, {:status, 0}}]
    end

    test "a file that is not there raises Exile.Process.Error when the command should run", %{
      tmp_dir: dir
    } do
      path = Path.join(dir, "missing")

      for stream <- both(~w(cat), input: {:file, path}) do
        error = assert_raise Exile.Process.Error, fn -> Enum.to_list(stream) end
        assert error.reason == :enoent
        assert Exception.message(error) =~ path
        assert Exception.message(error) =~ "no such file"
        assert_quiet()
      end
    end

    test "a directory is refused", %{tmp_dir: dir} do
      for stream <- both(~w(cat), input: {:file, dir}) do
        error = assert_raise Exile.Process.Error, fn -> Enum.to_list(stream) end
        assert {error.reason, error.subject} == {:eisdir, dir}
        assert_quiet()
      end
    end
  end

  describe "input: %File.Stream{}" do
    @describetag :tmp_dir

    test "of byte chunks is the file itself", %{tmp_dir: dir} do
      path = file(dir, @all_bytes)
      link = Exile.stream!(~w(readlink /proc/self/fd/0), input: file_stream(path, [], 10))
      assert Enum.join(link) == Path.expand(path) <> "\n"

      for modes <- [[], [:read_ahead], [{:read_ahead, false}], [{:read_ahead, 4096}]],
          do: assert(cat(file_stream(path, modes, 10)) == @all_bytes)
    end

    test "whose elements are not the bytes of the file is enumerated", %{tmp_dir: dir} do
      text = "\uFEFFgr\u00FC\u00DFe\r\nzwei\r\n"
      path = file(dir, text)
      zipped = file(dir, :zlib.gzip(text), "zipped")

      for {path, modes, size} <- [
            {path, [], :line},
            {path, [:trim_bom], 3},
            {path, [{:encoding, :latin1}], 5},
            {zipped, [:compressed], 5}
          ] do
        stream = file_stream(path, modes, size)
        assert cat(stream) == Enum.join(stream)
        pipe = Exile.stream!(~w(readlink /proc/self/fd/0), input: stream)
        assert Enum.join(pipe) =~ "pipe:"
      end
    end

    test "of a FIFO waits for a writer", %{tmp_dir: dir} do
      fifo = Path.join(dir, "fifo")
      {_, 0} = System.cmd("mkfifo", [fifo])
      reader = Task.async(fn -> cat(file_stream(fifo, [], 10)) end)
      {_, 0} = System.cmd("sh", ["-c", "echo from the other end > \"$0\"", fifo])
      assert Task.await(reader) == "from the other end\n"
    end

    test "of a missing file raises what enumerating it raises", %{tmp_dir: dir} do
      for path <- [Path.join(dir, "missing"), dir],
          stream <- both(~w(cat), input: file_stream(path, [], 10)) do
        error = assert_raise File.Error, fn -> Enum.to_list(stream) end

        assert error ==
                 assert_raise(File.Error, fn -> Enum.to_list(file_stream(path, [], 10)) end)

        assert_quiet()
      end
    end
  end

  describe "an :input of the wrong kind" do
    test "raises an ArgumentError that names it, before anything runs" do
      wrong = [
        :input,
        true,
        17,
        1.5,
        self(),
        make_ref(),
        {:file, 1},
        {:file, ~c"path"},
        {:file, nil},
        {:stream, []},
        fn -> [] end,
        fn _, _, _ -> [] end,
        %URI{}
      ]

      for input <- wrong do
        for stream <- [&Exile.stream!/2, &Exile.stream/2] do
          error = assert_raise ArgumentError, fn -> stream.(~w(cat), input: input) end
          assert error.message =~ ":input"
          assert error.message =~ inspect(input)
        end
      end
    end

    test "includes a file name with a NUL byte" do
      assert_raise ArgumentError, ~r/:input.*NUL/, fn ->
        Exile.stream!(~w(cat), input: {:file, "a\0b"})
      end
    end
  end

  describe "an element of :input that is not iodata" do
    test "raises an ArgumentError that shows it, and ends the command" do
      for element <- [nil, :atom, 17, 1.5, {:stdout, "x"}, [:atom], ["x", 256], %{}] do
        for stream <- both(~w(cat), input: ["first", element]) do
          error = assert_raise ArgumentError, fn -> Stream.run(stream) end
          assert error.message =~ "iodata"
          assert error.message =~ inspect(element)
          assert_no_command()
          assert_quiet()
        end
      end
    end

    test "may also be pushed into the sink" do
      assert_raise ArgumentError, ~r/iodata.*:wrong/, fn ->
        Stream.run(Exile.stream!(~w(cat), input: &Enum.into(["right", :wrong], &1)))
      end
    end

    test "includes an element of a stream that consumes stderr" do
      tagged = Exile.stream!(sh("echo oops >&2"), stderr: :consume)

      assert_raise ArgumentError, ~r/iodata.*:stderr/, fn ->
        Stream.run(Exile.stream!(~w(cat), input: tagged))
      end
    end
  end

  describe "the process of the input" do
    test "is not the one that enumerates, and not linked to it" do
      test = self()
      tell = fn _sink -> send(test, {:input, self(), Process.info(self(), :links)}) end
      Stream.run(Exile.stream!(~w(cat), input: tell))
      assert_receive {:input, input, {:links, links}}
      assert input != test
      assert test not in links
      assert_ended(input)
    end

    test "has $callers that begin with the enumerating process" do
      test = self()
      tell = fn _sink -> send(test, {:callers, Process.get(:"$callers")}) end
      Stream.run(Exile.stream!(~w(cat), input: tell))
      assert_receive {:callers, [^test]}

      task = Task.async(fn -> Stream.run(Exile.stream!(~w(cat), input: tell)) end)
      Task.await(task)
      assert_receive {:callers, [enumerating, ^test]}
      assert enumerating == task.pid
    end

    test "does not exist if there is nothing to evaluate" do
      before = Process.list()
      assert {_, go} = step(Exile.stream!(sh("echo; exec sleep 60"), ignore_epipe: true))
      eventually(fn -> Process.list() -- before == [] end)
      halt(go)
      assert_quiet()
    end

    test "has ended when the enumeration has" do
      test = self()

      input = fn sink ->
        send(test, {:input, self()})
        Enum.into(Stream.cycle(["x"]), sink)
      end

      Stream.run(Exile.stream!(~w(head -c 1), input: input))
      assert_receive {:input, pid}
      assert_ended(pid)
    end

    test "may trap exits and use its mailbox" do
      input = fn sink ->
        Process.flag(:trap_exit, true)
        task = Task.async(fn -> "from a task" end)
        Enum.into([Task.await(task)], sink)
      end

      assert cat(input) == "from a task"
    end
  end

  describe "a command that ends before it has read all its input" do
    test "has not failed" do
      for input <- [Stream.cycle(["x"]), &Enum.into(Stream.cycle(["x"]), &1), large()] do
        assert Enum.to_list(Exile.stream!(~w(head -c 2), input: input)) == ["xx"]
        stream = Exile.stream(~w(head -c 2), input: input)
        assert Enum.to_list(stream) == ["xx", {:exit, {:status, 0}}]
        assert_quiet()
      end
    end

    test "has not failed if it has read nothing, whether or not the input fits into the pipe" do
      for input <- ["x", ["x", "y"], large(), Stream.cycle(["x"])], _ <- 1..20 do
        assert Enum.to_list(Exile.stream!(~w(true), input: input)) == []
      end

      assert_quiet()
    end

    test "fails with its own status when it has one" do
      stream = sh("head -c 2; exit 9") |> Exile.stream(input: Stream.cycle(["x"]))
      assert Enum.to_list(stream) == ["xx", {:exit, {:status, 9}}]
    end

    test "does not wait for a silent input" do
      test = self()

      input = fn _sink ->
        send(test, {:input, self()})
        Process.sleep(:infinity)
      end

      {ms, elements} = timed(fn -> Enum.to_list(Exile.stream(sh("echo hi"), input: input)) end)
      assert elements == ["hi\n", {:exit, {:status, 0}}]
      assert ms < 3_000
      assert_receive {:input, pid}
      assert_ended(pid)
      assert_quiet()
    end

    test "raises :epipe in its input, which may rescue it" do
      test = self()

      input = fn sink ->
        try do
          Enum.into(Stream.cycle(["x"]), sink)
        rescue
          error in Exile.Process.Error -> send(test, {:reason, error.reason})
        end
      end

      assert Enum.join(Exile.stream!(~w(head -c 2), input: input)) == "xx"
      assert_receive {:reason, :epipe}
    end

    test "ends its input even when a program that it started holds the pipe open" do
      # The descendant keeps standard input open but does not read it.
      script = "exec 3<&0; sleep 60 <&3 >/dev/null 2>&1 & echo $!"
      stream = Exile.stream(sh(script), input: Stream.cycle(["x"]))
      {ms, [line, last]} = timed(fn -> Enum.to_list(stream) end)
      System.cmd("kill", [String.trim(line)])
      assert last == {:exit, {:status, 0}}
      assert ms < 3_000
    end
  end

  defp cat(input), do: Enum.join(Exile.stream!(~w(cat), input: input))

  defp both(command, options),
    do: [Exile.stream!(command, options), Exile.stream(command, options)]

  defp letter(:enough), do: throw(:enough)
  defp letter(letter), do: letter

  defp large, do: :binary.copy("x", 5_000_000)

  # The order of the arguments has changed.
  if Version.match?(System.version(), ">= 1.16.0") do
    defp file_stream(path, modes, size), do: File.stream!(path, size, modes)
  else
    defp file_stream(path, modes, size), do: File.stream!(path, modes, size)
  end

  defp file(dir, content, name \\ "file") do
    path = Path.join(dir, name)
    File.write!(path, content)
    path
  end

  defp split(""), do: []

  defp split(data) do
    size = min(:rand.uniform(30_000), byte_size(data))
    rest = binary_part(data, size, byte_size(data) - size)
    [binary_part(data, 0, size) | split(rest)]
  end
end
