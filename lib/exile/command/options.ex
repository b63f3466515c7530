defmodule Exile.Command.Options do
  @moduledoc false

  # The only table of options. Their documentation, types, defaults and errors come from it.
  #
  # An option that affects the spawn is a row here, a field in `native/nif/src/spec.rs`, and its
  # implementation in `native/os/src/attributes`.

  alias Exile.Capture.Output
  alias Exile.Command.{Confinement, Environment, Option}
  alias Exile.Runtime.Teardown
  alias Exile.Stream.Input

  # What the values of `:stderr` mean. Which of them there are depends on what reads it.
  @stderr [
    console: "to the standard error of the VM",
    redirect_to_stdout: "to where standard output goes; in a pipeline, to the next command",
    disable: "to the null device",
    consume: """
    into a pipe. If nobody reads it, the command blocks as soon as the pipe is full.
      `Exile.Process.read_stderr/3` and `Exile.Process.read_any/3` read from it. The elements of a
      stream are then `{:stdout, binary}` and `{:stderr, binary}`, in the order in which they were
      read; each of the two keeps the order of its writes. In a pipeline the pipe has the standard
      error of all commands.
    """,
    capture: "into the result; in a pipeline that of all commands",
    tail: """
    the last 8,192 bytes are kept; in a pipeline of what all commands write. If a command fails,
      they are in the exception, and their last line in its message. What other programs write after
      the commands have ended is not read
    """
  ]

  @files """
  * `{:file, path}`, `{:file, path, :append}` - to a file, as for the `:stdout` of a stream. The commands of
    a pipeline share it, and so does standard output if it goes to the same
  """

  stderr = fn names, default ->
    items =
      for name <- names, do: "* `#{inspect(name)}` - #{String.trim_trailing(@stderr[name])}\n"

    [
      values: {:output, names},
      default: default,
      doc: "where standard error goes.\n" <> Enum.join(items) <> @files
    ]
  end

  @process [
    cd: [
      values: {:text, "a directory as a binary"},
      doc: "the directory to run in.",
      default_doc: "the VM's directory"
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
      variables to add to the VM's environment. Names and values may be binaries, charlists, atoms
      or numbers. A value of `nil` or `false` unsets the variable.
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
      the name that the program sees as its own (`argv[0]`). Some programs depend on it: a shell
      is a login shell if it begins with `-`.
      """,
      default_doc: "the program as given in the command"
    ],
    stderr: stderr.([:console, :redirect_to_stdout, :disable, :consume], :console),
    nice: [
      values: {:integer, -20..19},
      attribute: true,
      doc: """
      the nice value of the process: 19 is the lowest priority, -20 the highest. A value below the
      VM's needs privileges; without them the error is `:eacces` or `:eperm`. If Linux first
      divides the processors among sessions (`sched_autogroup_enabled`), it compares nice values
      only within a session, and each command leads its own.
      """,
      default_doc: "the VM's nice value"
    ],
    umask: [
      values: {:integer, 0o000..0o777},
      attribute: true,
      doc: "the permissions to remove from new files, such as `0o077`.",
      default_doc: "the VM's umask"
    ],
    cpus: [
      values:
        {:special,
         label: "list of integers",
         type: quote(do: [0..1023, ...]),
         expected: "a non-empty list of processor numbers from 0 to 1023",
         check: &Confinement.cpus/1},
      attribute: true,
      doc: """
      the processors that the program may run on, counted from 0. Numbers of processors that do not exist
      are ignored. If none is left, the error is `:einval`.
      """,
      default_doc: "those of the VM"
    ],
    io_priority: [
      values:
        {:special,
         label: "`:idle` or `{:best_effort, 0..7}`",
         type: quote(do: :idle | {:best_effort, 0..7}),
         expected: ":idle or {:best_effort, level} with a level from 0 to 7",
         check: &Confinement.io_priority/1},
      attribute: true,
      doc: """
      when the disk serves the program, if others use it too. `:idle`: only when nobody else does.
      `{:best_effort, level}`: from 0, the first, to 7, the last. It has an effect only with some disk
      schedulers, such as BFQ.
      """,
      default_doc: "that of the VM"
    ],
    limits: [
      values:
        {:special,
         label: "list of resources and limits",
         type:
           quote(
             do: [
               {:cpu | :memory | :file_size | :open_files | :processes | :core | :stack,
                limit ::
                  non_neg_integer
                  | :infinity
                  | {soft :: non_neg_integer | :infinity, hard :: non_neg_integer | :infinity}}
             ]
           ),
         expected: "a keyword list of resources with limits, [cpu: 10, open_files: {64, 128}]",
         check: &Confinement.limits/1},
      default: [],
      attribute: true,
      doc: """
      the resources that each process of the command may use. A limit is a number, `:infinity`, or
      `{soft, hard}`; the program itself may raise the soft limit up to the hard one. A number is both.
      * `:cpu` - seconds of processor time. SIGXCPU ends the program at the soft limit, SIGKILL at the hard
        one
      * `:memory` - bytes of address space. Memory that is reserved but not used counts as well. Allocations
        beyond it fail; if the program itself does not fit, a signal ends it as it starts
      * `:file_size` - bytes of a file that it writes. SIGXFSZ ends the program
      * `:open_files` - open descriptors
      * `:processes` - processes and threads, counted over *all* that run as the same user. It does not
        apply to root
      * `:core` - bytes of a core dump; 0 for none
      * `:stack` - bytes of the stack

      A hard limit above that of the VM needs privileges; without them the error is `:eperm`. Processes
      that the command starts inherit the limits, each with a count of its own, except `:processes`.
      """,
      default_doc: "the limits of the VM"
    ],
    no_new_privs: [
      values: :boolean,
      default: false,
      attribute: true,
      doc: """
      whether the command gains no privileges by what it executes: a program that is set-user-ID or has
      capabilities, such as `sudo`, runs without them. Nothing that the command starts can undo this.
      """
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
      how to end the command: the signals to send, and how long to wait after each. SIGKILL always
      comes last. It applies wherever the command is ended, with its full waits.
      """,
      default_doc: "SIGTERM twice, spread over the available time"
    ],
    start_timeout: [
      values: :timeout,
      default: :infinity,
      doc: """
      how long to wait for the program to run. This only takes long if opening a file does, for
      instance on a network disk that does not answer. After the timeout the error is
      `:etimedout`, and nothing runs.
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
      * another `Exile.Stream`: its commands become the beginning of this stream's pipeline. They
        keep their command options, such as `:cd` and `:stderr`, and their `:input`; the other
        options are taken from this stream. (A stream with `stderr: :consume` or `:stdout` is
        enumerated instead.)
      * a binary
      * a function that gets an `Exile.Stream.Sink`, a collectable, and writes to it with
        `Enum.into/2`, which returns `:ok`; the return value of the function is ignored
      * `{:file, path}` - a file that the command itself reads; the path is relative to the VM's
        directory. A FIFO that nobody has open for writing is read as empty
      * a `File.Stream` of bytes (`File.stream!(path, [], 65_536)`): the command itself reads the
        file. A stream of lines, or with an encoding, is enumerated
      """,
      default_doc: "nothing, the command sees end-of-file at once"
    ],
    stdout: [
      values: {:output, []},
      default: :pipe,
      doc: """
      `{:file, path}`: the command itself writes to this file, which is created if it is missing
      and truncated otherwise; the path is relative to the VM's directory.
      `{:file, path, :append}`: the command appends to the file. The stream then has no elements,
      except those of standard error and the one that `stream/2` adds.
      """,
      default_doc: "the output becomes the elements of the stream"
    ],
    max_chunk_size: [
      values: :positive,
      default: 65_536,
      doc: "the maximum size of an element, in bytes."
    ],
    exit_timeout: [
      values: :timeout,
      doc: """
      how long to wait, once the output has ended, for the command to exit by itself. After that
      it is ended by signals and counts as failed, whatever its status is. This does not apply to
      output that goes to a file, since the end of such output cannot be seen. When the reader
      stops early, this is also how long the command may take before it gets signals; with
      `:infinity` it gets none.
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
         check: &Option.statuses/1},
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
      how long to go on reading, once the command has exited and its output has been read, from a
      pipe that programs it left behind still hold open. With `:infinity`, as long as they hold
      it, as a shell would.
      """
    ],
    ignore_epipe: [
      values: :boolean,
      default: false,
      doc: "do not raise if the reader stops before the command is done."
    ],
    chunk_size: [
      values: :positive,
      stands_for: {:max_chunk_size, %{}},
      doc: "an older name for `:max_chunk_size`."
    ],
    use_stderr: [
      values: :boolean,
      stands_for: {:stderr, %{true => :consume, false => :console}},
      doc: "an older option: `true` is `stderr: :consume`, `false` is `stderr: :console`."
    ]
  ]

  @process_of_stream [
    stderr: stderr.([:console, :redirect_to_stdout, :disable, :consume, :tail], :console)
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
         check: &Output.check/1},
      default: :capture,
      doc: """
      where standard output goes. `:capture`: into the result, as a binary. `{:into, collectable}`: into
      the collectable, in chunks, as `Enum.into/2` does. `:disable`: to the null device.
      `{:file, path}`, `{:file, path, :append}`: the command itself writes to this file.
      """
    ],
    stderr: stderr.([:capture, :tail, :console, :redirect_to_stdout, :disable], :capture),
    lines: [
      values: @stream[:lines][:values],
      doc: """
      the outputs in the result are lists of lines, without their `"\\n"`; a `"\\r"` stays. The last line needs
      no newline. A collectable gets lines, too. An integer is the most bytes that a line may have, `true`
      stands for 1,048,576. A longer line ends the commands, and is an error with the reason
      `:line_too_long`.
      """,
      default_doc: "the outputs are binaries"
    ],
    max_output: [
      values:
        {:special,
         label: "integer, `{:head, integer}` or `{:tail, integer}`",
         type: quote(do: non_neg_integer | :infinity | {:head | :tail, non_neg_integer}),
         expected: "a number of bytes, {:head, bytes}, {:tail, bytes} or :infinity",
         check: &Output.check_limit/1},
      default: :infinity,
      doc: """
      how many bytes to capture of each output. A number: a command that writes more is ended, and the
      error has the reason `:max_output`. `{:head, bytes}`, `{:tail, bytes}`: the first or the last bytes
      are kept, the rest is read and dropped.
      """
    ]
  ]

  rows = fn table -> for {name, row} <- table, do: struct!(Option, [{:name, name} | row]) end

  @rows %{
    process: rows.(@process),
    stream: rows.(@stream),
    process_of_stream: rows.(Keyword.merge(@process, @process_of_stream)),
    run: rows.(Keyword.delete(@run, :stderr) ++ Keyword.drop(@stream, @not_for_run)),
    process_of_run: rows.(Keyword.merge(@process, Keyword.take(@run, [:stderr])))
  }

  @doc "The options of `Exile.Process.start_link/2`."
  @spec process() :: [Option.t()]
  def process, do: @rows.process

  @doc "The options that only streams have."
  @spec stream() :: [Option.t()]
  def stream, do: @rows.stream

  @doc "The options of the commands of a stream."
  @spec process_of_stream() :: [Option.t()]
  def process_of_stream, do: @rows.process_of_stream

  @doc "The options of `Exile.run/2` that are not those of the command."
  @spec run() :: [Option.t()]
  def run, do: @rows.run

  @doc "The options of the command in `Exile.run/2`."
  @spec process_of_run() :: [Option.t()]
  def process_of_run, do: @rows.process_of_run
end
