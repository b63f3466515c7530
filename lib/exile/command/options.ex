defmodule Exile.Command.Options do
  @moduledoc false

  # The one table of options. Their documentation, types, defaults and errors come from here.
  #
  # An option of a spawn is a row here, a field in `native/nif/src/spec.rs`, and what it does in
  # `native/os/src/attributes`.

  alias Exile.Command.{Environment, Option}
  alias Exile.Runtime.Teardown
  alias Exile.Stream.{Input, Output}

  @process [
    cd: [
      values: {:text, "a directory as a binary"},
      doc: "the directory to run in.",
      default_doc: "that of the VM"
    ],
    env: [
      values:
        {:special,
         label: "list or map of names and values",
         type:
           quote(
             do:
               [{name :: Exile.Process.variable(), value :: Exile.Process.variable()}]
               | %{Exile.Process.variable() => Exile.Process.variable()}
           ),
         expected: "a list or map of names and values",
         check: &Environment.check/1},
      default: [],
      doc: """
      added to the environment of the VM. Both may be binaries, charlists, atoms or numbers. A
      value of `nil` or `false` unsets the variable.
      """
    ],
    clear_env: [
      values: :boolean,
      default: false,
      doc: "start from an empty environment instead of the VM's."
    ],
    arg0: [
      values: {:text, "a binary"},
      attribute: true,
      doc: """
      what the program sees as its own name, its argument 0. Some programs behave as this says:
      a shell is a login shell if it begins with `-`.
      """,
      default_doc: "the program as it stands in the command"
    ],
    stderr: [
      values: {:one_of, [:console, :redirect_to_stdout, :disable, :consume]},
      default: :console,
      doc: """
      where standard error goes.
      * `:console` - to the standard error of the VM
      * `:redirect_to_stdout` - where standard output goes; in a pipeline to the next command
      * `:disable` - to the null device
      * `:consume` - into a pipe. If nobody reads it, the command blocks as soon as the pipe is
        full. `Exile.Process.read_stderr/3` and `Exile.Process.read_any/3` read from it. The
        elements of a stream are then `{:stdout, binary}` and `{:stderr, binary}`, in the order
        in which they were met; within each the order is the command's. In a pipeline it is the
        standard error of all commands.
      """
    ],
    nice: [
      values: {:integer, -20..19},
      attribute: true,
      doc: """
      the nice value of the process: 19 is the most modest, -20 the most favoured. To make it
      lower than the VM's takes privileges; without them the error is `:eacces` or `:eperm`.
      Where Linux shares the processors out among sessions first (`sched_autogroup_enabled`), it
      compares nice values within a session only, and each command leads one.
      """,
      default_doc: "that of the VM"
    ],
    umask: [
      values: {:integer, 0o000..0o777},
      attribute: true,
      doc: "the permissions that new files do not get, such as `0o077`.",
      default_doc: "that of the VM"
    ],
    teardown: [
      values:
        {:special,
         label: "list of `{signal, milliseconds}`",
         type: quote(do: [{signal :: atom, milliseconds :: non_neg_integer}]),
         expected: "a list of signals with milliseconds, [sigterm: 500]",
         check: &Teardown.check/1},
      default: :default,
      doc: """
      how to end the command: each signal, and how long to wait after it; SIGKILL always comes
      last. It is kept to wherever the command is ended.
      """,
      default_doc: "SIGTERM twice, over whatever time there is"
    ],
    start_timeout: [
      values: :timeout,
      default: :infinity,
      doc: """
      how long to wait for the program to run. It takes long only where a file does, on a network
      disk that does not answer for instance. Then the error is `:etimedout`, and nothing runs.
      """
    ]
  ]

  @stream [
    input: [
      values:
        {:special,
         type: quote(do: Exile.input()),
         expected: "an enumerable, a binary, a function with one argument or {:file, path}",
         check: &Input.check/1},
      doc: """
      what the command reads.
      * an enumerable whose elements are iodata
      * another `Exile.Stream`: its commands become the beginning of this one's pipeline. They
        keep the options that they have as commands, such as `:cd` and `:stderr`, and their
        `:input`; the other options are this stream's. (One with `stderr: :consume` or `:stdout`
        is enumerated.)
      * a binary
      * a function that gets an `Exile.Stream.Sink`, a collectable, and pushes into it with
        `Enum.into/2`, which returns `:ok`; what the function returns is ignored
      * `{:file, path}` - a file, relative to the VM's directory, that the command itself reads. A
        FIFO that nobody has open for writing is an empty one
      * a `File.Stream` of bytes (`File.stream!(path, [], 65_536)`): its file, which the command
        itself reads. One of lines, or with an encoding, is enumerated
      """,
      default_doc: "nothing, the command sees end-of-file at once"
    ],
    stdout: [
      values:
        {:special,
         type: quote(do: {:file, path :: binary} | {:file, path :: binary, :append}),
         expected: "{:file, path} or {:file, path, :append}",
         check: &Output.check/1},
      default: :pipe,
      doc: """
      `{:file, path}`: the command writes to this file itself, relative to the VM's directory,
      made if it is missing and emptied if it is not. `{:file, path, :append}`: at its end. The
      stream then has no elements, except those of standard error and those that `stream/2` adds.
      """,
      default_doc: "the elements of the stream"
    ],
    max_chunk_size: [
      values: :positive,
      default: 65_536,
      doc: "the most bytes that one element holds."
    ],
    exit_timeout: [
      values: :timeout,
      doc: """
      how long to wait, once the output has ended, for the command to exit by itself before it is
      ended by signals and counts as failed, whatever its status is. Nobody sees the end of an
      output that goes to a file, so it does not count there. When the reader stops early, this is
      also how long the command may take before it gets signals; with `:infinity` it gets none.
      """,
      default_doc: "`:infinity`, and 250 ms when the reader stops early"
    ],
    lines: [
      values:
        {:special,
         label: "boolean or positive integer",
         type: quote(do: boolean | pos_integer),
         expected: "a boolean or the most bytes of a line",
         check: &Option.lines/1},
      doc: """
      elements are lines, without their `"\\n"`; a `"\\r"` stays. The last line needs no newline. An integer
      is the most bytes that a line may have, `true` stands for 1,048,576. A longer line ends the commands,
      and `Exile.Process.Error` with the reason `:line_too_long` is raised after the lines before it. With
      `stderr: :consume` each output has its own lines. Excludes `:max_chunk_size`.
      """,
      default_doc: "elements are chunks"
    ],
    timeout: [
      values: :timeout,
      default: :infinity,
      doc: """
      how long all of it may take, from the start to the exit. After that the commands are ended, and
      `Exile.Process.Error` with the reason `:timeout` is raised, whatever their statuses are.
      """
    ],
    idle_timeout: [
      values: :timeout,
      default: :infinity,
      doc: """
      how long the reader waits for output. After that the commands are ended, and
      `Exile.Process.Error` with the reason `:idle_timeout` is raised. The time that the reader takes for
      an element does not count. Where no output is read, or it has ended, `:timeout` and
      `:exit_timeout` limit how long the commands may go on.
      """
    ],
    success: [
      values:
        {:special,
         label: "list of integers or `:any`",
         type: quote(do: [0..255] | :any),
         expected: "a list of exit statuses or :any",
         check: &Exile.Command.Option.statuses/1},
      default: [0],
      doc: """
      the exit statuses that are no failure, for each of the commands. A command that a signal ended has
      128 plus the signal's number.
      """
    ],
    drain_timeout: [
      values: :timeout,
      default: :infinity,
      doc: """
      how long to read on, once the command has exited and its output has been read, from a pipe
      that programs it left behind still hold open. With `:infinity` as long as they do, as a
      shell would.
      """
    ],
    ignore_epipe: [
      values: :boolean,
      default: false,
      doc: "that the reader stops before the command is done is no failure."
    ],
    chunk_size: [
      values: :positive,
      stands_for: {:max_chunk_size, %{}},
      doc: "an older name of `:max_chunk_size`."
    ],
    use_stderr: [
      values: :boolean,
      stands_for: {:stderr, %{true => :consume, false => :console}},
      doc: "an older name: `true` is `stderr: :consume`, `false` is `stderr: :console`."
    ]
  ]

  # Those of a stream that make no sense where the output is kept, or mean something else.
  @not_for_run [:stdout, :lines, :max_chunk_size, :chunk_size, :use_stderr, :ignore_epipe]

  @run [
    stdout: [
      values:
        {:special,
         type:
           quote(
             do:
               :capture
               | :disable
               | {:into, Collectable.t()}
               | {:file, path :: binary}
               | {:file, path :: binary, :append}
           ),
         expected:
           ":capture, :disable, {:into, collectable}, {:file, path} or {:file, path, :append}",
         check: &Output.check_run/1},
      default: :capture,
      doc: """
      where standard output goes. `:capture`: into the result, as a binary. `{:into, collectable}`: into
      the collectable, in chunks, as `Enum.into/2` does. `:disable`: to the null device.
      `{:file, path}`, `{:file, path, :append}`: the command itself writes to this file.
      """
    ],
    stderr: [
      values: {:one_of, [:capture, :console, :redirect_to_stdout, :disable]},
      default: :capture,
      doc: """
      where standard error goes. `:capture`: into the result, as a binary; in a pipeline that of all
      commands. The others are as for `start_link/2`: the standard error of the VM, standard output, or
      the null device.
      """
    ],
    max_output: [
      values:
        {:special,
         label: "integer, `{:head, integer}` or `{:tail, integer}`",
         type: quote(do: non_neg_integer | :infinity | {:head | :tail, non_neg_integer}),
         expected: "a number of bytes, {:head, bytes}, {:tail, bytes} or :infinity",
         check: &Output.check_max/1},
      default: :infinity,
      doc: """
      how many bytes to capture of each output. A number: a command that writes more is ended, and the
      error has the reason `:max_output`. `{:head, bytes}`, `{:tail, bytes}`: the first or the last bytes
      are kept, the rest is read and dropped.
      """
    ]
  ]

  @doc "The options of `Exile.run/2` that are not those of the command."
  @spec run() :: [Option.t()]
  def run,
    do: rows(Keyword.take(@run, [:stdout, :max_output]) ++ Keyword.drop(@stream, @not_for_run))

  @doc "The options of the command in `Exile.run/2`."
  @spec process_of_run() :: [Option.t()]
  def process_of_run, do: rows(Keyword.merge(@process, Keyword.take(@run, [:stderr])))

  @doc "The options of `Exile.Process.start_link/2`, which those of streams include."
  @spec process() :: [Option.t()]
  def process, do: rows(@process)

  @doc "The options of streams alone."
  @spec stream() :: [Option.t()]
  def stream, do: rows(@stream)

  defp rows(table), do: for({name, row} <- table, do: struct!(Option, [{:name, name} | row]))
end
