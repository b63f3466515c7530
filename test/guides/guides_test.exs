defmodule Exile.GuidesTest do
  use Exile.Case

  # One guide shows a server that fails.
  @moduletag :capture_log

  @guides Path.wildcard("guides/*.md")

  # The examples of a guide use the modules that it defines.
  for guide <- @guides,
      [source] <-
        Regex.scan(~r/^```elixir\n(defmodule .*?)^```$/ms, File.read!(guide),
          capture: :all_but_first
        ) do
    Code.compile_string(source, guide)
  end

  for guide <- @guides,
      do: doctest(Module.concat(Exile.Guides, Path.basename(guide, ".md") |> Macro.camelize()))

  test "every guide is a page of the documentation, and tested" do
    extras = Mix.Project.config()[:docs][:extras]
    assert Enum.sort(for "guides/" <> _ = path <- extras, do: path) == @guides
  end
end
