defmodule Exile.Process do
  @moduledoc """
  A handle to a running command: its pipes, its signals and its exit.

  Use `Exile.stream!/2` where it fits. Use this module to talk back and forth with a program, or
  to get its output and its exit status separately:

      iex> {:ok, p} = Exile.Process.start_link(["cat"])
      iex> Exile.Process.write(p, "hello")
      :ok
      iex> Exile.Process.read(p)
      {:ok, "hello"}
      iex> Exile.Process.close_stdin(p)
      :ok
      iex> Exile.Process.read(p)
      :eof
      iex> Exile.Process.await_exit(p)
      {:ok, 0}

  ## Who owns what

  The caller of `start_link/2` owns the command. Only the owner may call `await_exit/2`, and when
  the owner dies, for whatever reason, the command is ended. There is no Erlang process behind a
  command, and no link: an `Exile.Process` is a handle, like a socket. While the owner lives, a
  running command is not ended just because nobody holds the handle any more. After the command
  has exited and the handle has been garbage-collected, nothing of it is left.

  The caller also owns the pipes at first. Only a pipe's owner may read from it, write to it or
  close it. Any other process gets `{:error, :pipe_closed_or_invalid_caller}`, and so does the
  owner of a closed pipe. Any process can hand a pipe to any other with `change_pipe_owner/3`, so
  that one writes while another reads. When the owner of a pipe dies, the pipe is closed.

  ## Waiting

  `read/3`, its variants and `write/3` block the *calling* process, never a scheduler. They use
  the pipe directly: no byte and no message passes through another process. A command blocks when
  its output pipe is full, and a writer blocks until the command has read, so there is
  back-pressure in both directions.

  A blocked call always returns when the pipe is closed, when the pipe is handed to another
  process, and when the command exits, even if programs that the command started hold the pipe
  open. (What they write later can still be read; see `read/3`.)

  ## The end of a command

  Each command leads its own session and process group, so it has no controlling terminal: a
  program that asks for a password on `/dev/tty` fails at once.

  A command is ended by signals to it and to its whole process group, in the sequence described in
  `await_exit/2`, which the `:teardown` option changes. A command whose owner dies is ended the
  same way, in under a second. When a command exits by itself, programs that it started in the
  background keep running, as with a shell.

  When the VM itself is killed, the kernel kills every command with it on Linux. On other systems
  the guard does, a helper program that runs there unless `config :exile, guard: false` is set.
  """

  import Exile.Runtime.Patience, only: [is_timeout: 1]

  alias Exile.{Command, Native}
  alias Exile.Command.{Option, Options}
  alias Exile.Process.{Error, Pattern}
  alias Exile.Runtime.{Patience, Pipe, Running, Signal, Teardown}

  @enforce_keys [:owner, :argv, :process, :stdin, :stdout, :stderr, :teardown]
  defstruct @enforce_keys

  @typedoc "A started command. The fields are private."
  @type t :: %__MODULE__{
          owner: pid,
          argv: [binary, ...],
          process: Native.process(),
          stdin: Native.pipe() | nil,
          stdout: Native.pipe() | nil,
          stderr: Native.pipe() | nil,
          teardown: Teardown.t()
        }

  @typedoc "A signal by its name, `:sigterm` for instance, or by its number."
  @type signal :: atom | pos_integer

  @type pipe_name :: :stdin | :stdout | :stderr
  @type pipe_error :: {:error, :pipe_closed_or_invalid_caller | Error.reason()}

  @typedoc "See `start_link/2`."
  @type option :: unquote(Option.type(Options.process()))

  @typedoc "The name or value of an environment variable. The values `nil` and `false` unset it."
  @type variable :: binary | charlist | atom | number

  @typedoc "What `read_until/3` looks for: some bytes, a regular expression, or one of several."
  @type pattern :: binary | Regex.t() | [binary | Regex.t(), ...]

  @default_max 65_535
  @default_line 1_048_576

  @doc """
  Starts a command. The caller owns it.

  The command is a non-empty list of binaries, the program first. A program name without a `/` is
  looked up in the `PATH` of the VM. One with a `/` is a path, relative to `:cd` if that is given.
  Relative and empty entries of `PATH` refer to the VM's directory, not to `:cd`. No shell is
  involved: arguments reach the program byte for byte.

  When the function returns `{:ok, process}`, the program is running. If the program cannot be
  executed, the function returns an error; this never becomes an exit status.

  ## Options

  #{Option.docs(Options.process())}

  A value of `nil` stands for the default of an option. An unknown option or an invalid value
  raises `ArgumentError`, as does a NUL byte in an argument, a directory or a variable.

  ## Errors

  Errors are returned as `{:error, %Exile.Process.Error{reason: reason}}`, and nothing is left of
  the command. The reasons include:

    * `:enoent` - no such program, or no such directory for `:cd`
    * `:eacces` - the program may not be executed, or the directory may not be entered
    * `:enotdir` - the directory, or a part of its path, is not a directory
    * `:enoexec` - the file is executable, but neither a program nor a script with a `#!` line
    * `:e2big` - the arguments and the environment are too long
    * `:etxtbsy` - the program's file is open for writing, and stays open
    * `:emfile`, `:enfile` - the VM or the system has too many open files
    * `:eagain`, `:enomem` - too many processes, or no memory left
    * `:etimedout` - the program was not running within `:start_timeout`
    * `:ecanceled` - the application `:exile` is not started, or has stopped, perhaps with the VM

  ## Examples

      iex> {:ok, p} = Exile.Process.start_link(["sh", "-c", "echo $GREETING; exit 3"], env: %{"GREETING" => "hi"})
      iex> Exile.Process.read(p)
      {:ok, "hi\\n"}
      iex> Exile.Process.await_exit(p)
      {:ok, 3}

      iex> {:error, error} = Exile.Process.start_link(["no-such-program"])
      iex> error.reason
      :enoent
      iex> Exception.message(error)
      "could not run \\"no-such-program\\": no such file or directory (enoent)"
  """
  @spec start_link([binary, ...], [option]) :: {:ok, t} | {:error, Error.t()}
  def start_link(command, options \\ []) do
    command = Command.new!(command, options)

    with {:ok, %{processes: [process]} = running} <- Command.start([command], []) do
      {:ok,
       %__MODULE__{
         owner: self(),
         argv: command.argv,
         process: process,
         stdin: running.stdin,
         stdout: running.stdout,
         stderr: running.stderr,
         teardown: command.options.teardown
       }}
    end
  end

  @doc """
  Writes all of `iodata` to the command's standard input. Blocks while the pipe is full.

  Returns `:ok` when everything is written, at once for empty data. This does not mean that the
  command has read it. The errors are

    * `{:error, {:timeout, rest}}` - the pipe was full for `timeout` milliseconds (default: `:infinity`).
      `rest` is the iodata that was not written
    * `{:error, :epipe}` - the command has closed its input, or exited
    * `{:error, :pipe_closed_or_invalid_caller}` - see [Who owns what](#module-who-owns-what)

  ## Examples

      iex> {:ok, p} = Exile.Process.start_link(["tr", "a-z", "A-Z"])
      iex> Exile.Process.write(p, ["several ", [?p, "arts"]])
      :ok
      iex> Exile.Process.close_stdin(p)
      iex> Exile.Process.read(p)
      {:ok, "SEVERAL PARTS"}
  """
  @spec write(t, iodata, timeout) :: :ok | {:error, {:timeout, rest :: iodata}} | pipe_error
  def write(%__MODULE__{stdin: stdin}, iodata, timeout \\ :infinity) do
    deadline = deadline!(timeout)
    if stdin, do: Pipe.write(stdin, iodata, deadline), else: not_a_pipe()
  end

  @doc """
  Reads available data from the command's standard output, at most `max` bytes (default: 65,535).
  Blocks while there is none.

    * `{:ok, binary}` - at least one byte
    * `:eof` - the command has closed its output. Also returned when the command has exited and
      all of its output has been read, even if programs that it started hold the pipe open. A
      later call returns what those programs write later.
    * `{:error, :timeout}` - nothing came within `timeout` milliseconds (default: `:infinity`). The pipe is
      as it was, and nothing is lost
    * `{:error, :pipe_closed_or_invalid_caller}` - see [Who owns what](#module-who-owns-what)

  ## Examples

      iex> {:ok, p} = Exile.Process.start_link(["echo", "hello"])
      iex> Exile.Process.read(p, 2)
      {:ok, "he"}
      iex> Exile.Process.read(p)
      {:ok, "llo\\n"}
      iex> Exile.Process.read(p)
      :eof
  """
  @spec read(t, pos_integer, timeout) :: {:ok, binary} | :eof | {:error, :timeout} | pipe_error
  def read(%__MODULE__{stdout: stdout}, max \\ @default_max, timeout \\ :infinity),
    do: read_pipe(stdout, max!(max), deadline!(timeout))

  defp read_pipe(nil, _max, _deadline), do: not_a_pipe()

  defp read_pipe(pipe, max, deadline),
    do: pipe |> Pipe.read(max, :exit, deadline) |> end_of_command()

  @doc """
  Reads a line from the command's standard output. Blocks until its end has come.

    * `{:ok, line}` - the line without its `"\\n"`. A `"\\r"` before that stays. The last line need not
      end with a newline
    * `:eof` - as for `read/3`
    * `{:error, :line_too_long}` - the line has more than `max` bytes (default: 1,048,576). They are all
      still there, for any kind of read
    * `{:error, :timeout}` - the line was not complete within `timeout` milliseconds (default:
      `:infinity`). Nothing is lost
    * `{:error, :pipe_closed_or_invalid_caller}` - see [Who owns what](#module-who-owns-what)

  More may be read from the pipe than the line. The rest belongs to the pipe, so the next read of any
  kind begins with it, also if another process owns the pipe by then.

  ## Examples

      iex> {:ok, p} = Exile.Process.start_link(["sed", "s/^/< /"])
      iex> Exile.Process.write(p, "one\\ntwo")
      iex> Exile.Process.close_stdin(p)
      iex> Exile.Process.read_line(p)
      {:ok, "< one"}
      iex> Exile.Process.read_line(p)
      {:ok, "< two"}
      iex> Exile.Process.read_line(p)
      :eof
  """
  @spec read_line(t, pos_integer, timeout) ::
          {:ok, binary} | :eof | {:error, :line_too_long | :timeout} | pipe_error
  def read_line(%__MODULE__{stdout: stdout}, max \\ @default_line, timeout \\ :infinity) do
    {max, deadline} = {max!(max), deadline!(timeout)}

    if stdout,
      do: stdout |> Pipe.read_line(max, :exit, deadline) |> end_of_line(),
      else: not_a_pipe()
  end

  @doc """
  Reads from the command's standard output up to the first match of a pattern. Blocks until there is
  one.

  The pattern is a binary, a regular expression, or a list of these.

    * `{:ok, data, match}` - all that was written up to the match and with it, and what has matched
    * `{:eof, rest}` - the output has ended (see `read/3`) without a match, and this was left of it
    * `{:error, :no_match}` - there is none in the first 1,048,576 bytes
    * `{:error, :timeout}` - there was none within `timeout` milliseconds (default: `:infinity`)
    * `{:error, :pipe_closed_or_invalid_caller}` - see [Who owns what](#module-who-owns-what)

  After an error, nothing is lost: the next read of any kind begins where this one did. What comes after
  the match is left for the next read, too.

  Where a list matches more than once, the match that begins first counts, and of those that begin
  together the longest.

  The output is looked at as it comes, in pieces of any size. So a regular expression that could match
  more, if only more had come, returns what it has: `~r/\\d+/` may return a part of a number, and `$`
  matches the end of a piece. Let it end with something that must follow, like `~r/(\\d+)\\s/`. One with
  the modifier `u` looks no further than the first byte that is not UTF-8.

  ## Examples

      iex> {:ok, p} = Exile.Process.start_link(["sh", "-c", "printf 'name? '; read name; echo hi $name"])
      iex> Exile.Process.read_until(p, "? ", 5_000)
      {:ok, "name? ", "? "}
      iex> Exile.Process.write(p, "Joe\\n")
      iex> Exile.Process.read_until(p, [~r/error: .*\\n/, ~r/hi \\w+\\n/], 5_000)
      {:ok, "hi Joe\\n", "hi Joe\\n"}
      iex> Exile.Process.read_until(p, "more")
      {:eof, ""}
  """
  @spec read_until(t, pattern, timeout) ::
          {:ok, data :: binary, match :: binary}
          | {:eof, rest :: binary}
          | {:error, :no_match | :timeout}
          | pipe_error
  def read_until(%__MODULE__{stdout: stdout}, pattern, timeout \\ :infinity) do
    {pattern, deadline} = {Pattern.new!(pattern), deadline!(timeout)}
    if stdout, do: Pattern.read(pattern, stdout, deadline), else: not_a_pipe()
  end

  @doc """
  Like `read/3`, but from standard error; for commands started with `stderr: :consume`.

  ## Examples

      iex> {:ok, p} = Exile.Process.start_link(["sh", "-c", "echo oops >&2"], stderr: :consume)
      iex> Exile.Process.read_stderr(p)
      {:ok, "oops\\n"}
  """
  @spec read_stderr(t, pos_integer, timeout) ::
          {:ok, binary} | :eof | {:error, :timeout} | pipe_error
  def read_stderr(%__MODULE__{stderr: stderr}, max \\ @default_max, timeout \\ :infinity),
    do: read_pipe(stderr, max!(max), deadline!(timeout))

  @doc """
  Reads from standard output or standard error, whichever has data; for commands started with
  `stderr: :consume`.

  Returns the same as `read/3`, but with the data as `{:stdout, binary}` or `{:stderr, binary}`,
  and `:eof` when both have ended. When both have data, one is chosen at random, so that neither
  starves. A pipe that the caller does not own or has closed is skipped until the other one has
  ended.

  ## Examples

      iex> {:ok, p} = Exile.Process.start_link(["sh", "-c", "echo oops >&2"], stderr: :consume)
      iex> Exile.Process.read_any(p)
      {:ok, {:stderr, "oops\\n"}}
      iex> Exile.Process.read_any(p)
      :eof
  """
  @spec read_any(t, pos_integer, timeout) ::
          {:ok, {:stdout, binary} | {:stderr, binary}} | :eof | {:error, :timeout} | pipe_error
  def read_any(
        %__MODULE__{stdout: stdout, stderr: stderr},
        max \\ @default_max,
        timeout \\ :infinity
      ) do
    {max, deadline} = {max!(max), deadline!(timeout)}

    if stdout || stderr,
      do: stdout |> Pipe.read_output(stderr, max, :exit, deadline) |> end_of_command(),
      else: not_a_pipe()
  end

  @doc """
  Closes the command's standard input. The command sees end-of-file after it has read all data.

  Returns `:ok`, or `{:error, :pipe_closed_or_invalid_caller}` if the pipe is already closed or
  the caller does not own it.
  """
  @spec close_stdin(t) :: :ok | pipe_error
  def close_stdin(%__MODULE__{stdin: stdin}), do: close(stdin)

  @doc """
  Closes our end of the command's standard output. A command that goes on writing gets SIGPIPE or
  EPIPE. Returns the same as `close_stdin/1`.
  """
  @spec close_stdout(t) :: :ok | pipe_error
  def close_stdout(%__MODULE__{stdout: stdout}), do: close(stdout)

  @doc """
  Closes our end of the command's standard error. Returns the same as `close_stdin/1`.
  """
  @spec close_stderr(t) :: :ok | pipe_error
  def close_stderr(%__MODULE__{stderr: stderr}), do: close(stderr)

  defp close(nil), do: not_a_pipe()
  defp close(pipe), do: Native.pipe_close(pipe)

  @doc """
  Makes `pid`, a process on this node, the owner of a pipe. Any process may call this.

  A read or write that is blocked on the pipe returns `{:error, :pipe_closed_or_invalid_caller}`.
  If `pid` is dead, the pipe is closed, just as if `pid` had died a moment later.

  Returns `:ok`, or `{:error, :pipe_closed_or_invalid_caller}` if the pipe is closed.

  ## Examples

      iex> {:ok, p} = Exile.Process.start_link(["cat"])
      iex> writer = Task.async(fn ->
      ...>   Exile.Process.change_pipe_owner(p, :stdin, self())
      ...>   Exile.Process.write(p, "from another process")
      ...> end)
      iex> Exile.Process.read(p)
      {:ok, "from another process"}
      iex> Task.await(writer)
      :ok
      iex> Exile.Process.read(p)
      :eof
  """
  @spec change_pipe_owner(t, pipe_name, pid) :: :ok | pipe_error
  def change_pipe_owner(%__MODULE__{} = process, name, pid)
      when name in [:stdin, :stdout, :stderr] and is_pid(pid) and node(pid) == node() do
    case Map.fetch!(process, name) do
      nil -> not_a_pipe()
      pipe -> Native.pipe_set_owner(pipe, pid)
    end
  end

  def change_pipe_owner(%__MODULE__{}, name, pid)
      when name in [:stdin, :stdout, :stderr] do
    raise ArgumentError, "expected the pid of a process on this node, got: #{inspect(pid)}"
  end

  def change_pipe_owner(%__MODULE__{}, name, _pid) do
    raise ArgumentError, "expected :stdin, :stdout or :stderr, got: #{inspect(name)}"
  end

  @doc """
  Sends a signal to the command, or with `:group` to its whole process group: the command and the
  programs that it has started, except those that have left the group.

  The signal is a name in small letters, like `:sigterm` or `:sigusr1`, or a number; real-time signals
  have only numbers.

  Returns `:ok` or `{:error, reason}`. The reason is `:esrch` if the command has exited (another
  process that got its process id is never signalled), and `:eperm` if the command now runs as a
  user whose processes the VM may not signal. A value that is not a signal on this system raises
  `ArgumentError`.

  ## Examples

      iex> {:ok, p} = Exile.Process.start_link(["sleep", "60"])
      iex> Exile.Process.kill(p, :sigint)
      :ok
      iex> Exile.Process.await_exit(p)
      {:ok, 130}
      iex> Exile.Process.kill(p, :sigint)
      {:error, :esrch}
  """
  @spec kill(t, signal, :process | :group) :: :ok | {:error, Error.reason()}
  def kill(%__MODULE__{process: process}, signal, to \\ :process) do
    unless Signal.known?(signal) do
      raise ArgumentError,
            "expected a signal like :sigterm or its number, got: #{inspect(signal)}"
    end

    unless to in [:process, :group] do
      raise ArgumentError, "expected :process or :group, got: #{inspect(to)}"
    end

    Native.process_signal(process, signal, to == :group)
  end

  @doc """
  Closes the command's standard input, waits until the command has exited, and returns its exit
  status.

  Until then, the command's output is read and dropped, so that it neither blocks nor fails
  because nobody reads. After that its pipes are closed. Pipes that other processes own are left
  alone.

  The status is the one that a shell reports: the exit code, or 128 plus the number of the signal
  that ended the command. Once the command has exited, every call returns the same status.

  ## Timeout

  `timeout` is in milliseconds (default: 5,000). If the command still runs after a quarter of it,
  the command and its process group get SIGTERM. They get SIGTERM again after half of it, and
  SIGKILL after three quarters. So the function returns within the timeout, with the resulting
  status. With `:infinity` it waits as long as the command runs, and sends no signal.

  The `:teardown` option of `start_link/2` replaces the two SIGTERMs. Its waits are not shortened:
  if they add up to more than the timeout leaves, the function takes longer than the timeout.

  ## Errors

    * `{:error, %Exile.Process.Error{reason: :eperm}}` - the command now runs as a user whose
      processes the VM may not signal. It is returned as soon as a signal is refused.
    * `{:error, %Exile.Process.Error{reason: :echild}}` - the command has exited, but its status
      is unknown, because other native code in this VM took it.
    * The function exits, as `GenServer.call/3` does, if the command still runs one second after
      both SIGKILL and the timeout. This only happens if the kernel cannot end the command.
    * It raises `ArgumentError` if the caller does not own the command.

  ## Examples

      iex> {:ok, p} = Exile.Process.start_link(["false"])
      iex> Exile.Process.await_exit(p)
      {:ok, 1}

      iex> {:ok, p} = Exile.Process.start_link(["sh", "-c", "echo nobody reads this; exit 2"])
      iex> Exile.Process.await_exit(p)
      {:ok, 2}

      iex> {:ok, p} = Exile.Process.start_link(["sleep", "60"])
      iex> Exile.Process.await_exit(p, 100)
      {:ok, 143}
  """
  @spec await_exit(t, timeout) :: {:ok, 0..255} | {:error, Error.t()}
  def await_exit(process, timeout \\ 5_000)

  def await_exit(%__MODULE__{owner: owner} = process, timeout) when owner == self() do
    timeout!(timeout)
    outputs = Enum.filter([process.stdout, process.stderr], & &1)
    Running.close([process.stdin])

    case await(process, outputs, timeout) do
      :timeout ->
        exit({:timeout, {__MODULE__, :await_exit, [process, timeout]}})

      {:error, reason} ->
        {:error, %Error{reason: reason, operation: :signal, subject: hd(process.argv)}}

      status ->
        Running.close(outputs)
        exit_code(status, hd(process.argv))
    end
  end

  def await_exit(%__MODULE__{owner: owner}, _timeout) do
    raise ArgumentError,
          "await_exit/2 must be called by the command's owner, #{inspect(owner)}; " <>
            "#{inspect(self())} is not the owner"
  end

  defp await(%__MODULE__{process: process}, outputs, :infinity) do
    Running.wait_and_drain(process, outputs, :exit, :infinity)
  end

  # The command has the first quarter to exit by itself. The last quarter begins with SIGKILL.
  defp await(%__MODULE__{process: process, teardown: teardown}, outputs, timeout) do
    grace = div(timeout, 4)
    steps = Teardown.within(teardown, div(timeout, 2))
    rest = max(timeout - grace, Teardown.duration(steps)) + Patience.kill()

    with :timeout <- Running.wait_and_drain(process, outputs, :exit, grace) do
      Native.process_end([{process, 0, steps}])
      Running.wait_and_drain(process, outputs, :exhausted, min(rest, Patience.most()))
    end
  end

  defp exit_code(status, program) do
    with {:error, reason} <- Running.exit_code(status),
         do: {:error, %Error{reason: reason, operation: :status, subject: program}}
  end

  @doc """
  Returns the process id of the command as `{:ok, os_pid}`, or `:undefined` if it has exited.

  The id is for display, and for tools that need a number. To signal the command, use `kill/2`: by
  the time the number is used, it may belong to another process.
  """
  @spec os_pid(t) :: {:ok, pos_integer} | :undefined
  def os_pid(%__MODULE__{process: process}) do
    with pid when is_integer(pid) <- Native.process_pid(process), do: {:ok, pid}
  end

  @doc """
  How the command has ended, or `:running`. Any process may ask, and nothing is waited for.

    * `{:exited, code}` - by itself, with an exit code from 0 to 255
    * `{:signaled, signal, core_dumped}` - by a signal: its name, or its number if it has no name
    * `:unknown` - it is gone, and other native code in this VM has taken its status

  ## Examples

      iex> {:ok, p} = Exile.Process.start_link(["cat"])
      iex> Exile.Process.exit_status(p)
      :running
      iex> Exile.Process.kill(p, :sigkill)
      iex> Exile.Process.await_exit(p)
      {:ok, 137}
      iex> Exile.Process.exit_status(p)
      {:signaled, :sigkill, false}
  """
  @spec exit_status(t) ::
          :running | {:exited, 0..255} | {:signaled, signal, core_dumped :: boolean} | :unknown
  def exit_status(%__MODULE__{process: process}) do
    case Native.process_status(process) do
      %{signal: nil, code: code} -> {:exited, code}
      %{signal: signal, core_dumped: core_dumped} -> {:signaled, signal, core_dumped}
      running_or_unknown -> running_or_unknown
    end
  end

  @doc """
  Whether the command is still there. Any process may ask.

  ## Examples

      iex> {:ok, p} = Exile.Process.start_link(["true"])
      iex> Exile.Process.await_exit(p)
      iex> Exile.Process.alive?(p)
      false
  """
  @spec alive?(t) :: boolean
  def alive?(%__MODULE__{process: process}), do: Native.process_status(process) == :running

  defp end_of_line(:line_too_long), do: {:error, :line_too_long}
  defp end_of_line(result), do: end_of_command(result)

  defp end_of_command(:exited), do: :eof
  defp end_of_command(:timeout), do: {:error, :timeout}
  defp end_of_command(result), do: result

  defp not_a_pipe, do: {:error, :pipe_closed_or_invalid_caller}

  # The limit is more than any pipe holds. The native side accepts no larger number.
  defp max!(max) when is_integer(max) and max > 0, do: min(max, 0xFFFF_FFFF)

  defp max!(other) do
    raise ArgumentError,
          "expected the most bytes to read as a positive integer, got: #{inspect(other)}"
  end

  defp deadline!(timeout) do
    timeout!(timeout)
    Patience.deadline(timeout)
  end

  defp timeout!(timeout) when is_timeout(timeout), do: :ok

  defp timeout!(other) do
    raise ArgumentError,
          "expected a timeout in milliseconds or :infinity, got: #{inspect(other)}"
  end
end

defimpl Inspect, for: Exile.Process do
  import Inspect.Algebra

  def inspect(process, opts) do
    concat(["#Exile.Process<", to_doc(process.argv, opts), ", ", state(process), ">"])
  end

  defp state(process) do
    case {Exile.Process.exit_status(process), Exile.Process.os_pid(process)} do
      {:running, {:ok, os_pid}} -> "os_pid: #{os_pid}, running"
      # It has ended between the two questions.
      {:running, :undefined} -> state(process)
      {{:exited, code}, _} -> "exited with #{code}"
      {{:signaled, signal, _}, _} -> "ended by #{signal}"
      {:unknown, _} -> "ended"
    end
  end
end
