defmodule Bench.Throughput do
  # Bytes through pipes.

  alias Bench.{Case, Measure, Others, ViaExile, ViaPort, ViaRust}

  @chunk 65_536
  @mebibyte 1_048_576
  @small_pipe 64 * 1024
  @large_pipe 256 * 1024

  def cases(quick?) do
    bytes = if quick?, do: 64 * @mebibyte, else: 1024 * @mebibyte
    lines = if quick?, do: 100_000, else: 1_000_000

    [read(bytes), overhead(bytes), duplex(bytes), both(div(bytes, 4)), lines(lines)]
  end

  defp zeros(bytes), do: ["head", "-c", "#{bytes}", "/dev/zero"]

  defp size(bytes), do: "#{div(bytes, @mebibyte)} MiB"

  defp read(bytes) do
    %Case{
      name: "read",
      title: "#{size(bytes)} of `head -c`, one after the other",
      metrics: [Case.throughput()],
      baselines: ["port", "Rust, 64 KiB pipe", "Rust, 256 KiB pipe"],
      contenders:
        [
          {"Exile.stream!", fn -> throughput(bytes, fn -> stream(bytes) end) end},
          {"Exile.Process.read, 64 KiB", fn -> throughput(bytes, fn -> loop(bytes) end) end},
          {"Exile.Process.read, its default",
           fn -> throughput(bytes, fn -> default_loop(bytes) end) end},
          {"port",
           fn ->
             throughput(bytes, fn -> bytes |> zeros() |> ViaPort.read_all() |> elem(0) end)
           end},
          ViaRust.read(bytes, @small_pipe),
          ViaRust.read(bytes, @large_pipe)
        ] ++ Others.read(zeros(bytes), bytes),
      goals: [
        {"Exile.stream!", :speed, "port", :at_least, 1.5},
        {"Exile.stream!", :speed, "Rust, 256 KiB pipe", :at_least, 1.0}
      ]
    }
  end

  defp overhead(bytes) do
    %Case{
      name: "overhead",
      title: "what Exile.stream! adds to a loop of reads, #{size(bytes)}",
      metrics: [Case.throughput()],
      baselines: ["Exile.Process.read, 64 KiB"],
      contenders: [
        {"Exile.stream!", fn -> throughput(bytes, fn -> stream(bytes) end) end},
        {"Exile.Process.read, 64 KiB", fn -> throughput(bytes, fn -> loop(bytes) end) end}
      ],
      goals: [{"Exile.stream!", :speed, "Exile.Process.read, 64 KiB", :at_least, 0.95}]
    }
  end

  defp duplex(bytes) do
    count = div(bytes, @chunk)
    chunk = :binary.copy(<<0>>, @chunk)
    # No list: each process it is copied to would have to look after all its binaries.
    input = Stream.map(1..count, fn _ -> chunk end)

    %Case{
      name: "duplex",
      title: "#{size(bytes)} into `cat` and out again at the same time",
      metrics: [Case.throughput()],
      baselines: ["port", "shell pipeline", "Rust, 256 KiB pipes"],
      contenders:
        [
          {"Exile.stream!",
           fn ->
             throughput(bytes, fn -> ViaExile.count(Exile.stream!(["cat"], input: input)) end)
           end},
          {"port", fn -> throughput(bytes, fn -> ViaPort.duplex(chunk, count) end) end},
          ViaRust.duplex(bytes, @small_pipe),
          ViaRust.duplex(bytes, @large_pipe),
          ViaRust.contender("shell pipeline", fn ->
            [time] = ViaRust.limits(["pipeline", bytes])
            Measure.speed(bytes, time)
          end)
        ] ++ Others.duplex(input, bytes),
      goals: [{"Exile.stream!", :speed, "shell pipeline", :at_least, 0.9}]
    }
  end

  # Two writers, so that both pipes are busy at the same time.
  defp both(bytes) do
    command = ["sh", "-c", "head -c #{bytes} /dev/zero & head -c #{bytes} /dev/zero >&2; wait"]

    %Case{
      name: "both",
      title: "#{size(bytes)} each from standard output and standard error",
      metrics: [Case.throughput()],
      baselines: ["port, merged", "Rust, two threads"],
      contenders: [
        {"Exile.stream!, apart",
         fn ->
           throughput({bytes, bytes}, fn ->
             command |> Exile.stream!(stderr: :consume) |> apart()
           end)
         end},
        {"Exile.stream!, merged",
         fn ->
           throughput(2 * bytes, fn ->
             ViaExile.count(Exile.stream!(command, stderr: :redirect_to_stdout))
           end)
         end},
        # A port cannot keep them apart.
        {"port, merged",
         fn ->
           throughput(2 * bytes, fn ->
             command |> ViaPort.read_all([:stderr_to_stdout]) |> elem(0)
           end)
         end},
        ViaRust.contender("Rust, two threads", fn ->
          [time] = ViaRust.limits(["both", bytes])
          Measure.speed(2 * bytes, time)
        end)
      ]
    }
  end

  defp apart(stream) do
    Enum.reduce(stream, {0, 0}, fn
      {:stdout, data}, {out, err} -> {out + byte_size(data), err}
      {:stderr, data}, {out, err} -> {out, err + byte_size(data)}
    end)
  end

  @line 20

  defp lines(count) do
    command = fn -> [ViaRust.path(), "lines", "#{count}"] end

    # The program that writes the lines is the Rust one, too.
    contenders = [
      ViaRust.contender("Exile.stream!", fn ->
        counted(count, fn ->
          Enum.reduce(Exile.stream!(command.()), {0, 0}, fn data, {bytes, reads} ->
            {bytes + byte_size(data), reads + 1}
          end)
        end)
      end),
      ViaRust.contender("Exile.Process.read, 64 KiB", fn ->
        counted(count, fn -> ViaExile.read_all(command.()) end)
      end),
      ViaRust.contender("port", fn -> counted(count, fn -> ViaPort.read_all(command.()) end) end),
      ViaRust.contender("Rust", fn ->
        [time, reads] = ViaRust.limits(["read-lines", count])
        %{time: time / 1.0e6, reads: reads}
      end)
    ]

    %Case{
      name: "lines",
      title: "#{count} lines of #{@line} bytes, each written by itself",
      metrics: [Case.time(), %{id: :reads, title: "reads", unit: "how many", better: :lower}],
      baselines: ["port", "Rust"],
      contenders: contenders
    }
  end

  defp counted(lines, fun) do
    start = System.monotonic_time(:nanosecond)
    {bytes, reads} = fun.()
    time = System.monotonic_time(:nanosecond) - start
    Measure.check!(lines * @line, bytes)
    %{time: time / 1.0e6, reads: reads}
  end

  defp throughput({one, other} = bytes, fun) do
    start = System.monotonic_time(:nanosecond)
    seen = fun.()
    time = System.monotonic_time(:nanosecond) - start
    Measure.check!(bytes, seen)
    Measure.speed(one + other, time)
  end

  defp throughput(bytes, fun), do: Measure.throughput(bytes, fun)

  defp stream(bytes), do: bytes |> zeros() |> Exile.stream!() |> ViaExile.count()
  defp loop(bytes), do: bytes |> zeros() |> ViaExile.read_all() |> elem(0)

  defp default_loop(bytes),
    do: bytes |> zeros() |> ViaExile.read_all(&Exile.Process.read/1) |> elem(0)
end
