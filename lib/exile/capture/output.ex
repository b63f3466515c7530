defmodule Exile.Capture.Output do
  @moduledoc false

  # What is kept of one output of a command, and how much of it.

  alias Exile.Command.Option
  alias Exile.Stream.Lines

  @enforce_keys [:limit, :kept]
  defstruct @enforce_keys ++ [:lines, truncated: false]

  @typedoc "How many bytes are kept: all, so many and no more are allowed, the first, or the last."
  @type limit :: :infinity | non_neg_integer | {:head | :tail, non_neg_integer}

  @typedoc """
  What there is so far.

    * `limit` - how many bytes more may come, or that of a tail
    * `kept` - the data; the lines, those of the last chunk first; the chunks of a tail and their size; or
      the state of a collectable
    * `lines` - the line that has begun, if lines are wanted
  """
  @type t :: %__MODULE__{
          limit: limit,
          kept:
            binary
            | {:lines, [[binary]]}
            | {:tail, size :: non_neg_integer, :queue.queue(binary)}
            | {:into, acc :: term, (term, term -> term)},
          lines: Lines.t() | nil,
          truncated: boolean
        }

  @type finished :: %{data: term, truncated: boolean}

  # The room that a binary of this size or more has, but does not use, is memory in name only.
  @large 1_048_576

  @doc "Checks the `:stdout` option of `Exile.run/2`."
  @spec check(term) ::
          {:ok, :capture | :disable | Option.file() | {:into, Collectable.t()}}
          | :error
          | {:error, message :: binary}
  def check({:into, collectable} = into),
    do: if(Collectable.impl_for(collectable), do: {:ok, into}, else: :error)

  def check(other), do: Option.output(:stdout, [:capture, :disable], other)

  @doc "Checks the `:max_output` option of `Exile.run/2`."
  @spec check_limit(term) :: {:ok, limit} | :error
  def check_limit(:infinity), do: {:ok, :infinity}
  def check_limit(bytes) when is_integer(bytes) and bytes >= 0, do: {:ok, bytes}

  def check_limit({end_kept, bytes} = limit)
      when end_kept in [:head, :tail] and is_integer(bytes) and bytes >= 0,
      do: {:ok, limit}

  def check_limit(_other), do: :error

  @doc """
  An output of which nothing has been read, to be kept as one binary, or as lines of up to `most` bytes.
  """
  @spec new(:capture | {:into, Collectable.t()}, limit, most :: pos_integer | nil) :: t
  def new(to, limit, most) do
    {limit, kept} = empty(to, limit, most)
    %__MODULE__{limit: limit, kept: kept, lines: most && Lines.new(most)}
  end

  defp empty({:into, collectable}, _limit, _most) do
    {acc, collect} = Collectable.into(collectable)
    {:infinity, {:into, acc, collect}}
  end

  defp empty(:capture, {:tail, _} = limit, _most), do: {limit, {:tail, 0, :queue.new()}}
  defp empty(:capture, limit, nil), do: {limit, ""}
  defp empty(:capture, limit, _most), do: {limit, {:lines, []}}

  @doc """
  Keeps a chunk, or a part of it. Or the reason to end the command: it has written more, or a longer line,
  than is allowed.
  """
  @spec keep(t, binary) :: {:ok | :max_output | :line_too_long, t}
  def keep(%__MODULE__{limit: {:head, left}} = output, chunk) when byte_size(chunk) > left,
    do: store(%{output | limit: {:head, 0}, truncated: true}, binary_part(chunk, 0, left))

  def keep(%__MODULE__{limit: {:head, left}} = output, chunk),
    do: store(%{output | limit: {:head, left - byte_size(chunk)}}, chunk)

  def keep(%__MODULE__{limit: left} = output, chunk)
      when is_integer(left) and byte_size(chunk) > left do
    with {:ok, output} <-
           store(%{output | limit: 0, truncated: true}, binary_part(chunk, 0, left)),
         do: {:max_output, output}
  end

  def keep(%__MODULE__{limit: left} = output, chunk) when is_integer(left),
    do: store(%{output | limit: left - byte_size(chunk)}, chunk)

  def keep(output, chunk), do: store(output, chunk)

  defp store(output, ""), do: {:ok, output}
  defp store(%__MODULE__{lines: nil} = output, chunk), do: {:ok, add(output, [chunk], chunk)}

  defp store(%__MODULE__{lines: lines} = output, chunk) do
    case Lines.feed(lines, chunk) do
      {:ok, ended, lines} -> {:ok, add(%{output | lines: lines}, ended, chunk)}
      {:too_long, ended} -> {:line_too_long, add(output, ended, chunk)}
    end
  end

  # `parts` are what a reader sees of the chunk: itself, or the lines that end in it.
  defp add(%__MODULE__{kept: ""} = output, _parts, chunk), do: %{output | kept: chunk}

  # The VM appends in place. A list of the chunks would need the memory twice when they are joined.
  defp add(%__MODULE__{kept: data} = output, _parts, chunk) when is_binary(data),
    do: %{output | kept: <<data::binary, chunk::binary>>}

  defp add(%__MODULE__{kept: {:lines, all}} = output, parts, _chunk),
    do: %{output | kept: {:lines, [parts | all]}}

  defp add(%__MODULE__{kept: {:into, acc, collect}} = output, parts, _chunk),
    do: %{output | kept: {:into, Enum.reduce(parts, acc, &collect.(&2, {:cont, &1})), collect}}

  defp add(%__MODULE__{kept: {:tail, size, chunks}} = output, _parts, chunk),
    do: drop(%{output | kept: {:tail, size + byte_size(chunk), :queue.in(chunk, chunks)}})

  # What is left is no more than the limit and a chunk.
  defp drop(%__MODULE__{limit: {:tail, limit}, kept: {:tail, size, chunks}} = output) do
    case :queue.peek(chunks) do
      {:value, first} when size - byte_size(first) >= limit ->
        kept = {:tail, size - byte_size(first), :queue.drop(chunks)}
        drop(%{output | kept: kept, truncated: true})

      _ ->
        output
    end
  end

  @doc "What was kept, when no more comes. Nothing of an output that went elsewhere."
  @spec finish(t | nil) :: finished
  def finish(nil), do: %{data: nil, truncated: false}

  # In place means with room for more, of which little should be kept.
  def finish(%__MODULE__{kept: data} = output) when byte_size(data) < @large,
    do: %{data: :binary.copy(data), truncated: output.truncated}

  def finish(%__MODULE__{kept: data} = output) when is_binary(data),
    do: %{data: data, truncated: output.truncated}

  def finish(%__MODULE__{kept: {:lines, all}} = output) do
    lines = Enum.reduce(all, Lines.rest(output.lines), &(&1 ++ &2))
    %{data: lines, truncated: output.truncated}
  end

  def finish(%__MODULE__{kept: {:into, _, _}, lines: lines} = output) do
    %{kept: {:into, acc, collect}} = add_rest(output, if(lines, do: Lines.rest(lines), else: []))
    %{data: collect.(acc, :done), truncated: false}
  end

  def finish(%__MODULE__{limit: {:tail, limit}, kept: {:tail, size, chunks}} = output) do
    kept = min(limit, size)
    data = chunks |> :queue.to_list() |> IO.iodata_to_binary() |> binary_part(size - kept, kept)
    # Copies, so that what was cut off is not kept with it.
    data = if output.lines, do: Lines.all(data), else: :binary.copy(data)
    %{data: data, truncated: output.truncated or size > limit}
  end

  defp add_rest(output, rest) do
    add(output, rest, "")
  catch
    # Code of the user's: the collectable.
    kind, reason ->
      halt(output)
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  @doc "No more comes, and nobody wants what was kept."
  @spec halt(t | nil) :: :ok
  def halt(%__MODULE__{kept: {:into, acc, collect}}) do
    _ = collect.(acc, :halt)
    :ok
  end

  def halt(_output), do: :ok
end
