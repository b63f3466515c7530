defmodule Exile.Picky do
  @moduledoc """
  A collectable that refuses one element by raising. It sends `:done` or `:halt` to a process, whichever
  it gets.
  """

  @enforce_keys [:refuses, :pid]
  defstruct @enforce_keys

  defimpl Collectable do
    def into(picky) do
      collect = fn
        %{refuses: refused}, {:cont, refused} -> raise "refused"
        picky, {:cont, _element} -> picky
        picky, last -> send(picky.pid, last)
      end

      {picky, collect}
    end
  end
end
