defmodule Exile.Stream.Output do
  @moduledoc false

  # Where the last command of a stream writes to.

  alias Exile.Command.Option

  @type t :: :pipe | {:file, binary, append :: boolean}

  @doc "Checks the `:stdout` option."
  @spec check(term) :: {:ok, t} | :error | {:error, message :: binary}
  def check({:file, path}) when is_binary(path), do: file(path, false)
  def check({:file, path, :append}) when is_binary(path), do: file(path, true)
  def check(_other), do: :error

  defp file(path, append) do
    with {:ok, path} <- Option.without_nul("the file of :stdout", path),
         do: {:ok, {:file, path, append}}
  end
end
