defmodule Exile.Runtime.Running do
  @moduledoc false

  # Starting processes, waiting for them and ending them. The native side does the work on threads of
  # its own, so that the caller only ever waits for a message.

  alias Exile.Native
  alias Exile.Runtime.Patience

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

  # How many chunks are dropped before it is asked whether the process has ended.
  @chunks 16
  @chunk_size 65_536

  @typedoc "One command, as the native side wants it; see `native/nif/src/spec.rs`."
  @type stage :: map

  @doc """
  Starts commands, each reading what the one before it writes. The caller owns them and their pipes.

  ## Options

    * `:stdin`, `:stdout` - what the first reads and where the last writes to. Default: `:pipe`.
    * `:start_timeout` - how long to wait for all of them to run
    * `:fed` - another process will write the input, and its death is the end of all
    * `:tethered` - all ends when the tether is collected
    * `:drain` - how long a command may wait for the input that descendants of the one before it
      hold open
  """
  @spec start([stage, ...], keyword) :: {:ok, t} | {:error, Native.failure()}
  def start(stages, options) do
    environment = :os.env()

    spec = %{
      stages: stages,
      stdin: Keyword.get(options, :stdin, :pipe),
      stdout: Keyword.get(options, :stdout, :pipe),
      block: environment_block(environment),
      environment: environment,
      encoding: :file.native_name_encoding(),
      fed: Keyword.get(options, :fed, false),
      tethered: Keyword.get(options, :tethered, false),
      drain: Keyword.get(options, :drain)
    }

    ref = make_ref()
    answer(Native.spawn(spec, ref), ref, Keyword.get(options, :start_timeout, :infinity))
  end

  # One binary, which the native side takes apart, costs a tenth of what many charlists do.
  defp environment_block(environment) do
    environment
    |> Enum.map(fn {name, value} -> [name, ?=, value, 0] end)
    |> :erlang.iolist_to_binary()
  rescue
    ArgumentError -> nil
  end

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
  The same, but reads and drops what the process writes to the caller's `pipes`. So a process does not
  wait for a reader that will not come, and SIGPIPE does not end it.
  """
  @spec wait_and_drain(Native.process(), [Native.pipe()], Native.until(), timeout) ::
          Native.status() | :timeout | {:error, Native.posix()}
  def wait_and_drain(process, pipes, until, timeout) do
    deadline = Patience.deadline(timeout)
    unhurried = if pipes == [], do: timeout, else: min(timeout, Patience.before_draining())

    with :timeout <- wait(process, until, unhurried),
         do: drain(process, pipes, until, deadline)
  end

  defp drain(process, pipes, until, deadline) do
    pipes = Enum.filter(pipes, &more_to_come?(&1, @chunks))
    ref = make_ref()

    with false <- Patience.over?(deadline), :wait <- Native.process_wait(process, until, ref) do
      {armed, full} =
        Enum.split_with(pipes, &(Native.pipe_read_or_wait(&1, @chunk_size, ref, true) == :wait))

      received = receive_one(ref, if(full == [], do: Patience.left(deadline), else: 0))
      sent = Enum.count(armed, &(Native.pipe_cancel(&1, ref) == :sent))
      ended = if Native.process_cancel(process, ref) == :sent, do: 1, else: 0
      flush(ref, sent + ended - received)
      drain(process, pipes, until, deadline)
    else
      true -> wait(process, until, 0)
      result -> result
    end
  end

  # Drops what is there, but not for ever.
  defp more_to_come?(_pipe, 0), do: true

  defp more_to_come?(pipe, chunks) do
    case Native.pipe_try_read(pipe, @chunk_size) do
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
    _ = receive_one(ref, Patience.message())
    flush(ref, count - 1)
  end

  @doc "The exit status as a shell shows it."
  @spec exit_code(Native.status()) :: {:ok, 0..255} | {:error, :echild}
  def exit_code(%{code: code}), do: {:ok, code}
  def exit_code(:unknown), do: {:error, :echild}

  @doc "Closes those of the pipes that are the caller's."
  @spec close([Native.pipe() | nil]) :: :ok
  def close(pipes), do: Enum.each(pipes, &(&1 && Native.pipe_close(&1)))
end
