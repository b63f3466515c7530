defmodule Exile.Native do
  @moduledoc false

  # Stubs of the functions in native/nif, where they are documented. The switch is for tests: it
  # makes a kernel that could do better behave like an old one.

  # The compiler must not load this module: the library is built after it.
  @compile {:autoload, false}
  @on_load :load

  @type pipe :: reference
  @type command :: reference
  @type posix :: atom | {:errno, integer}
  @type steps :: [{signal :: binary, milliseconds :: non_neg_integer}]
  @type status :: {:exited, 0..255} | {:signaled, 1..127, core :: boolean} | :unknown

  def load do
    info =
      case System.get_env("EXILE_EXIT_SOURCE") do
        "wait" -> :wait
        "portable" -> :portable
        _ -> :auto
      end

    case Exile.Library.find("#{:code.priv_dir(:exile)}/native") do
      {:ok, path} -> load(path, info)
      {:error, problem} -> {:error, Exile.Library.unusable(problem)}
    end
  end

  defp load(path, info) do
    # The VM adds the extension.
    name = path |> Path.rootname() |> String.to_charlist()

    # The library refuses to work for another version.
    case :erlang.load_nif(name, {info, Exile.Library.version()}) do
      :ok -> :ok
      {:error, {_reason, text}} -> {:error, Exile.Library.refused(path, text)}
    end
  end

  @type stage ::
          {[binary], binary | nil, {[{binary, binary | nil}], clear :: boolean}, atom,
           {abandoned :: steps, at_stop :: steps}}

  @spec spawn(
          [stage],
          {[{charlist, charlist}], :latin1 | :utf8},
          {stdin :: atom | {:file, binary}, stdout :: atom | {:file, binary, append :: boolean}},
          pid,
          reference,
          {reference, again :: boolean}
        ) ::
          {:ok, [command], pipe | nil, pipe | nil, pipe | nil}
          | :wait
          | {:error, index :: non_neg_integer, step :: atom, posix}
  def spawn(_stages, _environment, _stdio, _owner, _reference, _turn), do: stub()

  @spec command_status(command) :: status | :running
  def command_status(_command), do: stub()

  @spec command_wait(command, reference) :: status | :wait
  def command_wait(_command, _reference), do: stub()

  @spec command_cancel(command, reference) :: :ok | :sent
  def command_cancel(_command, _reference), do: stub()

  @spec command_pid(command) :: pos_integer | :undefined
  def command_pid(_command), do: stub()

  @spec command_signal(command, binary) :: :ok | {:error, posix}
  def command_signal(_command, _name), do: stub()

  @spec command_terminate(command, non_neg_integer, steps) :: :ok | {:error, posix}
  def command_terminate(_command, _grace, _steps), do: stub()

  @spec allow_spawns() :: :ok
  def allow_spawns, do: stub()

  @spec terminate_all(reference) ::
          {milliseconds :: non_neg_integer, spawning :: non_neg_integer}
  def terminate_all(_reference), do: stub()

  @spec guard_start(binary, reference) :: {:ok, command} | {:error, 0, step :: atom, posix}
  def guard_start(_path, _reference), do: stub()

  @spec guard_is_needed() :: boolean
  def guard_is_needed, do: stub()

  @spec guard_stop() :: :ok
  def guard_stop, do: stub()

  @spec pipe_read(pipe, pos_integer, nil, drain :: boolean) ::
          {:ok, binary} | :eof | :again | {:error, :pipe_closed_or_invalid_caller | posix}
  @spec pipe_read(pipe, pos_integer, reference, drain :: boolean) ::
          {:ok, binary}
          | :eof
          | :wait
          | :exited
          | {:error, :pipe_closed_or_invalid_caller | posix}
  def pipe_read(_pipe, _max, _reference, _drain), do: stub()

  @spec pipe_write(pipe, [binary], non_neg_integer, nil) ::
          :ok
          | {:more | :again, [binary], non_neg_integer}
          | {:error, :pipe_closed_or_invalid_caller | posix}
  @spec pipe_write(pipe, [binary], non_neg_integer, reference) ::
          :ok
          | {:more | :again | :wait, [binary], non_neg_integer}
          | {:error, :pipe_closed_or_invalid_caller | posix}
  def pipe_write(_pipe, _iovec, _offset, _reference), do: stub()

  @spec pipe_cancel(pipe, reference) :: :ok | :sent
  def pipe_cancel(_pipe, _reference), do: stub()

  @spec pipe_close(pipe) :: :ok | {:error, :pipe_closed_or_invalid_caller}
  def pipe_close(_pipe), do: stub()

  @spec pipe_set_owner(pipe, pid) :: :ok | {:error, :pipe_closed_or_invalid_caller}
  def pipe_set_owner(_pipe, _owner), do: stub()

  @spec is_signal(binary) :: boolean
  def is_signal(_name), do: stub()

  @spec exit_source() :: :pidfd | :wait | :portable
  def exit_source, do: stub()

  @spec counts() :: [{atom, non_neg_integer}]
  def counts, do: stub()

  defp stub, do: :erlang.nif_error(:not_loaded)
end
