defmodule Bench.Run do
  # Commands that are run to their end, lines, and conversations.

  alias Bench.{Case, FreshVM, Measure, ViaExile, ViaPort}

  @mebibyte 1_048_576
  @line "0123456789abcdefghi\n"

  def cases(quick?) do
    runs = if quick?, do: 50, else: 300
    mebibytes = if quick?, do: 32, else: 256
    lines = if quick?, do: 100_000, else: 1_000_000
    questions = if quick?, do: 500, else: 5_000

    [run(runs), capture(mebibytes), lines(lines), talk(questions), tail()]
  end

  defp run(count) do
    %Case{
      name: "run",
      title: "running `true` #{count} times, one after the other, with output and status",
      metrics: Case.latencies(),
      baselines: ["System.cmd"],
      contenders: [
        {"Exile.run",
         fn -> Measure.latencies(count, fn -> {:ok, %{stdout: ""}} = Exile.run(["true"]) end) end},
        {"System.cmd",
         fn -> Measure.latencies(count, fn -> {"", 0} = System.cmd("true", []) end) end}
      ],
      goals: [{"Exile.run", :p50, "System.cmd", :at_most, 0.70}]
    }
  end

  defp capture(mebibytes) do
    bytes = mebibytes * @mebibyte
    command = ["head", "-c", "#{bytes}", "/dev/zero"]

    by_hand = fn ->
      command |> Exile.stream!() |> Enum.to_list() |> IO.iodata_to_binary() |> byte_size()
    end

    %Case{
      name: "capture",
      title: "#{mebibytes} MiB of output as one binary",
      metrics: [Case.throughput()],
      baselines: ["a stream by hand", "System.cmd"],
      contenders: [
        {"Exile.run",
         fn -> Measure.throughput(bytes, fn -> byte_size(Exile.run!(command).stdout) end) end},
        {"a stream by hand", fn -> Measure.throughput(bytes, by_hand) end},
        {"System.cmd",
         fn ->
           Measure.throughput(bytes, fn ->
             {output, 0} = System.cmd(hd(command), tl(command))
             byte_size(output)
           end)
         end}
      ],
      goals: [{"Exile.run", :speed, "a stream by hand", :at_least, 0.95}]
    }
  end

  defp lines(count) do
    path = Path.join(System.tmp_dir!(), "exile_bench_lines_#{count}")
    command = ["cat", path]
    # Each counts the bytes of the lines, so it has seen them.
    bytes = count * (byte_size(@line) - 1)
    file = {path, fn -> :binary.copy(@line, count) end}

    %Case{
      name: "by_line",
      title: "#{count} lines of #{byte_size(@line)} bytes",
      metrics: [Case.time()],
      baselines: ["IO.stream", "port"],
      contenders: [
        {"Exile.stream!, :lines",
         fn ->
           timed(file, bytes, fn -> ViaExile.count(Exile.stream!(command, lines: true)) end)
         end},
        {"read_line", fn -> timed(file, bytes, fn -> read_lines(command) end) end},
        {"IO.stream",
         fn ->
           timed(file, bytes, fn ->
             File.open!(path, [:read], fn file ->
               file |> IO.binstream(:line) |> Enum.reduce(0, &(byte_size(&1) - 1 + &2))
             end)
           end)
         end},
        {"port", fn -> timed(file, bytes, fn -> ViaPort.count_lines(command) end) end}
      ],
      goals: [
        {"Exile.stream!, :lines", :time, "IO.stream", :at_most, 1.0},
        {"Exile.stream!, :lines", :time, "port", :at_most, 1.0}
      ]
    }
  end

  defp timed({path, content}, bytes, fun) do
    File.write!(path, content.())
    start = System.monotonic_time(:nanosecond)
    seen = fun.()
    time = System.monotonic_time(:nanosecond) - start
    File.rm!(path)
    Measure.check!(bytes, seen)
    %{time: time / 1_000_000}
  end

  defp read_lines(command) do
    {:ok, process} = Exile.Process.start_link(command)
    bytes = read_lines(process, 0)
    {:ok, 0} = Exile.Process.await_exit(process, :infinity)
    bytes
  end

  defp read_lines(process, bytes) do
    case Exile.Process.read_line(process) do
      {:ok, line} -> read_lines(process, bytes + byte_size(line))
      :eof -> bytes
    end
  end

  defp talk(count) do
    %Case{
      name: "talk",
      title: "#{count} questions to `bc`, one after the other",
      metrics: Case.latencies(),
      baselines: ["read"],
      contenders: [
        conversation("read", count, fn bc -> {:ok, "42\n"} = Exile.Process.read(bc) end),
        conversation("read_line", count, fn bc -> {:ok, "42"} = Exile.Process.read_line(bc) end)
      ],
      goals: [{"read_line", :p50, "read", :at_most, 1.2}]
    }
  end

  defp conversation(name, count, answer) do
    ask = fn bc ->
      :ok = Exile.Process.write(bc, "6*7\n")
      answer.(bc)
    end

    run = fn ->
      {:ok, bc} = Exile.Process.start_link(["bc"])
      for _ <- 1..div(count, 16), do: ask.(bc)
      latencies = Measure.latencies(count, fn -> ask.(bc) end)
      {:ok, 0} = Exile.Process.await_exit(bc, :infinity)
      latencies
    end

    {name, if(System.find_executable("bc"), do: run, else: {:skip, "there is no bc"})}
  end

  defp tail do
    grown = fn limit -> fn -> FreshVM.call(__MODULE__, :run_tail, [limit]) end end

    %Case{
      name: "tail",
      title: "memory of a new VM that keeps 1,000 bytes of what `yes` writes",
      metrics: [%{id: :grown, title: "resident memory", unit: "MiB more", better: :lower}],
      contenders: [
        {"the first, and it is ended", grown.(1_000)},
        {"the last, for a second", grown.({:tail, 1_000})}
      ],
      goals: [
        {"the first, and it is ended", :grown, nil, :at_most, 8},
        {"the last, for a second", :grown, nil, :at_most, 8}
      ],
      warm_up: false
    }
  end

  @doc false
  def run_tail(limit) do
    _ = Exile.run(["yes"], max_output: 1, timeout: 1_000)
    before = Measure.resident()
    {:error, error} = Exile.run(["yes"], max_output: limit, timeout: 1_000)
    Measure.check!(1_000, byte_size(error.result.stdout))
    %{grown: (Measure.resident() - before) / @mebibyte}
  end
end
