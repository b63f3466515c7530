defmodule Exile.Guard do
  @moduledoc false

  # Keeps the guard running, the helper program that outlives the VM and then ends the process
  # groups of its commands. Started with `config :exile, guard: true`, and where the kernel does not
  # end commands with the VM, unless `guard: false` is configured.

  use GenServer

  require Logger

  alias Exile.{Error, Native}

  # A guard that does not last is not started again and again.
  @pause 1_000

  # When its end is told, its status may take a little longer.
  @status_delay 1

  @doc "Whether a guard is wanted. The kernel needs no help when the VM is PID 1 of a namespace."
  def wanted? do
    Application.get_env(:exile, :guard, Native.guard_is_needed()) and System.pid() != "1"
  end

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @impl true
  def init(_) do
    Process.flag(:trap_exit, true)

    case start() do
      {:ok, state} -> {:ok, state}
      {:error, error} -> {:stop, error}
    end
  end

  defp start do
    path = Application.app_dir(:exile, "priv/native/exile_guard")
    ref = make_ref()

    case Native.guard_start(path, ref) do
      {:ok, command} ->
        {:ok, %{command: command, ref: ref, started: now()}}

      {:error, 0, step, reason} ->
        {:error, %Error{reason: reason, operation: step, subject: path}}
    end
  end

  @impl true
  def handle_info({:select, _, ref, _}, %{ref: ref} = state) do
    :ok = Native.guard_stop()

    if Native.command_status(state.command) == :running do
      # Its end is known, its status is not yet.
      Process.send_after(self(), {:select, nil, ref, nil}, @status_delay)
      {:noreply, state}
    else
      Process.send_after(self(), :start, max(@pause - (now() - state.started), 0))
      {:noreply, %{state | ref: nil}}
    end
  end

  def handle_info(:start, state) do
    case start() do
      {:ok, state} ->
        {:noreply, state}

      {:error, error} ->
        Logger.warning("Exile's guard is gone: " <> Exception.message(error))
        Process.send_after(self(), :start, @pause)
        {:noreply, state}
    end
  end

  def handle_info(_other, state), do: {:noreply, state}

  # The native side kills the guard when this process is gone.
  @impl true
  def terminate(_reason, _state), do: Native.guard_stop()

  defp now, do: System.monotonic_time(:millisecond)
end
