defmodule Bench.Case do
  # One question that the benchmarks answer: who does the same work, what is measured of it, and
  # against whom the others are held.

  @enforce_keys [:name, :title, :metrics, :contenders]
  defstruct [:name, :title, :metrics, :contenders, baselines: [], goals: [], warm_up: true]

  @typedoc """
  `run` does the work once, checks that it was done, and returns a number for each metric.
  `{:skip, why}` stands for a contender that is not there.
  """
  @type contender :: {name :: String.t(), run :: (() -> %{atom => number}) | {:skip, String.t()}}

  @type metric :: %{id: atom, title: String.t(), unit: String.t(), better: :higher | :lower}

  @typedoc "What we want, as a ratio to a baseline or (`nil`) as a number."
  @type goal ::
          {contender :: String.t(), metric :: atom, baseline :: String.t() | nil,
           :at_least | :at_most, number}

  @type t :: %__MODULE__{
          name: String.t(),
          title: String.t(),
          metrics: [metric],
          contenders: [contender],
          baselines: [String.t()],
          goals: [goal],
          warm_up: boolean
        }

  def throughput, do: %{id: :speed, title: "throughput", unit: "MB/s", better: :higher}
  def time, do: %{id: :time, title: "time", unit: "ms", better: :lower}

  def latencies do
    [
      %{id: :p50, title: "median", unit: "µs", better: :lower},
      %{id: :p99, title: "99th percentile", unit: "µs", better: :lower}
    ]
  end
end
