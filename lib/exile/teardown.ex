defmodule Exile.Teardown do
  @moduledoc false

  # The sequence of signals that ends a command: `[{signal, milliseconds to wait after it}]`,
  # SIGKILL after the last. `:default` is SIGTERM twice, as some programs want it (the first
  # lets GNU parallel finish its jobs, the second ends it), over whatever time there is.

  @type t :: :default | [{atom, non_neg_integer}]

  # How long the signals may take when nobody waits for the command any more.
  @abandoned 600

  @doc "For a command that nobody waits for: at once, and done in under a second."
  @spec abandoned(t) :: Exile.Native.steps()
  def abandoned(teardown), do: within(teardown, @abandoned)

  @doc "For the end of the VM: at once, and in the time that was asked for."
  @spec at_stop(t) :: Exile.Native.steps()
  def at_stop(:default), do: within(:default, @abandoned)
  def at_stop(steps), do: within(steps, :infinity)

  @doc """
  For a command that must have ended after `timeout` milliseconds: the first quarter is the
  command's own, SIGKILL comes with the last.
  """
  @spec before(t, non_neg_integer) :: {grace :: non_neg_integer, Exile.Native.steps()}
  def before(teardown, timeout), do: {div(timeout, 4), within(teardown, div(timeout, 2))}

  @doc "The steps, their waits shortened in proportion where together they exceed `time`."
  @spec within(t, timeout) :: Exile.Native.steps()
  def within(:default, time) when is_integer(time),
    do: [{"sigterm", div(time, 2)}, {"sigterm", div(time, 2)}]

  def within(steps, time) do
    total = steps |> Enum.map(&elem(&1, 1)) |> Enum.sum()

    for {signal, wait} <- steps do
      {Atom.to_string(signal), if(total > time, do: div(wait * time, total), else: wait)}
    end
  end
end
