defmodule Exile.Runtime.Shutdown do
  @moduledoc false

  # Ends all processes before the VM stops. It is idle until the application stops, for instance
  # because of `System.stop/1` or a SIGTERM to the VM. From then on nothing is started, all
  # processes get their teardowns at once, and the application has stopped when they are gone.

  use GenServer

  alias Exile.Native
  alias Exile.Runtime.Patience

  # How often to look for processes that were still being started, in milliseconds.
  @pause 5

  def child_spec(_) do
    # The time is bounded by the longest teardown, which only the native side knows.
    %{id: __MODULE__, start: {__MODULE__, :start_link, []}, shutdown: :infinity}
  end

  def start_link, do: GenServer.start_link(__MODULE__, nil, name: Native.gatekeeper())

  @impl true
  def init(_) do
    Process.flag(:trap_exit, true)
    :ok = Native.allow_spawns()
    {:ok, nil}
  end

  # Unexpected calls and messages are ignored.
  @impl true
  def handle_call(_request, _from, state), do: {:noreply, state}

  @impl true
  def handle_cast(_request, state), do: {:noreply, state}

  @impl true
  def handle_info(_message, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, _state), do: end_all(Patience.deadline(Patience.starting()))

  defp end_all(deadline) do
    ref = make_ref()
    {longest, spawning} = Native.stop_all(ref)

    receive do
      {:select, _, ^ref, _} -> :ok
    after
      min(longest + Patience.kill_all(), Patience.most()) -> :ok
    end

    if spawning > 0 and not Patience.over?(deadline) do
      Process.sleep(@pause)
      end_all(deadline)
    end
  end
end
