defmodule Exile.Process.Pattern do
  @moduledoc false

  # What `Exile.Process.read_until/3` looks for, and the search for it.

  alias Exile.Runtime.{Patience, Pipe}

  @enforce_keys [:binaries, :longest, :regexes]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          binaries: :binary.cp() | nil,
          longest: non_neg_integer,
          regexes: [Regex.t()]
        }

  # How far a search looks.
  @most 1_048_576

  @doc "Raises `ArgumentError` for what is no pattern."
  @spec new!(term) :: t
  def new!(pattern) do
    {binaries, others} = pattern |> List.wrap() |> Enum.split_with(&is_binary/1)

    if (binaries == [] and others == []) or "" in binaries or
         not Enum.all?(others, &is_struct(&1, Regex)) do
      raise ArgumentError,
            "expected a non-empty binary, a regular expression or a list of these, got: " <>
              inspect(pattern)
    end

    %__MODULE__{
      binaries: if(binaries != [], do: :binary.compile_pattern(binaries)),
      longest: binaries |> Enum.map(&byte_size/1) |> Enum.max(fn -> 0 end),
      regexes: others
    }
  end

  @doc "Takes what a pipe has up to the first match and with it."
  @spec read(t, Pipe.t(), Patience.deadline()) ::
          {:ok, binary, binary} | {:eof, binary} | {:error, :no_match | :timeout} | Pipe.error()
  def read(%__MODULE__{} = pattern, pipe, deadline), do: read(pattern, pipe, deadline, "")

  # What has been seen is still in the pipe's handle.
  defp read(pattern, pipe, deadline, seen) do
    case Pipe.read(pipe, {:beyond, byte_size(seen)}, :exit, deadline) do
      {:ok, more} ->
        new = max(byte_size(seen) - pattern.longest + 1, 0)
        seen = first(seen <> more, @most)

        case find(pattern, seen, new) do
          {start, length} -> take(pipe, start, length)
          nil when byte_size(seen) == @most -> {:error, :no_match}
          nil -> read(pattern, pipe, deadline, seen)
        end

      over when over in [:eof, :exited] ->
        with {:ok, rest, _} <- take(pipe, byte_size(seen), 0), do: {:eof, rest}

      :timeout ->
        {:error, :timeout}

      {:error, _} = error ->
        error
    end
  end

  defp first(data, count) when byte_size(data) > count, do: binary_part(data, 0, count)
  defp first(data, _count), do: data

  defp take(_pipe, 0, 0), do: {:ok, "", ""}

  defp take(pipe, start, length) do
    # All of it is in the handle, so this neither waits nor finds an end.
    case Pipe.read(pipe, start + length, :exit) do
      {:ok, data} -> {:ok, data, binary_part(data, start, length)}
      {:error, _} = error -> error
    end
  end

  # A binary that ends before `new` would have been found before.
  defp find(pattern, data, new) do
    [binary(pattern.binaries, data, new) | Enum.map(pattern.regexes, &regex(&1, data))]
    |> Enum.reject(&is_nil/1)
    |> Enum.min_by(fn {start, length} -> {start, -length} end, fn -> nil end)
  end

  defp binary(nil, _data, _new), do: nil

  defp binary(binaries, data, new) do
    case :binary.match(data, binaries, scope: {new, byte_size(data) - new}) do
      :nomatch -> nil
      match -> match
    end
  end

  defp regex(regex, data) do
    run(regex, data)
  rescue
    # It is about characters, and the last one may not have come as a whole.
    ArgumentError -> run(regex, characters(data))
  end

  defp run(regex, data) do
    with [match] <- Regex.run(regex, data, return: :index, capture: :first), do: match
  end

  defp characters(data) do
    case :unicode.characters_to_binary(data) do
      {_incomplete_or_error, characters, _rest} -> characters
      characters -> characters
    end
  end
end
