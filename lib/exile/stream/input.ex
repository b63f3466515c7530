defmodule Exile.Stream.Input do
  @moduledoc false

  # What a command reads: checked when the stream is made, evaluated by a process of its own when
  # the stream runs.

  alias Exile.{Error, Process.Server, Stream.Sink}

  @type t :: nil | {:file, binary} | {:write, (Sink.t() -> any)}

  @doc "Checks the `:input` option."
  @spec new!(term) :: t
  def new!(nil), do: nil

  def new!({:file, path}) when is_binary(path) do
    if String.contains?(path, <<0>>) do
      raise ArgumentError, "the file of :input must not contain a NUL byte, got: #{inspect(path)}"
    end

    {:file, path}
  end

  def new!(data) when is_binary(data), do: {:write, &Sink.write!(&1, data)}
  def new!(fun) when is_function(fun, 1), do: {:write, fun}

  def new!(input) do
    unless enumerable?(input) do
      raise ArgumentError,
            "invalid value for option :input: expected an enumerable, a binary, a function " <>
              "with one argument or {:file, path}, got: #{inspect(input)}"
    end

    {:write, fn sink -> Enum.each(input, &Sink.write!(sink, &1)) end}
  end

  # Every function has an implementation, though only those with two arguments are enumerable.
  defp enumerable?(input) when is_function(input), do: is_function(input, 2)
  defp enumerable?(input), do: Enumerable.impl_for(input) != nil

  @doc "Writes all there is; runs in the process that owns the command's standard input."
  @spec evaluate((Sink.t() -> any), Exile.Process.t()) :: Server.outcome()
  def evaluate(write, process) do
    write.(%Sink{process: process})
    :ok
  rescue
    error in Error ->
      if error.operation == :write and error.reason == :epipe,
        do: :epipe,
        else: {:failed, :error, error, __STACKTRACE__}
  end
end
