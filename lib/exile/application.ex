defmodule Exile.Application do
  @moduledoc false

  use Application

  @impl true
  def start(_type, _args) do
    case Code.ensure_loaded(Exile.Native) do
      {:module, _} -> start_processes()
      {:error, _} -> {:error, Exile.Library.problem()}
    end
  end

  defp start_processes do
    # Where the kernel cannot tell how a reaped child ended, children must not be reaped by it.
    if Exile.Native.exit_source() != :pidfd do
      :ok = :os.set_signal(:sigchld, :default)
    end

    # The watcher stops first: the guard is there until the commands are gone.
    guard = if Exile.Guard.wanted?(), do: [Exile.Guard], else: []
    children = guard ++ [Exile.Watcher]
    Supervisor.start_link(children, strategy: :one_for_one, name: Exile.WatcherSupervisor)
  end
end
