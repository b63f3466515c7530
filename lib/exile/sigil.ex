defmodule Exile.Sigil do
  @moduledoc ~S"""
  Commands written as in a shell, without a shell: `import Exile.Sigil`.

      iex> import Exile.Sigil
      iex> path = "holiday in Rome.mkv"
      iex> ~x"ffmpeg -i #{path} -f mp3 pipe:1"
      ["ffmpeg", "-i", "holiday in Rome.mkv", "-f", "mp3", "pipe:1"]

  See `sigil_x/2`.
  """

  # What a shell would not take literally, and what to use for it.
  @operators %{
    ?| => "for a pipeline use a list of commands",
    ?& => "commands of a pipeline run at once; to run one in the background use Exile.Process",
    ?; => "run the commands one after the other",
    ?< => "use the option input: {:file, path}",
    ?> => "use the option stdout: {:file, path}",
    ?$ => "use an interpolation",
    ?` => "use an interpolation"
  }

  @doc ~S"""
  The list of words that a command is.

  Words are split at white space when the code is compiled. Quotes and backslashes mean what they mean in
  a shell. Quotes keep a word together and make operators literal. A backslash is literal between single
  quotes; between double quotes it escapes `"` and `\`; elsewhere it makes any character literal.
  Interpolations work everywhere.

  An interpolation is one argument, or a part of one, whatever it contains: it is converted by
  `to_string/1` and never split. In a place of its own, without quotes, a list is spliced, one argument
  for each element, and `nil` is left out.

  There is no shell: no wildcards and no variables. What a shell would not take literally (`|`, `&`, `;`,
  `<`, `>`, `$` and the backtick) does not compile, unless it is in quotes.

  ## Examples

      iex> import Exile.Sigil
      iex> ~x(grep -e 'two words' "#{:three} words")
      ["grep", "-e", "two words", "three words"]

      iex> import Exile.Sigil
      iex> {flags, level, files} = {["-k", "-n"], nil, ["a b", "c"]}
      iex> ~x"gzip #{flags} #{level} --suffix=.#{"gz"} #{files}"
      ["gzip", "-k", "-n", "--suffix=.gz", "a b", "c"]
  """
  defmacro sigil_x({:<<>>, _, parts}, []) do
    case parts |> Enum.flat_map(&characters/1) |> words(__CALLER__) do
      [] -> error!(__CALLER__, "a command needs a program")
      words -> words |> Enum.map(&word/1) |> join()
    end
  end

  defp characters(text) when is_binary(text), do: String.to_charlist(text)

  defp characters({:"::", _, [{{:., _, [Kernel, :to_string]}, _, [value]}, _]}),
    do: [{:value, value}]

  # A word is a list of characters and values, the last one first, and whether it has quotes.
  defp words(characters, env), do: split(characters, nil, nil, [], env)

  defp split([], nil, word, words, _env), do: Enum.reverse(add(word, words))

  defp split([], mark, _word, _words, env),
    do: error!(env, "the quote #{<<mark>>} is not closed")

  # As in a shell: a backslash means itself between single quotes, and between double ones unless a
  # quote or a backslash follows. Elsewhere it takes away what the next character means.
  defp split([?\\, next | rest], mark, word, words, env)
       when mark == nil or (mark == ?" and next in [?\\, ?", ?#]),
       do: split(rest, mark, append(word, next), words, env)

  defp split([mark | rest], mark, word, words, env), do: split(rest, nil, word, words, env)

  defp split([mark | rest], nil, word, words, env) when mark in [?', ?"] do
    {parts, _} = word || {[], false}
    split(rest, mark, {parts, true}, words, env)
  end

  defp split([space | rest], nil, word, words, env) when space in [?\s, ?\t, ?\r, ?\n],
    do: split(rest, nil, nil, add(word, words), env)

  defp split([operator | _], nil, _word, _words, env) when is_map_key(@operators, operator) do
    error!(
      env,
      "there is no shell for #{<<operator>>}: #{@operators[operator]}; " <>
        "as a part of a word put it in quotes"
    )
  end

  defp split([part | rest], mark, word, words, env),
    do: split(rest, mark, append(word, part), words, env)

  defp append(nil, part), do: {[part], false}
  defp append({before, quoted}, part), do: {[part | before], quoted}

  defp add(nil, words), do: words
  defp add({parts, quoted}, words), do: [{Enum.reverse(parts), quoted} | words]

  # A word that is a value alone stands for any number of arguments.
  defp word({[{:value, value}], false}),
    do: {:many, quote(do: Exile.Sigil.Arguments.all(unquote(value)))}

  defp word({parts, _quoted}) do
    parts = parts |> Enum.chunk_by(&is_integer/1) |> Enum.flat_map(&chunk/1)

    case parts do
      [] -> {:one, ""}
      [text] when is_binary(text) -> {:one, text}
      parts -> {:one, Enum.reduce(parts, &quote(do: unquote(&2) <> unquote(&1)))}
    end
  end

  defp chunk([character | _] = text) when is_integer(character),
    do: [List.to_string(text)]

  defp chunk(values),
    do: for({:value, value} <- values, do: quote(do: Exile.Sigil.Arguments.part(unquote(value))))

  defp join(words) do
    Enum.reduce(Enum.reverse(words), [], fn
      {:one, word}, rest when is_list(rest) -> [word | rest]
      {:one, word}, rest -> quote(do: [unquote(word) | unquote(rest)])
      {:many, arguments}, rest -> quote(do: unquote(arguments) ++ unquote(rest))
    end)
  end

  defp error!(env, message) do
    raise CompileError, file: env.file, line: env.line, description: "~x: " <> message
  end
end
