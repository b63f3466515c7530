defmodule Bench.Report do
  # The results as a table to read, as JSON and as a picture.

  @doc "Markdown tables, which are as readable as they are."
  def table(result) do
    for metric <- result.metrics, metric.rows != [] do
      header = [
        "#{metric.title}, #{metric.unit}",
        "median",
        "least to greatest" | Enum.map(result.baselines, &"to #{&1}")
      ]

      rows =
        for row <- metric.rows do
          ratios = for baseline <- result.baselines, do: number(row.ratios[baseline])

          [
            row.name,
            number(row.median),
            "#{number(row.least)} to #{number(row.greatest)}" | ratios
          ]
        end

      [
        "### #{result.name}: #{result.title}\n\n",
        "#{better(metric)} is better\n\n",
        markdown([header | rows]),
        "\n"
      ]
    end
  end

  defp better(%{better: :higher}), do: "higher"
  defp better(%{better: :lower}), do: "lower"

  defp markdown([header | _] = rows) do
    widths =
      for column <- 0..(length(header) - 1),
          do: rows |> Enum.map(&String.length(Enum.at(&1, column))) |> Enum.max()

    [first | rest] = Enum.map(rows, &line(&1, widths))
    [_ | others] = widths

    rule = [
      "| ",
      Enum.intersperse(
        [
          String.duplicate("-", hd(widths))
          | Enum.map(others, &(String.duplicate("-", &1 - 1) <> ":"))
        ],
        " | "
      ),
      " |\n"
    ]

    [first, rule | rest]
  end

  defp line([name | numbers], [width | widths]) do
    numbers = Enum.zip_with(numbers, widths, &String.pad_leading/2)
    ["| ", Enum.intersperse([String.pad_trailing(name, width) | numbers], " | "), " |\n"]
  end

  @doc "What we wanted and what we got."
  def goals(results) do
    lines =
      for result <- results, goal <- result.goals do
        relation = if goal.relation == :at_least, do: "at least", else: "at most"
        against = if goal.baseline, do: " to #{goal.baseline}", else: " #{goal.unit}"

        outcome =
          case goal.met do
            nil -> "not measured"
            true -> "#{number(goal.value)}: met"
            false -> "#{number(goal.value)}: NOT met"
          end

        "- #{result.name}, #{goal.metric}, #{goal.contender}: #{relation} #{number(goal.limit)}#{against}: #{outcome}\n"
      end

    if lines != [], do: ["### Goals\n\n", lines, "\n"], else: []
  end

  def machine do
    {processor, _} =
      System.shell("sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1")

    {kernel, _} = System.cmd("uname", ["-sr"])

    %{
      processor: String.trim(processor),
      cores: System.schedulers_online(),
      kernel: String.trim(kernel),
      load: load(),
      otp: System.otp_release(),
      elixir: System.version()
    }
  end

  # How many processes want to run, on average over the last minute: ours is one.
  defp load do
    case File.read("/proc/loadavg") do
      {:ok, averages} -> averages |> String.split() |> hd()
      {:error, _} -> "unknown"
    end
  end

  def number(nil), do: "-"
  def number(value) when is_integer(value), do: Integer.to_string(value)

  def number(value) when is_float(value) do
    decimals = if abs(value) >= 100, do: 0, else: if(abs(value) >= 10, do: 1, else: 2)
    :erlang.float_to_binary(value, decimals: decimals)
  end
end

defmodule Bench.JSON do
  # Elixir has had JSON since 1.18 only.

  def encode(nil), do: "null"
  def encode(value) when is_boolean(value), do: Atom.to_string(value)
  def encode(value) when is_integer(value), do: Integer.to_string(value)
  def encode(value) when is_float(value), do: :erlang.float_to_binary(value, [:short])
  def encode(value) when is_atom(value), do: value |> Atom.to_string() |> encode()

  def encode(value) when is_binary(value) do
    [?", for(<<character::utf8 <- value>>, do: escape(character)), ?"]
  end

  def encode({name, why}), do: encode(%{name: name, why: why})

  def encode(list) when is_list(list),
    do: [?[, list |> Enum.map(&encode/1) |> Enum.intersperse(","), ?]]

  def encode(%{} = map) do
    pairs = for {key, value} <- map, do: [encode(to_string(key)), ":", encode(value)]
    [?{, Enum.intersperse(pairs, ","), ?}]
  end

  defp escape(?"), do: "\\\""
  defp escape(?\\), do: "\\\\"

  defp escape(character) when character < 0x20,
    do: ["\\u", character |> Integer.to_string(16) |> String.pad_leading(4, "0")]

  defp escape(character), do: <<character::utf8>>
end

defmodule Bench.SVG do
  # A bar for each contender, by the first metric of each case: how many times as good as the first
  # baseline, on a logarithmic scale. What is better goes to the right, what is worse to the left.

  @row 18
  @name_width 330
  @half 220
  @number_width 70
  @width @name_width + 2 * @half + @number_width
  # The scale ends at ten times as good and a tenth as good.
  @decades 1.0

  def draw(results) do
    {body, height} =
      for result <- results, chart = chart(result), reduce: {[], 24} do
        {drawn, y} ->
          {title, bars} = chart
          title = text(8, y + 14, "title", title)

          bars =
            for {{name, ratio}, index} <- Enum.with_index(bars, 1),
                do: bar(name, ratio, y + index * @row + 4)

          {[drawn, title, bars], y + (length(bars) + 2) * @row}
      end

    [
      ~s(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 #{@width} #{height}" role="img">\n),
      "<title>Benchmarks: times as good as the baseline; to the right is better</title>\n",
      style(),
      ~s(<rect class="ground" width="#{@width}" height="#{height}"/>\n),
      text(
        8,
        16,
        "note",
        "Each bar: ratio within one run, logarithmic from 1/10 to 10; to the right is better."
      ),
      ~s(<line class="one" x1="#{center()}" x2="#{center()}" y1="24" y2="#{height - 8}"/>\n),
      body,
      "</svg>\n"
    ]
  end

  # What the case is about, against whom it is held first; `nil` where there is nothing to compare.
  defp chart(%{baselines: [baseline | _], metrics: [metric | _]} = result) do
    bars =
      for row <- metric.rows, ratio = row.ratios[baseline] do
        {row.name, goodness(ratio, metric.better)}
      end

    if bars != [],
      do: {"#{result.name}, #{metric.title}: times as good as #{baseline}", bars}
  end

  defp chart(_result), do: nil

  defp goodness(ratio, :higher), do: ratio
  defp goodness(ratio, :lower) when ratio > 0, do: 1 / ratio
  defp goodness(_ratio, :lower), do: 1.0e3

  defp bar(name, ratio, y) do
    length = @half * clamp(:math.log10(max(ratio, 1.0e-6)) / @decades)
    x = if length < 0, do: center() + length, else: center()
    class = if length < 0, do: "worse", else: "better"

    [
      text(16, y + 12, "name", name),
      ~s(<rect class="#{class}" x="#{round(x)}" y="#{y + 2}" width="#{max(round(abs(length)), 1)}" height="#{@row - 5}"/>\n),
      text(@width - @number_width + 8, y + 12, "name", Bench.Report.number(ratio))
    ]
  end

  defp clamp(value), do: value |> max(-1.0) |> min(1.0)
  defp center, do: @name_width + @half

  defp text(x, y, class, content) do
    content = content |> String.replace("&", "&amp;") |> String.replace("<", "&lt;")
    ~s(<text class="#{class}" x="#{x}" y="#{y}">#{content}</text>\n)
  end

  defp style do
    """
    <style>
      text { font: 12px sans-serif; fill: #222 }
      .title { font-weight: bold } .note { fill: #666 }
      .ground { fill: #fff } .one { stroke: #888 }
      .better { fill: #2a7ab8 } .worse { fill: #c8722a }
      @media (prefers-color-scheme: dark) {
        text { fill: #ddd } .note { fill: #999 } .ground { fill: #161b22 }
        .better { fill: #58a6ff } .worse { fill: #e09b5a }
      }
    </style>
    """
  end
end
