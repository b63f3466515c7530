defmodule Exile.Result do
  @moduledoc """
  What became of commands that `Exile.run/2` has run.

  ## Fields

    * `:stdout`, `:stderr` - what was captured of standard output and standard error, binaries, or with
      `:lines` lists of lines (with `stderr: :tail` a binary all the same); for `stdout: {:into, collectable}` the collectable with the output in it. `nil` where the output went
      elsewhere. In a pipeline `:stdout` is that of the last command, `:stderr` that of all
    * `:status` - the exit status as a shell shows it: the exit code, or 128 plus the number of the signal
      that ended the command. In a pipeline that of the first command that failed, else that of the last.
      `nil` if it is not known, which takes a command that survived SIGKILL
    * `:signal` - the signal that ended the same command, like `:sigterm` (a number if it has no name), or
      `nil`
    * `:duration` - how long it took, in microseconds
    * `:stages` - for each command a map of its `:command`, `:status` and `:signal`
    * `:truncated` - the outputs of which something was left out because of `:max_output` or
      `stderr: :tail`, a list of `:stdout` and `:stderr`
    * `:usage` - `nil`. The field is reserved for what the commands have used of the machine
  """

  @enforce_keys [:stdout, :stderr, :status, :signal, :duration, :stages, :truncated]
  defstruct @enforce_keys ++ [:usage]

  @type stage :: %{
          command: Exile.command(),
          status: 0..255 | nil,
          signal: Exile.Process.signal() | nil
        }

  @type t :: %__MODULE__{
          stdout: binary | [binary] | Collectable.t() | nil,
          stderr: binary | [binary] | nil,
          status: 0..255 | nil,
          signal: Exile.Process.signal() | nil,
          duration: non_neg_integer,
          stages: [stage, ...],
          truncated: [:stdout | :stderr],
          usage: nil
        }
end
