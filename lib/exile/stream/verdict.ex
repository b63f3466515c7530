defmodule Exile.Stream.Verdict do
  @moduledoc false

  # Whether commands that have ended have failed, and which of them.

  alias Exile.{Native, Stream}

  @type t :: %{
          code: 0..255,
          index: non_neg_integer,
          failure: nil | term,
          signaled: boolean
        }

  @doc """
  The verdict on commands with these statuses, of which the one at `late` did not exit within
  `:exit_timeout`.

    * `code` - the exit status as a shell shows it: that of the first that failed, or of the last one
    * `index` - which command that is, from 0
    * `failure` - what `Exile.Stream.AbnormalExit` is made of; `nil` if none failed
    * `signaled` - whether a signal ended one of those that failed
  """
  @spec of(Stream.t(), [Native.status()], non_neg_integer | nil) :: t
  def of(%Stream{commands: commands, options: options}, statuses, late) do
    last = length(statuses) - 1

    failed =
      for {status, index} <- Enum.with_index(statuses),
          index == late or failed?(status, index == last, options.success),
          do: index

    index = late || List.first(failed) || last
    %{code: code} = Enum.at(statuses, index)

    %{
      code: code,
      index: index,
      failure: if(failed != [], do: {code, stage(commands, index), late && options.exit_timeout}),
      signaled: Enum.any?(failed, &(Enum.at(statuses, &1).signal != nil))
    }
  end

  # A command killed by SIGPIPE because the next one stopped reading does not count as failed. Only we
  # read what the last one writes.
  defp failed?(%{signal: :sigpipe}, false, _success), do: false
  defp failed?(_status, _last?, :any), do: false
  defp failed?(%{code: code}, _last?, success), do: code not in success

  defp stage([_], _index), do: nil
  defp stage(commands, index), do: {index + 1, length(commands), Enum.at(commands, index).argv}
end
