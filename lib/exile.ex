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

  @typedoc "Commands of which each reads what the one before it writes."
  @type pipeline :: [command, ...]

  @typedoc "Where a command's standard input comes from."
  @type input ::
          Enumerable.t()
          | binary
          | (Exile.Stream.Sink.t() -> any)
          | {:file, path :: binary}

  @typedoc "See `stream!/2`."
  @type stream_option :: unquote(Option.type(Options.stream())) | Exile.Process.option()

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
  A stream of what `command` writes, which raises when the command fails.

  Returns an `Exile.Stream`, an `Enumerable`. Each enumeration runs the command anew. The elements
  are binaries, never empty, as large as the output at that moment and `:max_chunk_size` allow.

  A list of commands is a pipeline: all run at once, each reads what the one before it writes, and
  the elements are what the last one writes. Pipes of the kernel join them, so that the bytes in
  between do not pass through the VM. The options hold for each of the commands.

  A stream may be suspended, and resumed later or in another process. A suspended stream that can no
  longer be resumed is ended when the VM collects it.

  ## Options

  An option whose value is `nil` has its default.

  #{Option.docs(Options.stream())}

  Options for the command, or for each command of a pipeline:

  #{Option.docs(Options.process())}

  A wrong value raises `ArgumentError` right away, and so does an unknown option.

  ## Errors

  While it is enumerated the stream raises

    * `Exile.Process.Error` when the command cannot be started, with the reasons of
      `Exile.Process.start_link/2`; and with the reason `:timeout` or `:idle_timeout` when it took longer
      than these options allow
    * `Exile.Stream.AbnormalExit` when its status is not in `:success`. In a pipeline when any
      command did: the exception names the first that failed. A command killed by SIGPIPE because
      the next one stopped reading does not count as failed
    * `File.Error` when the file of a `File.Stream` cannot be read
    * whatever the evaluation of `:input` raised, threw or exited with, unchanged and with its
      stack trace; the command is ended

  Input that the command did not read is no failure: once its output was read to the end, only its
  status counts.

  When the reader stops early, as `Enum.take/2` does, the pipes are closed at once. The command
  has a quarter of a second, or `:exit_timeout` if that is given, to end by itself. Then it and its
  process group are ended by signals, in half a second more, or by `:teardown` if that is given,
  whose waits are kept to. `Exile.Stream.AbnormalExit` is raised unless the command ended with
  status 0: its `:exit_status` is `:epipe` when a signal ended the command. With `:ignore_epipe`
  nothing is raised. When the reader raises, the command is ended in the same way, and the reader's
  own error is the one that counts.

  `Stream.transform/3`, what is built on it, such as `Stream.flat_map/2`, and `Stream.zip/2` end the
  stream that they read in one and the same way whether their own reader has enough or has raised.
  The command is then ended as above, but nothing is raised, since that would take the place of the
  reader's error.

  When the reader dies, the command has no time for itself before the signals.

  ## Examples

      iex> Exile.stream!(["tr", "a-z", "A-Z"], input: ["hello ", "world"]) |> Enum.join()
      "HELLO WORLD"

      iex> Exile.stream!(["yes"]) |> Enum.take(1)
      ** (Exile.Stream.AbnormalExit) program exited due to :epipe error

      iex> Exile.stream!(["printenv", "LANG"], env: %{"LANG" => "C"}) |> Enum.to_list()
      ["C\\n"]

      iex> Exile.stream!(["pwd"], cd: "/") |> Enum.to_list()
      ["/\\n"]

      iex> Exile.stream!([["sort", "-u"], ["head", "-n", "1"]], input: "fig\\napple\\n") |> Enum.to_list()
      ["apple\\n"]

      iex> Exile.stream!([["echo", "hi"], ["sh", "-c", "exit 3"]]) |> Enum.to_list()
      ** (Exile.Stream.AbnormalExit) stage 2 of 2, ["sh", "-c", "exit 3"], exited with exit status: 3

      iex> Exile.stream!(["head", "-c", "2"], input: Stream.cycle(["x"])) |> Enum.join()
      "xx"
  """
  @spec stream!(command | pipeline, [stream_option]) :: Exile.Stream.t()
  def stream!(command, options \\ []), do: Exile.Stream.Builder.new!(command, options, :raise)

  @doc """
  Like `stream!/2`, but the exit status raises nothing: it is the last element.

  That is `{:exit, {:status, 0..255}}`. In a pipeline it is the status of the first command that
  failed, else that of the last. A reader who stops early does not see it, and nothing is raised because of that. All else
  that `stream!/2` raises this stream raises, too.

  ## Examples

      iex> Exile.stream(["sh", "-c", "echo oops; exit 3"]) |> Enum.to_list()
      ["oops\\n", {:exit, {:status, 3}}]

      iex> Exile.stream(["sh", "-c", "kill -TERM $$"]) |> Enum.to_list()
      [{:exit, {:status, 143}}]
  """
  @spec stream(command | pipeline, [stream_option]) :: Exile.Stream.t()
  def stream(command, options \\ []), do: Exile.Stream.Builder.new!(command, options, :tell)
end
