defmodule Exile.Sigil.Arguments do
  @moduledoc false

  # What becomes of interpolated values when the code of a sigil runs.

  @doc "The arguments that a value in a place of its own stands for."
  @spec all(term) :: [binary]
  def all(nil), do: []
  def all(list) when is_list(list), do: Enum.map(list, &part/1)
  def all(value), do: [to_string(value)]

  @doc "A value as a part of an argument."
  @spec part(term) :: binary
  def part(list) when is_list(list) do
    raise ArgumentError,
          "a list can only be interpolated as arguments of its own, got: #{inspect(list)}"
  end

  def part(value), do: to_string(value)
end
