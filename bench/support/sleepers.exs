defmodule Bench.Sleepers do
  # Commands that do nothing, and are there.

  alias Bench.ViaPort

  @command ["sleep", "600"]

  @doc "Starts `count` commands, which belong to the caller."
  def start(:exile, count) do
    for _ <- 1..count do
      {:ok, process} = Exile.Process.start_link(@command)
      process
    end
  end

  def start(:port, count), do: for(_ <- 1..count, do: ViaPort.open(@command))

  @doc "Ends them; returns when they have ended."
  def stop([first | _] = ports) when is_port(first) do
    # Nothing but a signal ends a program that does not read.
    for batch <- Enum.chunk_every(ports, 200) do
      numbers =
        for port <- batch, do: port |> Port.info(:os_pid) |> elem(1) |> Integer.to_string()

      {"", 0} = System.cmd("kill", ["-KILL" | numbers])
    end

    for port <- ports, do: receive(do: ({^port, {:exit_status, _}} -> :ok))
  end

  def stop(processes) do
    for process <- processes, do: :ok = Exile.Process.kill(process, :sigkill)
    for process <- processes, do: {:ok, 137} = Exile.Process.await_exit(process, :infinity)
  end

  @doc "Starts `count` commands, each with an Erlang process of its own that waits for its end."
  def start_awaited(count) do
    starter = self()

    # One after the other: how they do when all start at once is another question.
    for _ <- 1..count//1 do
      {pid, monitor} = Process.spawn(fn -> await(starter) end, [:link, :monitor])
      receive(do: ({^pid, process} -> {process, pid, monitor}))
    end
  end

  defp await(starter) do
    {:ok, process} = Exile.Process.start_link(@command)
    # Ten thousand commands are too many descriptors with pipes, on some machines.
    :ok = Exile.Process.close_stdin(process)
    :ok = Exile.Process.close_stdout(process)
    send(starter, {self(), process})
    {:ok, 137} = Exile.Process.await_exit(process, 600_000)
  end

  @doc "Ends them; returns when those who wait for them know."
  def stop_awaited(awaited) do
    for {process, _, _} <- awaited, do: :ok = Exile.Process.kill(process, :sigkill)

    for {_, pid, monitor} <- awaited do
      receive(do: ({:DOWN, ^monitor, :process, ^pid, reason} -> :normal = reason))
    end
  end
end
