defmodule Exile.Runtime.Pipe do
  @moduledoc false

  # Reads and writes by the owner of a pipe. They try first, and wait for a message if it blocks.
  #
  # The reference is made right before it may be needed. When the VM looks for the message with
  # this reference, it then skips all messages that arrived earlier, however many there are.

  alias Exile.Native
  alias Exile.Runtime.Patience

  @type t :: Native.pipe()
  @type error :: {:error, :pipe_closed_or_invalid_caller | Native.posix()}

  @typedoc """
  How long to read from a pipe that is empty and that other programs hold open: until all have closed
  it (`:eof`), or only until the command has ended (`:exit`), which returns `:exited`.
  """
  @type until :: :exit | :eof

  @type over :: :eof | :exited | :timeout | error

  @doc """
  Reads what is there, at most `max` bytes; waits while nothing is, but not beyond the deadline. After
  `:timeout` the pipe is as it was. `{:beyond, count}` reads what comes after so many bytes, all of which
  stay in the pipe's handle.
  """
  @spec read(t, pos_integer | {:beyond, non_neg_integer}, until, Patience.deadline()) ::
          {:ok, binary} | over
  def read(pipe, max_or_beyond, until, deadline \\ :infinity) do
    case get(pipe, max_or_beyond, until, deadline) do
      {:ok, _} = read -> read
      {:error, _} = error -> error
      over when over in [:eof, :exited, :timeout] -> over
    end
  end

  @doc "Reads a line of at most `most` bytes, without its newline."
  @spec read_line(t, pos_integer, until, Patience.deadline()) ::
          {:ok, binary} | :line_too_long | over
  def read_line(pipe, most, until, deadline) do
    with :more <- get(pipe, {:line, most}, until, deadline), do: :timeout
  end

  defp get(pipe, wanted, until, deadline) do
    case try_read(pipe, wanted) do
      :again -> wait_and_get(pipe, wanted, until, deadline)
      :more -> get_on(pipe, wanted, until, deadline)
      result -> result
    end
  end

  # While commands are waiting to be started, streams that have just begun give way to them.
  defp try_read(pipe, wanted) do
    with :rest <- Native.pipe_try_read(pipe, wanted) do
      receive after: (Patience.rest() -> :ok)
      try_read(pipe, wanted)
    end
  end

  # A part of a line has come. The command may write so fast that there is never a wait.
  defp get_on(pipe, wanted, until, deadline) do
    if Patience.over?(deadline),
      do: :more,
      else: get(pipe, wanted, until, deadline)
  end

  defp wait_and_get(pipe, wanted, until, deadline) do
    ref = make_ref()

    case Native.pipe_read_or_wait(pipe, wanted, ref, until != :exit) do
      :wait ->
        receive do
          {:select, _, ^ref, _} -> get(pipe, wanted, until, deadline)
        after
          Patience.left(deadline) ->
            cancel(pipe, ref)
            :timeout
        end

      :more ->
        get_on(pipe, wanted, until, deadline)

      result ->
        result
    end
  end

  @doc """
  Reads from standard output or standard error, whichever has data. At least one of them is a
  pipe. When both have data, one is chosen at random, so that neither starves. `until` may be that of
  standard output and that of standard error.
  """
  @spec read_output(t | nil, t | nil, pos_integer, until | {until, until}, Patience.deadline()) ::
          {:ok, {:stdout | :stderr, binary}} | over
  def read_output(stdout, stderr, max, until, deadline \\ :infinity)

  def read_output(stdout, stderr, max, {until_of_stdout, until_of_stderr}, deadline) do
    stdout = stdout && {:stdout, stdout, until_of_stdout}
    stderr = stderr && {:stderr, stderr, until_of_stderr}

    cond do
      stderr == nil -> read_tagged(stdout, max, deadline)
      stdout == nil -> read_tagged(stderr, max, deadline)
      # Not by :rand, whose state in the caller may be that of a sequence which the caller has seeded.
      :erlang.phash2(make_ref(), 2) == 0 -> read_any(stdout, stderr, max, deadline)
      true -> read_any(stderr, stdout, max, deadline)
    end
  end

  def read_output(stdout, stderr, max, until, deadline),
    do: read_output(stdout, stderr, max, {until, until}, deadline)

  defp read_tagged({tag, pipe, until}, max, deadline) do
    with {:ok, data} <- read(pipe, max, until, deadline), do: {:ok, {tag, data}}
  end

  # Reads from whichever of two pipes has something; the first is asked first. A pipe that is at its
  # end, or not the caller's, does not count as long as the other goes on.
  defp read_any({_, pipe1, _} = one, {_, pipe2, _} = two, max, deadline) do
    with {:again, _, _} <- {try_read(pipe1, max), one, two},
         {:again, _, _} <- {try_read(pipe2, max), two, one} do
      wait_and_read_any(one, two, max, deadline)
    else
      {result, this, other} -> this_or_other(result, this, other, max, deadline)
    end
  end

  # One reference for both, so that the VM can skip the messages that came before it.
  defp wait_and_read_any({_, pipe1, until1} = one, {_, pipe2, until2} = two, max, deadline) do
    ref = make_ref()

    with {:wait, _, _} <- {Native.pipe_read_or_wait(pipe1, max, ref, until1 != :exit), one, two},
         {:wait, _, _} <- {Native.pipe_read_or_wait(pipe2, max, ref, until2 != :exit), two, one} do
      receive do
        {:select, _, ^ref, _} ->
          # One message has arrived. The other pipe's may have been sent too.
          if {Native.pipe_cancel(pipe1, ref), Native.pipe_cancel(pipe2, ref)} == {:sent, :sent},
            do: flush(ref)

          read_any(one, two, max, deadline)
      after
        Patience.left(deadline) ->
          cancel(pipe1, ref)
          cancel(pipe2, ref)
          :timeout
      end
    else
      {result, ^one, ^two} ->
        this_or_other(result, one, two, max, deadline)

      {result, ^two, ^one} ->
        cancel(pipe1, ref)
        this_or_other(result, two, one, max, deadline)
    end
  end

  defp this_or_other({:ok, data}, {tag, _, _}, _other, _max, _deadline), do: {:ok, {tag, data}}

  defp this_or_other({:error, _} = over, _, other, max, deadline),
    do: other(over, other, max, deadline)

  defp this_or_other(over, _this, other, max, deadline) when over in [:eof, :exited],
    do: other(over, other, max, deadline)

  defp other(over, other, max, deadline) do
    case read_tagged(other, max, deadline) do
      {:ok, _} = result -> result
      # The other pipe still has a writer.
      :timeout -> :timeout
      also_over -> if over == :exited or match?({:error, _}, also_over), do: over, else: also_over
    end
  end

  @doc """
  Writes all of `iodata`; waits as long as the pipe is full, but not beyond the deadline. After a
  timeout `rest` has not been written.
  """
  @spec write(t, iodata, Patience.deadline()) ::
          :ok | {:error, {:timeout, rest :: iodata}} | error
  def write(pipe, iodata, deadline \\ :infinity),
    do: try_write(pipe, :erlang.iolist_to_iovec(iodata), 0, deadline)

  defp try_write(pipe, iovec, offset, deadline) do
    case Native.pipe_try_write(pipe, iovec, offset) do
      {:more, iovec, offset} -> try_write(pipe, iovec, offset, deadline)
      {:again, iovec, offset} -> wait_and_write(pipe, iovec, offset, deadline)
      result -> result
    end
  end

  defp wait_and_write(pipe, iovec, offset, deadline) do
    ref = make_ref()

    case Native.pipe_write_or_wait(pipe, iovec, offset, ref) do
      {:wait, iovec, offset} ->
        receive do
          {:select, _, ^ref, _} -> try_write(pipe, iovec, offset, deadline)
        after
          Patience.left(deadline) ->
            cancel(pipe, ref)
            {:error, {:timeout, rest(iovec, offset)}}
        end

      {:more, iovec, offset} ->
        try_write(pipe, iovec, offset, deadline)

      {:again, iovec, offset} ->
        wait_and_write(pipe, iovec, offset, deadline)

      result ->
        result
    end
  end

  defp rest([first | rest], offset),
    do: [binary_part(first, offset, byte_size(first) - offset) | rest]

  # Ends a wait, and sees to it that its message is not left in the mailbox.
  defp cancel(pipe, ref) do
    if Native.pipe_cancel(pipe, ref) == :sent, do: flush(ref), else: :ok
  end

  defp flush(ref) do
    receive do
      {:select, _, ^ref, _} -> :ok
    after
      Patience.message() -> :ok
    end
  end
end
