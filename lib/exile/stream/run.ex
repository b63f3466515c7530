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

  @enforce_keys [:stream, :running, :owner, :drain]
  defstruct [:stream, :running, :owner, :drain, unread: 0]

  @typedoc """
  `unread` counts once `drain` is a time: how much of what comes may be the commands' own, written
  before they ended, and must not be lost.
  """
  @type t :: %__MODULE__{
          stream: Stream.t(),
          running: Server.commands(),
          owner: pid,
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

  # A program that writes to a pipe which nobody reads any more.
  @sigpipe 13

  @spec start!(Stream.t()) :: t
  def start!(%Stream{} = stream) do
    {stdin, input} = input(stream.input)

    case Server.start_link(stream.commands, {stdin, stream.stdout}, input) do
      {:ok, running} ->
        drain = if stream.drain_timeout == :infinity, do: :infinity, else: :stop
        %__MODULE__{stream: stream, running: running, owner: self(), drain: drain}

      {:error, error} ->
        raise as_without_exile(stream.input, error)
    end
  end

  defp input(nil), do: {:null, nil}
  defp input({kind, path}) when kind in [:file, :file_stream], do: {{:file, path}, nil}
  defp input({:write, write}), do: {:pipe, &Input.evaluate(write, &1)}

  # What enumerating the file would have raised.
  defp as_without_exile({:file_stream, path}, %Error{operation: :input, reason: reason}) do
    %File.Error{reason: reason, action: "stream", path: path}
  end

  defp as_without_exile(_input, error), do: error

  @doc "Goes on in the calling process, whichever it was before."
  @spec resume(t) :: t
  def resume(%__MODULE__{owner: owner} = run) when owner == self(), do: run

  def resume(%__MODULE__{} = run) do
    Enum.each(pipes(run), &Native.pipe_set_owner(&1, self()))
    _ = Server.adopt(run.running.server)
    %{run | owner: self()}
  end

  @doc "The next element, the last one (of a stream that tells how it ended), or the end."
  @spec next!(t) :: {:element, term, t} | {:last, {:exit, term}} | :done
  def next!(%__MODULE__{drain: :stop} = run) do
    # Asked each time: pipes that others keep full never look as if the commands had ended.
    if Enum.any?(writers(run), &(Native.command_status(&1) == :running)),
      do: read_on!(run),
      else: run |> drain(length(pipes(run)) * @pipe_capacity) |> read_on!()
  end

  def next!(run), do: read_on!(run)

  # The commands that write to what is read here.
  defp writers(%__MODULE__{running: %{handles: handles, stderr: nil}}), do: Enum.take(handles, -1)
  defp writers(%__MODULE__{running: %{handles: handles}}), do: handles

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

  # The commands have ended; others may hold their output open.
  defp drain(run, unread), do: %{run | drain: now() + run.stream.drain_timeout, unread: unread}

  defp count(run, {_from, data}), do: count(run, data)
  defp count(run, data), do: %{run | unread: run.unread - byte_size(data)}

  defp read(%__MODULE__{running: running, stream: stream, drain: drain} = run) do
    cond do
      # Somebody who always has something to say must not hold up the end.
      is_integer(drain) and run.unread <= 0 and now() >= drain -> :exited
      pipes(run) == [] -> :eof
      running.stderr == nil -> Pipe.read(running.stdout, stream.max_chunk_size, drain)
      true -> Command.read_any(running.stdout, running.stderr, stream.max_chunk_size, drain)
    end
  end

  defp now, do: System.monotonic_time(:millisecond)

  # The output is at its end.
  defp finish!(%__MODULE__{stream: stream} = run) do
    close_pipes(run)
    # The end of an output that goes to a file is that of the command.
    timeout = if stream.stdout == :pipe, do: stream.exit_timeout, else: :infinity
    in_time = wait(run, timeout)
    late = Enum.find_index(in_time, &(&1 == :timeout))
    statuses = if late, do: terminate!(run, 0), else: in_time

    outcome = run |> input_outcome(@input_grace) |> raise_failed()
    codes = codes!(run, statuses)
    failed = late || Enum.find_index(failures(statuses), & &1)

    failure =
      cond do
        failed -> abnormal(run, failed, codes, late && stream.exit_timeout)
        outcome in [:epipe, :unfinished] and not stream.ignore_input_epipe -> :epipe
        true -> nil
      end

    case {stream.on_failure, failure} do
      {:raise, nil} -> :done
      {:raise, failure} -> raise AbnormalExit, failure
      {:tell, :epipe} -> {:last, {:exit, :epipe}}
      {:tell, nil} -> {:last, {:exit, {:status, 0}}}
      {:tell, {code, _, _}} -> {:last, {:exit, {:status, code}}}
    end
  end

  # Which commands failed. One that a SIGPIPE ended had more to say than the next one wanted to
  # know; only behind the last one is nobody who could have had enough.
  defp failures(statuses) do
    last = length(statuses) - 1

    for {status, index} <- Enum.with_index(statuses) do
      case status do
        {:exited, 0} -> false
        {:signaled, @sigpipe, _} -> index == last
        _ -> true
      end
    end
  end

  # What `AbnormalExit` wants to know.
  defp abnormal(%__MODULE__{stream: %{commands: commands}}, index, codes, timeout) do
    stage =
      if match?([_, _ | _], commands),
        do: {index + 1, length(commands), Enum.at(commands, index).argv}

    {Enum.at(codes, index), stage, timeout}
  end

  @doc "The reader has enough."
  @spec halt!(t) :: :ok
  def halt!(%__MODULE__{stream: stream} = run) do
    {statuses, outcome} = stop!(run)
    _ = raise_failed(outcome)

    failed = for {true, index} <- Enum.with_index(failures(statuses)), do: index

    if failed != [] and stream.on_failure == :raise and not stream.ignore_epipe do
      # Ended by SIGPIPE or by us: either way because nobody read on.
      if Enum.any?(failed, &match?({:signaled, _, _}, Enum.at(statuses, &1))),
        do: raise(AbnormalExit, :epipe),
        else: raise(AbnormalExit, abnormal(run, hd(failed), codes!(run, statuses), nil))
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
    raise error(List.last(run.stream.commands), :read, reason)
  end

  defp stop!(run) do
    close_pipes(run)
    outcome = input_outcome(run, 0)
    {terminate!(run, @halt_grace), outcome}
  end

  defp close_pipes(run), do: Enum.each(pipes(run), &Native.pipe_close/1)

  defp pipes(%__MODULE__{running: %{stdout: stdout, stderr: stderr}}) do
    for pipe <- [stdout, stderr], pipe, do: pipe
  end

  # All at once; the statuses.
  defp terminate!(%__MODULE__{running: running, stream: stream} = run, grace) do
    for {handle, command} <- Enum.zip(running.handles, stream.commands) do
      steps = Teardown.within(command.teardown, @halt_teardown)

      with {:error, reason} <- Native.command_terminate(handle, grace, steps) do
        raise error(command, :status, reason)
      end
    end

    statuses = wait(run, grace + @halt_teardown + @kill_patience)

    for {:timeout, command} <- Enum.zip(statuses, stream.commands) do
      raise error(command, :status, :etimedout)
    end

    statuses
  end

  # What became of each command, all within `timeout`: a status or `:timeout`.
  defp wait(%__MODULE__{running: %{handles: handles}}, :infinity) do
    Enum.map(handles, &Command.wait(&1, :infinity))
  end

  defp wait(%__MODULE__{running: %{handles: handles}}, timeout) do
    deadline = now() + timeout
    Enum.map(handles, &Command.wait(&1, max(deadline - now(), 0)))
  end

  defp input_outcome(%__MODULE__{stream: %{input: {:write, _}}} = run, timeout) do
    Server.input_outcome(run.running.server, timeout)
  end

  defp input_outcome(_run, _timeout), do: :ok

  defp raise_failed({:failed, kind, reason, stack}), do: :erlang.raise(kind, reason, stack)
  defp raise_failed(outcome), do: outcome

  defp error(%{argv: [program | _]}, operation, reason) do
    %Error{reason: reason, operation: operation, subject: program}
  end

  defp codes!(%__MODULE__{stream: %{commands: commands}}, statuses) do
    for {command, status} <- Enum.zip(commands, statuses) do
      case Command.exit_code(status) do
        {:ok, code} -> code
        {:error, error} -> raise %{error | subject: hd(command.argv)}
      end
    end
  end
end
