defmodule Exile.Stream do
  @moduledoc """
  One command, or several that read from each other, as a lazy enumerable; `Exile.stream!/2` and
  `Exile.stream/2` make it.

  Nothing runs until it is enumerated, and each enumeration runs the commands anew. See `Exile`.
  """

  @enforce_keys [:commands, :options, :on_failure]
  defstruct @enforce_keys

  @typedoc "Commands to be run when it is enumerated. The fields are private."
  @type t :: %__MODULE__{
          commands: [struct, ...],
          options: %{atom => term},
          on_failure: :raise | :tell
        }
end
