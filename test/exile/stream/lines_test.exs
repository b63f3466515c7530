defmodule Exile.Stream.LinesTest do
  use Exile.Case

  alias Exile.Process.Error
  alias Exile.Stream.Lines

  defp lines(command, options \\ []), do: Exile.stream!(command, [lines: true] ++ options)

  describe ":lines" do
    test "makes elements of lines, without their newlines" do
      for output <- ["", "\n", "a", "a\n", "a\nb", "a\n\nb\n", "\n\n", "a\r\nb\r\n", "\0\n\xFF\n"] do
        assert Enum.to_list(lines(["cat"], input: output)) == lines_of(output)
      end
    end

    test "finds the lines however the output is cut" do
      script =
        "printf 'o'; sleep 0.02; printf 'ne\\ntw'; sleep 0.02; printf 'o\\n'; printf 'three'"

      assert Enum.to_list(lines(sh(script))) == ["one", "two", "three"]
    end

    test "is off when it is false or nil" do
      for off <- [false, nil] do
        assert Enum.to_list(Exile.stream!(["printf", "a\\nb\\n"], lines: off)) == ["a\nb\n"]
      end
    end

    test "gives each output its own lines" do
      script = "printf a; printf 1 >&2; printf 'b\\n'; printf '2\\n3' >&2; printf c"
      elements = Enum.to_list(lines(sh(script), stderr: :consume))
      assert for({:stdout, line} <- elements, do: line) == ["ab", "c"]
      assert for({:stderr, line} <- elements, do: line) == ["12", "3"]
    end

    test "of a stream that says how it ended come before that" do
      stream = Exile.stream(sh("printf 'a\\nb'; exit 3"), lines: true)
      assert Enum.to_list(stream) == ["a", "b", {:exit, {:status, 3}}]
    end

    test "of many come all, and a reader may stop between them" do
      assert lines(["seq", "200000"]) |> Enum.reduce(0, &(String.to_integer(&1) + &2)) ==
               20_000_100_000

      assert lines(["yes"], ignore_epipe: true) |> Enum.take(3) == ["y", "y", "y"]
    end

    test "a reader may be suspended between them" do
      assert lines(["seq", "5"]) |> Stream.zip(lines(["seq", "6", "10"])) |> Enum.to_list() ==
               Enum.map(1..5, &{"#{&1}", "#{&1 + 5}"})
    end

    test "may have as many bytes as it says, and a longer one is an error after those before it" do
      assert Enum.to_list(lines(["printf", "1234\\n123"], lines: 4)) == ["1234", "123"]

      for output <- ["ab\n12345\ncd\n", "ab\n12345", "ab\n12345678"] do
        stream = Exile.stream!(["cat"], input: output, lines: 4)
        test = self()
        error = assert_raise Error, fn -> Enum.each(stream, &send(test, &1)) end
        assert %{reason: :line_too_long, operation: :run, subject: "cat"} = error

        assert Exception.message(error) ==
                 ~S("cat" wrote a line that is longer than :lines allows)

        assert_received "ab"
        refute_received "cd"
      end
    end

    test "a line that never ends is an error in little memory" do
      stream = lines(["head", "-c", "500000000", "/dev/zero"])
      before = :erlang.memory(:binary)
      assert_raise Error, ~r/longer than :lines allows/, fn -> Stream.run(stream) end
      assert :erlang.memory(:binary) - before < 20_000_000
    end

    test "a line that is kept does not keep the chunk that it came in" do
      before = :erlang.memory(:binary)
      kept = lines(["seq", "1000000"]) |> Enum.take_every(1_000)
      assert length(kept) == 1_000
      :erlang.garbage_collect()
      assert :erlang.memory(:binary) - before < 5_000_000
      assert hd(kept) == "1"
    end

    test "a partial line comes before a timeout" do
      stream = lines(sh("printf 'a\\nb'; exec sleep 60"), timeout: 200)
      test = self()
      assert_raise Error, ~r/:timeout allows/, fn -> Enum.each(stream, &send(test, &1)) end
      assert_received "a"
      assert_received "b"
    end

    test "excludes :max_chunk_size" do
      for option <- [:max_chunk_size, :chunk_size] do
        message =
          "options :lines and :max_chunk_size exclude each other, got: [lines: true, max_chunk_size: 5]"

        assert_raise ArgumentError, message, fn -> lines(["true"], [{option, 5}]) end
      end
    end

    test "is a boolean or a positive integer" do
      for bad <- [0, -1, 1.5, :all, "10"] do
        message =
          "invalid value for option :lines: expected a boolean or the most bytes of a line, " <>
            "got: #{inspect(bad)}"

        assert_raise ArgumentError, message, fn -> Exile.stream!(["true"], lines: bad) end
      end
    end

    test "as an input is written without newlines" do
      assert Exile.stream!(["cat"], input: lines(["seq", "3"])) |> Enum.join() == "123"
    end
  end

  describe "lines cut at random" do
    test "are the same" do
      for _ <- 1..500 do
        output =
          for _ <- 1..:rand.uniform(60),
              into: "",
              do: Enum.random(["\n", "\r\n", "a", "bc", "\0"])

        assert output |> cut() |> feed(Lines.new(1_000)) == lines_of(output)
        assert feed(for(<<byte <- output>>, do: <<byte>>), Lines.new(1_000)) == lines_of(output)
      end
    end

    test "are too long or not, wherever they are cut" do
      for _ <- 1..500 do
        output =
          for _ <- 1..:rand.uniform(40), into: "", do: Enum.random(["\n", "a", "bc", "def"])

        all = lines_of(output)
        fitting = Enum.take_while(all, &(byte_size(&1) <= 4))
        expected = if fitting == all, do: all, else: {:too_long, fitting}
        assert output |> cut() |> feed(Lines.new(4)) == expected
      end
    end

    defp cut(""), do: []

    defp cut(output) do
      {chunk, rest} = String.split_at(output, :rand.uniform(8))
      [chunk | cut(rest)]
    end

    defp feed(chunks, lines), do: feed(chunks, lines, [])
    defp feed([], lines, ended), do: ended ++ Lines.rest(lines)

    defp feed([chunk | chunks], lines, ended) do
      case Lines.feed(lines, chunk) do
        {:ok, more, lines} -> feed(chunks, lines, ended ++ more)
        {:too_long, more} -> {:too_long, ended ++ more}
      end
    end
  end
end
