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
    # If the kernel cannot report the exit of a child that is already reaped, it must not reap
    # children by itself.
    if Native.exit_source() != :pidfd do
      :ok = :os.set_signal(:sigchld, :default)
    end

    # They stop in reverse order, so that the guard runs until all processes are gone.
    guard = if Guard.wanted?(), do: [Guard], else: []
    Supervisor.start_link(guard ++ [Shutdown], strategy: :one_for_one, name: Exile.Supervisor)
  end
end
