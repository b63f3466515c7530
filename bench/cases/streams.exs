defmodule Bench.Streams do
  # Many commands at once that write as fast as they can: how fast, and how evenly.

  alias Bench.{Case, Measure, ViaPort}

  @mebibyte 1_048_576

  def cases(quick?) do
    [streams(if(quick?, do: 20, else: 200), if(quick?, do: 4, else: 16) * @mebibyte)]
  end

  defp streams(count, bytes) do
    command = ["head", "-c", "#{bytes}", "/dev/zero"]
    evenness = fn id, title -> %{id: id, title: title, unit: "times as long", better: :lower} end

    %Case{
      name: "streams",
      title: "#{count} commands at once, #{div(bytes, @mebibyte)} MiB from each",
      metrics: [
        Case.throughput(),
        evenness.(:extremes, "slowest to fastest"),
        evenness.(:percentiles, "95th to 5th percentile")
      ],
      baselines: ["port"],
      contenders: [
        {"Exile.stream!", fn -> together(count, bytes, fn -> through_exile(command) end) end},
        {"port", fn -> together(count, bytes, fn -> through_port(command) end) end}
      ],
      goals: [
        {"Exile.stream!", :extremes, nil, :at_most, 4.0},
        {"Exile.stream!", :percentiles, nil, :at_most, 2.0}
      ]
    }
  end

  # How many bytes there were, and when the first of them came.
  defp through_exile(command) do
    Enum.reduce(Exile.stream!(command), {0, nil}, fn chunk, {bytes, first} ->
      {bytes + byte_size(chunk), first || now()}
    end)
  end

  defp through_port(command) do
    port = ViaPort.open(command)
    bytes = receive(do: ({^port, {:data, data}} -> byte_size(data)))
    first = now()
    {rest, _} = ViaPort.read_on(port)
    {bytes + rest, first}
  end

  # All start at one sign. The time of each counts from its first byte, since not all can be the
  # first to start.
  defp together(count, bytes, fun) do
    starter = self()

    readers =
      for _ <- 1..count do
        spawn_monitor(fn ->
          receive(do: (:go -> :ok))
          {seen, first} = fun.()
          send(starter, {:done, self(), seen, first, now()})
        end)
      end

    start = now()
    for {pid, _} <- readers, do: send(pid, :go)

    {times, ends} =
      Enum.unzip(
        for {pid, monitor} <- readers do
          receive(do: ({:DOWN, ^monitor, :process, ^pid, why} -> Measure.check!(:normal, why)))
          {seen, first, last} = receive(do: ({:done, ^pid, seen, f, l} -> {seen, f, l}))
          Measure.check!(bytes, seen)
          {last - first, last}
        end
      )

    {fastest, slowest} = Enum.min_max(times)

    Map.merge(Measure.speed(count * bytes, Enum.max(ends) - start), %{
      extremes: slowest / fastest,
      percentiles: Measure.percentile(times, 0.95) / Measure.percentile(times, 0.05)
    })
  end

  defp now, do: System.monotonic_time(:nanosecond)
end
