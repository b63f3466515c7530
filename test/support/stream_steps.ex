defmodule Exile.StreamSteps do
  @moduledoc "Helpers to enumerate a stream step by step and to check what it leaves running."

  import ExUnit.Assertions
  import Exile.Case, only: [assert_no_message: 0, eventually: 1]

  @doc """
  Starts or continues the enumeration of a stream and suspends it at the next element. Returns
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

  @doc "Returns the remaining elements."
  def rest(continuation) do
    case step(continuation) do
      {element, continuation} -> [element | rest(continuation)]
      :done -> []
    end
  end

  @doc "Halts an enumeration, as `Enum.take/2` does."
  def halt(continuation) do
    assert {:halted, _} = continuation.({:halt, nil})
    :ok
  end

  @doc "Returns how many milliseconds `fun` took, and its result."
  def timed(fun) do
    {microseconds, result} = :timer.tc(fun)
    {div(microseconds, 1000), result}
  end

  @doc "Returns the number in an element like `\"123\\n\"`."
  def number(element), do: element |> String.trim() |> String.to_integer()

  @doc "Returns a digest of the joined binaries."
  def digest(binaries) do
    binaries
    |> Enum.reduce(:erlang.md5_init(), &:erlang.md5_update(&2, &1))
    |> :erlang.md5_final()
  end

  @doc """
  Waits until `pid`, which enumerates a stream, is blocked on the command: nothing is being
  started, and the process has made no progress for a while.
  """
  def wait_until_blocked(pid) do
    eventually(fn ->
      place = place(pid)
      Process.sleep(10)

      Exile.Native.counts()[:requests] == 0 and match?({:waiting, _}, place) and
        place == place(pid)
    end)
  end

  # The reductions of a process grow whenever it runs.
  defp place(pid) do
    [status: status, reductions: reductions] = Process.info(pid, [:status, :reductions])
    {status, reductions}
  end

  @doc "Waits until `process` has exited on its own."
  def assert_ended(process) do
    ref = Process.monitor(process)
    assert_receive {:DOWN, ^ref, _, _, _}
  end

  @doc """
  Asserts that an enumeration has left nothing with the caller: no link, no monitor, no message,
  and no command or pipe that monitors it.
  """
  def assert_quiet do
    # Exile opens no ports. That of a System.cmd/3 in the test may stay linked for a moment.
    [links: links, monitors: monitors] = Process.info(self(), [:links, :monitors])
    assert {Enum.reject(links, &is_port/1), monitors} == {[], []}

    # The monitor of a command that has just ended is removed a moment later. The one object that
    # monitors a process that has started commands stays.
    eventually(fn -> Exile.Native.counts()[:monitors] == 0 end)
    {:monitored_by, watchers} = Process.info(self(), :monitored_by)
    assert Enum.count(watchers, &is_reference/1) <= 1

    assert_no_message()
  end

  @doc "Waits until every command has ended on its own."
  def assert_no_command do
    eventually(fn -> Exile.LeftBehind.os_children() == [] end)
  end

  @doc "Waits until the process with this id has ended."
  def assert_gone(os_pid) do
    eventually(fn -> not Exile.Case.os_process_alive?(os_pid) end)
  end

  @doc "Calls `fun` until it returns the same value twice, 150 ms apart, and returns that value."
  def settled(fun, last \\ nil) do
    Process.sleep(150)

    case fun.() do
      ^last -> last
      value -> settled(fun, value)
    end
  end
end
