# Finds files of a Rust crate that need each other: elixir script/lib/circles.exs native/os ...
#
# A file needs another if it names something that the other defines. What a module only passes on
# (`pub use`) counts for the file that defines it. Tests at the end of a file do not count.

defmodule Circles do
  def check(crate) do
    crate = String.trim_trailing(crate, "/")

    files =
      for file <- Path.wildcard(crate <> "/src/**/*.rs"), into: %{}, do: {path(crate, file), file}

    sources = Map.new(files, fn {path, file} -> {path, code(file)} end)
    uses = Map.new(sources, fn {path, code} -> {path, uses(code, path, files)} end)

    passed_on =
      for {path, list} <- uses, {:pub, name, to} <- list, into: %{}, do: {path ++ [name], to}

    arrows =
      for {from, list} <- uses, {:own, _, to} <- list, reduce: %{} do
        arrows ->
          target = owner(to, passed_on, files)

          if target == from,
            do: arrows,
            else: Map.update(arrows, from, [target], &Enum.uniq([target | &1]))
      end

    case circle(arrows) do
      nil -> IO.puts("#{crate}: no circles between #{map_size(files)} files")
      circle -> fail(crate, Enum.map(circle, &files[&1]))
    end
  end

  defp fail(crate, files) do
    IO.puts(:stderr, "#{crate}: these files need each other: " <> Enum.join(files, " -> "))
    System.at_exit(fn _ -> exit({:shutdown, 1}) end)
  end

  defp path(crate, file) do
    file
    |> Path.relative_to(crate <> "/src")
    |> Path.rootname()
    |> Path.split()
    |> Enum.reject(&(&1 in ["lib", "main", "mod"]))
  end

  # Without comments, strings and the tests at the end.
  defp code(file) do
    file
    |> File.read!()
    |> String.split(~r/#\[cfg\((all\()?test\b[^\n]*\n(pub )?mod \w+ \{/)
    |> hd()
    |> String.replace(~r{//[^\n]*|pub\(in [^)]*\)}, "")
    |> String.replace(~r/"(\\.|[^"\\])*"/, "")
  end

  # What a file names: `{:pub | :own, name, absolute path}`.
  defp uses(code, path, files) do
    statements = Regex.scan(~r/(pub(?:\([a-z]+\))? )?use ([^;]+);/, code)
    rest = Regex.replace(~r/(pub(?:\([a-z]+\))? )?use ([^;]+);/, code, "")

    named =
      for [_, pub, tree] <- statements,
          {name, segments} <- tree(tree),
          absolute = absolute(segments, path, files),
          absolute != nil do
        {if(pub == "", do: :own, else: :pub), name, absolute}
      end

    inline =
      for [text] <- Regex.scan(~r/\b(?:crate|super|self)(?:::\w+)+|\b[a-z_]+(?:::\w+)+/, rest),
          segments = String.split(text, "::"),
          absolute = absolute(segments, path, files),
          absolute != nil do
        {:own, List.last(segments), absolute}
      end

    named ++ inline
  end

  # `a::{b, c::d as e}` as [{"b", [a, b]}, {"e", [a, c, d]}].
  defp tree(text), do: text |> String.replace(~r/\s+/, " ") |> String.trim() |> expand([])

  defp expand(text, prefix) do
    case Regex.run(~r/^([^{]*?)\{(.*)\}$/, String.trim(text)) do
      [_, head, inner] ->
        prefix = prefix ++ segments(head)
        inner |> split() |> Enum.flat_map(&expand(&1, prefix))

      nil ->
        [full | as] = String.split(String.trim(text), " as ")
        segments = prefix ++ segments(full)
        segments = if List.last(segments) == "self", do: Enum.drop(segments, -1), else: segments
        [{List.first(as) || List.last(segments), segments}]
    end
  end

  defp segments(text),
    do: text |> String.split("::") |> Enum.map(&String.trim/1) |> Enum.reject(&(&1 == ""))

  # At the commas that are in no braces.
  defp split(text) do
    {parts, part, _} =
      for <<c::utf8 <- text>>, reduce: {[], "", 0} do
        {parts, part, 0} when c == ?, -> {[part | parts], "", 0}
        {parts, part, depth} when c == ?{ -> {parts, part <> <<c::utf8>>, depth + 1}
        {parts, part, depth} when c == ?} -> {parts, part <> <<c::utf8>>, depth - 1}
        {parts, part, depth} -> {parts, part <> <<c::utf8>>, depth}
      end

    Enum.reject([part | parts], &(String.trim(&1) == ""))
  end

  defp absolute(["crate" | rest], _path, _files), do: rest
  defp absolute(["self" | rest], path, _files), do: path ++ rest

  defp absolute(["super" | rest], path, files),
    do: absolute(["self" | rest], Enum.drop(path, -1), files)

  defp absolute([first | _] = segments, path, files) do
    # A module of this one, or nothing of this crate.
    if Map.has_key?(files, path ++ [first]), do: path ++ segments
  end

  # The file that defines what the path names.
  defp owner(path, passed_on, files) do
    prefixes = for n <- length(path)..0//-1, do: Enum.take(path, n)

    case Enum.find(prefixes, &(Map.has_key?(passed_on, &1) or Map.has_key?(files, &1))) do
      prefix when is_map_key(files, prefix) -> prefix
      prefix -> owner(passed_on[prefix], passed_on, files)
    end
  end

  defp circle(arrows) do
    Enum.find_value(Map.keys(arrows), &(walk(&1, &1, [&1], arrows, MapSet.new()) |> elem(0)))
  end

  # The way from `at` back to `start`, if there is one.
  defp walk(start, at, way, arrows, seen) do
    Enum.reduce_while(Map.get(arrows, at, []), {nil, seen}, fn next, {nil, seen} ->
      cond do
        next == start ->
          {:halt, {Enum.reverse([next | way]), seen}}

        next in seen ->
          {:cont, {nil, seen}}

        true ->
          case walk(start, next, [next | way], arrows, MapSet.put(seen, next)) do
            {nil, seen} -> {:cont, {nil, seen}}
            found -> {:halt, found}
          end
      end
    end)
  end
end

Enum.each(System.argv(), &Circles.check/1)
