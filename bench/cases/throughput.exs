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

    [
      read(bytes),
      overhead(bytes),
      duplex(bytes),
      pipeline(bytes),
      file(div(bytes, 4)),
      both(div(bytes, 4)),
      lines(lines)
    ]
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

  # What does not pass through the VM. The last stage counts, which shows that all was there.
  defp pipeline(bytes) do
    stages = [zeros(bytes), ["cat"], ["wc", "-c"]]

    %Case{
      name: "pipeline",
      title: "#{size(bytes)} through `head | cat | wc -c`",
      metrics: [Case.throughput()],
      baselines: ["shell"],
      contenders: [
        {"Exile.stream!, a list of commands",
         joined(fn ->
           throughput(bytes, fn -> stages |> Exile.stream!() |> number() end)
         end)},
        {"Exile.stream!, streams as input",
         fn ->
           throughput(bytes, fn ->
             stages
             |> Enum.reduce(nil, &Exile.stream!(&1, input: &2))
             |> number()
           end)
         end},
        shell(bytes, "head -c #{bytes} /dev/zero | cat | wc -c", "#{bytes}")
      ],
      goals: [{"Exile.stream!, a list of commands", :speed, "shell", :at_least, 0.95}]
    }
  end

  defp number(stream), do: stream |> Enum.join() |> String.trim() |> String.to_integer()

  # Another build may not know lists of commands.
  defp joined(run) do
    Exile.stream!([["true"]])
    run
  rescue
    _ -> {:skip, "takes no list of commands"}
  end

  defp shell(bytes, script, output) do
    ViaRust.contender("shell", fn ->
      [time] = ViaRust.limits(["shell", script, output])
      Measure.speed(bytes, time)
    end)
  end

  # In memory, where there is such a place: disks are not what is asked for here.
  defp file(bytes) do
    directory = Enum.find(["/dev/shm", System.tmp_dir!()], &File.dir?/1)
    from = Path.join(directory, "exile-bench-#{System.pid()}-from")
    to = Path.join(directory, "exile-bench-#{System.pid()}-to")

    prepared = fn ->
      unless match?({:ok, %{size: ^bytes}}, File.stat(from)) do
        File.write!(from, List.duplicate(:binary.copy("a", @mebibyte), div(bytes, @mebibyte)))
        System.at_exit(fn _ -> Enum.each([from, to], &File.rm/1) end)
      end

      _ = File.rm(to)
    end

    %Case{
      name: "file",
      title: "#{size(bytes)} from a file through `tr a b` to a file",
      metrics: [Case.throughput()],
      baselines: ["shell"],
      contenders: [
        {"Exile.stream!, the command's own files",
         joined(fn ->
           prepared.()

           throughput(bytes, fn ->
             options = [input: {:file, from}, stdout: {:file, to}]
             Stream.run(Exile.stream!(["tr", "a", "b"], options))
             File.stat!(to).size
           end)
         end)},
        {"Exile.stream!, through the VM",
         fn ->
           prepared.()

           throughput(bytes, fn ->
             ["tr", "a", "b"]
             |> Exile.stream!(input: Stream.map(File.stream!(from, [], @chunk), & &1))
             |> Stream.into(File.stream!(to))
             |> Stream.run()

             File.stat!(to).size
           end)
         end},
        {"shell",
         with {_, run} when is_function(run) <-
                shell(bytes, "tr a b < #{from} > #{to} && wc -c < #{to}", "#{bytes}") do
           fn ->
             prepared.()
             run.()
           end
         else
           {_, skip} -> skip
         end}
      ],
      goals: [{"Exile.stream!, the command's own files", :speed, "shell", :at_least, 0.95}]
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
