# The benchmarks; script/bench builds all that is needed and runs this. See NOTES.md.

files =
  ~w(support/case support/measure support/runner support/report support/overview support/contenders support/sleepers) ++
    ~w(cases/throughput cases/latency cases/run cases/idle cases/callers cases/streams cases/hung cases/harm)

modules = Enum.flat_map(files, &Code.require_file("#{&1}.exs", __DIR__))

defmodule Bench.CLI do
  @options [
    rounds: :integer,
    only: :string,
    json: :string,
    svg: :string,
    overview: :string,
    quick: :boolean,
    limits: :string,
    static: :string
  ]

  def main(arguments, modules) do
    options = options!(arguments)
    Bench.FreshVM.remember(modules)
    Bench.ViaRust.use(options[:limits])
    Bench.Static.use(options[:static])
    {:ok, _} = Application.ensure_all_started(:exile)

    cases = cases!(options)
    machine = Bench.Report.machine()
    rounds = options[:rounds] || 5

    IO.puts(
      "#{machine.processor}, #{machine.cores} cores, #{machine.kernel}, OTP #{machine.otp}, Elixir #{machine.elixir}; " <>
        "#{rounds} rounds, load #{machine.load} at the start; " <>
        "ratios are medians of those within a round\n"
    )

    results =
      for bench <- cases do
        result = Bench.Runner.run(bench, rounds, &IO.puts(:stderr, &1))
        IO.write(Bench.Report.table(result))
        result
      end

    IO.write(Bench.Report.goals(results))

    if file = options[:json],
      do:
        File.write!(file, Bench.JSON.encode(%{machine: machine, rounds: rounds, cases: results}))

    if file = options[:svg], do: File.write!(file, Bench.SVG.draw(results))
    if file = options[:overview], do: File.write!(file, Bench.Overview.draw(results))
    if Enum.any?(results, &(&1.failed != [])), do: System.halt(1)
  end

  defp options!(arguments) do
    case OptionParser.parse(arguments, strict: @options) do
      {options, [], []} ->
        options

      {_, extra, invalid} ->
        fail("unknown: #{Enum.join(extra ++ Enum.map(invalid, &elem(&1, 0)), ", ")}")
    end
  end

  defp cases!(options) do
    quick? = Keyword.get(options, :quick, false)

    all =
      Enum.flat_map(
        [
          Bench.Throughput,
          Bench.Latency,
          Bench.Run,
          Bench.Idle,
          Bench.Callers,
          Bench.Streams,
          Bench.Hung,
          Bench.Harm
        ],
        & &1.cases(quick?)
      )

    names = Enum.map(all, & &1.name)
    only = String.split(options[:only] || Enum.join(names, ","), ",")

    case only -- names do
      [] ->
        Enum.filter(all, &(&1.name in only))

      unknown ->
        fail("no such case: #{Enum.join(unknown, ", ")}; there are #{Enum.join(names, ", ")}")
    end
  end

  defp fail(message) do
    IO.puts(:stderr, "bench: #{message}")
    System.halt(2)
  end
end

Bench.CLI.main(System.argv(), modules)
