defmodule Exile.LeftBehind do
  @moduledoc """
  Counts what the VM holds: handles of the native library, descriptors, child processes (zombies
  included). Nothing Exile does may change the counts for good.
  """

  # What ends on its own takes under a second; a loaded machine may take longer.
  @patience 10_000
  @pause 5

  @doc "What is there when nothing runs, which takes a moment after a test has failed."
  def count_at_rest do
    wait_for_rest(System.monotonic_time(:millisecond) + @patience)
    count()
  end

  defp wait_for_rest(deadline) do
    at_rest? = Enum.all?(Exile.Native.counts(), &(elem(&1, 1) == 0)) and os_children() == []

    unless at_rest? or System.monotonic_time(:millisecond) > deadline do
      Process.sleep(@pause)
      wait_for_rest(deadline)
    end
  end

  @doc "What is there now."
  def count do
    Exile.Native.counts()
    |> Map.new()
    |> Map.merge(%{descriptors: length(descriptors()), os_children: length(os_children())})
  end

  @doc "Waits until the counts are `before` again; fails with the difference if they stay others."
  def assert_nothing(before) do
    deadline = System.monotonic_time(:millisecond) + @patience
    wait(before, deadline)
  end

  defp wait(before, deadline) do
    now = count()

    cond do
      now == before ->
        :ok

      System.monotonic_time(:millisecond) > deadline ->
        details = [descriptors: descriptors(), os_children: os_children()]

        raise ExUnit.AssertionError,
          left: now,
          right: before,
          message: "something was left behind: #{inspect(details, limit: :infinity)}"

      true ->
        Process.sleep(@pause)
        wait(before, deadline)
    end
  end

  # The directory that is being listed is itself open: gone when its link is read.
  defp descriptors do
    for fd <- File.ls!("/proc/self/fd"),
        {:ok, target} <- [File.read_link("/proc/self/fd/#{fd}")],
        do: {fd, target}
  end

  @doc "The children of the VM as `{pid, state, command}`; state \"Z\" is a zombie."
  def os_children do
    vm = System.pid()

    for entry <- File.ls!("/proc"),
        entry =~ ~r/^\d+$/,
        {:ok, stat} <- [File.read("/proc/#{entry}/stat")],
        [_, name, state, ^vm] <- [Regex.run(~r/^\d+ \((.*)\) (\S) (\d+) /s, stat)],
        name != "erl_child_setup",
        do: {String.to_integer(entry), state, name}
  end
end
