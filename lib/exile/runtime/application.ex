defmodule Exile.Runtime.Application do
  @moduledoc false

  use Application

  alias Exile.Native
  alias Exile.Runtime.{Guard, Shutdown}

  @impl true
  def start(_type, _args) do
    case Code.ensure_loaded(Native) do
      {:module, _} -> start_processes()
      {:error, _} -> {:error, Native.Library.problem()}
    end
  end

  defp start_processes do
    # Where the kernel cannot tell how a reaped child ended, children must not be reaped by it.
    if Native.exit_source() != :pidfd do
      :ok = :os.set_signal(:sigchld, :default)
    end

    # In reverse order they stop: the guard is there until all processes are gone.
    guard = if Guard.wanted?(), do: [Guard], else: []
    Supervisor.start_link(guard ++ [Shutdown], strategy: :one_for_one, name: Exile.Supervisor)
  end
end
