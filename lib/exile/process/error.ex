defmodule Exile.Process.Error do
  @moduledoc """
  A system error: a command could not be started, or its pipe or status cannot be used.

  Also a command that `Exile.run/2` has run and that failed.

  Functions that may fail return it in `{:error, error}`. Streams and functions whose name ends in
  `!` raise it. Interpolating it into a string gives its message.

  ## Fields

    * `:reason` - the POSIX error as an atom, such as `:enoent`, or `{:errno, number}` if the
      error number has no name
    * `:operation` - what was being done:
      * `:exec` - executing the program
      * `:cd` - changing to the directory of the `:cd` option
      * `:stdio` - creating the pipes, or opening the null device
      * `:input` - opening the file of the `:input` option
      * `:output` - opening the file of the `:stdout` option
      * `:errors` - opening the file of the `:stderr` option
      * `:clone` - creating the process
      * `:prepare` - setting up the new process
      * `:nice`, `:umask`, `:cpus`, `:io_priority`, `:limits`, `:no_new_privs` - applying the option of this
        name; the program has not run
      * `:watch` - making the VM watch for the exit of the command
      * `:read`, `:write` - using a pipe
      * `:run` - running a command, which failed. The reason is `{:status, status}` or
        `{:signal, signal}`, where that is not in `:success`; or the limit that it exceeded: `:timeout`,
        `:idle_timeout`, `:exit_timeout`, `:max_output` or `:line_too_long`
      * `:signal` - ending a command that the VM may not signal
      * `:status` - getting the exit status of the command
    * `:subject` - the program, directory or file concerned, or `nil`
    * `:hint` - what may explain it, in words, or `nil`
    * `:stage` - in a pipeline `{which, of_how_many}` if one command failed, counted from 1; else `nil`
    * `:stderr` - from streams with `stderr: :tail` the last 8,192 bytes of standard error; else `nil`
    * `:result` - from `Exile.run/2` the `Exile.Result` with what there was, once the command ran; else
      `nil`
  """

  alias Exile.Process.Words

  @type reason ::
          atom | {:errno, integer} | {:status, 0..255} | {:signal, Exile.Process.signal()}
  @type t :: %__MODULE__{
          reason: reason,
          operation: atom,
          subject: binary | nil,
          hint: binary | nil,
          stage: {pos_integer, of :: pos_integer} | nil,
          stderr: binary | nil,
          result: Exile.Result.t() | nil
        }

  defexception [:reason, :operation, :subject, :hint, :stage, :stderr, :result]

  @impl true
  def message(%__MODULE__{reason: :ecanceled, operation: :clone, subject: subject}) do
    "could not run #{inspect(subject)}: the application :exile is not started, or is stopping " <>
      "(ecanceled)"
  end

  def message(%__MODULE__{reason: :etimedout, operation: :exec, subject: subject}) do
    "could not run #{inspect(subject)}: it took too long to start (etimedout)"
  end

  def message(%__MODULE__{operation: :run} = error) do
    stage = with {index, count} <- error.stage, do: " (stage #{index} of #{count})"
    who = if error.subject, do: inspect(error.subject), else: "a command of the pipeline"
    stderr = if error.result, do: error.result.stderr, else: error.stderr
    "#{who}#{stage} #{failure(error.reason)}#{Words.last_line(stderr)}"
  end

  def message(%__MODULE__{reason: reason, operation: operation, subject: subject} = error) do
    doing = "could not " <> doing(operation)
    about = if is_binary(subject), do: " " <> inspect(subject), else: " the command"
    hint = if error.hint, do: "; " <> error.hint
    "#{doing}#{about}: #{in_words(reason)}#{hint}"
  end

  defp failure({:status, status}), do: "exited with status #{status}"
  defp failure({:signal, signal}), do: "was ended by #{Words.signal(signal)}"
  defp failure(:timeout), do: "did not end within the time that :timeout allows"
  defp failure(:idle_timeout), do: "wrote nothing for the time that :idle_timeout allows"
  defp failure(:exit_timeout), do: "closed its output, but did not exit within :exit_timeout"
  defp failure(:max_output), do: "wrote more than :max_output allows"
  defp failure(:line_too_long), do: "wrote a line that is longer than :lines allows"

  defp doing(:exec), do: "run"
  defp doing(:cd), do: "change to the directory"
  defp doing(:stdio), do: "create the pipes for"
  defp doing(:input), do: "open the input"
  defp doing(:output), do: "open the output"
  defp doing(:errors), do: "open the file for standard error"
  defp doing(:clone), do: "create a process for"
  defp doing(:prepare), do: "set up a process for"
  defp doing(:watch), do: "watch the process of"
  defp doing(:read), do: "read from"
  defp doing(:write), do: "write to"
  defp doing(:signal), do: "end"
  defp doing(:status), do: "get the exit status of"
  defp doing(option), do: "apply #{inspect(option)} to"

  defp in_words({:errno, number}) when is_integer(number), do: "error number #{number}"

  defp in_words(:pipe_closed_or_invalid_caller) do
    "its pipe is closed, or belongs to another process (pipe_closed_or_invalid_caller)"
  end

  defp in_words(reason) when is_atom(reason) do
    case :file.format_error(reason) do
      ~c"unknown POSIX error" ++ _ -> Atom.to_string(reason)
      words -> "#{words} (#{reason})"
    end
  end

  defp in_words(other), do: inspect(other)
end

defimpl String.Chars, for: Exile.Process.Error do
  def to_string(error), do: Exception.message(error)
end
