# The guides as documentation of modules, since later versions of Elixir than the oldest that is
# supported are needed to test the examples of a file.
for guide <- Path.wildcard("guides/*.md") do
  defmodule Module.concat(Exile.Guides, guide |> Path.basename(".md") |> Macro.camelize()) do
    @external_resource guide
    @moduledoc File.read!(guide)
  end
end
