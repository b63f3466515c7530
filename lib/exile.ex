defmodule Exile do
  @moduledoc """
  Runs operating-system programs and streams data in and out of them, with back-pressure.
  """

  @spec stream!([binary, ...], keyword) :: Exile.Stream.t()
  def stream!(command, options \\ []), do: Exile.Stream.new!(command, options, :raise)

  @spec stream([binary, ...], keyword) :: Exile.Stream.t()
  def stream(command, options \\ []), do: Exile.Stream.new!(command, options, :tell)
end
