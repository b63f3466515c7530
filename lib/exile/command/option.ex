defmodule Exile.Command.Option do
  @moduledoc false

  # How options are checked, documented and typed. The options themselves are in
  # `Exile.Command.Options`.
  #
  # Misuse raises an ArgumentError that names the option and the value.

  import Exile.Runtime.Patience, only: [is_timeout: 1]

  @enforce_keys [:name, :values, :doc]
  defstruct [:name, :values, :doc, :default, :default_doc, :stands_for, attribute: false]

  @typedoc """
  One row of the table.

    * `values` - the allowed values, see `t:values/0`. `{:output, names}` is one of these names, or a file
      that the program writes
    * `default_doc` - the default in words, if it cannot be shown as a term
    * `stands_for` - the option that this is an older name of, and a map from values of this
      option to values of that one
    * `attribute` - whether the option only affects how the process is created. Its value then
      goes unchanged to `native/os/src/attributes`
  """
  @type t :: %__MODULE__{
          name: atom,
          values: values,
          doc: binary,
          default: term,
          default_doc: binary | nil,
          stands_for: {atom, %{term => term}} | nil,
          attribute: boolean
        }

  @typedoc "The allowed values of an option. A `:special` row has its own type and check."
  @type values ::
          :boolean
          | :timeout
          | :positive
          | {:integer, Range.t()}
          | {:text, expected :: binary}
          | {:one_of, [atom, ...]}
          | {:output, [atom]}
          | {:special,
             [
               type: Macro.t(),
               label: binary,
               expected: binary,
               check: (term -> {:ok, term} | :error | {:error, message :: binary})
             ]}

  # More than a single read ever returns. The native side accepts no larger number.
  @largest 0xFFFF_FFFF

  @doc """
  Returns the value of every option of a table: the given value, checked, or else the default.

  If an option is given twice, the first wins, as in Keyword. `nil` stands for the default.
  """
  @spec values!([t], term) :: %{atom => term}
  def values!(rows, options) do
    unless Keyword.keyword?(options) do
      raise ArgumentError, "expected options to be a keyword list, got: #{inspect(options)}"
    end

    for {key, value} <- options, not Enum.any?(rows, &(&1.name == key)) do
      raise ArgumentError,
            "unknown option #{inspect(key)} with value #{inspect(value)}; the known ones are " <>
              Enum.map_join(rows, ", ", &inspect(&1.name))
    end

    {older, rows} = Enum.split_with(rows, & &1.stands_for)
    options = Enum.reduce(older, options, &rename!/2)
    Map.new(rows, &{&1.name, value!(&1, Keyword.get_values(options, &1.name))})
  end

  defp rename!(%__MODULE__{name: old, stands_for: {new, values}} = row, options) do
    case options[old] do
      nil ->
        options

      value ->
        if options[new] != nil do
          raise ArgumentError,
                "options #{inspect(old)} and #{inspect(new)} mean the same and exclude each " <>
                  "other, got: #{inspect(Keyword.take(options, [old, new]))}"
        end

        value = checked!(row, value)
        Keyword.put(options, new, Map.get(values, value, value))
    end
  end

  # Values that are not used are checked too.
  defp value!(row, []), do: row.default
  defp value!(row, given), do: given |> Enum.map(&checked!(row, &1)) |> hd()

  defp checked!(%__MODULE__{default: default}, nil), do: default

  defp checked!(%__MODULE__{name: name, values: values}, value) do
    case check(values, value, name) do
      {:ok, value} ->
        value

      :error ->
        raise ArgumentError,
              "invalid value for option #{inspect(name)}: expected #{expected(values)}, " <>
                "got: #{inspect(value)}"

      {:error, message} ->
        raise ArgumentError, message
    end
  end

  defp check({:text, _}, value, name) when is_binary(value), do: without_nul(inspect(name), value)
  defp check({:special, special}, value, _name), do: special[:check].(value)
  defp check({:output, names}, value, name), do: output(name, names, value)
  defp check(:positive, value, _name) when is_integer(value), do: at_least_one(value)
  defp check(values, value, _name), do: if(fits?(values, value), do: {:ok, value}, else: :error)

  defp at_least_one(value), do: if(value > 0, do: {:ok, min(value, @largest)}, else: :error)

  defp fits?(:boolean, value), do: is_boolean(value)
  defp fits?(:timeout, value), do: is_timeout(value)
  defp fits?({:integer, range}, value), do: is_integer(value) and value in range
  defp fits?({:one_of, names}, value), do: value in names
  defp fits?(_values, _value), do: false

  @typedoc "A file that a program writes."
  @type file :: {:file, binary, append :: boolean}

  @doc "Checks where an output goes: to what one of the `names` stands for, or to a file."
  @spec output(atom, [atom], term) :: {:ok, atom | file} | :error | {:error, binary}
  def output(name, _names, {:file, path}) when is_binary(path), do: file(name, path, false)

  def output(name, _names, {:file, path, :append}) when is_binary(path),
    do: file(name, path, true)

  def output(_name, names, value), do: if(value in names, do: {:ok, value}, else: :error)

  defp file(name, path, append) do
    with {:ok, path} <- without_nul("the file of #{inspect(name)}", path),
         do: {:ok, {:file, path, append}}
  end

  @doc "Rejects a string with a NUL byte, because the system would end the string there."
  @spec without_nul(binary, binary) :: {:ok, binary} | {:error, binary}
  def without_nul(what, binary) do
    if String.contains?(binary, <<0>>),
      do: {:error, "#{what} must not contain a NUL byte, got: #{inspect(binary)}"},
      else: {:ok, binary}
  end

  @most_of_a_line 1_048_576

  @doc "Checks whether, and how long, lines are wanted."
  @spec lines(term) :: {:ok, pos_integer | nil} | :error
  def lines(true), do: {:ok, @most_of_a_line}
  def lines(false), do: {:ok, nil}
  def lines(most) when is_integer(most) and most > 0, do: {:ok, most}
  def lines(_other), do: :error

  @doc "Checks a list of exit statuses."
  @spec statuses(term) :: {:ok, [0..255] | :any} | :error
  def statuses(:any), do: {:ok, :any}

  def statuses(list) when is_list(list) and length(list) >= 0,
    do: if(Enum.all?(list, &(&1 in 0..255)), do: {:ok, list}, else: :error)

  def statuses(_other), do: :error

  defp expected(:boolean), do: "a boolean"
  defp expected(:timeout), do: "milliseconds or :infinity"
  defp expected(:positive), do: "a positive integer"
  defp expected({:integer, first..last//1}), do: "an integer from #{first} to #{last}"
  defp expected({:text, expected}), do: expected
  defp expected({:special, special}), do: special[:expected]

  defp expected({:one_of, names}), do: names |> Enum.map(&inspect/1) |> alternatives()

  defp expected({:output, names}),
    do: alternatives(Enum.map(names, &inspect/1) ++ ["{:file, path}", "{:file, path, :append}"])

  defp alternatives(all) do
    {others, [last]} = Enum.split(all, -1)
    Enum.join(others, ", ") <> " or " <> last
  end

  @doc "The type of a keyword list of these options, for `@type`."
  @spec type([t]) :: Macro.t()
  def type(rows), do: rows |> Enum.map(&{&1.name, type_of(&1.values)}) |> union()

  defp type_of(:boolean), do: quote(do: boolean)
  defp type_of(:timeout), do: quote(do: timeout)
  defp type_of(:positive), do: quote(do: pos_integer)
  defp type_of({:integer, range}), do: Macro.escape(range) |> range_type()
  defp type_of({:text, _}), do: quote(do: binary)
  defp type_of({:one_of, names}), do: union(names)

  defp type_of({:output, names}) do
    files = [
      quote(do: {:file, path :: binary}),
      quote(do: {:file, path :: binary, :append})
    ]

    union(names ++ files)
  end

  defp type_of({:special, special}), do: special[:type]

  defp range_type({:%{}, _, fields}),
    do: quote(do: unquote(fields[:first])..unquote(fields[:last]))

  defp union(types), do: types |> Enum.reverse() |> Enum.reduce(&{:|, [], [&1, &2]})

  @doc "The documentation of these options, as the items of a Markdown list."
  @spec docs([t]) :: binary
  def docs(rows), do: Enum.map_join(rows, "\n", &doc/1)

  defp doc(%__MODULE__{} = row) do
    [first | rest] = row.doc |> String.trim() |> String.split("\n")
    label = with text when is_binary(text) <- label(row.values), do: " (#{text})"

    default =
      unless row.stands_for, do: "Default: #{row.default_doc || "`#{inspect(row.default)}`"}."

    # After a list within the item, the default must be a separate paragraph.
    rest = Enum.map(rest, &("    " <> &1))
    lines = ["  * `#{inspect(row.name)}`#{label} - #{first}" | rest]

    cond do
      default == nil -> Enum.join(lines, "\n")
      Enum.any?(rest, &(&1 =~ ~r/^ *\* /)) -> Enum.join(lines, "\n") <> "\n\n    #{default}\n"
      true -> Enum.join(lines, "\n") <> " " <> default
    end
  end

  defp label(:boolean), do: "boolean"
  defp label(:timeout), do: "milliseconds or `:infinity`"
  defp label(:positive), do: "positive integer"
  defp label({:integer, first..last//1}), do: "integer from #{first} to #{last}"
  defp label({:text, _}), do: "binary"
  defp label({:one_of, _}), do: nil
  defp label({:output, _}), do: nil
  defp label({:special, special}), do: special[:label]
end
