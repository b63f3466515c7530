defmodule Exile.Case do
  @moduledoc """
  For tests that run commands. After each test, the counts of `Exile.LeftBehind` must be what
  they were before. Tests run one at a time because the counts are those of the whole VM.

  If a test ends while its command still runs, Exile must end the command.
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

  @doc "Returns a command that runs a shell script."
  def sh(script), do: ["sh", "-c", script]

  @doc "The lines of an output. The last one need not end with a newline."
  def lines_of(output) do
    case output |> String.split("\n") |> Enum.split(-1) do
      {lines, [""]} -> lines
      {lines, [last]} -> lines ++ [last]
    end
  end

  @doc "Fails if the caller's mailbox is not empty."
  def assert_no_message do
    assert Process.info(self(), :messages) == {:messages, []}
  end

  @doc "Polls until `condition` returns true, for changes that nothing announces."
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

  @doc "Returns whether a process with this id exists and is not a zombie."
  def os_process_alive?(os_pid) do
    case File.read("/proc/#{os_pid}/stat") do
      {:ok, stat} -> not (stat =~ ~r/\) [ZX] /)
      {:error, _} -> false
    end
  end
end
