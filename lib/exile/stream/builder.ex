defmodule Exile.Stream.Builder do
  @moduledoc false

  # Creates streams: checks commands and options, and joins streams that read from each other.

  alias Exile.Capture.Output
  alias Exile.{Command, Stream}
  alias Exile.Command.{Option, Options}
  alias Exile.Stream.Input

  @own for row <- Options.stream(), do: row.name
  @defaults Option.values!(Options.stream(), [])

  @doc """
  The stream whose elements `Exile.run/2` keeps, and what it keeps of each output. Misuse raises an
  ArgumentError.
  """
  @spec for_capture!(term, term) ::
          {Stream.t(), %{stdout: Output.t() | nil, stderr: Output.t() | nil}}
  def for_capture!(argv, options) do
    values = Option.values!(Options.run() ++ Options.process_of_run(), options)
    {own, values} = Map.split(values, [:max_output, :lines])
    {stdout, into} = captured(values.stdout, :pipe, own)
    {stderr, errors} = captured(values.stderr, :consume, own)
    values = Map.merge(@defaults, %{values | stdout: stdout, stderr: stderr})
    {new(argv, values, :tell), %{stdout: into, stderr: errors}}
  end

  defp captured(to, where, own) when to == :capture or elem(to, 0) == :into,
    do: {where, Output.new(to, own.max_output, own.lines)}

  defp captured(elsewhere, _where, _own), do: {elsewhere, nil}

  @doc "Creates a stream without running it. Misuse raises an ArgumentError."
  @spec new!(term, term, :raise | :tell) :: Stream.t()
  def new!(argv, options, on_failure) do
    values = Option.values!(Options.stream() ++ Options.process_of_stream(), options)
    size = options[:max_chunk_size] || options[:chunk_size]

    if values.lines != nil and size != nil do
      raise ArgumentError,
            "options :lines and :max_chunk_size exclude each other, got: " <>
              inspect(lines: options[:lines], max_chunk_size: size)
    end

    new(argv, values, on_failure)
  end

  defp new(argv, values, on_failure) do
    {own, for_commands} = Map.split(values, @own)
    commands = for argv <- pipeline!(argv), do: Command.with_options!(argv, for_commands)
    join(%Stream{commands: commands, options: own, on_failure: on_failure})
  end

  defp pipeline!([argv | _] = pipeline) when is_list(argv) do
    if List.improper?(pipeline) do
      raise ArgumentError, "expected a pipeline to be a proper list, got: #{inspect(pipeline)}"
    end

    pipeline
  end

  defp pipeline!(argv), do: [argv]

  # A stream that is the input of another becomes the beginning of its pipeline.
  defp join(%Stream{options: %{input: {:stream, inner}} = options} = stream) do
    if joinable?(inner) do
      options = %{options | input: inner.options.input}
      %{stream | commands: inner.commands ++ stream.commands, options: options}
    else
      %{stream | options: %{options | input: Input.enumerate(inner)}}
    end
  end

  defp join(stream), do: stream

  # Whether its output is nothing but what the last of its commands writes.
  defp joinable?(%Stream{commands: commands, options: %{stdout: stdout, lines: lines}}) do
    stdout == :pipe and lines == nil and
      Enum.all?(commands, &(&1.options.stderr not in [:consume, :tail]))
  end
end
