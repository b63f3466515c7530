defmodule Exile.Stream.OutputTest do
  use Exile.Case

  import Exile.StreamSteps

  @all_bytes :binary.list_to_bin(Enum.to_list(0..255))

  describe "a stream" do
    @describetag :tmp_dir

    test "runs nothing until it is enumerated", %{tmp_dir: dir} do
      path = Path.join(dir, "ran")
      stream = Exile.stream!(~w(touch #{path}))
      assert %Exile.Stream{} = stream
      mapped = stream |> Stream.map(&flunk(inspect(&1))) |> Stream.filter(& &1)
      assert Enum.take(stream, 0) == []
      refute File.exists?(path)
      assert Enum.to_list(mapped) == []
      assert File.exists?(path)
    end

    test "that is halted or suspended before its first element runs nothing", %{
      tmp_dir: dir
    } do
      path = Path.join(dir, "ran")

      for stream <- [Exile.stream!(~w(touch #{path})), Exile.stream(~w(touch #{path}))] do
        assert Enumerable.reduce(stream, {:halt, :acc}, &flunk_on/2) == {:halted, :acc}
        assert {:suspended, :acc, go} = Enumerable.reduce(stream, {:suspend, :acc}, &flunk_on/2)
        assert {:suspended, :other, go} = go.({:suspend, :other})
        assert go.({:halt, :last}) == {:halted, :last}
      end

      refute File.exists?(path)
      assert_quiet()
    end

    test "that was suspended before its first element runs when it is resumed" do
      stream = Exile.stream!(~w(echo hi))
      assert {:suspended, [], go} = Enumerable.reduce(stream, {:suspend, []}, &{:cont, [&1 | &2]})
      assert go.({:cont, []}) == {:done, ["hi\n"]}
    end

    test "runs its command again for each enumeration", %{tmp_dir: dir} do
      path = Path.join(dir, "runs")
      stream = Exile.stream!(sh("echo run >> #{path}; wc -l < #{path}"))
      assert for(_ <- 1..3, do: stream |> Enum.join() |> number()) == [1, 2, 3]
    end

    test "can be enumerated by many processes at once" do
      stream = Exile.stream!(~w(cat), input: ["same ", "for all"])
      tasks = for _ <- 1..20, do: Task.async(fn -> Enum.join(stream) end)
      assert tasks |> Task.await_many(30_000) |> Enum.uniq() == ["same for all"]
    end

    test "can be enumerated within its own enumeration" do
      stream = Exile.stream!(sh("echo a; echo b"), max_chunk_size: 2)

      assert for(x <- stream, y <- stream, do: x <> y) ==
               ["a\na\n", "a\nb\n", "b\na\n", "b\nb\n"]
    end

    test "works with the functions of Enum and Stream that need sizes and members" do
      stream = Exile.stream!(sh("printf abc"), max_chunk_size: 1)
      assert Enum.count(stream) == 3
      assert Enum.member?(stream, "c")
      refute Enum.member?(stream, "d")
      assert Enum.slice(stream, 1, 2) == ["b", "c"]
      assert Enum.at(stream, 2) == "c"
      assert Enum.zip(stream, 1..3) == [{"a", 1}, {"b", 2}, {"c", 3}]
      assert stream |> Stream.chunk_every(2) |> Enum.to_list() == [["a", "b"], ["c"]]
      assert Enum.reverse(stream) == ["c", "b", "a"]
      assert Enum.into(stream, "") == "abc"
      assert Enum.to_list(Stream.concat(stream, stream)) == ~w(a b c a b c)
    end
  end

  describe "the elements" do
    test "are the unchanged output of the command" do
      assert Enum.join(Exile.stream!(sh("printf 'one\\ntwo'"))) == "one\ntwo"
      assert Enum.join(Exile.stream!(~w(cat), input: [@all_bytes])) == @all_bytes
    end

    test "are none when the command writes nothing" do
      assert Enum.to_list(Exile.stream!(~w(true))) == []
      assert Enum.to_list(Exile.stream!(sh("printf ''; exec >&-"))) == []
    end

    test "arrive as they are written, each before the command continues" do
      test = self()

      input = fn sink ->
        send(test, {:input, self()})

        for _ <- 1..3 do
          receive do: (:go_on -> Enum.into(["\n"], sink))
        end
      end

      stream = Exile.stream!(sh("echo ready; while read _; do echo next; done"), input: input)
      assert {"ready\n", go} = step(stream)
      assert_receive {:input, input}

      go =
        for _ <- 1..3, reduce: go do
          go ->
            send(input, :go_on)
            assert {"next\n", go} = step(go)
            go
        end

      assert step(go) == :done
    end

    test "are never empty and never larger than :max_chunk_size" do
      data = :rand.bytes(300_000)

      for size <- [1, 7, 4_096, 65_535, 65_536, 65_537, 1_000_000] do
        data = if size == 1, do: binary_part(data, 0, 30_000), else: data
        elements = Enum.to_list(Exile.stream!(~w(cat), input: data, max_chunk_size: size))
        assert Enum.all?(elements, &(byte_size(&1) in 1..size))
        assert IO.iodata_to_binary(elements) == data
      end
    end

    test "are single bytes with max_chunk_size: 1, in and out" do
      data = :rand.bytes(20_000)
      bytes = for <<byte <- data>>, do: <<byte>>
      assert Enum.to_list(Exile.stream!(~w(cat), input: bytes, max_chunk_size: 1)) == bytes
    end

    test "may be bounded by a number larger than any machine integer" do
      stream = Exile.stream!(~w(echo hi), max_chunk_size: Integer.pow(2, 100))
      assert Enum.to_list(stream) == ["hi\n"]
    end

    test "are at most 65,536 bytes by default" do
      sizes = ~w(head -c 20000000 /dev/zero) |> Exile.stream!() |> Enum.map(&byte_size/1)
      assert Enum.max(sizes) <= 65_536
      assert Enum.sum(sizes) == 20_000_000
    end
  end

  describe "64 MiB" do
    @block_size 65_536
    @blocks 1_024

    test "through a command and back are the same bytes" do
      block = :rand.bytes(@block_size - 4)
      input = Stream.map(1..@blocks, &[<<&1::32>>, block])
      size = @blocks * @block_size

      for options <- [[], [max_chunk_size: 10_000], [stderr: :consume]] do
        {count, hash} =
          ~w(cat)
          |> Exile.stream!([input: input] ++ options)
          |> Stream.map(fn element -> with {:stdout, data} <- element, do: data end)
          |> Enum.reduce({0, :erlang.md5_init()}, fn data, {count, hash} ->
            {count + byte_size(data), :erlang.md5_update(hash, data)}
          end)

        assert count == size
        assert :erlang.md5_final(hash) == digest(input)
      end
    end

    test "as one binary are the same bytes" do
      data = :binary.copy(:rand.bytes(@block_size), @blocks)
      assert digest(Exile.stream!(~w(cat), input: data)) == digest([data])
    end
  end

  defp flunk_on(element, _acc), do: flunk("there is an element: #{inspect(element)}")
end
