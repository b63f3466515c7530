defmodule Exile.Process.Words do
  @moduledoc false

  # What the messages of both exceptions say about the end of a command.

  # The last line of standard error says most about why a program failed. So many bytes are searched for
  # it, and so many characters of it are shown.
  @searched 8_192
  @shown 500

  @doc "The last line of standard error, after a colon; nothing where it was not kept, or is empty."
  @spec last_line(term) :: binary
  def last_line(lines) when is_list(lines),
    do: lines |> Enum.take(-10) |> Enum.join("\n") |> last_line()

  def last_line(stderr) when is_binary(stderr) do
    # Programs that show their progress begin a line anew with a carriage return.
    line =
      stderr
      |> last_bytes(@searched)
      |> String.trim()
      |> String.split(["\n", "\r"])
      |> List.last()

    if line == "", do: "", else: ": " <> printable(line)
  end

  def last_line(_elsewhere), do: ""

  defp last_bytes(binary, most) do
    count = min(byte_size(binary), most)
    binary_part(binary, byte_size(binary) - count, count)
  end

  defp printable(line),
    do: if(String.printable?(line), do: String.slice(line, 0, @shown), else: inspect(line))

  @doc "A signal as people write it."
  @spec signal(Exile.Process.signal()) :: binary
  def signal(number) when is_integer(number), do: "signal #{number}"
  def signal(name), do: name |> Atom.to_string() |> String.upcase()
end
