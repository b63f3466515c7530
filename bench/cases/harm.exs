defmodule Bench.Harm do
  # What a command does to the rest of the VM: to its memory, to its schedulers.

  alias Bench.{Case, FreshVM, Measure, ViaExile, ViaPort}

  @mebibyte 1_048_576
  # A slow reader takes a chunk in so many milliseconds.
  @pause 100
  # A port that faces a quick writer takes all the memory there is; this much is enough to see.
  @too_much 512 * @mebibyte
  # In milliseconds: what a process may take from a scheduler without being noticed.
  @long 1

  def cases(quick?) do
    seconds = if quick?, do: 2, else: 10
    bytes = if quick?, do: 64 * @mebibyte, else: 512 * @mebibyte
    [slow(seconds), schedule(bytes)]
  end

  defp slow(seconds) do
    %Case{
      name: "slow",
      title:
        "`yes` and a reader of a chunk in #{@pause} ms, for #{seconds} s or #{div(@too_much, @mebibyte)} MiB",
      metrics: [
        %{id: :growth, title: "growth of resident memory", unit: "MiB", better: :lower},
        %{id: :seconds, title: "watched for", unit: "s", better: :higher}
      ],
      baselines: ["port"],
      contenders: [
        {"Exile.stream!", fn -> FreshVM.call(__MODULE__, :read_slowly, [:exile, seconds]) end},
        {"port", fn -> FreshVM.call(__MODULE__, :read_slowly, [:port, seconds]) end}
      ],
      goals: [{"Exile.stream!", :growth, nil, :at_most, 1.0}],
      warm_up: false
    }
  end

  @doc false
  def read_slowly(:exile, seconds) do
    # The same before it counts, for half a second: code is loaded, the heap has its size.
    yes = Exile.stream!(["yes"], ignore_epipe: true, stderr: :disable)
    watch(yes, 0.5)
    watch(yes, seconds)
  end

  def read_slowly(:port, seconds) do
    {1_048_576, _} = ViaPort.read_all(["head", "-c", "1048576", "/dev/zero"])
    port = ViaPort.open(["sh", "-c", "exec yes 2>/dev/null"])

    fn -> receive(do: ({^port, {:data, data}} -> data)) end
    |> Stream.repeatedly()
    |> watch(seconds)
  end

  defp watch(chunks, seconds) do
    first = Measure.resident()
    start = System.monotonic_time(:millisecond)
    stop = start + round(seconds * 1_000)

    most =
      Enum.reduce_while(chunks, 0, fn chunk, most ->
        true = byte_size(chunk) > 0
        Process.sleep(@pause)
        most = max(most, Measure.resident() - first)
        over? = most > @too_much or System.monotonic_time(:millisecond) >= stop
        {if(over?, do: :halt, else: :cont), most}
      end)

    %{growth: most / @mebibyte, seconds: (System.monotonic_time(:millisecond) - start) / 1_000}
  end

  # The clock on the wall decides, so a scheduler that the system interrupts is reported, too. So
  # the commands get out of the way of the VM, by `nice`, and a process that only counts, while
  # other programs move the same bytes, shows how often it happens all the same.
  defp schedule(bytes) do
    %Case{
      name: "schedule",
      title:
        "reports of #{@long} ms or more on a scheduler, during the work of read, duplex and true",
      metrics: [
        %{id: :reports, title: "reports in a second", unit: "how many", better: :lower},
        %{id: :library, title: "of these in Exile's code", unit: "how many", better: :lower},
        %{id: :longest, title: "longest", unit: "ms", better: :lower}
      ],
      baselines: ["a process that counts"],
      contenders: [
        {"Exile", fn -> reports(fn -> through_exile(bytes) end) end},
        {"port", fn -> reports(fn -> through_port(bytes) end) end},
        {"a process that counts", fn -> reports(fn -> beside_a_pipeline(bytes) end) end}
      ],
      goals: [{"Exile", :library, nil, :at_most, 0}]
    }
  end

  @chunk 65_536
  @runs 100

  defp through_exile(bytes) do
    ^bytes = ViaExile.count(Exile.stream!(nice(["head", "-c", "#{bytes}", "/dev/zero"])))
    chunk = :binary.copy(<<0>>, @chunk)
    input = Stream.map(1..div(bytes, @chunk), fn _ -> chunk end)
    ^bytes = ViaExile.count(Exile.stream!(nice(["cat"]), input: input))
    for _ <- 1..@runs, do: ViaExile.run(nice(["true"]))
  end

  defp through_port(bytes) do
    {^bytes, _} = ViaPort.read_all(nice(["head", "-c", "#{bytes}", "/dev/zero"]))
    ^bytes = ViaPort.duplex(nice(["cat"]), :binary.copy(<<0>>, @chunk), div(bytes, @chunk))
    for _ <- 1..@runs, do: ViaPort.run(nice(["true"]))
  end

  defp beside_a_pipeline(bytes) do
    script = "head -c #{2 * bytes} /dev/zero | cat > /dev/null"
    counter = spawn_link(fn -> forever(0) end)
    ViaPort.run(nice(["sh", "-c", script]))
    Process.unlink(counter)
    Process.exit(counter, :kill)
  end

  # Linux may share the processors out among sessions first. Then it compares nice values within a
  # session alone, and sessions by a nice value of their own.
  @nice "echo 19 2>/dev/null >/proc/self/autogroup; exec nice -n 19 \"$@\""

  defp nice(command), do: ["sh", "-c", @nice, "sh" | command]

  defp forever(n), do: forever(n + 1)

  defp reports(work) do
    {:ok, collector} = Task.start_link(fn -> collect([]) end)
    :erlang.system_monitor(collector, [{:long_schedule, @long}])
    time = Measure.nanoseconds(work)
    :erlang.system_monitor(:undefined)
    send(collector, {:reports, self()})
    reports = receive(do: ({:reports, reports} -> reports))

    %{
      reports: length(reports) * 1.0e9 / time,
      library: Enum.count(reports, &in_exile?/1),
      longest: reports |> Enum.map(& &1[:timeout]) |> Enum.max(fn -> 0 end)
    }
  end

  defp collect(reports) do
    receive do
      {:monitor, _who, :long_schedule, info} -> collect([info | reports])
      {:reports, to} -> send(to, {:reports, reports})
    end
  end

  defp in_exile?(info), do: Enum.any?([info[:in], info[:out]], &exile?/1)

  defp exile?({module, _, _}),
    do: module |> Atom.to_string() |> String.starts_with?("Elixir.Exile")

  defp exile?(_), do: false
end
