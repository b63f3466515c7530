defmodule Bench.Overview do
  # The chart of the README: what somebody who chooses a library wants to know, in units. Each case shows
  # Exile, what Elixir has for it, and, where that was measured, plain Rust or a shell, as a measure of what
  # the machine can do.

  # The case and its metric, what it is about, and the contenders by the names that the chart has for them.
  @cases [
    {"read", :speed, "Read what one program writes",
     [
       {"Exile", "Exile.stream!"},
       {"port", "port"},
       {"plain Rust", "Rust, 256 KiB pipe"}
     ]},
    {"duplex", :speed, "Send data through a program and back",
     [
       {"Exile", "Exile.stream!"},
       {"port", "port"},
       {"plain Rust", "Rust, 256 KiB pipes"}
     ]},
    {"pipeline", :speed, "Move data through three programs",
     [{"Exile", "Exile.stream!, a list of commands"}, {"a shell", "shell"}]},
    {"streams", :speed, "Read what 200 programs write at once",
     [{"Exile", "Exile.stream!"}, {"port", "port"}]},
    {"true", :p50, "Run a short program",
     [
       {"Exile", "Exile.Process"},
       {"System.cmd", "System.cmd"},
       {"port", "port"},
       {"plain Rust", "Rust, posix_spawn"}
     ]},
    {"echo", :p50, "Ask a program and get its answer",
     [{"Exile", "Exile.Process"}, {"port", "port"}, {"plain Rust", "Rust"}]},
    {"by_line", :time, "Read a million lines",
     [{"Exile", "Exile.stream!, :lines"}, {"port", "port"}, {"IO.stream of a file", "IO.stream"}]},
    {"slow", :growth, "Memory, when the reader is slower than the program",
     [{"Exile", "Exile.stream!"}, {"port", "port"}]}
  ]

  @row 20
  @left 210
  @bar 330
  @width 680

  def draw(results) do
    {body, height} =
      for {name, metric, title, contenders} <- @cases,
          chart = chart(results, name, metric, contenders),
          reduce: {[], 10} do
        {drawn, y} ->
          {unit, better, rows} = chart
          most = rows |> Enum.map(&elem(&1, 1)) |> Enum.max()
          title = text(12, y + 15, "title", "#{title} (#{better})")

          bars =
            for {{name, value}, index} <- Enum.with_index(rows, 1),
                do: bar(name, value, most, unit, y + index * @row)

          {[drawn, title, bars], y + (length(rows) + 2) * @row - 8}
      end

    [
      ~s(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 #{@width} #{height}" role="img">\n),
      "<title>Exile beside ports, System.cmd and what the machine can do</title>\n",
      style(),
      ~s(<rect class="ground" width="#{@width}" height="#{height}"/>\n),
      body,
      "</svg>\n"
    ]
  end

  defp chart(results, name, metric, contenders) do
    with %{metrics: metrics} <- Enum.find(results, &(&1.name == name)),
         %{rows: rows} = metric <- Enum.find(metrics, &(&1.id == metric)) do
      shown =
        for {shown, contender} <- contenders,
            row = Enum.find(rows, &(&1.name == contender)),
            do: {shown, row.median}

      better = if metric.better == :higher, do: "more is better", else: "less is better"
      if shown != [], do: {metric.unit, better, shown}
    end
  end

  defp bar(name, value, most, unit, y) do
    length = if most > 0, do: round(@bar * max(value, 0) / most), else: 0
    class = if name == "Exile", do: "exile", else: "other"

    # One unit for all of a case.
    {factor, unit} = in_unit(unit, most)
    value = value * factor

    [
      text(24, y + 14, class, name),
      ~s(<rect class="#{class}" x="#{@left}" y="#{y + 3}" width="#{max(length, 1)}" height="#{@row - 6}"/>\n),
      text(@left + max(length, 1) + 8, y + 14, class, "#{rounded(value)} #{unit}")
    ]
  end

  # The unit in which people say a value as large as `most`.
  defp in_unit("MB/s", most) when most >= 1_000, do: {0.001, "GB/s"}
  defp in_unit("µs", most) when most >= 500, do: {0.001, "ms"}
  defp in_unit(unit, _most), do: {1, unit}

  defp rounded(value) when value >= 10, do: Integer.to_string(round(value))
  defp rounded(value) when value >= 1, do: :erlang.float_to_binary(value * 1.0, decimals: 1)
  defp rounded(value), do: :erlang.float_to_binary(max(value, 0) * 1.0, decimals: 2)

  defp text(x, y, class, content),
    do: ~s(<text class="#{class}" x="#{x}" y="#{y}">#{content}</text>\n)

  defp style do
    """
    <style>
      text { font: 13px sans-serif; fill: #333 }
      text.title, text.exile { font-weight: bold } .ground { fill: #fff }
      rect.exile { fill: #2a7ab8 } rect.other { fill: #b5bcc4 }
      @media (prefers-color-scheme: dark) {
        text { fill: #ddd } .ground { fill: #161b22 }
        rect.exile { fill: #58a6ff } rect.other { fill: #57606a }
      }
    </style>
    """
  end
end
