defmodule Exile.Stream.Run do
  @moduledoc false

  # One enumeration of a stream: start, element by element, and the ways it can end.
  #
  # * The output ends: `next!/1` waits for the command and says how it all ended.
  # * The reader has enough: `halt!/1`. The reader raises: `abandon/1`. One of these: `halt/1`.
  # * The reader dies: nothing runs here, the native side sees it.

  alias Exile.{Command, Native, Stream}
  alias Exile.Process.Error
  alias Exile.Runtime.{Patience, Pipe, Running, Teardown}
  alias Exile.Stream.{AbnormalExit, Feeder, Input}

  @enforce_keys [:stream, :running, :feeder, :owner, :phase]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          stream: Stream.t(),
          running: Running.t(),
          feeder: pid | nil,
          owner: pid,
          phase: phase
        }

  @typedoc """
  How far the reading has come.

    * `:to_the_end` - it goes on until every process has closed the output
    * `:while_running` - it goes on until the commands have ended; `:drain_timeout` is not due yet
    * `{:draining, deadline, own}` - the commands have ended, and others hold the output open. The
      commands may have written up to `own` bytes of what comes before they ended, which must not be
      lost
  """
  @type phase :: :to_the_end | :while_running | {:draining, Patience.deadline(), integer}

  # What a pipe holds at most, unless a program with privileges made it larger.
  @pipe_capacity 1_048_576

  @spec start!(Stream.t()) :: t
  def start!(%Stream{} = stream) do
    {stdin, write} = input(stream.options.input)
    drain = if stream.options.drain_timeout != :infinity, do: stream.options.drain_timeout

    options = [
      stdin: stdin,
      stdout: stdout(stream.options.stdout),
      fed: write != nil,
      tethered: true,
      drain: drain
    ]

    case Command.start(stream.commands, options) do
      {:ok, running} ->
        %__MODULE__{
          stream: stream,
          running: running,
          feeder: write && Feeder.start(running, endings(stream, running, 0), write),
          owner: self(),
          phase: if(drain, do: :while_running, else: :to_the_end)
        }

      {:error, error} ->
        raise as_without_exile(stream.options.input, error)
    end
  end

  defp stdout(:pipe), do: :pipe
  defp stdout({:file, path, append}), do: {:write, path, append}

  defp input(nil), do: {:null, nil}
  defp input({kind, path}) when kind in [:file, :file_stream], do: {{:read, path}, nil}
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
    Enum.each(run.running.processes, &Native.process_set_owner(&1, self()))
    Enum.each(pipes(run), &Native.pipe_set_owner(&1, self()))
    _ = run.feeder && Feeder.adopt(run.feeder)
    %{run | owner: self()}
  end

  @doc "The next element, the last one (the exit status, for `Exile.stream/2`), or the end."
  @spec next!(t) :: {:element, term, t} | {:last, {:exit, term}} | :done
  def next!(%__MODULE__{phase: :while_running} = run) do
    # Asked each time: pipes that others keep full never look as if the commands had ended.
    if Enum.any?(writers(run), &(Native.process_status(&1) == :running)),
      do: read_on!(run),
      else: run |> drain(length(pipes(run)) * @pipe_capacity) |> read_on!()
  end

  def next!(run), do: read_on!(run)

  # The commands that write to what is read here.
  defp writers(%__MODULE__{running: %{stderr: nil} = running}),
    do: Enum.take(running.processes, -1)

  defp writers(%__MODULE__{running: running}), do: running.processes

  defp read_on!(run) do
    case read(run) do
      {:ok, element} -> {:element, element, count(run, element)}
      :eof -> finish!(run)
      :exited -> run |> drain(0) |> read_on!()
      :timeout -> finish!(run)
      {:error, reason} -> interrupted!(run, reason)
    end
  end

  # Reads on for a while. The commands have ended, and others may hold their output open.
  defp drain(run, own) do
    %{run | phase: {:draining, Patience.deadline(run.stream.options.drain_timeout), own}}
  end

  defp count(%__MODULE__{phase: {:draining, deadline, own}} = run, element),
    do: %{run | phase: {:draining, deadline, own - size(element)}}

  defp count(run, _element), do: run

  defp size({_from, data}), do: byte_size(data)
  defp size(data), do: byte_size(data)

  # A process that never stops writing must not hold up the end.
  defp read(%__MODULE__{phase: {:draining, deadline, own}} = run) do
    if own <= 0 and Patience.over?(deadline), do: :timeout, else: read(run, :eof, deadline)
  end

  defp read(%__MODULE__{phase: :while_running} = run), do: read(run, :exit, :infinity)
  defp read(%__MODULE__{phase: :to_the_end} = run), do: read(run, :eof, :infinity)

  defp read(%__MODULE__{running: running, stream: stream} = run, until, deadline) do
    max = stream.options.max_chunk_size

    cond do
      pipes(run) == [] -> :eof
      running.stderr == nil -> Pipe.read(running.stdout, max, until, deadline)
      true -> Pipe.read_output(running.stdout, running.stderr, max, until, deadline)
    end
  end

  # The output is at its end. Unread input is no failure; an input whose evaluation failed is.
  defp finish!(%__MODULE__{stream: stream} = run) do
    Running.close(pipes(run))
    # The end of an output that goes to a file is that of the command.
    timeout = if(stream.options.stdout == :pipe, do: stream.options.exit_timeout) || :infinity
    in_time = wait(run, :exit, timeout)
    late = Enum.find_index(in_time, &(&1 == :timeout))
    _ = late && terminate(run)

    # First, so that the input is stopped whatever has become of the commands.
    outcome = input_outcome(run, Patience.input())
    _ = raise_failed(outcome)
    # The feeder was killed, and with it the input.
    _ = outcome == :gone && exit(:killed)
    statuses = if late, do: statuses!(run), else: in_time
    codes = codes!(run, statuses)
    failed = late || Enum.find_index(failures(statuses), & &1)
    failure = failed && abnormal(run, failed, codes, late && stream.options.exit_timeout)

    case {stream.on_failure, failure} do
      {:raise, nil} -> :done
      {:raise, failure} -> raise AbnormalExit, failure
      {:tell, nil} -> {:last, {:exit, {:status, 0}}}
      {:tell, {code, _, _}} -> {:last, {:exit, {:status, code}}}
    end
  end

  # Which commands failed. A command killed by SIGPIPE because the next one stopped reading does not
  # count as failed. Only we read what the last one writes.
  defp failures(statuses) do
    last = length(statuses) - 1

    for {status, index} <- Enum.with_index(statuses) do
      case status do
        %{code: 0} -> false
        %{signal: :sigpipe} -> index == last
        _ -> true
      end
    end
  end

  defp signaled?(status), do: is_map(status) and status.signal != nil

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
    _ = run |> stop(stream.options.exit_timeout || Patience.early_stop()) |> raise_failed()
    statuses = statuses!(run)
    failed = for {true, index} <- Enum.with_index(failures(statuses)), do: index

    if failed != [] and stream.on_failure == :raise and not stream.options.ignore_epipe do
      # SIGPIPE ended it, or we did: either way because the reader stopped.
      if Enum.any?(failed, &signaled?(Enum.at(statuses, &1))),
        do: raise(AbnormalExit, :epipe),
        else: raise(AbnormalExit, abnormal(run, hd(failed), codes!(run, statuses), nil))
    end

    :ok
  end

  @doc "The reader has enough or has failed, and nothing may be raised."
  @spec halt(t) :: :ok
  def halt(%__MODULE__{stream: stream} = run) do
    _ = stop(run, stream.options.exit_timeout || Patience.early_stop())
    :ok
  end

  @doc "The reader has failed, and that is all that counts."
  @spec abandon(t) :: :ok
  def abandon(run) do
    _ = stop(run, finite_grace(run))
    :ok
  end

  # An exception is not held up for ever.
  defp finite_grace(%__MODULE__{stream: %{options: %{exit_timeout: timeout}}})
       when is_integer(timeout),
       do: timeout

  defp finite_grace(_run), do: Patience.early_stop()

  # The pipe was taken away: by the feeder, because the input failed, or by a user's mistake.
  defp interrupted!(run, reason) do
    _ = raise_failed(stop(run, 0))
    raise error(List.last(run.stream.commands), :read, reason)
  end

  # Begins to end the commands, then closes the pipes, then stops the input. Returns the outcome of
  # the input when the commands and their groups are gone.
  defp stop(%__MODULE__{stream: stream, running: running} = run, grace) do
    endings = endings(stream, running, grace)
    end_all(endings)
    Running.close(pipes(run))
    outcome = input_outcome(run, 0)
    _ = wait(run, :over, patience(endings))
    outcome
  end

  defp pipes(%__MODULE__{running: %{stdout: stdout, stderr: stderr}}) do
    for pipe <- [stdout, stderr], pipe, do: pipe
  end

  # How each of the commands is ended, after a time that it has for itself.
  defp endings(stream, running, grace) do
    for {process, command} <- Enum.zip(running.processes, stream.commands) do
      {process, grace, Teardown.within(command.options.teardown, Patience.teardown())}
    end
  end

  # Without an end to its time a command is not ended at all.
  defp end_all([{_, :infinity, _} | _]), do: :ok
  defp end_all(endings), do: Native.process_end(endings)

  # How long it may take until all are gone.
  defp patience([{_, :infinity, _} | _]), do: :infinity

  defp patience(endings) do
    longest = endings |> Enum.map(fn {_, grace, steps} -> grace + Teardown.duration(steps) end)
    min(Enum.max(longest) + Patience.kill(), Patience.most())
  end

  # Returns when all commands and their groups are gone, or cannot be ended.
  defp terminate(%__MODULE__{running: running, stream: stream} = run) do
    endings = endings(stream, running, 0)
    end_all(endings)
    wait(run, :over, patience(endings))
  end

  # The statuses of commands that were ended.
  defp statuses!(%__MODULE__{running: %{processes: processes}, stream: %{commands: commands}}) do
    for {process, command} <- Enum.zip(processes, commands) do
      case Running.wait(process, :exhausted, 0) do
        :timeout -> raise error(command, :status, :etimedout)
        {:error, reason} -> raise error(command, :signal, reason)
        status -> status
      end
    end
  end

  # What became of each command, all within `timeout`: a status or `:timeout`.
  defp wait(%__MODULE__{running: %{processes: processes}}, until, timeout) do
    deadline = Patience.deadline(timeout)
    Enum.map(processes, &Running.wait(&1, until, Patience.left(deadline)))
  end

  defp input_outcome(%__MODULE__{feeder: nil}, _timeout), do: :ok
  defp input_outcome(%__MODULE__{feeder: feeder}, timeout), do: Feeder.outcome(feeder, timeout)

  defp raise_failed({:failed, kind, reason, stack}), do: :erlang.raise(kind, reason, stack)
  defp raise_failed(outcome), do: outcome

  defp error(command, operation, reason) do
    %Error{reason: reason, operation: operation, subject: Command.program(command)}
  end

  defp codes!(%__MODULE__{stream: %{commands: commands}}, statuses) do
    for {command, status} <- Enum.zip(commands, statuses) do
      case Running.exit_code(status) do
        {:ok, code} -> code
        {:error, reason} -> raise error(command, :status, reason)
      end
    end
  end
end
