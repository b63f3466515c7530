defmodule Exile.Case do
  @moduledoc """
  For tests that run commands: after each one, everything must be as it was before, and the
  test's mailbox empty. Tests run one at a time, since what is counted belongs to the whole VM.

  A test that ends while its command runs leaves the command to Exile, which must end it.
  """

  use ExUnit.CaseTemplate

  using do
    quote do
      import Exile.Case
    end
  end

  setup do
    before = Exile.LeftBehind.count_at_rest()
    on_exit(fn -> Exile.LeftBehind.assert_nothing(before) end)
  end

  @doc "A command that runs a shell script."
  def sh(script), do: ["sh", "-c", script]

  @doc "Fails if a message is in the mailbox of the caller."
  def assert_no_message do
    assert Process.info(self(), :messages) == {:messages, []}
  end

  @doc "Waits until `condition` holds, for what only the kernel knows."
  def eventually(condition, time \\ 5_000) do
    wait_until(condition, System.monotonic_time(:millisecond) + time)
  end

  defp wait_until(condition, deadline) do
    cond do
      condition.() ->
        :ok

      System.monotonic_time(:millisecond) > deadline ->
        flunk("it did not become true")

      true ->
        Process.sleep(5)
        wait_until(condition, deadline)
    end
  end

  @doc "Whether a process with this id exists and is no zombie."
  def os_process_alive?(os_pid) do
    case File.read("/proc/#{os_pid}/stat") do
      {:ok, stat} -> not (stat =~ ~r/\) [ZX] /)
      {:error, _} -> false
    end
  end
end
