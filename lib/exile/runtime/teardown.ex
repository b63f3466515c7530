defmodule Exile.Runtime.Teardown do
  @moduledoc false

  # The signals that end a process: `[{signal, milliseconds to wait after it}]`, then SIGKILL. A
  # list from the user is used as given. `:default` is SIGTERM twice within the available time,
  # because GNU parallel finishes its jobs after the first and exits after the second.

  import Exile.Runtime.Patience, only: [is_milliseconds: 1]

  alias Exile.Native
  alias Exile.Runtime.Signal

  @type t :: :default | [{atom, non_neg_integer}]

  # For a process that no caller waits for. It takes about half a second.
  @abandoned [sigterm: 300, sigterm: 150]

  @doc "Checks the `:teardown` option."
  @spec check(term) :: {:ok, t} | :error | {:error, message :: binary}
  def check(:default), do: {:ok, :default}

  # An improper list has no length, so it fails the guard.
  def check(steps) when is_list(steps) and length(steps) >= 0 do
    case Enum.find_value(steps, &problem/1) do
      nil -> {:ok, steps}
      problem -> {:error, "invalid value for option :teardown: " <> problem}
    end
  end

  def check(_other), do: :error

  defp problem({signal, wait}) when is_atom(signal) and is_milliseconds(wait) do
    unless Signal.known?(signal), do: "#{inspect(signal)} is no signal of this system"
  end

  defp problem(other) do
    "expected a signal and the milliseconds to wait after it, got: #{inspect(other)}"
  end

  @doc "For a process whose owner or VM is gone, or whose handle is unreachable."
  @spec abandoned(t) :: Native.steps()
  def abandoned(:default), do: abandoned(@abandoned)
  def abandoned(steps), do: steps

  @doc "For a process that must end within `time` milliseconds, unless the user gave a teardown."
  @spec within(t, non_neg_integer) :: Native.steps()
  def within(:default, time), do: abandoned(sigterm: div(time, 2), sigterm: div(time, 2))
  def within(steps, _time), do: abandoned(steps)

  @doc "The longest time until SIGKILL."
  @spec duration(Native.steps()) :: non_neg_integer
  def duration(steps),
    do: Enum.reduce(steps, 0, fn {_, wait}, sum when is_integer(wait) -> sum + wait end)
end
