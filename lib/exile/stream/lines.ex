defmodule Exile.Stream.Lines do
  @moduledoc false

  # Cuts the output of a command, which comes in chunks of any size, into lines.

  @enforce_keys [:most]
  defstruct [:most, size: 0, begun: []]

  @typedoc "A line that has begun: its parts, the last one first, and how many bytes it has so far."
  @type t :: %__MODULE__{most: pos_integer, size: non_neg_integer, begun: [binary]}

  @spec new(pos_integer) :: t
  def new(most), do: %__MODULE__{most: most}

  @doc """
  The lines that end in a chunk, without their newlines, and what is left; `:too_long` if a line has more
  bytes than it may, with the lines before it.
  """
  @spec feed(t, binary) :: {:ok, [binary], t} | {:too_long, [binary]}
  def feed(%__MODULE__{} = lines, chunk) do
    case :binary.split(chunk, "\n", [:global]) do
      [part] ->
        size = lines.size + byte_size(part)

        if size > lines.most,
          do: {:too_long, []},
          else: {:ok, [], %{lines | size: size, begun: [part | lines.begun]}}

      [first | rest] when lines.size + byte_size(first) <= lines.most ->
        first = [first | lines.begun] |> Enum.reverse() |> IO.iodata_to_binary()
        take(rest, [first], %{lines | size: 0, begun: []})

      _ ->
        {:too_long, []}
    end
  end

  defp take([last], taken, lines) when byte_size(last) <= lines.most do
    begun = if last == "", do: [], else: [last]
    {:ok, Enum.reverse(taken), %{lines | size: byte_size(last), begun: begun}}
  end

  # A copy: a line that somebody keeps must not keep the whole chunk.
  defp take([line | rest], taken, lines) when byte_size(line) <= lines.most,
    do: take(rest, [:binary.copy(line) | taken], lines)

  defp take(_too_long, taken, _lines), do: {:too_long, Enum.reverse(taken)}

  @doc "The lines of a binary."
  @spec all(binary) :: [binary]
  def all(binary) do
    {:ok, ended, lines} = feed(new(byte_size(binary) + 1), binary)
    ended ++ rest(lines)
  end

  @doc "The last line, if the output does not end with a newline."
  @spec rest(t) :: [binary]
  def rest(%__MODULE__{begun: []}), do: []
  def rest(%__MODULE__{begun: begun}), do: [begun |> Enum.reverse() |> IO.iodata_to_binary()]
end
