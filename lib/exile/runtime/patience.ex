defmodule Exile.Runtime.Patience do
  @moduledoc false

  # All waiting times of Exile, in milliseconds, and functions for deadlines.

  # After a reader stopped early: how long its commands have to exit by themselves, and how long
  # the default teardown then takes. Together under a second.
  def early_stop, do: 250
  def teardown, do: 500

  # How long to wait for a process after SIGKILL. Only a broken kernel or disk needs this time.
  def kill, do: 1_000

  # The same for all processes at once, when the VM stops. A busy machine takes a while.
  def kill_all, do: 5_000

  # A process that is being started when the VM stops is ended once it runs. Only a broken disk
  # makes the start take longer than this.
  def starting, do: 5_000

  # How long the evaluation of the input may go on after the commands have exited. Long enough for
  # input with nothing more to write, short enough for input that waits for something else.
  def input, do: 100

  # How long to wait for a message that the native side says it sent, in case the VM has lost it.
  def message, do: 5_000

  # How long to wait for a command before draining its pipes. Most commands exit before they fill
  # a pipe, and a wait for a pipe costs more than everything else.
  def before_draining, do: 10

  # How long a stream that has just begun pauses while commands are waiting to be started.
  def rest, do: 5

  # The shortest time between two starts of the guard.
  def guard, do: 1_000

  @most 0xFFFF_FFFF

  # The longest timeout that the VM accepts.
  def most, do: @most

  @type deadline :: :infinity | integer

  defguard is_milliseconds(value) when is_integer(value) and value in 0..@most
  defguard is_timeout(value) when value == :infinity or is_milliseconds(value)

  @doc "When a timeout that begins now ends."
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
