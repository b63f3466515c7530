defmodule Exile.Stream.Input do
  @moduledoc false

  # The input of a stream's first command. It is checked when the stream is created. Input that
  # only exists in this VM is evaluated by a process of its own when the stream runs.

  alias Exile.Command.Option
  alias Exile.Native
  alias Exile.Process.Error
  alias Exile.Stream.{Feeder, Sink}

  @typedoc """
  Nothing; a file that the command itself reads; such a file given as a `File.Stream`; another
  stream, which `Exile.Stream.Builder` joins or enumerates; or a function that writes the input.
  """
  @type t ::
          nil
          | {:file, binary}
          | {:file_stream, binary}
          | {:stream, Exile.Stream.t()}
          | {:write, (Sink.t() -> any)}

  @doc "Checks the `:input` option."
  @spec check(term) :: {:ok, t} | :error | {:error, message :: binary}
  def check({:file, path}) when is_binary(path) do
    with {:ok, path} <- Option.without_nul("the file of :input", path), do: {:ok, {:file, path}}
  end

  def check(%Exile.Stream{} = stream), do: {:ok, {:stream, stream}}

  def check(%File.Stream{} = stream) do
    {:ok, if(plain_file?(stream), do: {:file_stream, stream.path}, else: enumerate(stream))}
  end

  def check(data) when is_binary(data), do: {:ok, {:write, &Enum.into([data], &1)}}
  def check(fun) when is_function(fun, 1), do: {:ok, {:write, fun}}
  def check(input), do: if(enumerable?(input), do: {:ok, enumerate(input)}, else: :error)

  @doc "Input that is written element by element."
  @spec enumerate(Enumerable.t()) :: t
  def enumerate(input), do: {:write, &Enum.into(input, &1)}

  # `Enumerable` is implemented for all functions, though only those of arity 2 are enumerable.
  defp enumerable?(input) when is_function(input), do: is_function(input, 2)
  defp enumerable?(input), do: Enumerable.impl_for(input) != nil

  # True only if the command is sure to read the same bytes from the file itself. Lines lose their
  # carriage returns, encodings and compressed files are converted, some streams begin at an
  # offset, and a FIFO is waited for. Since Elixir 1.16 the file may be on another node.
  defp plain_file?(%File.Stream{path: path, modes: modes, line_or_bytes: size} = stream) do
    is_integer(size) and is_binary(path) and not String.contains?(path, <<0>>) and
      Enum.all?(
        modes,
        &(&1 in [:raw, :binary, :read, :read_ahead] or match?({:read_ahead, _}, &1))
      ) and
      Map.get(stream, :node, node()) == node() and
      (File.regular?(path) or not File.exists?(path))
  end

  @doc "Writes the whole input. Runs in the process that owns the command's standard input."
  @spec evaluate((Sink.t() -> any), Native.pipe()) :: Feeder.outcome()
  def evaluate(write, stdin) do
    write.(%Sink{pipe: stdin})
    :ok
  rescue
    error in Error ->
      if error.operation == :write and error.reason == :epipe,
        do: :epipe,
        else: {:failed, :error, error, __STACKTRACE__}
  end
end
