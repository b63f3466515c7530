defmodule Exile.Watcher do
  @moduledoc false

  # Sees to it that the VM does not end before its commands. It is idle until the application
  # stops, on `System.stop/1` or SIGTERM to the VM: then no more commands are started, every one
  # that runs gets its teardown, all at once, and the application has stopped when they are gone.

  use GenServer

  alias Exile.Native

  # A busy machine takes a while to end hundreds of processes.
  @kill_patience 5_000

  # The most milliseconds that the VM can wait.
  @max_timeout 0xFFFF_FFFF

  # A command that is just being started is ended when it runs; only a broken disk takes longer.
  @spawn_patience 5_000
  @spawn_pause 5

  def child_spec(_) do
    # It is bounded by the longest teardown, which only the native side knows.
    %{id: __MODULE__, start: {__MODULE__, :start_link, []}, shutdown: :infinity}
  end

  def start_link, do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @impl true
  def init(_) do
    Process.flag(:trap_exit, true)
    :ok = Native.allow_spawns()
    {:ok, nil}
  end

  # A stray call or message does no harm.
  @impl true
  def handle_call(_request, _from, state), do: {:noreply, state}

  @impl true
  def handle_cast(_request, state), do: {:noreply, state}

  @impl true
  def handle_info(_message, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, _state), do: end_all(now() + @spawn_patience)

  defp end_all(deadline) do
    ref = make_ref()
    {longest, spawning} = Native.stop_all(ref)

    receive do
      {:select, _, ^ref, _} -> :ok
    after
      min(longest + @kill_patience, @max_timeout) -> :ok
    end

    if spawning > 0 and now() < deadline do
      Process.sleep(@spawn_pause)
      end_all(deadline)
    end
  end

  defp now, do: System.monotonic_time(:millisecond)
end
