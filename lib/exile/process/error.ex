defmodule Exile.Process.Error do
  @moduledoc """
  Trouble of the system: a command that could not be started, or one whose pipe or status is out
  of reach.

  It is returned in `{:error, error}` by functions that may fail, and raised by those that end in
  `!` and by streams. In a string it becomes its message.

  ## Fields

    * `:reason` - the POSIX reason as an atom, `:enoent` for instance; `{:errno, number}` for an
      error number that has no name
    * `:operation` - what was being done:
      * `:exec` - executing the program
      * `:cd` - changing to the directory of the `:cd` option
      * `:stdio` - making the pipes, or opening the null device
      * `:input` - opening the file of the `:input` option
      * `:output` - opening the file of the `:stdout` option
      * `:clone` - making the process
      * `:prepare` - setting the new process up
      * `:nice`, `:umask` - applying the option of this name
      * `:watch` - having the VM watch for the end of the command
      * `:read`, `:write` - using a pipe
      * `:run` - running a command, which took too long: the reason is `:timeout` or `:idle_timeout`
      * `:signal` - ending a command that may not be signalled
      * `:status` - learning how the command ended
    * `:subject` - the program, directory or file that it was done with, or `nil`
  """

  @type reason :: atom | {:errno, integer}
  @type t :: %__MODULE__{reason: reason, operation: atom, subject: binary | nil}

  defexception [:reason, :operation, :subject]

  @impl true
  def message(%__MODULE__{reason: :ecanceled, operation: :clone, subject: subject}) do
    "could not run #{inspect(subject)}: the application :exile is not started, or is stopping " <>
      "(ecanceled)"
  end

  def message(%__MODULE__{reason: :etimedout, operation: :exec, subject: subject}) do
    "could not run #{inspect(subject)}: it took too long to start (etimedout)"
  end

  def message(%__MODULE__{reason: :timeout, operation: :run, subject: subject}),
    do: "#{inspect(subject)} did not end within :timeout"

  def message(%__MODULE__{reason: :idle_timeout, operation: :run, subject: subject}),
    do: "#{inspect(subject)} wrote nothing for as long as :idle_timeout"

  def message(%__MODULE__{reason: reason, operation: operation, subject: subject}) do
    doing = "could not " <> doing(operation)
    about = if is_binary(subject), do: " " <> inspect(subject), else: " the command"
    doing <> about <> ": " <> in_words(reason)
  end

  defp doing(:exec), do: "run"
  defp doing(:cd), do: "change to the directory"
  defp doing(:stdio), do: "make the pipes for"
  defp doing(:input), do: "open the input"
  defp doing(:output), do: "open the output"
  defp doing(:clone), do: "make a process for"
  defp doing(:prepare), do: "set up a process for"
  defp doing(:watch), do: "watch the process of"
  defp doing(:read), do: "read from"
  defp doing(:write), do: "write to"
  defp doing(:signal), do: "end"
  defp doing(:status), do: "learn the exit status of"
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
