defmodule Exile.ProcessHelpers do
  @moduledoc """
  For tests of `Exile.Process`: whole outputs, lines that a program announces itself with, and
  processes that are known to wait in a call.
  """

  import ExUnit.Assertions

  @doc "Everything the command writes from now on, up to its end-of-file."
  def read_all(p), do: p |> read_all([]) |> IO.iodata_to_binary()

  defp read_all(p, read) do
    case Exile.Process.read(p) do
      {:ok, data} -> read_all(p, [read | data])
      :eof -> read
    end
  end

  @doc "The next `count` lines of the command's standard output, which must be all there is."
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

  @doc "The next lines of the command's standard output, each of which is a number."
  def read_numbers(p, count), do: p |> read_lines(count) |> Enum.map(&String.to_integer/1)

  @doc "Runs a command to its end: its output and its exit status."
  def run(command, options \\ []) do
    {:ok, p} = Exile.Process.start_link(command, options)
    output = read_all(p)
    {:ok, status} = Exile.Process.await_exit(p)
    {output, status}
  end

  @doc """
  A task that makes itself the owner of the pipes and calls `fun`. Returns when it waits in there.
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

  @doc "Returns when a process waits inside Exile."
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

  @doc "The pid of a process that is dead."
  def dead_process do
    {pid, monitor} = spawn_monitor(fn -> :ok end)
    assert_receive {:DOWN, ^monitor, :process, ^pid, _}, 5_000
    pid
  end

  @doc "Returns the milliseconds that `fun` took and its result."
  def timed(fun) do
    {microseconds, result} = :timer.tc(fun)
    {div(microseconds, 1000), result}
  end

  @doc "Kills a program that is not a command of Exile any more."
  def kill_os_process(os_pid) do
    System.cmd("kill", ["-KILL", "#{os_pid}"], stderr_to_stdout: true)
  end
end
