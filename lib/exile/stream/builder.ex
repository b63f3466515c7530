defmodule Exile.Stream.Builder do
  @moduledoc false

  # Makes streams: checks commands and options, and joins streams that read from each other.

  alias Exile.{Command, Stream}
  alias Exile.Command.{Option, Options}
  alias Exile.Stream.Input

  @own for row <- Options.stream(), do: row.name

  @doc "A stream that has not run. Misuse raises an ArgumentError."
  @spec new!(term, term, :raise | :tell) :: Stream.t()
  def new!(argv, options, on_failure) do
    values = Option.values!(Options.stream() ++ Options.process(), options)
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
  defp joinable?(%Stream{commands: commands, options: %{stdout: stdout}}) do
    stdout == :pipe and Enum.all?(commands, &(&1.options.stderr != :consume))
  end
end
