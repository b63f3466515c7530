defmodule Exile.Runtime.Pipe do
  @moduledoc false

  # What the owner of a pipe does with it: try, and wait for one message when that would block.
  #
  # The reference is made right before it may be needed: the VM then skips all messages that came
  # earlier when it looks for the one that carries it, however many there are.

  alias Exile.Native
  alias Exile.Runtime.Patience

  @type t :: Native.pipe()
  @type error :: {:error, :pipe_closed_or_invalid_caller | Native.posix()}

  @typedoc """
  How long to read from a pipe that is empty and that other programs hold open: until the command
  has ended (`:exit`), until all have closed it (`:eof`), or until a time on the VM's monotonic clock
  in milliseconds. After the first and the last `:exited` is returned.
  """
  @type until :: :exit | :eof | integer

  @doc "Reads what is there, at most `max` bytes; waits when nothing is."
  @spec read(t, pos_integer, until) :: {:ok, binary} | :eof | :exited | error
  def read(pipe, max, until) do
    case try_read(pipe, max) do
      :again -> wait_and_read(pipe, max, until)
      result -> result
    end
  end

  # While commands wait to be started, the streams that have just begun let them go first.
  defp try_read(pipe, max) do
    with :rest <- Native.pipe_try_read(pipe, max) do
      receive after: (Patience.rest() -> :ok)
      try_read(pipe, max)
    end
  end

  defp wait_and_read(pipe, max, until) do
    ref = make_ref()

    case Native.pipe_read_or_wait(pipe, max, ref, until != :exit) do
      :wait ->
        receive do
          {:select, _, ^ref, _} -> read(pipe, max, until)
        after
          time_left(until) ->
            cancel(pipe, ref)
            :exited
        end

      result ->
        result
    end
  end

  @doc """
  Reads from standard output or standard error, whichever has something; at least one of them is a
  pipe. When both have something, chance decides, so that neither starves.
  """
  @spec read_output(t | nil, t | nil, pos_integer, until) ::
          {:ok, {:stdout | :stderr, binary}} | :eof | :exited | error
  def read_output(stdout, nil, max, until), do: read_tagged(:stdout, stdout, max, until)
  def read_output(nil, stderr, max, until), do: read_tagged(:stderr, stderr, max, until)

  def read_output(stdout, stderr, max, until) do
    {stdout, stderr} = {{:stdout, stdout}, {:stderr, stderr}}

    if :rand.uniform(2) == 1,
      do: read_any(stdout, stderr, max, until),
      else: read_any(stderr, stdout, max, until)
  end

  defp read_tagged(tag, pipe, max, until) do
    with {:ok, data} <- read(pipe, max, until), do: {:ok, {tag, data}}
  end

  @doc """
  Reads from whichever of two pipes has something; the first is asked first. A pipe that is at
  its end, or not the caller's, does not count as long as the other goes on.
  """
  @spec read_any({tag, t}, {tag, t}, pos_integer, until) ::
          {:ok, {tag, binary}} | :eof | :exited | error
        when tag: atom
  def read_any({_, pipe1} = one, {_, pipe2} = two, max, until) do
    with {:again, _, _} <- {try_read(pipe1, max), one, two},
         {:again, _, _} <- {try_read(pipe2, max), two, one} do
      wait_and_read_any(one, two, max, until)
    else
      {result, this, other} -> this_or_other(result, this, other, max, until)
    end
  end

  # One reference for both, so that the VM can skip the messages that came before it.
  defp wait_and_read_any({_, pipe1} = one, {_, pipe2} = two, max, until) do
    ref = make_ref()

    with {:wait, _, _} <- {Native.pipe_read_or_wait(pipe1, max, ref, until != :exit), one, two},
         {:wait, _, _} <- {Native.pipe_read_or_wait(pipe2, max, ref, until != :exit), two, one} do
      receive do
        {:select, _, ^ref, _} ->
          # One message has come; the other pipe's may have been sent, too.
          if {Native.pipe_cancel(pipe1, ref), Native.pipe_cancel(pipe2, ref)} == {:sent, :sent},
            do: flush(ref)

          read_any(one, two, max, until)
      after
        time_left(until) ->
          cancel(pipe1, ref)
          cancel(pipe2, ref)
          :exited
      end
    else
      {result, ^one, ^two} ->
        this_or_other(result, one, two, max, until)

      {result, ^two, ^one} ->
        cancel(pipe1, ref)
        this_or_other(result, two, one, max, until)
    end
  end

  defp this_or_other({:ok, data}, {tag, _}, _other, _max, _drain), do: {:ok, {tag, data}}

  defp this_or_other(over, _this, {tag, pipe}, max, until) do
    case read(pipe, max, until) do
      {:ok, data} -> {:ok, {tag, data}}
      also_over -> if over == :exited or match?({:error, _}, also_over), do: over, else: also_over
    end
  end

  @doc "Writes all of `iodata`; waits as long as the pipe is full."
  @spec write(t, iodata) :: :ok | error
  def write(pipe, iodata), do: write(pipe, :erlang.iolist_to_iovec(iodata), 0)

  defp write(pipe, iovec, offset) do
    case Native.pipe_try_write(pipe, iovec, offset) do
      {:more, iovec, offset} -> write(pipe, iovec, offset)
      {:again, iovec, offset} -> wait_and_write(pipe, iovec, offset)
      result -> result
    end
  end

  defp wait_and_write(pipe, iovec, offset) do
    ref = make_ref()

    case Native.pipe_write_or_wait(pipe, iovec, offset, ref) do
      {:wait, iovec, offset} ->
        receive do
          {:select, _, ^ref, _} -> write(pipe, iovec, offset)
        end

      {:more, iovec, offset} ->
        write(pipe, iovec, offset)

      {:again, iovec, offset} ->
        wait_and_write(pipe, iovec, offset)

      result ->
        result
    end
  end

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

  defp time_left(until) when is_integer(until), do: Patience.left(until)
  defp time_left(_until), do: :infinity
end
