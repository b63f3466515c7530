defmodule Exile.LeftBehind do
  @moduledoc """
  Counts what the VM holds: handles of the native library, descriptors, and child processes
  (including zombies). Nothing that Exile does may change the counts permanently.
  """

  # Everything is released in under a second; a loaded machine may take longer.
  @patience 10_000
  @pause 5

  @doc "Waits until nothing runs, which takes a moment after a failed test, and counts."
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

  @doc "Returns the current counts."
  def count do
    Exile.Native.counts()
    |> Map.new()
    |> Map.merge(%{descriptors: length(descriptors()), os_children: length(os_children())})
  end

  @doc "Waits until the counts equal `before`; fails with the difference if they do not."
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

  # The list includes the descriptor of the directory being listed, which is closed by the time
  # its link is read.
  defp descriptors do
    for fd <- File.ls!("/proc/self/fd"),
        {:ok, target} <- [File.read_link("/proc/self/fd/#{fd}")],
        do: {fd, target}
  end

  @doc "Returns the children of the VM as `{pid, state, command}`; state \"Z\" is a zombie."
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
