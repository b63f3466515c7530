defmodule Exile.Process.Server do
  @moduledoc false

  # The Erlang process of a command, or of several that read from each other: it lives as long as
  # they do, is linked to the owner and watches it. No byte passes through it, and nobody has to
  # ask it for anything: the native side wakes those who wait. Its own end, however it comes, is
  # the end of the commands: the native side monitors it and hands abandoned commands to the reaper.
  #
  # Where a stream has input to be evaluated, the process that does so is the server's, too: it
  # must end with the stream and outlive a change of its owner. The server stays until the stream
  # has asked for the outcome.

  use GenServer, restart: :temporary

  alias Exile.{Command, Error, Native, Teardown}

  @typedoc """
  How the input ended: all of it was written; the command did not want all of it; it was stopped
  before its end; it failed.
  """
  @type outcome :: :ok | :epipe | :unfinished | {:failed, atom, term, Exception.stacktrace()}

  # When the pidfd says that the command has ended, the status may take a little longer.
  @status_delay 1

  # Commands that run this long keep no garbage of their spawn, the environment above all.
  @idle 100

  # Not its turn to spawn: after this long it asks again without having been told to, since what
  # should have told it may be lost with a process that was killed.
  @turn_patience 1_000

  @typedoc "Running commands, first to last, and the caller's ends of their pipes."
  @type commands :: %{
          server: pid,
          handles: [Native.command(), ...],
          stdin: Native.pipe() | nil,
          stdout: Native.pipe() | nil,
          stderr: Native.pipe() | nil
        }

  @typedoc "Where the input of the first command comes from, and the output of the last goes."
  @type stdio :: {:pipe | :null | {:file, binary}, :pipe | {:file, binary, append :: boolean}}

  @spec start_link([Command.t(), ...], stdio, (Native.pipe() -> outcome) | nil) ::
          {:ok, commands} | {:error, Error.t()}
  def start_link(commands, stdio, input) do
    callers = [self() | Process.get(:"$callers", [])]
    :proc_lib.start_link(__MODULE__, :init_it, [self(), callers, commands, stdio, input])
  end

  @doc "Makes the caller the owner of the commands."
  @spec adopt(pid) :: :ok | :no_server
  def adopt(server), do: call(server, :adopt)

  @doc """
  The outcome of the input; the server ends when it has the status, too. An input that is not
  done after `timeout` milliseconds is stopped.
  """
  @spec input_outcome(pid, timeout) :: outcome
  def input_outcome(server, timeout) do
    with :no_server <- call(server, {:input_outcome, timeout}), do: :unfinished
  end

  defp call(server, request) do
    GenServer.call(server, request, :infinity)
  catch
    :exit, _ -> :no_server
  end

  @doc false
  def init_it(owner, callers, commands, stdio, input) do
    Process.flag(:trap_exit, true)
    exit_ref = make_ref()

    case spawn_commands(commands, stdio, owner, exit_ref) do
      {:ok, running} ->
        state = %{
          running: running,
          teardowns: Enum.map(commands, & &1.teardown),
          exit_ref: exit_ref,
          unseen: length(commands),
          owner: owner,
          owner_monitor: Process.monitor(owner),
          input: input && start_input(running.stdin, callers, input),
          outcome: nil,
          asked: nil
        }

        :proc_lib.init_ack(owner, {:ok, running})
        # To gen_server the parent is whoever started it, and that one's death an error to be
        # reported. Here the owner may change, and its death is told by the monitor.
        Process.put(:"$ancestors", [self() | Process.get(:"$ancestors", [])])
        :gen_server.enter_loop(__MODULE__, [], state, @idle)

      {:error, error} ->
        # The owner gets a return value, not an exit signal.
        Process.unlink(owner)
        :proc_lib.init_ack(owner, {:error, error})
    end
  end

  @impl true
  def init(_), do: {:stop, :use_start_link}

  defp spawn_commands(commands, stdio, owner, exit_ref) do
    stages =
      for %Command{teardown: teardown} = command <- commands do
        {command.argv, command.cd, {command.env, command.clear_env}, stderr(command.stderr),
         {Teardown.abandoned(teardown), Teardown.at_stop(teardown)}}
      end

    case spawn_in_turn([stages, environment(), stdio, owner, exit_ref], owner, false) do
      {:ok, handles, stdin, stdout, stderr} ->
        {:ok, %{server: self(), handles: handles, stdin: stdin, stdout: stdout, stderr: stderr}}

      {:error, index, step, reason} ->
        {:error, error(step, reason, Enum.at(commands, index), stdio)}
    end
  end

  defp environment, do: {:os.env(), :file.native_name_encoding()}

  # A few at once; the others wait here, in the order in which they came.
  defp spawn_in_turn(arguments, owner, again?) do
    ref = make_ref()

    with :wait <- apply(Native, :spawn, arguments ++ [{ref, again?}]) do
      receive do
        {:select, _, ^ref, _} -> :ok
        # Nobody wants it any more.
        {:EXIT, ^owner, _reason} -> exit(:shutdown)
      after
        @turn_patience -> :ok
      end

      spawn_in_turn(arguments, owner, true)
    end
  end

  defp stderr(:console), do: :inherit
  defp stderr(:redirect_to_stdout), do: :stdout
  defp stderr(:disable), do: :null
  defp stderr(:consume), do: :pipe

  defp error(:directory, reason, command, _stdio) do
    %Error{reason: reason, operation: :cd, subject: command.cd}
  end

  defp error(:input, reason, _command, {{:file, path}, _}) do
    %Error{reason: reason, operation: :input, subject: path}
  end

  defp error(:output, reason, _command, {_, {:file, path, _}}) do
    %Error{reason: reason, operation: :output, subject: path}
  end

  defp error(step, reason, %{argv: [program | _]}, _stdio) do
    %Error{reason: reason, operation: step, subject: program}
  end

  defp start_input(stdin, callers, input) do
    spawn_link(fn ->
      Process.put(:"$callers", callers)
      _ = Native.pipe_set_owner(stdin, self())

      outcome =
        try do
          input.(stdin)
        catch
          kind, reason -> {:failed, kind, reason, __STACKTRACE__}
        end

      _ = Native.pipe_close(stdin)
      exit({:shutdown, {:input, outcome}})
    end)
  end

  @impl true
  def handle_info({:select, handle, ref, _}, %{exit_ref: ref} = state) do
    if Native.command_status(handle) == :running do
      Process.send_after(self(), {:select, handle, ref, nil}, @status_delay)
      {:noreply, state}
    else
      # Others may know that it has ended, too, but not that the server does: each tells.
      unseen = state.unseen - 1
      stop_if_done(%{state | unseen: unseen})
    end
  end

  # The command goes with the server, by way of the native side; so does the input.
  def handle_info({:DOWN, ref, :process, _, _}, %{owner_monitor: ref} = state) do
    {:stop, :shutdown, state}
  end

  def handle_info({:EXIT, input, reason}, %{input: input} = state) do
    outcome = outcome(reason)
    _ = if match?({:failed, _, _, _}, outcome), do: input_failed(state)
    stop_if_done(answer(%{state | input: nil, outcome: outcome}))
  end

  # Of the owner's death the monitor tells; others ask for the end.
  def handle_info({:EXIT, owner, _reason}, %{owner: owner} = state), do: {:noreply, state}
  def handle_info({:EXIT, _pid, :normal}, state), do: {:noreply, state}
  def handle_info({:EXIT, _pid, reason}, state), do: {:stop, reason, state}

  def handle_info({:stop_input, asked}, %{asked: asked, input: input} = state) do
    reason = unlink(input)
    Process.exit(input, :kill)
    # It may have come to its end a moment ago.
    outcome = if reason, do: outcome(reason), else: :unfinished
    stop_if_done(answer(%{state | input: nil, outcome: outcome}))
  end

  def handle_info(:timeout, state), do: {:noreply, state, :hibernate}
  def handle_info(_other, state), do: {:noreply, state}

  @impl true
  def handle_call(:adopt, {pid, _}, state) do
    Process.demonitor(state.owner_monitor, [:flush])
    _ = unlink(state.owner)
    Process.link(pid)
    {:reply, :ok, %{state | owner: pid, owner_monitor: Process.monitor(pid)}}
  end

  def handle_call({:input_outcome, timeout}, from, state) do
    state = %{state | asked: from}
    _ = if state.input, do: Process.send_after(self(), {:stop_input, from}, timeout)
    stop_if_done(answer(state))
  end

  @impl true
  def terminate(_reason, %{input: input}) do
    # Killed, since what the user evaluates there may trap exits.
    if input, do: Process.exit(input, :kill)
  end

  # With the exit signal that may have come before.
  defp unlink(pid) do
    Process.unlink(pid)

    receive do
      {:EXIT, ^pid, reason} -> reason
    after
      0 -> nil
    end
  end

  defp outcome({:shutdown, {:input, outcome}}), do: outcome
  defp outcome(reason), do: {:failed, :exit, reason, []}

  # The commands have not got what they should have: they are ended, and the reader, who may wait
  # for their output, looks up because the pipes are no longer his.
  defp input_failed(%{running: running, teardowns: teardowns}) do
    for {handle, teardown} <- Enum.zip(running.handles, teardowns) do
      _ = Native.command_terminate(handle, 0, Teardown.abandoned(teardown))
    end

    for pipe <- [running.stdout, running.stderr], pipe do
      _ = Native.pipe_set_owner(pipe, self())
      Native.pipe_close(pipe)
    end
  end

  defp answer(%{asked: nil} = state), do: state
  defp answer(%{outcome: nil} = state), do: state

  defp answer(state) do
    GenServer.reply(state.asked, state.outcome)
    %{state | asked: nil, outcome: nil}
  end

  defp stop_if_done(%{unseen: 0, input: nil, outcome: nil} = state) do
    # The owner knows the end from the commands, not from an exit signal.
    Process.unlink(state.owner)
    {:stop, :normal, state}
  end

  defp stop_if_done(state), do: {:noreply, state}
end
