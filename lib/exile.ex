defmodule Exile do
  readme = Path.join(__DIR__, "../README.md")
  @external_resource readme
  @moduledoc readme
             |> File.read!()
             |> String.split("<!-- MDOC -->")
             |> Enum.drop(1)
             |> Enum.take_every(2)
             |> Enum.join()

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

  @type stream_option ::
          {:input, input}
          | {:stdout, {:file, path :: binary} | {:file, path :: binary, :append}}
          | {:use_stderr, boolean}
          | {:max_chunk_size, pos_integer}
          | {:chunk_size, pos_integer}
          | {:exit_timeout, timeout}
          | {:drain_timeout, timeout}
          | {:ignore_epipe, boolean}
          | Exile.Process.option()

  @doc """
  A stream of what `command` writes, which raises when the command fails.

  Returns an `Exile.Stream`, an `Enumerable`. Each enumeration runs the command anew. The elements
  are binaries, never empty, as large as the output at that moment and `:max_chunk_size` allow.

  A list of commands is a pipeline: all run at once, each reads what the one before it writes, and
  the elements are what the last one writes. Pipes of the kernel join them, so that the bytes in
  between do not pass through the VM. The options hold for each of the commands.

  A stream may be suspended, and resumed later or in another process. One that is suspended and can
  no longer be resumed is ended when the VM collects it.

  ## Options

  An option whose value is `nil` has its default.

    * `:input` - what the command reads. Default: nothing, it sees end-of-file at once.
      * an enumerable whose elements are iodata
      * another `Exile.Stream`: its commands become the beginning of this one's pipeline. They keep
        their `:cd`, `:env`, `:clear_env`, `:stderr` and `:teardown`, and their `:input`; the
        other options are this stream's. (One with `stderr: :consume` or `:stdout` is enumerated.)
      * a binary
      * a function that gets an `Exile.Stream.Sink`, a collectable, and pushes into it with
        `Enum.into/2`, which returns `:ok`; what the function returns is ignored
      * `{:file, path}` - a file, relative to the VM's directory, that the command itself reads. A
        FIFO that nobody has open for writing is an empty one
      * a `File.Stream` of bytes (`File.stream!(path, [], 65_536)`): its file, which the command
        itself reads. One of lines, or with an encoding, is enumerated
    * `:stdout` - `{:file, path}`: the command writes to this file itself, relative to the VM's
      directory, made if it is missing and emptied if it is not. `{:file, path, :append}`: at its
      end. The stream then has no elements, except those of standard error and those that
      `stream/2` adds. Default: the elements of the stream.
    * `:stderr` - as for `Exile.Process.start_link/2`. With `:consume` the elements are
      `{:stdout, binary}` and `{:stderr, binary}`, in the order in which they were met; within
      each the order is the command's. In a pipeline it is the standard error of all commands;
      with `:redirect_to_stdout` each command's goes where its standard output goes, to the next
      command. Default: `:console`.
    * `:max_chunk_size` (bytes) - the most that one element holds. Default: `65_536`.
    * `:exit_timeout` (milliseconds or `:infinity`) - how long to wait, once the output has ended,
      for the command to exit by itself before it is ended by signals and counts as failed, whatever
      its status is. Nobody sees the end of an output that goes to a file, so it does not count
      there. When the reader stops early, this is also how long the command may take before it gets
      signals; with `:infinity` it gets none. Default: `:infinity`, and 250 ms when the reader stops
      early.
    * `:drain_timeout` (milliseconds or `:infinity`) - how long to read on, once the command has
      exited and its output has been read, from a pipe that programs it left behind still hold
      open. Default: `:infinity`, as a shell would.
    * `:ignore_epipe` (boolean) - that the reader stops before the command is done is no failure.
      Default: `false`.
    * `:cd`, `:env`, `:clear_env`, `:teardown`, `:start_timeout` - as for
      `Exile.Process.start_link/2`.
    * `:chunk_size`, `:use_stderr` - older names: the former of `:max_chunk_size`; the latter
      `true` for `stderr: :consume`, `false` for `stderr: :console`.

  A wrong value raises `ArgumentError` right away, and so does an unknown option.

  ## Errors

  While it is enumerated the stream raises

    * `Exile.Process.Error` when the command cannot be started, with the reasons of
      `Exile.Process.start_link/2`
    * `Exile.Stream.AbnormalExit` when it ended with a status other than 0. In a pipeline when any
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
  def stream!(command, options \\ []), do: Exile.Stream.new!(command, options, :raise)

  @doc """
  Like `stream!/2`, but the exit status raises nothing: it is the last element.

  That is `{:exit, {:status, 0..255}}`. In a pipeline it is the status of the first command that
  failed. A reader who stops early does not see it, and nothing is raised because of that. All else
  that `stream!/2` raises this stream raises, too.

  ## Examples

      iex> Exile.stream(["sh", "-c", "echo oops; exit 3"]) |> Enum.to_list()
      ["oops\\n", {:exit, {:status, 3}}]

      iex> Exile.stream(["sh", "-c", "kill -TERM $$"]) |> Enum.to_list()
      [{:exit, {:status, 143}}]
  """
  @spec stream(command | pipeline, [stream_option]) :: Exile.Stream.t()
  def stream(command, options \\ []), do: Exile.Stream.new!(command, options, :tell)
end
