defmodule Exile.Capture.Output do
  @moduledoc false

  # What is kept of one output of a command, and how much of it.

  @typedoc "How many bytes are kept: all, so many and no more are allowed, the first, or the last."
  @type limit :: :infinity | non_neg_integer | {:head | :tail, non_neg_integer}

  @type t ::
          :none
          | {:all, binary}
          | {:most | :head, left :: non_neg_integer, [binary], truncated :: boolean}
          | {:tail, limit :: non_neg_integer, size :: non_neg_integer, :queue.queue(binary),
             dropped :: boolean}
          | {:into, acc :: term, (term, term -> term)}

  @type finished :: %{data: term, truncated: boolean}

  # The room that a binary of this size or more has, but does not use, is memory in name only.
  @large 1_048_576

  @doc "An output of which nothing has been read."
  @spec new(:none | :capture | {:into, Collectable.t()}, limit) :: t
  def new(:none, _limit), do: :none
  def new(:capture, :infinity), do: {:all, ""}
  def new(:capture, {:head, limit}), do: {:head, limit, [], false}
  def new(:capture, {:tail, limit}), do: {:tail, limit, 0, :queue.new(), false}
  def new(:capture, limit), do: {:most, limit, [], false}

  def new({:into, collectable}, _limit) do
    {acc, collect} = Collectable.into(collectable)
    {:into, acc, collect}
  end

  @doc "Keeps a chunk, or a part of it; `:full` if it is more than is allowed."
  @spec keep(t, binary) :: {:ok | :full, t}
  def keep({:all, ""}, chunk), do: {:ok, {:all, chunk}}

  # The VM appends in place. A list of the chunks would need the memory twice when they are joined.
  def keep({:all, data}, chunk), do: {:ok, {:all, <<data::binary, chunk::binary>>}}

  def keep({:into, acc, collect}, chunk),
    do: {:ok, {:into, collect.(acc, {:cont, chunk}), collect}}

  def keep({:head, 0, chunks, _truncated}, _chunk), do: {:ok, {:head, 0, chunks, true}}

  def keep({kind, left, chunks, truncated}, chunk) when kind in [:most, :head] do
    if byte_size(chunk) <= left do
      {:ok, {kind, left - byte_size(chunk), [chunk | chunks], truncated}}
    else
      chunks = [binary_part(chunk, 0, left) | chunks]
      {if(kind == :most, do: :full, else: :ok), {kind, 0, chunks, true}}
    end
  end

  def keep({:tail, limit, size, chunks, dropped}, chunk),
    do: {:ok, drop({:tail, limit, size + byte_size(chunk), :queue.in(chunk, chunks), dropped})}

  # What is left is no more than the limit and a chunk.
  defp drop({:tail, limit, size, chunks, _dropped} = tail) do
    case :queue.peek(chunks) do
      {:value, first} when size - byte_size(first) >= limit ->
        drop({:tail, limit, size - byte_size(first), :queue.drop(chunks), true})

      _ ->
        tail
    end
  end

  @doc "What was kept, when no more comes."
  @spec finish(t) :: finished
  def finish(:none), do: %{data: nil, truncated: false}
  # In place means with room for more, of which little should be kept.
  def finish({:all, data}) when byte_size(data) < @large,
    do: %{data: :binary.copy(data), truncated: false}

  def finish({:all, data}), do: %{data: data, truncated: false}
  def finish({:into, acc, collect}), do: %{data: collect.(acc, :done), truncated: false}

  def finish({kind, _left, chunks, truncated}) when kind in [:most, :head],
    do: %{data: join(chunks), truncated: truncated}

  def finish({:tail, limit, size, chunks, dropped}) do
    data = chunks |> :queue.to_list() |> IO.iodata_to_binary()
    kept = min(limit, size)
    # A copy, so that what was cut off is not kept with it.
    data = data |> binary_part(size - kept, kept) |> :binary.copy()
    %{data: data, truncated: dropped or size > limit}
  end

  defp join(chunks), do: chunks |> Enum.reverse() |> IO.iodata_to_binary()

  @doc "No more comes, and nobody wants what was kept."
  @spec halt(t) :: :ok
  def halt({:into, acc, collect}) do
    _ = collect.(acc, :halt)
    :ok
  end

  def halt(_output), do: :ok
end
