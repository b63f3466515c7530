defmodule Exile.ProcessHelpers do
  @moduledoc """
  Helpers for tests of `Exile.Process`: they read a whole output or the lines that a command
  prints when it is ready, and start processes that are known to be blocked in a call.
  """

  import ExUnit.Assertions

  @doc "Reads the command's standard output up to end-of-file."
  def read_all(p), do: p |> read_all([]) |> IO.iodata_to_binary()

  defp read_all(p, read) do
    case Exile.Process.read(p) do
      {:ok, data} -> read_all(p, [read | data])
      :eof -> read
    end
  end

  @doc "Reads `count` lines of the command's standard output; no more must be available."
  def read_lines(p, count), do: read_lines(p, count, "")

  defp read_lines(p, count, read) do
    lines = String.split(read, "\n")

    if length(lines) > count do
      {lines, [""]} = Enum.split(lines, count)
      lines
    else
      assert {:ok, data} = Exile.Process.read(p)
      read_lines(p, count, read <> data)
    end
  end

  @doc "Reads `count` lines of the command's standard output, each of which is a number."
  def read_numbers(p, count), do: p |> read_lines(count) |> Enum.map(&String.to_integer/1)

  @doc "Runs a command until it exits; returns its output and its exit status."
  def run(command, options \\ []) do
    {:ok, p} = Exile.Process.start_link(command, options)
    output = read_all(p)
    {:ok, status} = Exile.Process.await_exit(p)
    {output, status}
  end

  @doc """
  Starts a task that makes itself the owner of the pipes and calls `fun`. Returns when the task
  is blocked inside `fun`.
  """
  def waiting_task(p, pipes, fun) do
    task =
      Task.async(fn ->
        for pipe <- List.wrap(pipes), do: :ok = Exile.Process.change_pipe_owner(p, pipe, self())
        fun.()
      end)

    wait_until_waiting(task.pid)
    task
  end

  @doc "Returns when the process is blocked inside Exile."
  def wait_until_waiting(pid, time_left \\ 5_000) do
    case Process.info(pid, [:status, :current_function]) do
      [status: :waiting, current_function: {module, _, _}]
      when module in [Exile.Runtime.Pipe, Exile.Runtime.Running] ->
        :ok

      other when time_left > 0 and other != nil ->
        Process.sleep(1)
        wait_until_waiting(pid, time_left - 1)

      other ->
        flunk("it does not wait: #{inspect(other)}")
    end
  end

  @doc "Returns the pid of a dead process."
  def dead_process do
    {pid, monitor} = spawn_monitor(fn -> :ok end)
    assert_receive {:DOWN, ^monitor, :process, ^pid, _}, 5_000
    pid
  end

  @doc "Returns how many milliseconds `fun` took, and its result."
  def timed(fun) do
    {microseconds, result} = :timer.tc(fun)
    {div(microseconds, 1000), result}
  end

  @doc "Kills a process that Exile no longer manages."
  def kill_os_process(os_pid) do
    System.cmd("kill", ["-KILL", "#{os_pid}"], stderr_to_stdout: true)
  end
end
