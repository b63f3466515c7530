defmodule Exile.Stream.BackPressureTest do
  use Exile.Case

  import Exile.StreamSteps

  # The capacity of our pipes: 64 KiB at first, 256 KiB once they are busy.
  @pipe 65_536
  @grown_pipe 262_144
  @chunk 65_536

  describe "a slow reader" do
    test "blocks the command when the pipe is full" do
      stream = Exile.stream!(sh("echo $$; exec yes"), ignore_epipe: true)
      assert {line, go} = step(stream)
      os_pid = number(hd(String.split(line, "\n")))
      received = byte_size(line)

      eventually(fn -> written(os_pid) - received >= div(@pipe, 2) end)
      assert settled(fn -> written(os_pid) end) - received <= @pipe
      assert {chunk, go} = step(go)
      # The whole content of the pipe arrives at once.
      assert byte_size(chunk) in div(@pipe, 2)..@chunk
      received = received + byte_size(chunk)
      assert settled(fn -> written(os_pid) end) - received <= @pipe
      halt(go)
    end

    test "is never behind by more than a grown pipe, however long it reads" do
      assert {line, go} = step(Exile.stream!(sh("echo $$; exec yes"), ignore_epipe: true))
      os_pid = number(hd(String.split(line, "\n")))

      {go, received} =
        for _ <- 1..100, reduce: {go, byte_size(line)} do
          {go, received} ->
            assert {chunk, go} = step(go)
            {go, received + byte_size(chunk)}
        end

      assert settled(fn -> written(os_pid) end) - received <= @grown_pipe
      halt(go)
    end

    test "stops the evaluation of the input through the command" do
      {input, count} = counted(Stream.repeatedly(fn -> :binary.copy("x", 1_000) end))
      assert {first, go} = step(Exile.stream!(~w(cat), input: input, ignore_epipe: true))
      # cat has a buffer, too, and one more element is being written.
      most = byte_size(first) + 2 * @grown_pipe + 262_144 + 1_000
      assert settled(count) * 1_000 <= most

      received =
        for _ <- 1..50, reduce: {go, byte_size(first)} do
          {go, received} ->
            assert {chunk, go} = step(go)
            {go, received + byte_size(chunk)}
        end

      {go, received} = received
      pulled = settled(count) * 1_000
      assert pulled - received <= most
      halt(go)
    end
  end

  describe "a slow command" do
    @element :binary.copy("x", 1_000)

    test "stops the evaluation of the input when the pipe is full" do
      {input, count} = counted(Stream.cycle([@element]))
      stream = Exile.stream!(sh("echo ready; exec sleep 60"), input: input, ignore_epipe: true)
      assert {"ready\n", go} = step(stream)
      # One element more than fits has been evaluated.
      eventually(fn -> count.() >= 60 end)
      assert settled(count) <= div(@pipe, 1_000) + 1
      halt(go)
    end

    test "that reads a little lets the evaluation continue a little" do
      {input, count} = counted(Stream.cycle([@element]))
      # The command reads 40,000 bytes for each signal.
      script = "trap : USR1; echo $$; while :; do sleep 60 & wait; head -c 40000 >/dev/null; done"
      stream = Exile.stream!(sh(script), input: input, ignore_epipe: true)
      assert {line, go} = step(stream)
      eventually(fn -> count.() >= 60 end)
      assert settled(count) <= 66
      assert {_, 0} = System.cmd("kill", ["-USR1", String.trim(line)])
      eventually(fn -> count.() >= 100 end)
      # By now the pipe may have grown.
      assert settled(count) <= div(@grown_pipe, 1_000) + 42
      halt(go)
    end

    test "lets the input process wait without using CPU time" do
      {input, count} = counted(Stream.cycle([@element]))
      test = self()

      input = fn sink ->
        send(test, {:input, self()})
        Enum.into(input, sink)
      end

      stream = Exile.stream!(sh("echo ready; exec sleep 60"), input: input, ignore_epipe: true)
      assert {"ready\n", go} = step(stream)
      assert_receive {:input, pid}
      eventually(fn -> count.() >= 60 and Process.info(pid, :status) == {:status, :waiting} end)
      reductions = fn -> Process.info(pid, :reductions) end
      before = reductions.()
      assert settled(reductions) == before
      halt(go)
    end
  end

  describe "memory" do
    @gibibyte 1_073_741_824
    @most 24 * 1_048_576
    # Measuring the memory takes longer than reading a chunk, so it is done rarely.
    @seldom 64

    test "stays flat while a GiB is read" do
      peak = new_peak()

      {_, count} =
        for data <- Exile.stream!(~w(head -c #{@gibibyte} /dev/zero)), reduce: {0, 0} do
          {elements, count} ->
            if rem(elements, @seldom) == 0, do: note(peak)
            {elements + 1, count + byte_size(data)}
        end

      assert count == @gibibyte
      assert growth(peak) < @most
    end

    test "stays flat while much is written" do
      peak = new_peak()
      size = div(@gibibyte, 4)

      input =
        Stream.map(1..div(size, @chunk), fn n ->
          if rem(n, @seldom) == 0, do: note(peak)
          :binary.copy(<<n>>, @chunk)
        end)

      assert [count] = Enum.to_list(Exile.stream!(~w(wc -c), input: input))
      assert number(count) == size
      assert growth(peak) < @most
    end

    test "stays flat while a command floods a slow reader" do
      peak = new_peak()
      stream = Exile.stream!(~w(yes), ignore_epipe: true)

      for _ <- Stream.take(stream, 100) do
        note(peak)
        Process.sleep(1)
      end

      assert growth(peak) < @most
    end
  end

  # The number of bytes that a process has written in total.
  defp written(os_pid) do
    [_, bytes] = Regex.run(~r/^wchar: (\d+)$/m, File.read!("/proc/#{os_pid}/io"))
    String.to_integer(bytes)
  end

  defp counted(enumerable) do
    count = :counters.new(1, [])

    {Stream.map(enumerable, fn element ->
       :counters.add(count, 1, 1)
       element
     end), fn -> :counters.get(count, 1) end}
  end

  defp memory, do: :erlang.memory(:binary) + :erlang.memory(:processes)

  # Holds the memory in use at the beginning, and the largest amount so far.
  defp new_peak do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    peak = :atomics.new(2, [])
    :atomics.put(peak, 1, memory())
    peak
  end

  defp note(peak), do: :atomics.put(peak, 2, max(:atomics.get(peak, 2), memory()))
  defp growth(peak), do: :atomics.get(peak, 2) - :atomics.get(peak, 1)
end
