# The guides as documentation of modules, since later versions of Elixir than the oldest that is
# supported are needed to test the examples of a file.
for guide <- Path.wildcard("guides/*.md") do
  defmodule Module.concat(Exile.Guides, guide |> Path.basename(".md") |> Macro.camelize()) do
    @external_resource guide
    @moduledoc File.read!(guide)
  end
end

defmodule Exile.Guides do
  @moduledoc "Has mix compile this file again when a guide is added or taken away."

  @guides Path.wildcard("guides/*.md")

  @doc false
  def __mix_recompile__?, do: Path.wildcard("guides/*.md") != @guides
end
