defmodule Exile.Watcher do
  @moduledoc false

  # Sees to it that the VM does not end before its commands. It is idle until the application
  # stops, on `System.stop/1` or SIGTERM to the VM: then every command gets its teardown, all at
  # once, and the application has stopped when they are gone.

  use GenServer

  alias Exile.Native

  # A busy machine takes a while to end hundreds of processes.
  @kill_patience 5_000

  def child_spec(_) do
    # It is bounded by the longest teardown, which only the native side knows.
    %{id: __MODULE__, start: {__MODULE__, :start_link, []}, shutdown: :infinity}
  end

  def start_link, do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @impl true
  def init(_) do
    Process.flag(:trap_exit, true)
    {:ok, nil}
  end

  @impl true
  def terminate(_reason, _state) do
    ref = make_ref()
    longest = Native.terminate_all(ref)

    receive do
      {:select, _, ^ref, _} -> :ok
    after
      longest + @kill_patience -> :ok
    end
  end
end
