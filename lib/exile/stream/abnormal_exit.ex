defmodule Exile.Stream.AbnormalExit do
  @moduledoc """
  Raised by `Exile.stream!/2` when the command failed.

  ## Fields

    * `:exit_status` - the exit status, 128 plus the signal's number when a signal ended the
      command; or `:epipe` when the command ended before it had read all its input, or the reader
      stopped before the command was done
    * `:message` - the same in words
  """

  @type t :: %__MODULE__{exit_status: 0..255 | :epipe, message: binary}

  defexception [:exit_status, :message]

  @impl true
  def exception(:epipe) do
    %__MODULE__{exit_status: :epipe, message: "program exited due to :epipe error"}
  end

  def exception(status) when is_integer(status) do
    %__MODULE__{exit_status: status, message: "program exited with exit status: #{status}"}
  end

  def exception({:exit_timeout, timeout, status}) do
    %__MODULE__{
      exit_status: status,
      message:
        "program was terminated, exit status: #{status}, " <>
          "because it did not exit within #{timeout} ms after its output had ended"
    }
  end
end
