defmodule Exile.Stream.AbnormalExit do
  @moduledoc """
  Raised by `Exile.stream!/2` when a command failed.

  ## Fields

    * `:exit_status` - the exit status, or 128 plus the signal's number if a signal ended the
      command. It is `:epipe` if the reader stopped early and the command was ended because of
      that, by SIGPIPE or by the signals of its teardown
    * `:signal` - the signal that ended the command, such as `:sigterm`, or its number if it has no name;
      `nil` if none did, and with `:epipe`
    * `:command` - the command that failed, program and arguments; with `:epipe` the last one
    * `:stage` - the position of that command in a pipeline of several, starting with 1. `nil` for a
      single command and with `:epipe`
    * `:stderr` - with `stderr: :tail` the last 8,192 bytes that the commands wrote to standard error; else
      `nil`
    * `:message` - the same in words
  """

  alias Exile.Process.Words

  @type t :: %__MODULE__{
          exit_status: 0..255 | :epipe,
          signal: Exile.Process.signal() | nil,
          command: Exile.command() | nil,
          stage: pos_integer | nil,
          stderr: binary | nil,
          message: binary
        }

  defexception [:exit_status, :signal, :command, :stage, :stderr, :message]

  # Only a status, as tests of programs raise it. Or what is known of the failure: `:stage` is `{position,
  # number of commands}`; `:exit_timeout` is the one that has passed, if any.
  @impl true
  def exception(status) when not is_list(status), do: exception(exit_status: status)

  def exception(failure) do
    %__MODULE__{
      exit_status: failure[:exit_status],
      signal: failure[:signal],
      command: failure[:command],
      stage: with({position, _count} <- failure[:stage], do: position),
      stderr: failure[:stderr],
      message: what(failure[:exit_status]) <> about(failure[:command], Map.new(failure))
    }
  end

  defp what(:epipe), do: "program exited due to :epipe error"
  defp what(status), do: "program exited with exit status: #{status}"

  defp about(nil, _failure), do: ""

  defp about([program | _], %{exit_status: :epipe}),
    do: " (#{inspect(program)}: its reader stopped early, see :ignore_epipe)"

  defp about([program | _], failure) do
    stage = with {position, count} <- failure[:stage], do: ", stage #{position} of #{count}"
    why = why(failure)
    comma = if stage && why, do: ","
    " (#{inspect(program)}#{stage}#{comma}#{why}#{Words.last_line(failure[:stderr])})"
  end

  defp why(%{exit_timeout: timeout}) when timeout != nil,
    do: " did not exit within #{timeout} ms after its output had ended"

  defp why(%{signal: signal}) when signal != nil, do: " was ended by #{Words.signal(signal)}"
  defp why(_failure), do: nil
end
