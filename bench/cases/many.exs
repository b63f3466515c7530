defmodule Bench.Many do
  # Many commands at once.

  alias Bench.{Case, Measure, ViaExile, ViaPort}

  @mebibyte 1_048_576

  def cases(quick?) do
    streams = if quick?, do: 20, else: 200
    [streams(streams, if(quick?, do: 4, else: 16) * @mebibyte)]
  end

  defp streams(count, bytes) do
    command = ["head", "-c", "#{bytes}", "/dev/zero"]

    %Case{
      name: "streams",
      title: "#{count} commands at once, #{div(bytes, @mebibyte)} MiB from each",
      metrics: [
        Case.throughput(),
        %{id: :fairness, title: "slowest to fastest", unit: "times as long", better: :lower}
      ],
      baselines: ["port"],
      contenders: [
        {"Exile.stream!",
         fn -> together(count, bytes, fn -> ViaExile.count(Exile.stream!(command)) end) end},
        {"port",
         fn -> together(count, bytes, fn -> command |> ViaPort.read_all() |> elem(0) end) end}
      ]
    }
  end

  # All start at one sign, from which the time of each is counted.
  defp together(count, bytes, fun) do
    starter = self()

    readers =
      for _ <- 1..count do
        spawn_monitor(fn ->
          receive(do: (:go -> :ok))
          seen = fun.()
          send(starter, {:done, self(), seen, System.monotonic_time(:nanosecond)})
        end)
      end

    start = System.monotonic_time(:nanosecond)
    for {pid, _} <- readers, do: send(pid, :go)

    times =
      for {pid, monitor} <- readers do
        receive do
          {:DOWN, ^monitor, :process, ^pid, :normal} -> :ok
          {:DOWN, ^monitor, :process, ^pid, reason} -> raise "a reader failed: #{inspect(reason)}"
        end

        {seen, finish} = receive(do: ({:done, ^pid, seen, finish} -> {seen, finish}))
        Measure.check!(bytes, seen)
        finish - start
      end

    {fastest, slowest} = Enum.min_max(times)
    Map.put(Measure.speed(count * bytes, slowest), :fairness, slowest / fastest)
  end
end
