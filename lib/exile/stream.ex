defmodule Exile.Stream do
  @moduledoc """
  One command, or several that read from each other, as a lazy enumerable; `Exile.stream!/2` and
  `Exile.stream/2` make it.

  Nothing runs until it is enumerated, and each enumeration runs the commands anew. See `Exile`.
  """

  alias Exile.Command
  alias Exile.Stream.{Input, Run}

  @enforce_keys [:commands, :input, :on_failure]
  defstruct commands: nil,
            input: nil,
            stdout: :pipe,
            on_failure: :raise,
            max_chunk_size: 65_536,
            exit_timeout: nil,
            drain_timeout: :infinity,
            ignore_epipe: false

  @typedoc "Commands to be run when it is enumerated. The fields are private."
  @type t :: %__MODULE__{
          commands: [Command.t(), ...],
          input: Input.t(),
          stdout: :pipe | {:file, binary, append :: boolean},
          on_failure: :raise | :tell,
          max_chunk_size: pos_integer,
          exit_timeout: timeout | nil,
          drain_timeout: timeout,
          ignore_epipe: boolean
        }

  @own_options [:stdout, :max_chunk_size, :exit_timeout, :drain_timeout, :ignore_epipe]
  @older_names [:chunk_size, :use_stderr]

  @doc false
  @spec new!(term, term, :raise | :tell) :: t
  def new!(argv, options, on_failure) do
    unless Keyword.keyword?(options) do
      raise ArgumentError, "expected options to be a keyword list, got: #{inspect(options)}"
    end

    options =
      options
      |> renamed!(:chunk_size, :max_chunk_size, & &1)
      |> renamed!(:use_stderr, :stderr, &use_stderr!/1)

    {input, options} = Keyword.pop(options, :input)
    {own, options} = Keyword.split(options, @own_options)

    stream = %__MODULE__{
      commands: commands!(argv, options),
      input: Input.new!(input),
      on_failure: on_failure
    }

    own
    |> Enum.reverse()
    |> Enum.reduce(stream, fn {key, value}, stream -> put!(stream, key, value) end)
    |> join()
  end

  defp commands!([argv | _] = pipeline, options) when is_list(argv) do
    if List.improper?(pipeline) do
      raise ArgumentError, "expected a pipeline to be a proper list, got: #{inspect(pipeline)}"
    end

    Enum.map(pipeline, &Command.new!(&1, options, known_options()))
  end

  defp commands!(argv, options), do: [Command.new!(argv, options, known_options())]

  defp known_options, do: [:input | @own_options] ++ Command.options() ++ @older_names

  # A stream that is the input of another becomes the beginning of its pipeline.
  defp join(%__MODULE__{input: {:stream, inner}} = stream) do
    %{stream | commands: inner.commands ++ stream.commands, input: inner.input}
  end

  defp join(stream), do: stream

  @doc false
  # Whether its output is nothing but what the last of its commands writes.
  @spec joinable?(t) :: boolean
  def joinable?(%__MODULE__{commands: commands, stdout: stdout}) do
    stdout == :pipe and Enum.all?(commands, &(&1.stderr != :consume))
  end

  # An older name of an option, which is good alone.
  defp renamed!(options, old, new, convert) do
    case Keyword.fetch(options, old) do
      :error ->
        options

      {:ok, nil} ->
        Keyword.delete(options, old)

      {:ok, value} ->
        if options[new] != nil do
          raise ArgumentError,
                "options #{inspect(old)} and #{inspect(new)} mean the same and exclude each " <>
                  "other, got: #{inspect(Keyword.take(options, [old, new]))}"
        end

        options |> Keyword.delete(old) |> Keyword.put(new, convert.(value))
    end
  end

  defp use_stderr!(true), do: :consume
  defp use_stderr!(false), do: :console

  defp use_stderr!(other) do
    raise ArgumentError,
          "invalid value for option :use_stderr: expected a boolean, got: #{inspect(other)}"
  end

  # More than one read ever returns; the native side takes no larger number.
  @largest_chunk 0xFFFF_FFFF

  defp put!(stream, key, nil) do
    %{stream | key => Map.fetch!(%__MODULE__{commands: nil, input: nil, on_failure: nil}, key)}
  end

  defp put!(stream, :max_chunk_size, size) when is_integer(size) and size > 0 do
    %{stream | max_chunk_size: min(size, @largest_chunk)}
  end

  defp put!(stream, key, timeout)
       when key in [:exit_timeout, :drain_timeout] and
              (timeout == :infinity or (is_integer(timeout) and timeout in 0..0xFFFF_FFFF)) do
    Map.put(stream, key, timeout)
  end

  defp put!(stream, :stdout, {:file, path}) when is_binary(path) do
    %{stream | stdout: {:file, no_nul!(path), false}}
  end

  defp put!(stream, :stdout, {:file, path, :append}) when is_binary(path) do
    %{stream | stdout: {:file, no_nul!(path), true}}
  end

  defp put!(stream, :ignore_epipe, ignore) when is_boolean(ignore) do
    %{stream | ignore_epipe: ignore}
  end

  defp put!(_stream, key, value) do
    raise ArgumentError,
          "invalid value for option #{inspect(key)}: expected #{expected(key)}, " <>
            "got: #{inspect(value)}"
  end

  defp expected(:stdout), do: "{:file, path} or {:file, path, :append}"
  defp expected(:max_chunk_size), do: "a positive integer"
  defp expected(:ignore_epipe), do: "a boolean"
  defp expected(_timeout), do: "milliseconds or :infinity"

  defp no_nul!(path) do
    if String.contains?(path, <<0>>) do
      raise ArgumentError,
            "the file of :stdout must not contain a NUL byte, got: #{inspect(path)}"
    end

    path
  end

  defimpl Enumerable do
    def count(_stream), do: {:error, __MODULE__}
    def member?(_stream, _element), do: {:error, __MODULE__}
    def slice(_stream), do: {:error, __MODULE__}

    def reduce(_stream, {:halt, acc}, _fun), do: {:halted, acc}
    def reduce(stream, {:suspend, acc}, fun), do: {:suspended, acc, &reduce(stream, &1, fun)}
    def reduce(stream, {:cont, acc}, fun), do: stream |> Run.start!() |> run({:cont, acc}, fun)

    defp run(run, {:cont, acc}, fun) do
      case Run.next!(run) do
        {:element, element, run} -> run(run, feed(run, element, acc, fun), fun)
        {:last, element} -> last(element, acc, fun)
        :done -> {:done, acc}
      end
    end

    defp run(run, {:suspend, acc}, fun) do
      {:suspended, acc, &resume(run, &1, fun)}
    end

    defp run(run, {:halt, acc}, _fun) do
      Run.halt!(run)
      {:halted, acc}
    end

    # `Stream.transform/3` and those built on it say so both when their reader has enough and when
    # it has raised. An exception from here would replace that of the reader, so there is none.
    defp resume(run, {:halt, acc}, _fun) do
      run |> Run.resume() |> Run.halt()
      {:halted, acc}
    end

    defp resume(run, command, fun), do: run |> Run.resume() |> run(command, fun)

    # Apart, so that the loop above keeps its constant stack.
    defp feed(run, element, acc, fun) do
      fun.(element, acc)
    catch
      kind, reason ->
        Run.abandon(run)
        :erlang.raise(kind, reason, __STACKTRACE__)
    end

    defp last(element, acc, fun) do
      case fun.(element, acc) do
        {:cont, acc} -> {:done, acc}
        {:halt, acc} -> {:halted, acc}
        {:suspend, acc} -> {:suspended, acc, &after_last/1}
      end
    end

    defp after_last({:cont, acc}), do: {:done, acc}
    defp after_last({:halt, acc}), do: {:halted, acc}
    defp after_last({:suspend, acc}), do: {:suspended, acc, &after_last/1}
  end
end
