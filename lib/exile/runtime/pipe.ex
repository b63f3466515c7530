defmodule Exile.Runtime.Pipe do
  @moduledoc false

  # What the owner of a pipe does with it: try, and wait for one message when that would block.
  #
  # The reference is made right before it may be needed: the VM then skips all messages that came
  # earlier when it looks for the one that carries it, however many there are.

  alias Exile.Native

  @type t :: Native.pipe()
  @type error :: {:error, :pipe_closed_or_invalid_caller | Native.posix()}

  # The VM said that it sent the message; this is how long we wait for it.
  @message_timeout 5_000

  # How long a stream that has just begun rests.
  @rest 5

  @typedoc """
  What to do when the command has ended, the pipe is empty, and others still hold it open: `:stop`
  returns `:exited`, `:infinity` waits for them, a number is the time on the VM's monotonic clock
  in milliseconds until which they are waited for, after which `:exited` is returned.
  """
  @type drain :: :stop | :infinity | integer

  @doc "Reads what is there, at most `max` bytes; waits when nothing is."
  @spec read(t, pos_integer, drain) :: {:ok, binary} | :eof | :exited | error
  def read(pipe, max, drain) do
    case try_read(pipe, max, drain) do
      :again -> wait_and_read(pipe, max, drain)
      result -> result
    end
  end

  # While commands wait to be started, the streams that have just begun let them go first.
  defp try_read(pipe, max, drain) do
    with :rest <- Native.pipe_read(pipe, max, nil, drain != :stop) do
      receive after: (@rest -> :ok)
      try_read(pipe, max, drain)
    end
  end

  defp wait_and_read(pipe, max, drain) do
    ref = make_ref()

    case Native.pipe_read(pipe, max, ref, drain != :stop) do
      :wait ->
        receive do
          {:select, _, ^ref, _} -> read(pipe, max, drain)
        after
          time_left(drain) ->
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
  @spec read_output(t | nil, t | nil, pos_integer, drain) ::
          {:ok, {:stdout | :stderr, binary}} | :eof | :exited | error
  def read_output(stdout, nil, max, drain), do: read_tagged(:stdout, stdout, max, drain)
  def read_output(nil, stderr, max, drain), do: read_tagged(:stderr, stderr, max, drain)

  def read_output(stdout, stderr, max, drain) do
    {stdout, stderr} = {{:stdout, stdout}, {:stderr, stderr}}

    if :rand.uniform(2) == 1,
      do: read_any(stdout, stderr, max, drain),
      else: read_any(stderr, stdout, max, drain)
  end

  defp read_tagged(tag, pipe, max, drain) do
    with {:ok, data} <- read(pipe, max, drain), do: {:ok, {tag, data}}
  end

  @doc """
  Reads from whichever of two pipes has something; the first is asked first. A pipe that is at
  its end, or not the caller's, does not count as long as the other goes on.
  """
  @spec read_any({tag, t}, {tag, t}, pos_integer, drain) ::
          {:ok, {tag, binary}} | :eof | :exited | error
        when tag: atom
  def read_any({_, pipe1} = one, {_, pipe2} = two, max, drain) do
    with {:again, _, _} <- {try_read(pipe1, max, drain), one, two},
         {:again, _, _} <- {try_read(pipe2, max, drain), two, one} do
      wait_and_read_any(one, two, max, drain)
    else
      {result, this, other} -> this_or_other(result, this, other, max, drain)
    end
  end

  # One reference for both, so that the VM can skip the messages that came before it.
  defp wait_and_read_any({_, pipe1} = one, {_, pipe2} = two, max, drain) do
    ref = make_ref()

    with {:wait, _, _} <- {Native.pipe_read(pipe1, max, ref, drain != :stop), one, two},
         {:wait, _, _} <- {Native.pipe_read(pipe2, max, ref, drain != :stop), two, one} do
      receive do
        {:select, _, ^ref, _} ->
          # One message has come; the other pipe's may have been sent, too.
          if {Native.pipe_cancel(pipe1, ref), Native.pipe_cancel(pipe2, ref)} == {:sent, :sent},
            do: flush(ref)

          read_any(one, two, max, drain)
      after
        time_left(drain) ->
          cancel(pipe1, ref)
          cancel(pipe2, ref)
          :exited
      end
    else
      {result, ^one, ^two} ->
        this_or_other(result, one, two, max, drain)

      {result, ^two, ^one} ->
        cancel(pipe1, ref)
        this_or_other(result, two, one, max, drain)
    end
  end

  defp this_or_other({:ok, data}, {tag, _}, _other, _max, _drain), do: {:ok, {tag, data}}

  defp this_or_other(over, _this, {tag, pipe}, max, drain) do
    case read(pipe, max, drain) do
      {:ok, data} -> {:ok, {tag, data}}
      also_over -> if over == :exited or match?({:error, _}, also_over), do: over, else: also_over
    end
  end

  @doc "Writes all of `iodata`; waits as long as the pipe is full."
  @spec write(t, iodata) :: :ok | error
  def write(pipe, iodata), do: write(pipe, :erlang.iolist_to_iovec(iodata), 0)

  defp write(pipe, iovec, offset) do
    case Native.pipe_write(pipe, iovec, offset, nil) do
      {:more, iovec, offset} -> write(pipe, iovec, offset)
      {:again, iovec, offset} -> wait_and_write(pipe, iovec, offset)
      result -> result
    end
  end

  defp wait_and_write(pipe, iovec, offset) do
    ref = make_ref()

    case Native.pipe_write(pipe, iovec, offset, ref) do
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
      @message_timeout -> :ok
    end
  end

  defp time_left(drain) when is_integer(drain) do
    max(drain - System.monotonic_time(:millisecond), 0)
  end

  defp time_left(_drain), do: :infinity
end
