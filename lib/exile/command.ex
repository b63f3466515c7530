defmodule Exile.Command do
  @moduledoc false

  # What to run: a program, its arguments and its options.

  alias Exile.Command.{Option, Options}
  alias Exile.Process.Error
  alias Exile.Runtime.{Running, Teardown}

  @enforce_keys [:argv, :options]
  defstruct @enforce_keys

  @type t :: %__MODULE__{argv: [binary, ...], options: %{atom => term}}

  @attributes for row <- Options.process(), row.attribute, do: row.name

  @doc "Checks a command and its options. Misuse raises an ArgumentError."
  @spec new!(term, term) :: t
  def new!(argv, options) do
    argv = argv!(argv)
    %__MODULE__{argv: argv, options: Option.values!(Options.process(), options)}
  end

  @doc "Checks a command. The options have already been checked."
  @spec with_options!(term, %{atom => term}) :: t
  def with_options!(argv, options), do: %__MODULE__{argv: argv!(argv), options: options}

  defp argv!([program | _] = argv) when is_binary(program) do
    if program == "", do: raise(ArgumentError, "the program of a command must not be empty")

    if List.improper?(argv) do
      raise ArgumentError, "expected a command to be a proper list, got: #{inspect(argv)}"
    end

    Enum.each(argv, &argument!/1)
    argv
  end

  defp argv!(other) do
    raise ArgumentError,
          "expected a command to be a non-empty list of binaries, program first, " <>
            "got: #{inspect(other)}"
  end

  defp argument!(argument) when is_binary(argument) do
    with {:error, message} <- Option.without_nul("an argument of the command", argument),
         do: raise(ArgumentError, message)
  end

  defp argument!(other) do
    raise ArgumentError,
          "expected every argument of a command to be a binary, got: #{inspect(other)}"
  end

  @doc "The command as the native side expects it. One binary costs less to pass than a list."
  @spec to_native(t) :: Running.stage()
  def to_native(%__MODULE__{argv: argv, options: options}) do
    {unset, set} = Enum.split_with(options.env, fn {_name, value} -> value == nil end)

    %{
      argv: block(argv, &[&1, 0]),
      directory: options.cd,
      set: block(set, fn {name, value} -> [name, ?=, value, 0] end),
      unset: block(unset, fn {name, nil} -> [name, 0] end),
      clear_env: options.clear_env,
      stderr: stderr(options.stderr),
      teardown: Teardown.abandoned(options.teardown),
      attributes: Map.take(options, @attributes)
    }
  end

  defp block(list, part), do: list |> Enum.map(part) |> :erlang.iolist_to_binary()

  defp stderr(:console), do: :inherit
  defp stderr(:redirect_to_stdout), do: :stdout
  defp stderr(:disable), do: :null
  defp stderr(in_pipe) when in_pipe in [:consume, :tail], do: :pipe
  defp stderr({:file, path, append}), do: {:write, path, append}

  @doc """
  Starts commands, each reading the output of the one before it. The options are those of
  `Exile.Runtime.Running.start/2`, and `:timeout`, the time for all that the commands do.
  """
  @spec start([t, ...], keyword) :: {:ok, Running.t()} | {:error, Error.t()}
  def start(commands, options) do
    # Streams that were joined may have different ones.
    start_timeout = commands |> Enum.map(& &1.options.start_timeout) |> Enum.min()
    {timeout, options} = Keyword.pop(options, :timeout, :infinity)
    options = Keyword.put(options, :start_timeout, min(start_timeout, timeout))

    case commands |> Enum.map(&to_native/1) |> Running.start(options) do
      {:ok, running} ->
        {:ok, running}

      {:error, %{step: :exec, reason: :etimedout, index: index}} when timeout < start_timeout ->
        {:error, failure(commands, index, :timeout)}

      {:error, failure} ->
        {:error, error(failure, commands, options)}
    end
  end

  @doc "The error of commands that have run, of which the one at `index` failed, if that is known."
  @spec failure([t, ...], non_neg_integer | nil, Error.reason()) :: Error.t()
  def failure([command], _index, reason),
    do: %Error{reason: reason, operation: :run, subject: program(command)}

  def failure(_commands, nil, reason), do: %Error{reason: reason, operation: :run}

  def failure(commands, index, reason) do
    stage = {index + 1, length(commands)}
    %{failure([Enum.at(commands, index)], 0, reason) | stage: stage}
  end

  defp error(%{index: index, step: step, reason: reason}, commands, options) do
    {operation, subject} = what(step, Enum.at(commands, index), options[:stdin], options[:stdout])
    hint = if {step, reason} == {:exec, :enoent}, do: commands |> Enum.at(index) |> hint()
    %Error{reason: reason, operation: operation, subject: subject, hint: hint}
  end

  # Why a program was not found. The system says the same of a script whose interpreter is missing.
  defp hint(%__MODULE__{argv: [program | _], options: options}) do
    path =
      cond do
        String.starts_with?(program, "/") -> program
        String.contains?(program, "/") -> (options.cd || ".") <> "/" <> program
        # Elixir looks for names that are text only.
        String.valid?(program) -> System.find_executable(program)
        true -> nil
      end

    case path && interpreter(path) do
      nil ->
        if program =~ ~r/\s/, do: "a command is a list of words, as in " <> words(program)

      interpreter ->
        "the interpreter of this script, #{inspect(interpreter)}, is missing"
    end
  end

  defp words(program), do: program |> String.split() |> inspect()

  defp interpreter(path) do
    with {:ok, file} <- File.open(path, [:read, :raw]) do
      line = :file.read(file, 256)
      _ = File.close(file)

      with {:ok, "#!" <> line} <- line,
           [interpreter | _] <- line |> String.split("\n") |> hd() |> String.split(),
           do: unless(File.exists?(interpreter), do: interpreter),
           else: (_ -> nil)
    else
      {:error, _} -> nil
    end
  end

  defp what(:directory, command, _stdin, _stdout), do: {:cd, command.options.cd}
  defp what(:input, _command, {:read, path}, _stdout), do: {:input, path}
  defp what(:output, _command, _stdin, {:write, path, _append}), do: {:output, path}

  defp what(:errors, %{options: %{stderr: {:file, path, _append}}}, _stdin, _stdout),
    do: {:errors, path}

  defp what(step, command, _stdin, _stdout), do: {step, program(command)}

  @doc "The program, as named in errors."
  @spec program(t) :: binary
  def program(%__MODULE__{argv: [program | _]}), do: program
end
