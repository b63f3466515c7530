defmodule Bench.Runner do
  # Runs a case round by round, in each round every contender once, in turn: whatever else the
  # machine does then happens to all of them alike.

  alias Bench.{Case, Stats}

  # No sample takes nearly as long, in milliseconds, on any machine worth measuring.
  @patience 120_000

  def run(%Case{} = bench, rounds, log) do
    {there, missing} =
      Enum.split_with(bench.contenders, &match?({_, run} when is_function(run), &1))

    skipped = for {name, {:skip, why}} <- missing, do: {name, why}
    for {name, why} <- skipped, do: log.("#{bench.name}: #{name} skipped: #{why}")

    start = Enum.map(there, fn {name, run} -> {name, run, []} end)

    start = if bench.warm_up, do: one_round(start), else: start
    start = for {name, run, outcome} <- start, do: {name, run, forget(outcome)}

    contenders =
      Enum.reduce(1..rounds, start, fn number, contenders ->
        log.("#{bench.name}: round #{number} of #{rounds}")
        one_round(contenders)
      end)

    failed = for {name, _, {:failed, why}} <- contenders, do: {name, why}
    for {name, why} <- failed, do: log.("#{bench.name}: #{name} FAILED: #{why}")

    # Samples are kept in the order of the rounds, so that those of one round can be compared.
    samples =
      for {name, _, samples} <- contenders, is_list(samples), do: {name, Enum.reverse(samples)}

    Stats.summarize(bench, samples, skipped, failed)
  end

  defp forget(samples) when is_list(samples), do: []
  defp forget(failed), do: failed

  defp one_round(contenders) do
    for {name, run, samples} <- contenders do
      case samples do
        samples when is_list(samples) -> {name, run, sample(run, samples)}
        failed -> {name, run, failed}
      end
    end
  end

  # In a process of its own, which leaves its heap, messages and links behind.
  defp sample(run, samples) do
    runner = self()
    {pid, monitor} = spawn_monitor(fn -> send(runner, {:sample, self(), run.()}) end)

    receive do
      {:DOWN, ^monitor, :process, ^pid, :normal} ->
        receive(do: ({:sample, ^pid, sample} -> [sample | samples]))

      {:DOWN, ^monitor, :process, ^pid, {error, stack}} when is_list(stack) ->
        {:failed, Exception.format_banner(:error, error)}

      {:DOWN, ^monitor, :process, ^pid, reason} ->
        {:failed, inspect(reason)}
    after
      @patience ->
        Process.exit(pid, :kill)
        receive(do: ({:DOWN, ^monitor, :process, ^pid, _} -> :ok))
        {:failed, "not done in #{div(@patience, 1_000)} s"}
    end
  end
end

defmodule Bench.Stats do
  # From samples to what is reported.

  @doc """
  For each metric and contender: the samples, their median, least and greatest, and for each
  baseline the median of the ratios, each taken within one round.
  """
  def summarize(bench, samples, skipped, failed) do
    samples = Map.new(samples)

    metrics =
      for metric <- bench.metrics do
        rows =
          for {name, _} <- bench.contenders, contender = samples[name] do
            values = Enum.map(contender, & &1[metric.id])

            ratios =
              for baseline <- bench.baselines, other = samples[baseline], into: %{} do
                {baseline, ratio(values, Enum.map(other, & &1[metric.id]))}
              end

            {least, greatest} = Enum.min_max(values)

            %{
              name: name,
              samples: values,
              median: median(values),
              least: least,
              greatest: greatest,
              ratios: ratios
            }
          end

        Map.put(metric, :rows, rows)
      end

    %{
      name: bench.name,
      title: bench.title,
      baselines: Enum.filter(bench.baselines, &is_map_key(samples, &1)),
      metrics: metrics,
      goals: Enum.map(bench.goals, &judge(&1, metrics)),
      skipped: skipped,
      failed: failed
    }
  end

  defp ratio(values, baseline) do
    if Enum.all?(baseline, &(&1 > 0)) do
      values |> Enum.zip_with(baseline, &(&1 / &2)) |> median()
    end
  end

  defp judge({name, id, baseline, relation, limit}, metrics) do
    metric = Enum.find(metrics, &(&1.id == id))

    value =
      with %{} = row <- Enum.find(metric.rows, &(&1.name == name)) do
        if baseline, do: row.ratios[baseline], else: row.median
      end

    met =
      case relation do
        _ when value == nil -> nil
        :at_least -> value >= limit
        :at_most -> value <= limit
      end

    %{
      contender: name,
      metric: metric.title,
      unit: metric.unit,
      baseline: baseline,
      relation: relation,
      limit: limit,
      value: value,
      met: met
    }
  end

  def median(values) do
    sorted = Enum.sort(values)
    middle = div(length(sorted), 2)

    if rem(length(sorted), 2) == 1,
      do: Enum.at(sorted, middle),
      else: (Enum.at(sorted, middle - 1) + Enum.at(sorted, middle)) / 2
  end
end
