defmodule Exile.Command.Environment do
  @moduledoc false

  # Checks the `:env` option and converts its names and values to binaries.

  alias Exile.Command.Option

  @type t :: [{name :: binary, value :: binary | nil}]

  @spec check(term) :: {:ok, t} | :error | {:error, message :: binary}
  # An improper list has no length, so it fails the guard.
  def check(env)
      when (is_list(env) and length(env) >= 0) or (is_map(env) and not is_struct(env)) do
    # If a name is given twice, the last value wins.
    {:ok, env |> Enum.map(&variable/1) |> Map.new() |> Map.to_list()}
  catch
    {:wrong, message} -> {:error, message}
  end

  def check(_other), do: :error

  defp variable({name, value}) when value in [nil, false], do: {name(name), nil}

  defp variable({name, value}) do
    {name(name), without_nul("a value in :env", text(value, "a value"))}
  end

  defp variable(other) do
    wrong("expected pairs of a name and a value (or nil to unset), got: #{inspect(other)}")
  end

  defp name(name) do
    text = text(name, "a name")

    if text == "" or String.contains?(text, "=") do
      wrong("a name must not be empty or contain \"=\", got: #{inspect(name)}")
    end

    without_nul("a name in :env", text)
  end

  defp text(text, _what) when is_binary(text), do: text

  # A charlist is text. An improper list, or one with elements other than characters, is not.
  defp text(term, what) when is_atom(term) or is_number(term) or is_list(term) do
    to_string(term)
  rescue
    _ in [ArgumentError, FunctionClauseError, UnicodeConversionError, Protocol.UndefinedError] ->
      no_text(term, what)
  end

  defp text(other, what), do: no_text(other, what)

  @spec no_text(term, binary) :: no_return
  defp no_text(term, what) do
    wrong(
      "expected #{what} to be a binary, a charlist, an atom or a number, got: #{inspect(term)}"
    )
  end

  defp without_nul(what, text) do
    with {:error, message} <- Option.without_nul(what, text), do: throw({:wrong, message})
    text
  end

  @spec wrong(binary) :: no_return
  defp wrong(message), do: throw({:wrong, "invalid value for option :env: " <> message})
end
