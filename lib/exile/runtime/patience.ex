defmodule Exile.Runtime.Patience do
  @moduledoc false

  # How long Exile waits for what, in milliseconds, and how it counts time.

  # A reader that stops early: how long its commands have to end by themselves, and then how long
  # the default teardown takes. Together under a second.
  def early_stop, do: 250
  def teardown, do: 500

  # How long after SIGKILL a process is waited for: only a broken kernel or disk needs it.
  def kill, do: 1_000

  # The same for all processes at once, when the VM stops. A busy machine takes a while.
  def kill_all, do: 5_000

  # A process that is just being started when the VM stops is ended once it runs. Only a broken disk
  # takes longer than this.
  def starting, do: 5_000

  # The commands have ended; how long the evaluation of their input has to be done, too. Long enough
  # for an input with nothing more to say, short enough for one that waits for something else.
  def input, do: 100

  # The native side said that it has sent a message. This is for a VM that has lost it.
  def message, do: 5_000

  # Most commands end before they have filled a pipe, and a wait for a pipe costs more than all else.
  def before_draining, do: 10

  # How long a stream that has just begun rests while commands wait to be started.
  def rest, do: 5

  # A guard that does not last is started again after this.
  def guard, do: 1_000

  @most 0xFFFF_FFFF

  # The longest timeout that the VM knows.
  def most, do: @most

  @type deadline :: :infinity | integer

  defguard is_milliseconds(value) when is_integer(value) and value in 0..@most
  defguard is_timeout(value) when value == :infinity or is_milliseconds(value)

  @doc "When a timeout that begins now is over."
  @spec deadline(timeout) :: deadline
  def deadline(:infinity), do: :infinity
  def deadline(timeout) when is_integer(timeout), do: now() + timeout

  @doc "The earlier of two deadlines. `:infinity` is later than any number."
  @spec earlier(deadline, deadline) :: deadline
  def earlier(one, other), do: min(one, other)

  @doc "How long it is until a deadline."
  @spec left(deadline) :: timeout
  def left(:infinity), do: :infinity
  def left(deadline) when is_integer(deadline), do: max(deadline - now(), 0)

  @spec over?(deadline) :: boolean
  def over?(deadline), do: left(deadline) == 0

  @spec now() :: integer
  def now, do: System.monotonic_time(:millisecond)
end
