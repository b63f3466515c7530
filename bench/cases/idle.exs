defmodule Bench.Idle do
  # What commands that do nothing cost, and what they do to the others.

  alias Bench.{Case, FreshVM, Measure, Sleepers, ViaExile, ViaPort}

  # So few that they make no difference.
  @few 10

  def cases(quick?) do
    runs = if quick?, do: 50, else: 300

    [
      idle(if(quick?, do: 100, else: 1_000)),
      crowd(runs, if(quick?, do: 200, else: 5_000)),
      waiting(runs, if(quick?, do: 200, else: 10_000))
    ]
  end

  defp idle(count) do
    %Case{
      name: "idle",
      title: "#{count} idle commands (`sleep`) at once, in a new VM each time",
      metrics: [
        %{id: :time, title: "time to start them all", unit: "ms", better: :lower},
        %{
          id: :memory,
          title: "memory by the VM's account, for each",
          unit: "KiB",
          better: :lower
        },
        %{id: :resident, title: "resident memory, for each", unit: "KiB", better: :lower}
      ],
      baselines: ["port"],
      contenders: [
        {"Exile.Process", fn -> FreshVM.call(__MODULE__, :sleepers, [:exile, count]) end},
        {"port", fn -> FreshVM.call(__MODULE__, :sleepers, [:port, count]) end}
      ],
      goals: [
        {"Exile.Process", :time, "port", :at_most, 1.1},
        {"Exile.Process", :memory, nil, :at_most, 3.0}
      ],
      warm_up: false
    }
  end

  @doc false
  def sleepers(kind, count) do
    # Some first, so that code is loaded and what is there once for all is there.
    kind |> Sleepers.start(20) |> Sleepers.stop()
    :erlang.garbage_collect()
    memory = :erlang.memory(:total)
    resident = Measure.resident()

    start = System.monotonic_time(:nanosecond)
    commands = Sleepers.start(kind, count)
    time = System.monotonic_time(:nanosecond) - start

    :erlang.garbage_collect()
    memory = :erlang.memory(:total) - memory
    resident = Measure.resident() - resident
    Measure.check!(count, length(commands))
    Sleepers.stop(commands)

    %{time: time / 1.0e6, memory: memory / count / 1024, resident: resident / count / 1024}
  end

  defp crowd(runs, many) do
    contenders =
      for {via, kind} <- [{"Exile.Process", :exile}, {"port", :port}], count <- [@few, many] do
        {"#{via}, beside #{count}",
         fn -> FreshVM.call(__MODULE__, :run_beside, [kind, count, runs]) end}
      end

    %Case{
      name: "crowd",
      title:
        "running `true` #{runs} times beside #{@few} idle commands, and beside #{many}, in a new VM each time",
      metrics: Case.latencies(),
      baselines: ["Exile.Process, beside #{@few}", "port, beside #{@few}"],
      contenders: contenders,
      goals: [
        {"Exile.Process, beside #{many}", :p50, "Exile.Process, beside #{@few}", :at_most, 1.25}
      ],
      warm_up: false
    }
  end

  @doc false
  def run_beside(kind, count, runs) do
    commands = Sleepers.start(kind, count)
    latencies = run(kind, runs)
    Sleepers.stop(commands)
    latencies
  end

  defp waiting(runs, many) do
    title = "beside #{many}"

    %Case{
      name: "waiting",
      title:
        "running `true` #{runs} times, alone and beside #{many} processes that wait for a command, in a new VM each time",
      metrics: Case.latencies(),
      baselines: ["alone"],
      contenders: [
        {"alone", fn -> FreshVM.call(__MODULE__, :run_beside_waiting, [0, runs]) end},
        {title, fn -> FreshVM.call(__MODULE__, :run_beside_waiting, [many, runs]) end}
      ],
      goals: [{title, :p50, "alone", :at_most, 1.1}],
      warm_up: false
    }
  end

  @doc false
  def run_beside_waiting(count, runs) do
    awaited = Sleepers.start_awaited(count)
    latencies = run(:exile, runs)
    Sleepers.stop_awaited(awaited)
    latencies
  end

  defp run(kind, runs) do
    once =
      case kind do
        :exile -> fn -> ViaExile.run(["true"]) end
        :port -> fn -> ViaPort.run(["true"]) end
      end

    # Some first, as everywhere.
    for _ <- 1..div(runs, 4), do: once.()
    Measure.latencies(runs, once)
  end
end
