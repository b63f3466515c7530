defmodule Exile.Stream do
  @moduledoc """
  A command or a pipeline as a lazy enumerable. `Exile.stream!/2` and `Exile.stream/2` create it.

  Nothing runs until it is enumerated, and each enumeration runs the commands again. See `Exile`.
  """

  @enforce_keys [:commands, :options, :on_failure]
  defstruct @enforce_keys

  @typedoc "Commands that run when the stream is enumerated. The fields are private."
  @type t :: %__MODULE__{
          commands: [struct, ...],
          options: %{atom => term},
          on_failure: :raise | :tell
        }
end
