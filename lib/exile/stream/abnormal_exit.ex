defmodule Exile.Stream.AbnormalExit do
  @moduledoc """
  Raised by `Exile.stream!/2` when a command failed.

  ## Fields

    * `:exit_status` - the exit status, or 128 plus the signal's number if a signal ended the
      command. It is `:epipe` if the reader stopped early and the command was ended because of
      that, by SIGPIPE or by the signals of its teardown
    * `:stage` - the position of the failed command in a pipeline of several, starting with 1.
      `nil` for a single command and for `:epipe`
    * `:command` - that command, program and arguments; `nil` if `:stage` is `nil`
    * `:message` - the same in words
  """

  @type t :: %__MODULE__{
          exit_status: 0..255 | :epipe,
          stage: pos_integer | nil,
          command: Exile.command() | nil,
          message: binary
        }

  defexception [:exit_status, :stage, :command, :message]

  @impl true
  def exception(:epipe) do
    %__MODULE__{exit_status: :epipe, message: "program exited due to :epipe error"}
  end

  def exception(status) when is_integer(status), do: exception({status, nil, nil})

  # `stage` is `{position, number of commands, argv}`; `timeout` is the one that ran out, if any.
  def exception({status, stage, timeout}) do
    who =
      case stage do
        nil -> "program"
        {index, count, argv} -> "stage #{index} of #{count}, #{inspect(argv)},"
      end

    %__MODULE__{
      exit_status: status,
      stage: stage && elem(stage, 0),
      command: stage && elem(stage, 2),
      message: "#{who} #{what(status, timeout)}"
    }
  end

  defp what(status, nil), do: "exited with exit status: #{status}"

  defp what(status, timeout) do
    what(status, nil) <> ", since it did not exit within #{timeout} ms after its output had ended"
  end
end
