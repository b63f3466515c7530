defmodule Exile.Runtime.Running do
  @moduledoc false

  # Starts processes and waits for them. The native side does the work on its own threads, so the
  # caller only ever waits for a message.

  alias Exile.Native
  alias Exile.Runtime.Patience

  @typedoc """
  The processes, first to last, and the caller's ends of the pipes. If there is a `tether`, the
  processes are ended when it is garbage-collected.
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

  @typedoc "Where the last command writes."
  @type stdout :: :pipe | {:write, binary, append :: boolean}

  # How many chunks to drop before checking whether the process has exited.
  @chunks 16
  @chunk_size 65_536

  @typedoc "One command, as the native side expects it; see `native/nif/src/spec.rs`."
  @type stage :: map

  @doc """
  Starts commands, each reading the output of the one before it. The caller owns them and their
  pipes.

  ## Options

    * `:stdin`, `:stdout` - what the first command reads and where the last one writes. Default:
      `:pipe`.
    * `:start_timeout` - how long to wait for all of them to run
    * `:fed` - another process will write the input, and its death ends all commands
    * `:tethered` - all commands are ended when the tether is garbage-collected
    * `:drain` - how long a command may wait for input that descendants of the one before it hold
      open
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

  # One binary, which the native side splits, costs a tenth of what many charlists cost.
  defp environment_block(environment) do
    environment
    |> Enum.map(fn {name, value} -> [name, ?=, value, 0] end)
    |> :erlang.iolist_to_binary()
  rescue
    ArgumentError -> nil
  end

  @doc "Waits for the answer to a request that was made to the native side with `ref`."
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
  Waits for a process. With `:exit`, until it has exited. With `:exhausted`, until it has exited
  or a signal to it is refused (`{:error, reason}`). With `:over`, until its process group is gone
  too.
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
  Like `wait/3`, but reads and drops what the process writes to the caller's `pipes`, so that it
  neither blocks without a reader nor is killed by SIGPIPE.
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

  # Drops available data, but at most `chunks` chunks. Returns whether more may come.
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

  @doc "The exit status as a shell reports it."
  @spec exit_code(Native.status()) :: {:ok, 0..255} | {:error, :echild}
  def exit_code(%{code: code}), do: {:ok, code}
  def exit_code(:unknown), do: {:error, :echild}

  @doc "Closes those of the pipes that the caller owns."
  @spec close([Native.pipe() | nil]) :: :ok
  def close(pipes), do: Enum.each(pipes, &(&1 && Native.pipe_close(&1)))
end
