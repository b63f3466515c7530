defmodule Exile.Runtime.Signal do
  @moduledoc false

  # Signals by their names, like `:sigterm`, and by their numbers.

  alias Exile.Native

  @doc "Whether it is a signal of this system."
  @spec known?(term) :: boolean
  def known?(signal), do: (is_atom(signal) or is_integer(signal)) and Native.is_signal(signal)
end
