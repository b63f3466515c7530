defmodule Exile.Native do
  @moduledoc false

  # Stubs of the functions in native/nif, where they are documented. EXILE_EXIT_SOURCE is for
  # tests: it makes a newer kernel behave like an old one.

  # The compiler must not load this module, because the library is built after it.
  @compile {:autoload, false}
  @on_load :load

  @type pipe :: reference
  @type process :: reference
  @type until :: :exit | :exhausted | :over
  @type posix :: atom | {:errno, integer}
  @typedoc "A signal by its name, `:sigterm`, or by its number."
  @type signal :: atom | pos_integer
  @type steps :: [{signal, milliseconds :: non_neg_integer}]
  @typedoc "How long a process has, in milliseconds, and the signals that it gets after that."
  @type ending :: {process, grace :: non_neg_integer, steps}
  @typedoc "`:code` is 128 plus the number of the signal if one ended the process."
  @type status ::
          %{code: 0..255, signal: nil | atom | 1..127, core_dumped: boolean} | :unknown

  # The process that allows spawns. While it runs, a library that is loaded later allows them too.
  @gatekeeper :exile_shutdown

  def gatekeeper, do: @gatekeeper

  def load do
    info =
      case System.get_env("EXILE_EXIT_SOURCE") do
        "wait" -> :wait
        "portable" -> :portable
        _ -> :auto
      end

    with {:ok, directory} <- Exile.Native.Library.directory() do
      case Exile.Native.Library.find(directory) do
        {:ok, path} -> load(path, info)
        {:error, problem} -> {:error, Exile.Native.Library.unusable(problem)}
      end
    end
  end

  defp load(path, info) do
    # The VM adds the extension.
    name = path |> Path.rootname() |> String.to_charlist()

    # The library refuses to be loaded by another version of Exile.
    case :erlang.load_nif(name, {info, Exile.Native.Library.version()}) do
      # The library may replace another build while the application runs.
      :ok -> if Process.whereis(@gatekeeper), do: allow_spawns(), else: :ok
      {:error, {_reason, text}} -> {:error, Exile.Native.Library.refused(path, text)}
    end
  end

  @typedoc "Why nothing was started: the command's index, the failed step and the system error."
  @type failure :: %{index: non_neg_integer, step: atom, reason: posix}

  @spec spawn(map, reference) :: reference | {:error, failure}
  def spawn(_spec, _reference), do: stub()

  @spec spawn_cancel(reference) :: :ok | :sent
  def spawn_cancel(_request), do: stub()

  @spec tether_tell(reference, pid, reference) :: :ok
  def tether_tell(_tether, _pid, _reference), do: stub()

  @spec process_status(process) :: status | :running
  def process_status(_process), do: stub()

  @spec process_wait(process, until, reference) :: status | :wait | {:error, posix}
  def process_wait(_process, _until, _reference), do: stub()

  @spec process_cancel(process, reference) :: :ok | :sent
  def process_cancel(_process, _reference), do: stub()

  @spec process_pid(process) :: pos_integer | :undefined
  def process_pid(_process), do: stub()

  @spec process_signal(process, signal, to_group :: boolean) :: :ok | {:error, posix}
  def process_signal(_process, _signal, _to_group), do: stub()

  @spec process_end([ending]) :: :ok
  def process_end(_endings), do: stub()

  @spec process_set_owner(process, pid) :: :ok
  def process_set_owner(_process, _owner), do: stub()

  @spec allow_spawns() :: :ok
  def allow_spawns, do: stub()

  @spec stop_all(reference) :: {milliseconds :: non_neg_integer, spawning :: non_neg_integer}
  def stop_all(_reference), do: stub()

  @spec guard_start(binary, reference) :: reference | {:error, failure}
  def guard_start(_path, _reference), do: stub()

  @spec guard_is_needed() :: boolean
  def guard_is_needed, do: stub()

  @spec guard_stop() :: :ok
  def guard_stop, do: stub()

  @type pipe_error :: {:error, :pipe_closed_or_invalid_caller | posix}

  @typedoc """
  What a read asks for: up to so many bytes; a line of up to so many; what comes after so many, which
  stay where they are.
  """
  @type wanted :: pos_integer | {:line, pos_integer} | {:beyond, non_neg_integer}

  @spec pipe_try_read(pipe, wanted) ::
          {:ok, binary} | :eof | :again | :rest | :more | :line_too_long | pipe_error
  def pipe_try_read(_pipe, _wanted), do: stub()

  @spec pipe_read_or_wait(pipe, wanted, reference, drain :: boolean) ::
          {:ok, binary} | :eof | :wait | :exited | :more | :line_too_long | pipe_error
  def pipe_read_or_wait(_pipe, _wanted, _reference, _drain), do: stub()

  @spec pipe_try_write(pipe, [binary], non_neg_integer) ::
          :ok | {:more | :again, [binary], non_neg_integer} | pipe_error
  def pipe_try_write(_pipe, _iovec, _offset), do: stub()

  @spec pipe_write_or_wait(pipe, [binary], non_neg_integer, reference) ::
          :ok | {:more | :again | :wait, [binary], non_neg_integer} | pipe_error
  def pipe_write_or_wait(_pipe, _iovec, _offset, _reference), do: stub()

  @spec pipe_cancel(pipe, reference) :: :ok | :sent
  def pipe_cancel(_pipe, _reference), do: stub()

  @spec pipe_close(pipe) :: :ok | {:error, :pipe_closed_or_invalid_caller}
  def pipe_close(_pipe), do: stub()

  @spec pipe_set_owner(pipe, pid) :: :ok | {:error, :pipe_closed_or_invalid_caller}
  def pipe_set_owner(_pipe, _owner), do: stub()

  @spec is_signal(signal) :: boolean
  def is_signal(_signal), do: stub()

  @spec exit_source() :: :pidfd | :wait | :portable
  def exit_source, do: stub()

  @spec counts() :: [{atom, non_neg_integer}]
  def counts, do: stub()

  defp stub, do: :erlang.nif_error(:not_loaded)
end
