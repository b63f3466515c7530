defmodule Exile.Stream.Output do
  @moduledoc false

  # Where the last command of a stream writes.

  alias Exile.Command.Option

  @type t :: :pipe | :disable | {:file, binary, append :: boolean}

  @doc "Checks the `:stdout` option."
  @spec check(term) :: {:ok, t} | :error | {:error, message :: binary}
  def check({:file, path}) when is_binary(path), do: file(path, false)
  def check({:file, path, :append}) when is_binary(path), do: file(path, true)
  def check(_other), do: :error

  @doc "Checks the `:stdout` option of `Exile.run/2`."
  @spec check_run(term) ::
          {:ok, t | :capture | {:into, Collectable.t()}} | :error | {:error, message :: binary}
  def check_run(name) when name in [:capture, :disable], do: {:ok, name}

  def check_run({:into, collectable} = into),
    do: if(Collectable.impl_for(collectable), do: {:ok, into}, else: :error)

  def check_run(other), do: check(other)

  @doc "Checks the `:max_output` option of `Exile.run/2`."
  @spec check_max(term) :: {:ok, Exile.Capture.Output.limit()} | :error
  def check_max(:infinity), do: {:ok, :infinity}
  def check_max(bytes) when is_integer(bytes) and bytes >= 0, do: {:ok, bytes}

  def check_max({end_kept, bytes} = limit)
      when end_kept in [:head, :tail] and is_integer(bytes) and bytes >= 0,
      do: {:ok, limit}

  def check_max(_other), do: :error

  defp file(path, append) do
    with {:ok, path} <- Option.without_nul("the file of :stdout", path),
         do: {:ok, {:file, path, append}}
  end
end
