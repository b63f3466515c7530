defmodule Bench.Callers do
  # Many Erlang processes that run short commands at the same time.

  alias Bench.{Case, FreshVM, Measure, ViaExile, ViaPort, ViaRust}

  # How many times as many callers the large herd has.
  @times 16
  # More than there are cores, fewer than would be a herd.
  @callers 16
  @threads 2

  def cases(quick?) do
    [herd(if(quick?, do: 50, else: 1_000)), together(if(quick?, do: 20, else: 250))]
  end

  defp herd(few) do
    many = @times * few

    contender = fn count ->
      {"#{count} callers", fn -> FreshVM.call(__MODULE__, :run_at_once, [count]) end}
    end

    %Case{
      name: "herd",
      title: "callers that run `true` once, all at the same time, in a new VM each time",
      metrics: [Case.time()],
      baselines: ["#{few} callers"],
      contenders: [contender.(few), contender.(many)],
      # In proportion, and a little more.
      goals: [{"#{many} callers", :time, "#{few} callers", :at_most, 18}],
      warm_up: false
    }
  end

  @doc false
  def run_at_once(count) do
    # Some first, so that code is loaded.
    run = fn -> ViaExile.run(["true"]) end
    at_once(20, run)
    %{time: at_once(count, run) / 1.0e6}
  end

  # In nanoseconds.
  defp at_once(count, fun) do
    Measure.nanoseconds(fn ->
      callers = for _ <- 1..count, do: Process.spawn(fun, [:link, :monitor])

      for {pid, monitor} <- callers do
        receive(
          do: ({:DOWN, ^monitor, :process, ^pid, reason} -> Measure.check!(:normal, reason))
        )
      end
    end)
  end

  defp together(each) do
    count = @callers * each
    rust = "Rust, #{@threads} threads"

    rate = fn run ->
      fn -> rate(count, at_once(@callers, fn -> for _ <- 1..each, do: run.() end)) end
    end

    %Case{
      name: "together",
      title: "running `true` #{count} times, by #{@callers} Erlang processes at once",
      metrics: [%{id: :rate, title: "rate", unit: "commands a second", better: :higher}],
      baselines: [rust, "port"],
      contenders: [
        {"Exile.Process", rate.(fn -> ViaExile.run(["true"]) end)},
        {"port", rate.(fn -> ViaPort.run(["true"]) end)},
        ViaRust.contender(rust, fn ->
          [time] = ViaRust.limits(["together", count, @threads])
          rate(count, time)
        end)
      ],
      goals: [{"Exile.Process", :rate, rust, :at_least, 0.8}]
    }
  end

  defp rate(count, nanoseconds), do: %{rate: count * 1.0e9 / nanoseconds}
end
