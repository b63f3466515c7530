defmodule Exile.Process.Server do
  @moduledoc false

  # The Erlang process of a command: it lives as long as the command does, is linked to the owner
  # and watches it. No byte passes through it, and nobody has to ask it for anything: the native
  # side wakes those who wait. Its own end, however it comes, is the end of the command: the
  # native side monitors it and hands an abandoned command to the reaper.
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

  # A command that runs this long keeps no garbage of its spawn, the environment above all.
  @idle 1_000

  @spec start_link(Command.t(), (Exile.Process.t() -> outcome) | nil) ::
          {:ok, Exile.Process.t()} | {:error, Error.t()}
  def start_link(%Command{} = command, input) do
    callers = [self() | Process.get(:"$callers", [])]
    :proc_lib.start_link(__MODULE__, :init_it, [self(), callers, command, input])
  end

  @doc "Makes the caller the owner of the command."
  @spec adopt(Exile.Process.t()) :: Exile.Process.t()
  def adopt(%Exile.Process{} = process) do
    _ = call(process, :adopt)
    %{process | owner: self()}
  end

  @doc """
  The outcome of the input; the server ends when it has the status, too. An input that is not
  done after `timeout` milliseconds is stopped.
  """
  @spec input_outcome(Exile.Process.t(), timeout) :: outcome
  def input_outcome(%Exile.Process{} = process, timeout) do
    with :no_server <- call(process, {:input_outcome, timeout}), do: :unfinished
  end

  defp call(%Exile.Process{pid: pid}, request) do
    GenServer.call(pid, request, :infinity)
  catch
    :exit, _ -> :no_server
  end

  @doc false
  def init_it(owner, callers, command, input) do
    Process.flag(:trap_exit, true)
    exit_ref = make_ref()

    case spawn_command(command, owner, exit_ref) do
      {:ok, process} ->
        state = %{
          process: process,
          exit_ref: exit_ref,
          exited: false,
          owner: owner,
          owner_monitor: Process.monitor(owner),
          input: input && start_input(process, callers, input),
          outcome: nil,
          asked: nil
        }

        :proc_lib.init_ack(owner, {:ok, process})
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

  defp spawn_command(%Command{} = command, owner, exit_ref) do
    result =
      Native.spawn(
        {command.argv, command.cd},
        {:os.getenv(), :file.native_name_encoding(), command.env, command.clear_env},
        {command.stdin, :pipe, stderr(command.stderr)},
        owner,
        exit_ref,
        {Teardown.abandoned(command.teardown), Teardown.at_stop(command.teardown)}
      )

    case result do
      {:ok, handle, stdin, stdout, stderr} ->
        {:ok,
         %Exile.Process{
           pid: self(),
           owner: owner,
           command: handle,
           stdin: stdin,
           stdout: stdout,
           stderr: stderr,
           teardown: command.teardown
         }}

      {:error, step, reason} ->
        {:error, error(step, reason, command)}
    end
  end

  defp stderr(:console), do: :inherit
  defp stderr(:redirect_to_stdout), do: :stdout
  defp stderr(:disable), do: :null
  defp stderr(:consume), do: :pipe

  defp error(:directory, reason, command) do
    %Error{reason: reason, operation: :cd, subject: command.cd}
  end

  defp error(:input, reason, %{stdin: {:file, path}}) do
    %Error{reason: reason, operation: :input, subject: path}
  end

  defp error(step, reason, %{argv: [program | _]}) do
    %Error{reason: reason, operation: step, subject: program}
  end

  defp start_input(process, callers, input) do
    spawn_link(fn ->
      Process.put(:"$callers", callers)
      _ = Native.pipe_set_owner(process.stdin, self())

      outcome =
        try do
          input.(process)
        catch
          kind, reason -> {:failed, kind, reason, __STACKTRACE__}
        end

      _ = Native.pipe_close(process.stdin)
      exit({:shutdown, {:input, outcome}})
    end)
  end

  @impl true
  def handle_info({:select, _, ref, _}, %{exit_ref: ref} = state) do
    case Native.command_status(state.process.command) do
      :running ->
        Process.send_after(self(), {:select, nil, ref, nil}, @status_delay)
        {:noreply, state}

      _status ->
        stop_if_done(%{state | exited: true})
    end
  end

  # The command goes with the server, by way of the native side; so does the input.
  def handle_info({:DOWN, ref, :process, _, _}, %{owner_monitor: ref} = state) do
    {:stop, :shutdown, state}
  end

  def handle_info({:EXIT, input, reason}, %{input: input} = state) do
    outcome = outcome(reason)
    _ = if match?({:failed, _, _, _}, outcome), do: input_failed(state.process)
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

  # The command has not got what it should have: it is ended, and the reader, who may wait for
  # its output, looks up because the pipes are no longer his.
  defp input_failed(process) do
    _ = Native.command_terminate(process.command, 0, Teardown.abandoned(process.teardown))

    for pipe <- [process.stdout, process.stderr], pipe do
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

  defp stop_if_done(%{exited: true, input: nil, outcome: nil} = state) do
    # The owner knows the end from the command, not from an exit signal.
    Process.unlink(state.owner)
    {:stop, :normal, state}
  end

  defp stop_if_done(state), do: {:noreply, state}
end
