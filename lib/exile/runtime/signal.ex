defmodule Exile.Runtime.Signal do
  @moduledoc false

  # Signals by their names, like `:sigterm`.

  alias Exile.Native

  @doc "Whether `name` names a signal of this system."
  @spec known?(term) :: boolean
  def known?(name), do: is_atom(name) and Native.is_signal(Atom.to_string(name))

  @spec send(Native.process(), atom) :: :ok | {:error, Native.posix()}
  def send(process, name), do: Native.process_signal(process, Atom.to_string(name))
end
