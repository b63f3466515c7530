defmodule Exile.Stream.Feeder do
  @moduledoc false

  # Controls the input of a stream. A second process, linked to this one, evaluates the input: the
  # user's code may wait for anything and trap exits, but must still end with the stream.
  #
  # The feeder survives a change of the stream's reader. It stops when it has told the reader the
  # outcome, when the reader is dead, and when the stream can no longer be resumed.

  use GenServer, restart: :temporary

  alias Exile.Native
  alias Exile.Runtime.Running

  @typedoc """
  How the input ended: all of it was written; the command did not read all of it; it was stopped
  before its end; it failed; or the feeder is gone and the outcome is unknown.
  """
  @type outcome ::
          :ok | :epipe | :unfinished | {:failed, atom, term, Exception.stacktrace()} | :gone

  @typedoc "How the processes are ended if the input fails or the reader dies."
  @type endings :: [Native.ending()]

  @doc "Starts to evaluate `write`, which gets the pipe. The caller is the stream's reader."
  @spec start(Running.t(), endings, (Native.pipe() -> outcome)) :: pid
  def start(%{tether: tether} = running, endings, write) do
    callers = [self() | Process.get(:"$callers", [])]
    tether_ref = make_ref()
    # Only the stream may refer to the tether, so that it is collected with the stream.
    running = %{running | tether: nil}
    argument = {self(), callers, running, endings, write, tether_ref}
    {:ok, feeder} = GenServer.start(__MODULE__, argument)
    :ok = Native.tether_tell(tether, feeder, tether_ref)
    feeder
  end

  @doc "Makes the caller the reader."
  @spec adopt(pid) :: :ok | :gone
  def adopt(feeder), do: call(feeder, :adopt)

  @doc """
  Returns the outcome of the input, which may go on for `timeout` milliseconds. Then the feeder
  stops.
  """
  @spec outcome(pid, timeout) :: outcome
  def outcome(feeder, timeout), do: call(feeder, {:outcome, timeout})

  defp call(feeder, request) do
    GenServer.call(feeder, request, :infinity)
  catch
    :exit, _ -> :gone
  end

  @impl true
  def init({reader, callers, running, endings, write, tether_ref}) do
    Process.flag(:trap_exit, true)

    state = %{
      running: running,
      endings: endings,
      reader: Process.monitor(reader),
      tether_ref: tether_ref,
      input: start_input(running.stdin, callers, write),
      outcome: nil,
      asked: nil
    }

    # `write` was passed to this process. Hibernating frees the copy, which would otherwise stay
    # as long as the stream.
    {:ok, state, :hibernate}
  end

  defp start_input(stdin, callers, write) do
    feeder = self()
    # From here on the feeder's death ends the commands, and then the input.
    _ = Native.pipe_set_owner(stdin, feeder)

    input =
      spawn_link(fn ->
        Process.put(:"$callers", callers)
        _ = Native.pipe_set_owner(stdin, self())

        outcome =
          try do
            write.(stdin)
          catch
            kind, reason -> {:failed, kind, reason, __STACKTRACE__}
          end

        # If the input failed, the pipe stays open: end-of-file would tell the command that its
        # input is complete. The native side ends the commands when the owner of the pipe dies.
        _ = unless match?({:failed, _, _, _}, outcome), do: Native.pipe_close(stdin)
        exit({:shutdown, {:input, outcome}})
      end)

    spawn(fn -> kill_with(feeder, input) end)
    input
  end

  # If the feeder is killed, the link alone does not end an input process that traps exits. The
  # death of the input process ends the commands.
  defp kill_with(feeder, input) do
    feeder = Process.monitor(feeder)
    monitor = Process.monitor(input)

    receive do
      {:DOWN, ^feeder, _, _, _} -> Process.exit(input, :kill)
      {:DOWN, ^monitor, _, _, _} -> :ok
    end
  end

  @impl true
  def handle_call(:adopt, {pid, _}, state) do
    Process.demonitor(state.reader, [:flush])
    {:reply, :ok, %{state | reader: Process.monitor(pid)}}
  end

  def handle_call({:outcome, timeout}, from, state) do
    _ = if state.input, do: Process.send_after(self(), {:stop_input, from}, timeout)
    answer(%{state | asked: from})
  end

  # An unexpected call is ignored and gets no answer.
  def handle_call(_request, _from, state), do: {:noreply, state}

  @impl true
  def handle_cast(_request, state), do: {:noreply, state}

  @impl true
  def handle_info({:EXIT, input, reason}, %{input: input} = state) do
    outcome = outcome(reason)
    _ = if match?({:failed, _, _, _}, outcome), do: input_failed(state)
    answer(%{state | input: nil, outcome: outcome})
  end

  # The reader is dead. The commands are ended first, because stopping the input closes its pipe.
  def handle_info({:DOWN, ref, :process, _, _}, %{reader: ref} = state) do
    Native.process_end(state.endings)
    {:stop, :normal, state}
  end

  # The stream can no longer be resumed. The native side has ended the commands.
  def handle_info({:select, _, ref, _}, %{tether_ref: ref} = state), do: {:stop, :normal, state}

  def handle_info({:stop_input, asked}, %{asked: asked, input: input} = state) do
    # The input may have finished a moment ago.
    outcome = if reason = stop(input, state.running.stdin), do: outcome(reason), else: :unfinished
    answer(%{state | input: nil, outcome: outcome})
  end

  def handle_info(_other, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, %{input: nil}), do: :ok
  def terminate(_reason, state), do: stop(state.input, state.running.stdin)

  # The input process is killed, since the user's code in it may trap exits. The pipe is taken
  # from it first, because the death of the pipe's owner ends the commands.
  defp stop(input, stdin) do
    _ = Native.pipe_set_owner(stdin, self())
    Process.unlink(input)
    Process.exit(input, :kill)
    _ = Native.pipe_close(stdin)

    receive do
      {:EXIT, ^input, reason} -> reason
    after
      0 -> nil
    end
  end

  defp outcome({:shutdown, {:input, outcome}}), do: outcome
  defp outcome(reason), do: {:failed, :exit, reason, []}

  # The commands did not get all of their input, so they are ended. The reader may be waiting for
  # their output; it returns because it no longer owns the pipes.
  defp input_failed(%{running: running, endings: endings}) do
    Native.process_end(endings)

    for pipe <- [running.stdout, running.stderr], pipe do
      _ = Native.pipe_set_owner(pipe, self())
      Native.pipe_close(pipe)
    end
  end

  defp answer(%{asked: nil} = state), do: {:noreply, state}
  defp answer(%{outcome: nil} = state), do: {:noreply, state}

  defp answer(state) do
    GenServer.reply(state.asked, state.outcome)
    {:stop, :normal, state}
  end
end
