defmodule Exile.StreamSteps do
  @moduledoc "For tests that enumerate a stream step by step, or look at what it leaves running."

  import ExUnit.Assertions
  import Exile.Case, only: [assert_no_message: 0, eventually: 1]

  @doc """
  Enumerates a stream, or goes on with one, up to its next element and suspends it there:
  `{element, continuation}`, or `:done`.
  """
  def step(%Exile.Stream{} = stream) do
    step(&Enumerable.reduce(stream, &1, fn element, _ -> {:suspend, element} end))
  end

  def step(continuation) do
    case continuation.({:cont, nil}) do
      {:suspended, element, continuation} -> {element, continuation}
      {:done, _} -> :done
    end
  end

  @doc "The remaining elements."
  def rest(continuation) do
    case step(continuation) do
      {element, continuation} -> [element | rest(continuation)]
      :done -> []
    end
  end

  @doc "Ends an enumeration early, as `Enum.take/2` does."
  def halt(continuation) do
    assert {:halted, _} = continuation.({:halt, nil})
    :ok
  end

  @doc "The milliseconds that `fun` took, and what it returned."
  def timed(fun) do
    {microseconds, result} = :timer.tc(fun)
    {div(microseconds, 1000), result}
  end

  @doc "The number in an element like `\"123\\n\"`."
  def number(element), do: element |> String.trim() |> String.to_integer()

  @doc "A digest of binaries, however they are cut."
  def digest(binaries) do
    binaries
    |> Enum.reduce(:erlang.md5_init(), &:erlang.md5_update(&2, &1))
    |> :erlang.md5_final()
  end

  @doc """
  Waits until `pid`, which enumerates a stream, waits for the command: nothing is being started, and it
  has waited at one and the same place for a while.
  """
  def wait_until_blocked(pid) do
    eventually(fn ->
      place = place(pid)
      Process.sleep(10)

      Exile.Native.counts()[:requests] == 0 and match?({:waiting, _}, place) and
        place == place(pid)
    end)
  end

  # A process that goes on makes reductions.
  defp place(pid) do
    [status: status, reductions: reductions] = Process.info(pid, [:status, :reductions])
    {status, reductions}
  end

  @doc "Waits until `process` has ended, which must be without anybody asking for it now."
  def assert_ended(process) do
    ref = Process.monitor(process)
    assert_receive {:DOWN, ^ref, _, _, _}
  end

  @doc """
  Nothing of an enumeration is left with the caller: no link, no monitor, no message, and no command
  or pipe watches it.
  """
  def assert_quiet do
    assert Process.info(self(), [:links, :monitors]) == [links: [], monitors: []]

    # What waited for its death for a command that has just ended goes in a moment. The one object that
    # watches a process that has started commands stays with it.
    eventually(fn -> Exile.Native.counts()[:monitors] == 0 end)
    {:monitored_by, watchers} = Process.info(self(), :monitored_by)
    assert Enum.count(watchers, &is_reference/1) <= 1

    assert_no_message()
  end

  @doc "Waits until no command runs, which must be without anybody asking for it now."
  def assert_no_command do
    eventually(fn -> Exile.LeftBehind.os_children() == [] end)
  end

  @doc "Waits until the program with this id has ended."
  def assert_gone(os_pid) do
    eventually(fn -> not Exile.Case.os_process_alive?(os_pid) end)
  end

  @doc "What `fun` returns when it has returned the same value for a while."
  def settled(fun, last \\ nil) do
    Process.sleep(150)

    case fun.() do
      ^last -> last
      value -> settled(fun, value)
    end
  end
end
