defmodule Exile.Stream.Run do
  @moduledoc false

  # One enumeration of a stream: start, element by element, and the ways it can end.
  #
  # * The output ends: `next!/1` waits for the command and says how it all ended.
  # * The reader has enough: `halt!/1`. The reader raises: `abandon/1`.
  # * The reader dies: nothing runs here, the native side sees it.

  alias Exile.{Error, Native, Pipe, Stream, Teardown}
  alias Exile.Process, as: Command
  alias Exile.Process.Server
  alias Exile.Stream.{AbnormalExit, Input}

  @enforce_keys [:stream, :command, :drain]
  defstruct [:stream, :command, :drain, unread: 0]

  @typedoc """
  `unread` counts once `drain` is a time: how much of what comes may be the command's own, written
  before it ended, and must not be lost.
  """
  @type t :: %__MODULE__{
          stream: Stream.t(),
          command: Command.t(),
          drain: Pipe.drain(),
          unread: integer
        }

  # A reader who stops early: how long the command may take to end by itself, and how long the
  # signals after that. Together under a second.
  @halt_grace 250
  @halt_teardown 500

  # SIGKILL is not always obeyed at once.
  @kill_patience 1_000

  # The command has ended; how long its input may take to be done, too. Long enough for an input
  # that has nothing more to say, short enough for one that waits for something else.
  @input_grace 100

  # What a pipe holds at most, unless a program with privileges made it larger.
  @pipe_capacity 1_048_576

  @spec start!(Stream.t()) :: t
  def start!(%Stream{} = stream) do
    input =
      case stream.input do
        {:write, write} -> &Input.evaluate(write, &1)
        _ -> nil
      end

    case Server.start_link(stream.command, input) do
      {:ok, command} ->
        drain = if stream.drain_timeout == :infinity, do: :infinity, else: :stop
        %__MODULE__{stream: stream, command: command, drain: drain}

      {:error, error} ->
        raise error
    end
  end

  @doc "Goes on in the calling process, whichever it was before."
  @spec resume(t) :: t
  def resume(%__MODULE__{command: %{owner: owner}} = run) when owner == self(), do: run

  def resume(%__MODULE__{command: command} = run) do
    Enum.each(pipes(run), &Native.pipe_set_owner(&1, self()))
    %{run | command: Server.adopt(command)}
  end

  @doc "The next element, the last one (of a stream that tells how it ended), or the end."
  @spec next!(t) :: {:element, term, t} | {:last, {:exit, term}} | :done
  def next!(%__MODULE__{drain: :stop} = run) do
    # Asked each time: pipes that others keep full never look as if the command had ended.
    case Native.command_status(run.command.command) do
      :running -> read_on!(run)
      _status -> run |> drain(length(pipes(run)) * @pipe_capacity) |> read_on!()
    end
  end

  def next!(run), do: read_on!(run)

  defp read_on!(%__MODULE__{drain: drain} = run) do
    case read(run) do
      {:ok, element} when is_integer(drain) -> {:element, element, count(run, element)}
      {:ok, element} -> {:element, element, run}
      :eof -> finish!(run)
      :exited when drain == :stop -> run |> drain(0) |> read_on!()
      :exited -> finish!(run)
      {:error, reason} -> interrupted!(run, reason)
    end
  end

  # The command has ended; others may hold its output open.
  defp drain(run, unread), do: %{run | drain: now() + run.stream.drain_timeout, unread: unread}

  defp count(run, {_from, data}), do: count(run, data)
  defp count(run, data), do: %{run | unread: run.unread - byte_size(data)}

  defp read(%__MODULE__{command: command, stream: stream, drain: drain} = run) do
    cond do
      # Somebody who always has something to say must not hold up the end.
      is_integer(drain) and run.unread <= 0 and now() >= drain -> :exited
      command.stderr == nil -> Pipe.read(command.stdout, stream.max_chunk_size, drain)
      true -> Command.read_any(command.stdout, command.stderr, stream.max_chunk_size, drain)
    end
  end

  defp now, do: System.monotonic_time(:millisecond)

  # The output is at its end.
  defp finish!(%__MODULE__{stream: stream} = run) do
    close_pipes(run)

    {status, in_time?} =
      case Command.wait(run.command, stream.exit_timeout) do
        :timeout -> {terminate!(run, 0), false}
        status -> {status, true}
      end

    outcome = input_outcome!(run, @input_grace)
    code = code!(status)

    failure =
      cond do
        not in_time? -> {:exit_timeout, stream.exit_timeout, code}
        code != 0 -> code
        outcome in [:epipe, :unfinished] and not stream.ignore_epipe -> :epipe
        true -> nil
      end

    case {stream.on_failure, failure} do
      {:raise, nil} -> :done
      {:raise, failure} -> raise AbnormalExit, failure
      {:tell, :epipe} -> {:last, {:exit, :epipe}}
      {:tell, _} -> {:last, {:exit, {:status, code}}}
    end
  end

  @doc "The reader has enough."
  @spec halt!(t) :: :ok
  def halt!(%__MODULE__{stream: stream} = run) do
    {status, outcome} = stop!(run)
    _ = raise_failed(outcome)

    failure =
      case status do
        # By SIGPIPE or by us: either way because nobody read on.
        {:signaled, _, _} -> :epipe
        other -> code!(other)
      end

    if stream.on_failure == :raise and not stream.ignore_epipe and failure != 0 do
      raise AbnormalExit, failure
    end

    :ok
  end

  @doc "The reader has failed, and that is all that counts."
  @spec abandon(t) :: :ok
  def abandon(run) do
    _ = stop!(run)
    :ok
  end

  # The pipe was taken away: by the server, because the input failed, or by a user's mistake.
  defp interrupted!(run, reason) do
    {_status, outcome} = stop!(run)
    _ = raise_failed(outcome)
    raise error(run, :read, reason)
  end

  defp stop!(run) do
    close_pipes(run)
    outcome = input_outcome(run, 0)
    {terminate!(run, @halt_grace), outcome}
  end

  defp close_pipes(run), do: Enum.each(pipes(run), &Native.pipe_close/1)

  defp pipes(%__MODULE__{command: %{stdout: stdout, stderr: nil}}), do: [stdout]
  defp pipes(%__MODULE__{command: %{stdout: stdout, stderr: stderr}}), do: [stdout, stderr]

  defp terminate!(%__MODULE__{command: command} = run, grace) do
    steps = Teardown.within(command.teardown, @halt_teardown)

    with :ok <- Native.command_terminate(command.command, grace, steps),
         :timeout <- Command.wait(command, grace + @halt_teardown + @kill_patience) do
      raise error(run, :status, :etimedout)
    else
      {:error, reason} -> raise error(run, :status, reason)
      status -> status
    end
  end

  defp input_outcome!(run, timeout), do: run |> input_outcome(timeout) |> raise_failed()

  defp input_outcome(%__MODULE__{stream: %{input: {:write, _}}} = run, timeout) do
    Server.input_outcome(run.command, timeout)
  end

  defp input_outcome(_run, _timeout), do: :ok

  defp raise_failed({:failed, kind, reason, stack}), do: :erlang.raise(kind, reason, stack)
  defp raise_failed(outcome), do: outcome

  defp error(%__MODULE__{stream: %{command: %{argv: [program | _]}}}, operation, reason) do
    %Error{reason: reason, operation: operation, subject: program}
  end

  defp code!(status) do
    case Command.exit_code(status) do
      {:ok, code} -> code
      {:error, error} -> raise error
    end
  end
end
