defmodule Exile.Stream.Run do
  @moduledoc false

  # One run of a stream's commands: start, element by element, and the ways it can end.
  #
  # * The output ends: `next/1` waits for the commands and returns their statuses.
  # * A timeout passes: `next/1` ends the commands.
  # * The reader has enough: `halt!/1`. The reader raises: `abandon/1`. One of these: `halt/1`.
  # * The reader dies: nothing runs here, the native side sees it.

  alias Exile.Capture.Output
  alias Exile.{Command, Native, Stream}
  alias Exile.Process.Error
  alias Exile.Runtime.{Patience, Pipe, Running, Teardown}
  alias Exile.Stream.{AbnormalExit, Feeder, Input, Lines, Verdict}

  @enforce_keys [:stream, :running, :feeder, :owner, :phase, :deadline]
  defstruct [:error, :lines, :tail, pending: []] ++ @enforce_keys

  @type t :: %__MODULE__{
          stream: Stream.t(),
          running: Running.t(),
          feeder: pid | nil,
          owner: pid,
          phase: phase,
          deadline: Patience.deadline(),
          error: Error.t() | nil,
          lines: %{stdout: Lines.t(), stderr: Lines.t()} | nil,
          tail: Output.t() | nil,
          pending: [term]
        }

  @typedoc "A command's status, or why it is not known: it may not be signalled, or is there still."
  @type ended :: Native.status() | {:error, Native.posix()} | :timeout

  @typedoc """
  How long to go on reading.

    * `:to_the_end` - it goes on until every process has closed the output
    * `:while_running` - it goes on until the commands have ended; `:drain_timeout` is not due yet, or
      a timeout has passed and the commands are being ended
    * `{:draining, deadline, own}` - the commands have ended, and others hold the output open. The
      commands may have written up to `own` bytes of what comes before they ended, which must not be
      lost
    * `:over` - the output has ended; what is pending comes last
    * `{:stopped, reason, output}` - the same, and then the commands are ended because of this output
  """
  @type phase ::
          :to_the_end
          | :while_running
          | {:draining, Patience.deadline(), integer}
          | :over
          | {:stopped, atom, :stdout | :stderr}

  # The most that a pipe holds, unless a privileged program made it larger.
  @pipe_capacity 1_048_576

  # The chunks in which the tail is read, and how many of them a pipe holds.
  @chunk_size 65_536
  @chunks div(@pipe_capacity, @chunk_size)

  # How many bytes of standard error are kept with `stderr: :tail`.
  @tail 8_192

  @spec start(Stream.t()) :: {:ok, t} | {:error, Error.t()}
  def start(%Stream{options: options} = stream) do
    deadline = Patience.deadline(options.timeout)
    {stdin, write} = input(options.input)
    drain = if options.drain_timeout != :infinity, do: options.drain_timeout

    for_commands = [
      stdin: stdin,
      stdout: stdout(options.stdout),
      fed: write != nil,
      tethered: true,
      drain: drain,
      timeout: options.timeout
    ]

    with {:ok, running} <- Command.start(stream.commands, for_commands) do
      {:ok,
       %__MODULE__{
         stream: stream,
         running: running,
         feeder: write && Feeder.start(running, endings(stream, running, 0), write),
         owner: self(),
         phase: if(drain, do: :while_running, else: :to_the_end),
         deadline: deadline,
         lines:
           options.lines && %{stdout: Lines.new(options.lines), stderr: Lines.new(options.lines)},
         tail: if(tail?(stream), do: Output.new(:capture, {:tail, @tail}, nil))
       }}
    end
  end

  defp tail?(%Stream{commands: commands}), do: Enum.any?(commands, &(&1.options.stderr == :tail))

  @doc "The same for a stream, which raises."
  @spec start!(Stream.t()) :: t
  def start!(%Stream{} = stream) do
    case start(stream) do
      {:ok, run} -> run
      {:error, error} -> raise as_without_exile(stream.options.input, error)
    end
  end

  defp stdout(:pipe), do: :pipe
  defp stdout({:file, path, append}), do: {:write, path, append}
  defp stdout(:disable), do: {:write, "/dev/null", true}

  defp input(nil), do: {:null, nil}
  defp input({kind, path}) when kind in [:file, :file_stream], do: {{:read, path}, nil}
  defp input({:write, write}), do: {:pipe, &Input.evaluate(write, &1)}

  # The error that enumerating the file would have raised.
  defp as_without_exile({:file_stream, path}, %Error{operation: :input, reason: reason}) do
    %File.Error{reason: reason, action: "stream", path: path}
  end

  defp as_without_exile(_input, error), do: error

  @doc "Continues in the calling process, even if the run was in another process before."
  @spec resume(t) :: t
  def resume(%__MODULE__{owner: owner} = run) when owner == self(), do: run

  def resume(%__MODULE__{} = run) do
    Enum.each(run.running.processes, &Native.process_set_owner(&1, self()))
    Enum.each(pipes(run), &Native.pipe_set_owner(&1, self()))
    _ = run.feeder && Feeder.adopt(run.feeder)
    %{run | owner: self()}
  end

  @doc """
  The next element; or the statuses of the commands when all have ended, with the index of the first that
  did not exit within `:exit_timeout`; or an error, with what is known of the commands, which have been
  ended. Both with the tail of standard error, if it was kept.
  """
  @spec next(t) ::
          {:element, term, t}
          | {:exited, [Native.status()], late :: non_neg_integer | nil, tail :: Output.finished()}
          | {:error, Error.t(), [ended], tail :: Output.finished()}
  def next(%__MODULE__{pending: [element | rest]} = run),
    do: {:element, element, %{run | pending: rest}}

  def next(%__MODULE__{phase: :over} = run), do: finish(run)
  def next(%__MODULE__{phase: {:stopped, reason, output}} = run), do: cut(run, reason, output)

  def next(%__MODULE__{deadline: deadline} = run) do
    # A command that always has more to say must not put the timeout off.
    if deadline != :infinity and Patience.over?(deadline),
      do: timed_out(run, :timeout),
      else: read_on(run)
  end

  @doc "The next element, the last one (the exit status, for `Exile.stream/2`), or the end."
  @spec next!(t) :: {:element, term, t} | {:last, {:exit, term}} | :done
  def next!(%__MODULE__{stream: stream} = run) do
    case next(run) do
      {:element, _, _} = element ->
        element

      {:exited, statuses, late, tail} ->
        stream |> Verdict.of(statuses, late) |> verdict(stream, tail)

      {:error, error, _, _} ->
        raise error
    end
  end

  defp verdict(%{failure: nil}, %{on_failure: :raise}, _tail), do: :done
  defp verdict(%{failure: failure}, %{on_failure: :raise}, tail), do: fail(failure, tail)
  defp verdict(%{code: code}, %{on_failure: :tell}, _tail), do: {:last, {:exit, {:status, code}}}

  @spec fail(keyword, Output.finished()) :: no_return
  defp fail(failure, tail), do: raise(AbnormalExit, [stderr: tail.data] ++ failure)

  # The commands whose output is read here.
  defp writers(%__MODULE__{running: %{stderr: nil} = running}),
    do: Enum.take(running.processes, -1)

  defp writers(%__MODULE__{running: running}), do: running.processes

  # Asked each time: pipes that others keep full never look as if the commands had ended.
  defp read_on(%__MODULE__{phase: :while_running} = run) do
    if Enum.any?(writers(run), &(Native.process_status(&1) == :running)),
      do: read(run),
      else: run |> drain(length(pipes(run)) * @pipe_capacity) |> read()
  end

  defp read_on(run), do: read(run)

  defp read(run) do
    case try_read(run, Patience.earlier(run.deadline, idle(run))) do
      {:ok, element} ->
        run |> count(element) |> deliver(element)

      :eof ->
        over(run)

      :exited ->
        run |> drain(0) |> read()

      :drained ->
        over(run)

      :timeout ->
        timed_out(run, if(Patience.over?(run.deadline), do: :timeout, else: :idle_timeout))

      {:error, reason} ->
        interrupted(run, reason)
    end
  end

  defp deliver(%__MODULE__{tail: %Output{} = tail} = run, {:stderr, data}) do
    {:ok, tail} = Output.keep(tail, data)
    next(%{run | tail: tail})
  end

  defp deliver(%__MODULE__{tail: %Output{}, lines: nil} = run, {:stdout, data}),
    do: {:element, data, run}

  defp deliver(%__MODULE__{lines: nil} = run, element), do: {:element, element, run}

  defp deliver(%__MODULE__{lines: lines} = run, element) do
    {name, chunk} = if is_binary(element), do: {:stdout, element}, else: element

    case Lines.feed(Map.fetch!(lines, name), chunk) do
      {:ok, ended, begun} ->
        next(%{run | pending: tag(run, name, ended), lines: %{lines | name => begun}})

      {:too_long, ended} ->
        next(%{run | pending: tag(run, name, ended), phase: {:stopped, :line_too_long, name}})
    end
  end

  # As elements are named that come from two outputs.
  defp tag(%__MODULE__{running: %{stderr: stderr}, tail: tail}, _name, lines)
       when stderr == nil or tail != nil,
       do: lines

  defp tag(_run, name, lines), do: Enum.map(lines, &{name, &1})

  # The output is at its end; a line without a newline may be left.
  defp over(%__MODULE__{lines: nil} = run), do: finish(run)

  defp over(%__MODULE__{lines: lines} = run) do
    rests = Enum.flat_map([:stdout, :stderr], &tag(run, &1, Lines.rest(Map.fetch!(lines, &1))))
    next(%{run | phase: :over, pending: rests})
  end

  defp idle(%__MODULE__{error: nil} = run), do: Patience.deadline(run.stream.options.idle_timeout)
  defp idle(_run), do: :infinity

  # Reads on for a while. The commands have ended, and others may hold their output open.
  defp drain(%__MODULE__{error: nil} = run, own) do
    %{run | phase: {:draining, Patience.deadline(run.stream.options.drain_timeout), own}}
  end

  defp drain(run, own), do: %{run | phase: {:draining, Patience.now(), own}, deadline: :infinity}

  defp count(%__MODULE__{phase: {:draining, deadline, own}} = run, element),
    do: %{run | phase: {:draining, deadline, own - size(element)}}

  defp count(run, _element), do: run

  defp size({_from, data}), do: byte_size(data)
  defp size(data), do: byte_size(data)

  # A process that never stops writing must not hold up the end.
  defp try_read(%__MODULE__{phase: {:draining, drained, own}} = run, deadline) do
    if own <= 0 and Patience.over?(drained) do
      :drained
    else
      with :timeout <- try_read(run, :eof, Patience.earlier(drained, deadline)),
           do: if(Patience.over?(drained), do: :drained, else: :timeout)
    end
  end

  defp try_read(%__MODULE__{phase: :while_running} = run, deadline),
    do: try_read(run, :exit, deadline)

  defp try_read(%__MODULE__{phase: :to_the_end} = run, deadline),
    do: try_read(run, :eof, deadline)

  defp try_read(%__MODULE__{running: running, stream: stream} = run, until, deadline) do
    max = stream.options.max_chunk_size

    cond do
      pipes(run) == [] -> :eof
      running.stderr == nil -> Pipe.read(running.stdout, max, until, deadline)
      run.tail != nil -> read_with_tail(run, max, until, deadline)
      true -> Pipe.read_output(running.stdout, running.stderr, max, until, deadline)
    end
  end

  # Other programs may hold standard error open for ever. They do not hold up the end.
  defp read_with_tail(%__MODULE__{running: running}, max, until, deadline) do
    with :exited when until == :eof <-
           Pipe.read_output(running.stdout, running.stderr, max, {until, :exit}, deadline),
         do: :eof
  end

  defp finish(%__MODULE__{error: error} = run) when error != nil, do: stopped(run, error)

  # The output is at its end. Unread input is no failure; an input whose evaluation failed is.
  defp finish(%__MODULE__{stream: %{options: options}} = run) do
    Running.close(pipes(run))
    # The end of an output that goes to a file is that of the command.
    timeout = if(options.stdout == :pipe, do: options.exit_timeout) || :infinity
    in_time = wait(run, :exit, min(timeout, Patience.left(run.deadline)))
    late = Enum.find_index(in_time, &(&1 == :timeout))
    overdue = late && Patience.over?(run.deadline)
    ended = if late, do: terminate(run), else: in_time

    # Before the statuses, so that the input is stopped whatever happened to the commands.
    outcome = input_outcome(run, Patience.input())
    _ = raise_failed(outcome)
    # The feeder was killed, and the input with it.
    _ = outcome == :gone && exit(:killed)

    if overdue,
      do: failed(run, Command.failure(run.stream.commands, late, :timeout), ended),
      else: exited(run, ended, late)
  end

  defp exited(run, ended, late) do
    case Enum.find_value(Enum.zip(run.stream.commands, ended), &status_error/1) do
      nil -> {:exited, ended, late, Output.finish(run.tail)}
      error -> failed(run, error, ended)
    end
  end

  # What has been written to standard error by now may say why.
  defp read_tail(%__MODULE__{tail: %Output{}, running: %{stderr: stderr}} = run, chunks)
       when chunks > 0 do
    case Pipe.read(stderr, @chunk_size, :exit, Patience.now()) do
      {:ok, data} ->
        {:ok, tail} = Output.keep(run.tail, data)
        read_tail(%{run | tail: tail}, chunks - 1)

      _ ->
        run
    end
  end

  defp read_tail(run, _chunks), do: run

  defp failed(run, error, ended) do
    tail = Output.finish(run.tail)
    {:error, %{error | stderr: tail.data}, ended, tail}
  end

  defp status_error({command, :timeout}), do: error(command, :status, :etimedout)
  defp status_error({command, {:error, reason}}), do: error(command, :signal, reason)
  defp status_error({command, :unknown}), do: error(command, :status, :echild)
  defp status_error({_command, _status}), do: nil

  @doc """
  Ends the commands because the reader takes no more of an output, and returns as `next/1` does.
  """
  @spec cut(t, atom, :stdout | :stderr) ::
          {:error, Error.t(), [ended], tail :: Output.finished()}
  def cut(%__MODULE__{stream: stream} = run, reason, output) do
    # Standard error is that of all.
    index = if output == :stdout, do: length(stream.commands) - 1
    stopped(run, run.error || Command.failure(stream.commands, index, reason))
  end

  defp stopped(run, error) do
    run = read_tail(run, @chunks)
    {outcome, ended} = stop(run, 0)
    _ = raise_failed(outcome)
    failed(run, error, ended)
  end

  # The commands begin to end. What they write until then is read: it may say why they took so long, and
  # SIGPIPE does not end them in the middle of it.
  defp timed_out(%__MODULE__{error: nil, running: running, stream: stream} = run, reason) do
    # The first that is still at work holds up the others.
    running? = &(Native.process_status(&1) == :running)
    index = Enum.find_index(running.processes, running?) || length(running.processes) - 1
    deadline = Patience.deadline(begin_end(run, 0))
    error = Command.failure(stream.commands, index, reason)
    next(%{run | error: error, phase: :while_running, deadline: deadline})
  end

  # They should have ended by now. What they wrote before is read without waiting.
  defp timed_out(run, _reason), do: run |> drain(length(pipes(run)) * @pipe_capacity) |> read()

  @doc "The reader has enough."
  @spec halt!(t) :: :ok
  def halt!(%__MODULE__{stream: stream} = run) do
    run = read_tail(run, @chunks)
    {outcome, ended} = stop(run, grace(run))
    _ = raise_failed(outcome)

    case exited(run, ended, nil) do
      {:error, error, _, _} ->
        raise error

      {:exited, statuses, nil, tail} ->
        if stream.on_failure == :raise and not stream.options.ignore_epipe,
          do: stream |> Verdict.of(statuses, nil) |> raise_early(stream, tail)
    end

    :ok
  end

  defp raise_early(%{failure: nil}, _stream, _tail), do: :ok
  # SIGPIPE ended it, or we did: either way because the reader stopped.
  defp raise_early(%{signaled: true}, stream, tail), do: fail(Verdict.early(stream), tail)
  defp raise_early(%{failure: failure}, _stream, tail), do: fail(failure, tail)

  @doc "The reader has enough or has failed, and nothing may be raised."
  @spec halt(t) :: :ok
  def halt(run) do
    _ = stop(run, grace(run))
    :ok
  end

  @doc "Ends a run whose reader failed. Raises nothing, because the reader's error is raised."
  @spec abandon(t) :: :ok
  def abandon(run) do
    _ = stop(run, run |> grace() |> finite())
    :ok
  end

  # How long the commands have to end by themselves when the reader takes no more.
  defp grace(%__MODULE__{stream: stream, deadline: deadline}),
    do: min(stream.options.exit_timeout || Patience.early_stop(), Patience.left(deadline))

  # An exception is not held up for ever.
  defp finite(:infinity), do: Patience.early_stop()
  defp finite(grace), do: grace

  # The pipe was taken away: by the feeder, because the input failed, or by a user's mistake.
  defp interrupted(run, reason) do
    stopped(run, error(List.last(run.stream.commands), :read, reason))
  end

  # Begins to end the commands, then closes the pipes, then stops the input. Returns the outcome of
  # the input, and what became of the commands, when they and their groups are gone.
  defp stop(run, grace) do
    patience = begin_end(run, grace)
    Running.close(pipes(run))
    outcome = input_outcome(run, 0)
    _ = wait(run, :over, patience)

    # This also keeps the tether until here: if it were collected, their time would be over at once.
    {outcome, ended(run)}
  end

  defp pipes(%__MODULE__{running: %{stdout: stdout, stderr: stderr}}) do
    for pipe <- [stdout, stderr], pipe, do: pipe
  end

  # Begins to end the commands. Returns how long to wait until all of them are gone.
  defp begin_end(%__MODULE__{stream: stream, running: running}, grace) do
    endings = endings(stream, running, grace)
    end_all(endings)
    patience(endings)
  end

  # How each command is ended. It first has `grace` milliseconds to exit by itself.
  defp endings(stream, running, grace) do
    for {process, command} <- Enum.zip(running.processes, stream.commands) do
      {process, grace, Teardown.within(command.options.teardown, Patience.teardown())}
    end
  end

  # With an infinite grace the commands are not ended at all.
  defp end_all([{_, :infinity, _} | _]), do: :ok
  defp end_all(endings), do: Native.process_end(endings)

  defp patience([{_, :infinity, _} | _]), do: :infinity

  defp patience(endings) do
    longest = endings |> Enum.map(fn {_, grace, steps} -> grace + Teardown.duration(steps) end)
    min(Enum.max(longest) + Patience.kill(), Patience.most())
  end

  # Returns when all commands and their process groups are gone or cannot be ended.
  defp terminate(run) do
    _ = wait(run, :over, begin_end(run, 0))
    ended(run)
  end

  # What became of commands that were ended.
  defp ended(run), do: wait(run, :exhausted, 0)

  # Waits for all commands, for `timeout` in total. Returns the status of each, or `:timeout`.
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
end
