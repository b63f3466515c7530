# Each guide becomes the documentation of a module, because the oldest supported Elixir cannot run
# doctests of a file.
for guide <- Path.wildcard("guides/*.md") do
  defmodule Module.concat(Exile.Guides, guide |> Path.basename(".md") |> Macro.camelize()) do
    @external_resource guide
    @moduledoc File.read!(guide)
  end
end

defmodule Exile.Guides do
  @moduledoc "Makes Mix recompile this file when a guide is added or removed."

  @guides Path.wildcard("guides/*.md")

  @doc false
  def __mix_recompile__?, do: Path.wildcard("guides/*.md") != @guides
end
