defmodule Exile do
  readme = Path.join(__DIR__, "../README.md")
  @external_resource readme
  @moduledoc readme
             |> File.read!()
             |> String.split("<!-- MDOC -->")
             |> Enum.drop(1)
             |> Enum.take_every(2)
             |> Enum.join()

  alias Exile.Command.{Option, Options}

  @typedoc "A program and its arguments."
  @type command :: [binary, ...]

  @typedoc "Commands, each of which reads the output of the one before it."
  @type pipeline :: [command, ...]

  @typedoc "Where a command's standard input comes from."
  @type input ::
          Enumerable.t()
          | binary
          | (Exile.Stream.Sink.t() -> any)
          | {:file, path :: binary}

  @typedoc "See `stream!/2`."
  @type stream_option ::
          unquote(Option.type(Options.stream()))
          | unquote(Option.type(Options.process_of_stream()))

  @typedoc "See `run/2`."
  @type run_option ::
          unquote(Option.type(Options.run())) | unquote(Option.type(Options.process_of_run()))

  @doc """
  Runs a command to its end, and returns what it wrote and how it ended.

  `{:ok, result}` if its exit status is 0, or one of `:success`. Else `{:error, error}`, an
  `Exile.Process.Error` whose `:result` has all that there was until then. Both outputs are read at
  once, so neither can hold up the command.

  A list of commands is a pipeline, as in `stream!/2`. It fails if any of them does; the error names the
  first. `Exile.Result` has the status of each.

  The caller waits meanwhile. Nothing is left in its mailbox, and no link or monitor, in whichever way the
  command ends. When the caller dies, the command is ended.

  ## Options

  An option whose value is `nil` has its default.

  #{Option.docs(Options.run())}

  Options for the command, or for each command of a pipeline:

  #{Option.docs(Options.process_of_run())}

  ## Errors

  The reasons in `Exile.Process.Error` are

    * `{:status, status}` - it exited with a status that is not in `:success`
    * `{:signal, signal}` - a signal ended it, `:sigterm` for instance
    * `:timeout`, `:idle_timeout` - it took longer than these options allow, whatever it did after it was
      asked to end
    * `:exit_timeout` - its output had ended, but it did not exit in time
    * `:max_output` - it wrote more
    * those of `Exile.Process.start_link/2`, when it cannot be started

  Misuse raises `ArgumentError`. What the evaluation of `:input`, or the collectable of
  `stdout: {:into, collectable}`, raises is raised unchanged, and the command is ended.

  ## Examples

      iex> {:ok, result} = Exile.run(["sh", "-c", "echo out; echo err >&2"])
      iex> {result.stdout, result.stderr, result.status}
      {"out\\n", "err\\n", 0}

      iex> {:error, error} = Exile.run(["sh", "-c", "echo 'no such thing' >&2; exit 3"])
      iex> error.reason
      {:status, 3}
      iex> error.result.stderr
      "no such thing\\n"
      iex> Exception.message(error)
      ~S("sh" exited with status 3: no such thing)

      iex> {:error, error} = Exile.run(["sh", "-c", "echo begun; exec sleep 60"], timeout: 100)
      iex> {error.reason, error.result.stdout}
      {:timeout, "begun\\n"}

      iex> {:ok, result} = Exile.run([["printf", "b\\na\\n"], ["sort"]])
      iex> result.stdout
      "a\\nb\\n"

      iex> {:ok, result} = Exile.run(["grep", "x"], input: "a\\nb\\n", success: [0, 1])
      iex> {result.stdout, result.status}
      {"", 1}
  """
  @spec run(command | pipeline, [run_option]) ::
          {:ok, Exile.Result.t()} | {:error, Exile.Process.Error.t()}
  def run(command, options \\ []), do: Exile.Capture.run(command, options)

  @doc """
  Like `run/2`, but returns the result itself and raises the error.

  ## Examples

      iex> Exile.run!(["echo", "hello"]).stdout
      "hello\\n"

      iex> Exile.run!(["false"])
      ** (Exile.Process.Error) "false" exited with status 1
  """
  @spec run!(command | pipeline, [run_option]) :: Exile.Result.t()
  def run!(command, options \\ []) do
    case run(command, options) do
      {:ok, result} -> result
      {:error, error} -> raise error
    end
  end

  @doc ~S"""
  A word, or a list of words, as a POSIX shell takes it literally: for scripts that are given to `sh -c`.

  Prefer a command without a shell. A NUL byte, which no word can hold, raises `ArgumentError`. The
  program may still take a word that begins with `-` for an option; most know `--`, after which they do
  not.

  ## Examples

      iex> Exile.shell_quote("it's")
      ~S('it'\''s')

      iex> Exile.shell_quote(["ls", "-l", "a b"])
      "ls -l 'a b'"

      iex> Exile.run!(["sh", "-c", "echo " <> Exile.shell_quote("$HOME; * 'x'")]).stdout
      "$HOME; * 'x'\n"
  """
  @spec shell_quote(binary | [binary]) :: binary
  def shell_quote(words) when is_list(words), do: Enum.map_join(words, " ", &shell_quote/1)

  def shell_quote(word) when is_binary(word) do
    with {:error, message} <- Option.without_nul("a word for a shell", word),
         do: raise(ArgumentError, message)

    if word =~ ~r/\A[A-Za-z0-9_@%+:,.\/-]+\z/,
      do: word,
      else: "'" <> String.replace(word, "'", "'\\''") <> "'"
  end

  @doc """
  Returns a stream of the output of `command`. The stream raises if the command fails.

  The result is an `Exile.Stream`, an `Enumerable`. Each enumeration runs the command again. The
  elements are non-empty binaries. Each holds the output that is available at that moment, up to
  `:max_chunk_size`.

  A list of commands is a pipeline: all of them run at the same time, each reads the output of the
  one before it, and the elements are the output of the last. Kernel pipes connect them, so the
  bytes in between do not pass through the VM. The options apply to each of the commands.

  A stream can be suspended and resumed later, also in another process. If a suspended stream can
  no longer be resumed, its commands are ended when the VM garbage-collects it.

  ## Options

  A value of `nil` stands for the default of an option.

  #{Option.docs(Options.stream())}

  Options of the command, or of each command in a pipeline:

  #{Option.docs(Options.process_of_stream())}

  An invalid value or an unknown option raises `ArgumentError` right away, before the enumeration.

  ## Errors

  During enumeration the stream raises

    * `Exile.Process.Error` if the command cannot be started, with the reasons listed in
      `Exile.Process.start_link/2`; and with the reason `:timeout` or `:idle_timeout` if it takes
      longer than these options allow
    * `Exile.Stream.AbnormalExit` if the exit status of the command is not in `:success`. In a
      pipeline it is raised if that is so for any command, and names the first one that failed. A
      command killed by SIGPIPE because the next one stopped reading does not count as failed
    * `File.Error` if the file of a `File.Stream` cannot be read
    * whatever the evaluation of `:input` raised, threw or exited with, unchanged and with its
      stack trace; the command is ended

  It is not an error if the command leaves input unread: once its output has been read to the end,
  only its status matters.

  When the reader stops early, as `Enum.take/2` does, the pipes are closed at once. The command
  then has a quarter of a second, or `:exit_timeout` if that is given, to exit by itself. After
  that, signals end it and its process group within another half second, or as `:teardown` says if
  that is given, with its full waits. `Exile.Stream.AbnormalExit` is raised unless the command
  exits with a status that is in `:success`. Its `:exit_status` is `:epipe` if a signal ended the command. With
  `:ignore_epipe` nothing is raised. When the reader raises, the command is ended in the same way,
  after a quarter of a second if `:exit_timeout` is `:infinity`, and the reader's own error is
  raised.

  `Stream.transform/3`, functions built on it such as `Stream.flat_map/2`, and `Stream.zip/2` halt
  the stream that they read in the same way, whether their own reader stops early or raises. The
  command is then ended as above, but the stream raises nothing, since its exception would replace
  the reader's.

  When the reader dies, the command is signalled at once, without time to exit by itself.

  ## Examples

      iex> Exile.stream!(["tr", "a-z", "A-Z"], input: ["hello ", "world"]) |> Enum.join()
      "HELLO WORLD"

      iex> Exile.stream!(["yes"]) |> Enum.take(1)
      ** (Exile.Stream.AbnormalExit) program exited due to :epipe error ("yes": its reader stopped early, see :ignore_epipe)

      iex> Exile.stream!(["printenv", "LANG"], env: %{"LANG" => "C"}) |> Enum.to_list()
      ["C\\n"]

      iex> Exile.stream!(["pwd"], cd: "/") |> Enum.to_list()
      ["/\\n"]

      iex> Exile.stream!([["sort", "-u"], ["head", "-n", "1"]], input: "fig\\napple\\n") |> Enum.to_list()
      ["apple\\n"]

      iex> Exile.stream!([["echo", "hi"], ["sh", "-c", "exit 3"]]) |> Enum.to_list()
      ** (Exile.Stream.AbnormalExit) program exited with exit status: 3 ("sh", stage 2 of 2)

      iex> Exile.stream!(["head", "-c", "2"], input: Stream.cycle(["x"])) |> Enum.join()
      "xx"
  """
  @spec stream!(command | pipeline, [stream_option]) :: Exile.Stream.t()
  def stream!(command, options \\ []), do: Exile.Stream.Builder.new!(command, options, :raise)

  @doc """
  Like `stream!/2`, but the exit status is the last element instead of raising.

  This element is `{:exit, {:status, 0..255}}`. In a pipeline it has the status of the first
  command that failed, or else that of the last. A reader that stops early does not get it, and
  stopping early raises nothing. Everything else that `stream!/2` raises, this stream raises too.

  ## Examples

      iex> Exile.stream(["sh", "-c", "echo oops; exit 3"]) |> Enum.to_list()
      ["oops\\n", {:exit, {:status, 3}}]

      iex> Exile.stream(["sh", "-c", "kill -TERM $$"]) |> Enum.to_list()
      [{:exit, {:status, 143}}]
  """
  @spec stream(command | pipeline, [stream_option]) :: Exile.Stream.t()
  def stream(command, options \\ []), do: Exile.Stream.Builder.new!(command, options, :tell)
end
