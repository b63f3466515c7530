defmodule Exile.Runtime.Guard do
  @moduledoc false

  # Keeps the guard running. The guard is a helper program that outlives the VM and then ends the
  # process groups of its commands. It runs with `config :exile, guard: true`, and also where the
  # kernel does not end commands with the VM, unless `guard: false` is configured.

  use GenServer

  require Logger

  alias Exile.Native
  alias Exile.Runtime.{Patience, Running}

  @doc "Whether to run a guard. If the VM is PID 1 of a namespace, the kernel needs no help."
  def wanted? do
    Application.get_env(:exile, :guard, Native.guard_is_needed()) and System.pid() != "1"
  end

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @impl true
  def init(_) do
    Process.flag(:trap_exit, true)

    case start() do
      {:ok, state} -> {:ok, state}
      {:error, failure} -> {:stop, failure}
    end
  end

  defp start do
    path = Application.app_dir(:exile, "priv/native/exile_guard")
    ref = make_ref()

    case path |> Native.guard_start(ref) |> Running.answer(ref, :infinity) do
      {:ok, process} -> {:ok, wait(%{process: process, ref: nil, started: Patience.now()})}
      {:error, failure} -> {:error, failure}
    end
  end

  # A message with the reference arrives when the guard has exited.
  defp wait(%{process: process} = state) do
    ref = make_ref()

    case Native.process_wait(process, :exit, ref) do
      :wait -> %{state | ref: ref}
      _status -> ended(state)
    end
  end

  defp ended(state) do
    :ok = Native.guard_stop()
    Process.send_after(self(), :start, Patience.left(state.started + Patience.guard()))
    %{state | ref: nil}
  end

  @impl true
  def handle_info({:select, _, ref, _}, %{ref: ref} = state), do: {:noreply, ended(state)}

  def handle_info(:start, state) do
    case start() do
      {:ok, state} ->
        {:noreply, state}

      {:error, %{step: step, reason: reason}} ->
        Logger.warning(
          "Exile's guard is gone and could not be started: #{inspect(reason)} (#{step})"
        )

        Process.send_after(self(), :start, Patience.guard())
        {:noreply, state}
    end
  end

  # Unexpected calls and messages are ignored.
  def handle_info(_other, state), do: {:noreply, state}

  @impl true
  def handle_call(_request, _from, state), do: {:noreply, state}

  @impl true
  def handle_cast(_request, state), do: {:noreply, state}

  # The native side kills the guard when this process dies.
  @impl true
  def terminate(_reason, _state), do: Native.guard_stop()
end
