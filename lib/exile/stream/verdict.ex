defmodule Exile.Stream.Verdict do
  @moduledoc false

  # Whether commands that have ended have failed, and which of them.

  alias Exile.{Native, Stream}

  @type t :: %{
          code: 0..255,
          index: non_neg_integer,
          failure: nil | keyword,
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
  def of(%Stream{commands: commands, options: options} = stream, statuses, late) do
    failed = for index <- failed(stream, statuses), index != late, do: index
    failed = if late, do: [late | failed], else: failed
    index = List.first(failed) || length(statuses) - 1
    %{code: code, signal: signal} = Enum.at(statuses, index)

    failure = [
      exit_status: code,
      signal: signal,
      stage: stage(commands, index),
      command: Enum.at(commands, index).argv,
      exit_timeout: late && options.exit_timeout
    ]

    %{
      code: code,
      index: index,
      failure: if(failed != [], do: failure),
      signaled: Enum.any?(failed, &(Enum.at(statuses, &1).signal != nil))
    }
  end

  @doc "What `Exile.Stream.AbnormalExit` is made of where a command ended because its reader stopped early."
  @spec early(Stream.t()) :: keyword
  def early(%Stream{commands: commands}),
    do: [exit_status: :epipe, command: List.last(commands).argv]

  @doc "The first that failed, of those whose statuses are known."
  @spec first_failed(Stream.t(), [Stream.Run.ended()]) :: non_neg_integer | nil
  def first_failed(stream, statuses), do: stream |> failed(statuses) |> List.first()

  defp failed(%Stream{options: %{success: success}}, statuses) do
    last = length(statuses) - 1

    for {%{} = status, index} <- Enum.with_index(statuses),
        failed?(status, index == last, success),
        do: index
  end

  # A command killed by SIGPIPE because the next one stopped reading does not count as failed. Only we
  # read what the last one writes.
  defp failed?(%{signal: :sigpipe}, false, _success), do: false
  defp failed?(_status, _last?, :any), do: false
  defp failed?(%{code: code}, _last?, success), do: code not in success

  defp stage([_], _index), do: nil
  defp stage(commands, index), do: {index + 1, length(commands)}
end
