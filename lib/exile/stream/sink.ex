defmodule Exile.Stream.Sink do
  @moduledoc """
  What an `:input` function of `Exile.stream!/2` gets: a `Collectable` that writes to the
  command's standard input.

  Collecting into it raises `Exile.Error` with the reason `:epipe` when the command does not read
  any more. A function that lets this pass ends there, and the stream goes on as its
  `:ignore_epipe` option says.
  """

  @enforce_keys [:pipe]
  defstruct [:pipe]

  @typedoc "The field is private."
  @type t :: %__MODULE__{pipe: reference}

  @doc false
  @spec write!(t, term) :: :ok
  def write!(%__MODULE__{pipe: pipe}, data) do
    case Exile.Pipe.write(pipe, iovec!(data)) do
      :ok -> :ok
      # Closed in the meantime: by the stream, which is at its end.
      {:error, :pipe_closed_or_invalid_caller} -> raise error(:epipe)
      {:error, reason} -> raise error(reason)
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

  defp error(reason), do: %Exile.Error{reason: reason, operation: :write}

  defimpl Collectable do
    def into(sink) do
      collect = fn
        sink, {:cont, data} ->
          Exile.Stream.Sink.write!(sink, data)
          sink

        sink, :done ->
          sink

        _sink, :halt ->
          :ok
      end

      {sink, collect}
    end
  end
end
