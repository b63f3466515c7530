defmodule Exile.Command do
  @moduledoc false

  # What to run, from what the user said: the one place where options are checked. Misuse raises
  # an ArgumentError that names the option and the value.

  alias Exile.{Native, Teardown}

  @type t :: %__MODULE__{
          argv: [binary, ...],
          cd: binary | nil,
          env: [{binary, binary | nil}],
          clear_env: boolean,
          stderr: :console | :redirect_to_stdout | :disable | :consume,
          teardown: Teardown.t(),
          start_timeout: timeout
        }

  @enforce_keys [:argv]
  defstruct argv: nil,
            cd: nil,
            env: [],
            clear_env: false,
            stderr: :console,
            teardown: :default,
            start_timeout: :infinity

  @max_milliseconds 0xFFFF_FFFF

  @options [:cd, :env, :clear_env, :stderr, :teardown, :start_timeout]

  @doc "The options of a command."
  @spec options() :: [atom, ...]
  def options, do: @options

  @doc "Checks a command and its options. `known` are the options that an error message names."
  @spec new!(term, term, [atom]) :: t
  def new!(argv, options, known \\ @options) do
    command = %__MODULE__{argv: argv!(argv)}

    unless Keyword.keyword?(options) do
      raise ArgumentError, "expected options to be a keyword list, got: #{inspect(options)}"
    end

    for {key, value} <- options, key not in @options do
      raise ArgumentError,
            "unknown option #{inspect(key)} with value #{inspect(value)}; the known ones are " <>
              Enum.map_join(known, ", ", &inspect/1)
    end

    # If an option is given twice, the first wins, as in Keyword. `nil` stands for the default.
    options
    |> Enum.reverse()
    |> Enum.reduce(command, fn {key, value}, command -> put!(command, key, value) end)
  end

  defp argv!([program | _] = argv) when is_binary(program) do
    if program == "", do: raise(ArgumentError, "the program of a command must not be empty")

    if List.improper?(argv) do
      raise ArgumentError, "expected a command to be a proper list, got: #{inspect(argv)}"
    end

    Enum.each(argv, fn
      argument when is_binary(argument) ->
        no_nul!("an argument of the command", argument)

      other ->
        raise ArgumentError,
              "expected every argument of a command to be a binary, got: #{inspect(other)}"
    end)

    argv
  end

  defp argv!(other) do
    raise ArgumentError,
          "expected a command to be a non-empty list of binaries, program first, " <>
            "got: #{inspect(other)}"
  end

  defp put!(command, :cd, directory) when is_binary(directory) do
    %{command | cd: no_nul!(":cd", directory)}
  end

  defp put!(command, key, nil), do: %{command | key => Map.fetch!(%__MODULE__{argv: nil}, key)}

  # Improper lists have no length.
  defp put!(command, :env, env)
       when (is_list(env) and length(env) >= 0) or (is_map(env) and not is_struct(env)) do
    # If a name is given twice, the last value wins.
    %{command | env: env |> Enum.map(&variable!/1) |> Map.new() |> Map.to_list()}
  end

  defp put!(command, :clear_env, clear) when is_boolean(clear) do
    %{command | clear_env: clear}
  end

  defp put!(command, :stderr, where)
       when where in [:console, :redirect_to_stdout, :disable, :consume] do
    %{command | stderr: where}
  end

  defp put!(command, :teardown, :default), do: %{command | teardown: :default}

  defp put!(command, :teardown, steps) when is_list(steps) and length(steps) >= 0 do
    Enum.each(steps, &step!/1)
    %{command | teardown: steps}
  end

  defp put!(command, :start_timeout, :infinity), do: %{command | start_timeout: :infinity}

  defp put!(command, :start_timeout, timeout)
       when is_integer(timeout) and timeout in 0..@max_milliseconds do
    %{command | start_timeout: timeout}
  end

  defp put!(_command, key, value) do
    raise ArgumentError,
          "invalid value for option #{inspect(key)}: expected #{expected(key)}, " <>
            "got: #{inspect(value)}"
  end

  defp expected(:cd), do: "a directory as a binary"
  defp expected(:env), do: "a list or map of names and values"
  defp expected(:clear_env), do: "a boolean"
  defp expected(:stderr), do: ":console, :redirect_to_stdout, :disable or :consume"
  defp expected(:start_timeout), do: "milliseconds or :infinity"
  defp expected(:teardown), do: "a list of signals with milliseconds, [sigterm: 500]"

  defp variable!({name, value}) when value in [nil, false], do: {name!(name), nil}

  defp variable!({name, value}) do
    {name!(name), no_nul!("a value in :env", text!(value, "a value"))}
  end

  defp variable!(other) do
    raise ArgumentError,
          "invalid value for option :env: expected pairs of a name and a value " <>
            "(or nil to unset), got: #{inspect(other)}"
  end

  defp name!(name) do
    text = text!(name, "a name")

    if text == "" or String.contains?(text, "=") do
      raise ArgumentError,
            "invalid value for option :env: a name must not be empty or contain \"=\", " <>
              "got: #{inspect(name)}"
    end

    no_nul!("a name in :env", text)
  end

  defp text!(text, _what) when is_binary(text), do: text

  # An improper list, or one with something else than characters, is no text; a charlist is.
  defp text!(term, what) when is_atom(term) or is_number(term) or is_list(term) do
    to_string(term)
  rescue
    _ in [ArgumentError, FunctionClauseError, UnicodeConversionError, Protocol.UndefinedError] ->
      no_text!(term, what)
  end

  defp text!(other, what), do: no_text!(other, what)

  defp no_text!(term, what) do
    raise ArgumentError,
          "invalid value for option :env: expected #{what} to be a binary, a charlist, an atom or " <>
            "a number, got: #{inspect(term)}"
  end

  defp step!({signal, wait})
       when is_atom(signal) and is_integer(wait) and wait >= 0 and wait <= @max_milliseconds do
    unless signal?(signal) do
      raise ArgumentError,
            "invalid value for option :teardown: #{inspect(signal)} is no signal of this system"
    end
  end

  defp step!(other) do
    raise ArgumentError,
          "invalid value for option :teardown: expected a signal and the milliseconds to wait " <>
            "after it, got: #{inspect(other)}"
  end

  @doc "Whether `name` names a signal, like `:sigterm`."
  @spec signal?(term) :: boolean
  def signal?(name), do: is_atom(name) and Native.is_signal(Atom.to_string(name))

  defp no_nul!(what, binary) do
    if :binary.match(binary, <<0>>) != :nomatch do
      raise ArgumentError, "#{what} must not contain a NUL byte, got: #{inspect(binary)}"
    end

    binary
  end
end
