defmodule Exile.Teardown do
  @moduledoc false

  # The sequence of signals that ends a process: `[{signal, milliseconds to wait after it}]`, SIGKILL
  # after the last. One that was given is kept as it is. `:default` is SIGTERM twice, as some programs
  # want it (the first lets GNU parallel finish its jobs, the second ends it), over whatever time
  # there is.

  @type t :: :default | [{atom, non_neg_integer}]

  # For a process that nobody waits for: done in half a second.
  @abandoned [sigterm: 300, sigterm: 150]

  @doc "For a process whose owner or VM is gone, or that nobody can reach any more."
  @spec abandoned(t) :: Exile.Native.steps()
  def abandoned(:default), do: abandoned(@abandoned)
  def abandoned(steps), do: for({signal, wait} <- steps, do: {Atom.to_string(signal), wait})

  @doc "For a process that is to end within `time` milliseconds, unless the user said otherwise."
  @spec within(t, non_neg_integer) :: Exile.Native.steps()
  def within(:default, time), do: abandoned(sigterm: div(time, 2), sigterm: div(time, 2))
  def within(steps, _time), do: abandoned(steps)

  @doc "How long it takes at most until SIGKILL."
  @spec duration(Exile.Native.steps()) :: non_neg_integer
  def duration(steps),
    do: Enum.reduce(steps, 0, fn {_, wait}, sum when is_integer(wait) -> sum + wait end)
end
