defmodule Exile.Stream.Sink do
  @moduledoc """
  The argument of an `:input` function of `Exile.stream!/2`: a `Collectable` that writes to the
  command's standard input.

  Collecting into it returns `:ok`. It raises `Exile.Process.Error` with the reason `:epipe` if
  the command no longer reads. If the function does not rescue this error, the input ends there
  and the stream goes on.

  Only the process in which the function is called may use the sink, because it owns the pipe. In
  any other process, such as a task, the reason is `:pipe_closed_or_invalid_caller`.
  """

  @enforce_keys [:pipe]
  defstruct [:pipe]

  @typedoc "The field is private."
  @type t :: %__MODULE__{pipe: reference}

  defimpl Collectable do
    def into(sink) do
      collect = fn
        sink, {:cont, data} ->
          write!(sink.pipe, data)
          sink

        _sink, :done ->
          :ok

        _sink, :halt ->
          :ok
      end

      {sink, collect}
    end

    defp write!(pipe, data) do
      case Exile.Runtime.Pipe.write(pipe, iovec!(data)) do
        :ok -> :ok
        {:error, reason} -> raise %Exile.Process.Error{reason: reason, operation: :write}
      end
    end

    defp iovec!(data) do
      :erlang.iolist_to_iovec(data)
    rescue
      ArgumentError ->
        reraise ArgumentError,
                [message: "expected the input of a command to be iodata, got: #{inspect(data)}"],
                __STACKTRACE__
    end
  end
end
