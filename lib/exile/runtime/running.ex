defmodule Exile.Runtime.Running do
  @moduledoc false

  # Starting processes, waiting for them and ending them. The native side does the work on threads of
  # its own, so that the caller only ever waits for a message.

  alias Exile.{Command, Native}
  alias Exile.Process.Error

  @typedoc """
  What runs, first to last, and the caller's ends of the pipes. The processes end when `tether` is
  collected, if there is one.
  """
  @type t :: %{
          processes: [Native.process(), ...],
          stdin: Native.pipe() | nil,
          stdout: Native.pipe() | nil,
          stderr: Native.pipe() | nil,
          tether: reference | nil
        }

  @typedoc "Where the first command reads from."
  @type stdin :: :pipe | :null | {:read, binary}

  @typedoc "Where the last command writes to."
  @type stdout :: :pipe | {:write, binary, append :: boolean}

  # The VM said that it sent the message; this is how long we wait for it.
  @message_timeout 5_000

  # Most commands end before they have filled a pipe, and a wait for a pipe costs more than all else.
  @before_draining 10

  # How many chunks are dropped before it is asked whether the process has ended.
  @chunks 16
  @chunk_size 65_536

  @doc """
  Starts commands, each reading what the one before it writes. The caller owns them and their pipes.

  ## Options

    * `:fed` - another process will write the input, and its death is the end of all
    * `:tethered` - all ends when the tether is collected
    * `:drain` - how long a command may wait for the input that descendants of the one before it
      hold open
  """
  @spec start([Command.t(), ...], stdin, stdout, keyword) :: {:ok, t} | {:error, Error.t()}
  def start([%Command{start_timeout: timeout} | _] = commands, stdin, stdout, options \\ []) do
    environment = :os.env()

    spec = %{
      stages: Enum.map(commands, &stage/1),
      stdin: stdin,
      stdout: stdout,
      block: environment_block(environment),
      environment: environment,
      encoding: :file.native_name_encoding(),
      fed: Keyword.get(options, :fed, false),
      tethered: Keyword.get(options, :tethered, false),
      drain: Keyword.get(options, :drain)
    }

    ref = make_ref()

    case answer(Native.spawn(spec, ref), ref, timeout) do
      {:ok, running} -> {:ok, running}
      {:error, failure} -> {:error, error(failure, commands, stdin, stdout)}
    end
  end

  # Taken apart natively, one binary costs a tenth of what many lists of characters do.
  defp environment_block(environment) do
    block(environment, fn {name, value} -> [name, ?=, value, 0] end)
  rescue
    ArgumentError -> nil
  end

  defp block(list, part), do: list |> Enum.map(part) |> :erlang.iolist_to_binary()

  defp stage(%Command{} = command) do
    {unset, set} = Enum.split_with(command.env, fn {_name, value} -> value == nil end)

    %{
      argv: block(command.argv, &[&1, 0]),
      directory: command.cd,
      set: block(set, fn {name, value} -> [name, ?=, value, 0] end),
      unset: block(unset, fn {name, nil} -> [name, 0] end),
      clear_env: command.clear_env,
      stderr: stderr(command.stderr),
      teardown: Exile.Teardown.abandoned(command.teardown)
    }
  end

  defp stderr(:console), do: :inherit
  defp stderr(:redirect_to_stdout), do: :stdout
  defp stderr(:disable), do: :null
  defp stderr(:consume), do: :pipe

  @doc "The answer to what the native side was asked with `ref`."
  @spec answer(reference | {:error, Native.failure()}, reference, timeout) ::
          {:ok, term} | {:error, Native.failure()}
  def answer({:error, failure}, _ref, _timeout), do: {:error, failure}

  def answer(request, ref, timeout) do
    receive do
      {^ref, answer} -> answer
    after
      timeout ->
        case Native.spawn_cancel(request) do
          :ok -> {:error, %{index: 0, step: :exec, reason: :etimedout}}
          :sent -> receive(do: ({^ref, answer} -> answer))
        end
    end
  end

  defp error(%{index: index, step: step, reason: reason}, commands, stdin, stdout) do
    command = Enum.at(commands, index)
    {operation, subject} = what(step, command, stdin, stdout)
    %Error{reason: reason, operation: operation, subject: subject}
  end

  defp what(:directory, command, _stdin, _stdout), do: {:cd, command.cd}
  defp what(:input, _command, {:read, path}, _stdout), do: {:input, path}
  defp what(:output, _command, _stdin, {:write, path, _append}), do: {:output, path}
  defp what(step, %{argv: [program | _]}, _stdin, _stdout), do: {step, program}

  @doc """
  Waits for a process: with `:exit` until it has ended, with `:exhausted` also until it is found
  that it may not be signalled (`{:error, reason}`), with `:over` until its group is gone, too.
  """
  @spec wait(Native.process(), Native.until(), timeout) ::
          Native.status() | :timeout | {:error, Native.posix()}
  def wait(process, until, timeout) do
    ref = make_ref()

    case Native.process_wait(process, until, ref) do
      :wait ->
        receive do
          {:select, _, ^ref, _} -> wait(process, until, timeout)
        after
          timeout ->
            if Native.process_cancel(process, ref) == :ok do
              :timeout
            else
              flush(ref, 1)
              wait(process, until, 0)
            end
        end

      result ->
        result
    end
  end

  @doc """
  The same, while what the process writes to the caller's `pipes` is read and dropped: a process
  whose output nobody wants does not wait for a reader, and is not ended by SIGPIPE.
  """
  @spec wait_and_drain(Native.process(), [Native.pipe()], Native.until(), timeout) ::
          Native.status() | :timeout | {:error, Native.posix()}
  def wait_and_drain(process, pipes, until, timeout) do
    deadline = deadline(timeout)
    unhurried = if pipes == [], do: timeout, else: min(timeout, @before_draining)

    with :timeout <- wait(process, until, unhurried),
         do: drain(process, pipes, until, deadline)
  end

  defp drain(process, pipes, until, deadline) do
    pipes = Enum.filter(pipes, &more_to_come?(&1, @chunks))
    ref = make_ref()

    with true <- left(deadline) > 0, :wait <- Native.process_wait(process, until, ref) do
      {armed, full} =
        Enum.split_with(pipes, &(Native.pipe_read(&1, @chunk_size, ref, true) == :wait))

      received = receive_one(ref, if(full == [], do: left(deadline), else: 0))
      sent = Enum.count(armed, &(Native.pipe_cancel(&1, ref) == :sent))
      ended = if Native.process_cancel(process, ref) == :sent, do: 1, else: 0
      flush(ref, sent + ended - received)
      drain(process, pipes, until, deadline)
    else
      false -> wait(process, until, 0)
      result -> result
    end
  end

  # Drops what is there, but not for ever.
  defp more_to_come?(_pipe, 0), do: true

  defp more_to_come?(pipe, chunks) do
    case Native.pipe_read(pipe, @chunk_size, nil, true) do
      {:ok, _} -> more_to_come?(pipe, chunks - 1)
      waits when waits in [:again, :rest] -> true
      _ -> false
    end
  end

  defp receive_one(ref, timeout) do
    receive do
      {:select, _, ^ref, _} -> 1
    after
      timeout -> 0
    end
  end

  # Messages that were sent must not be left in the mailbox.
  defp flush(_ref, 0), do: :ok

  defp flush(ref, count) do
    _ = receive_one(ref, @message_timeout)
    flush(ref, count - 1)
  end

  @doc "The exit status as a shell shows it."
  @spec exit_code(Native.status()) :: {:ok, 0..255} | {:error, :echild}
  def exit_code({:exited, code}), do: {:ok, code}
  def exit_code({:signaled, signal, _core}), do: {:ok, 128 + signal}
  def exit_code(:unknown), do: {:error, :echild}

  @doc "When a timeout that begins now is over."
  @spec deadline(timeout) :: :infinity | integer
  def deadline(:infinity), do: :infinity

  def deadline(timeout) when is_integer(timeout),
    do: System.monotonic_time(:millisecond) + timeout

  @doc "How long it is until a deadline."
  @spec left(:infinity | integer) :: timeout
  def left(:infinity), do: :infinity

  def left(deadline) when is_integer(deadline),
    do: max(deadline - System.monotonic_time(:millisecond), 0)

  @doc "Closes those of the pipes that are the caller's."
  @spec close([Native.pipe() | nil]) :: :ok
  def close(pipes), do: Enum.each(pipes, &(&1 && Native.pipe_close(&1)))
end
