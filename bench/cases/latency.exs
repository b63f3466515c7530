defmodule Bench.Latency do
  # How long it takes to run a program, and to get an answer from one.

  alias Bench.{Ballast, Case, FreshVM, Measure, Others, Static, ViaExile, ViaPort, ViaRust}

  @message_size 64

  def cases(quick?) do
    runs = if quick?, do: 50, else: 300
    messages = if quick?, do: 500, else: 5_000
    ballast = if quick?, do: 256, else: 2_048

    [run(runs), heap(runs, ballast), guard(runs), echo(messages)]
  end

  defp run(count) do
    rust = "Rust, posix_spawn"
    static = &"#{&1}, static"

    %Case{
      name: "true",
      title: "running `true` #{count} times, one after the other; and a static program",
      metrics: Case.latencies(),
      baselines: ["System.cmd", "port", rust, static.(rust)],
      contenders:
        [
          {"Exile.stream!",
           fn -> Measure.latencies(count, fn -> Stream.run(Exile.stream!(["true"])) end) end},
          {"Exile.Process", fn -> Measure.latencies(count, fn -> ViaExile.run(["true"]) end) end},
          {"System.cmd",
           fn -> Measure.latencies(count, fn -> {"", 0} = System.cmd("true", []) end) end},
          {"port", fn -> Measure.latencies(count, fn -> ViaPort.run(["true"]) end) end},
          in_rust(rust, "true", count)
        ] ++
          Static.contenders(fn program ->
            [
              {static.("Exile.Process"),
               fn -> Measure.latencies(count, fn -> ViaExile.run([program]) end) end},
              in_rust(static.(rust), program, count)
            ]
          end) ++ Others.run(count),
      goals: [
        {"Exile.stream!", :p50, "System.cmd", :at_most, 0.75},
        {"Exile.Process", :p50, rust, :at_most, 1.15},
        {static.("Exile.Process"), :p50, static.(rust), :at_most, 1.3}
      ]
    }
  end

  defp in_rust(name, program, count) do
    ViaRust.contender(name, fn ->
      ["run", program, count] |> ViaRust.limits() |> Measure.percentiles()
    end)
  end

  defp heap(count, mebibytes) do
    title = "with #{mebibytes} MiB"

    %Case{
      name: "heap",
      title: "running `true` #{count} times in a new VM, empty or with #{mebibytes} MiB in use",
      metrics:
        Case.latencies() ++
          [%{id: :resident, title: "resident memory", unit: "MiB", better: :lower}],
      baselines: ["empty"],
      contenders: [
        {"empty", fn -> FreshVM.call(__MODULE__, :run_beside, [0, count]) end},
        {title, fn -> FreshVM.call(__MODULE__, :run_beside, [mebibytes, count]) end}
      ],
      goals: [{title, :p50, "empty", :at_most, 1.1}],
      warm_up: false
    }
  end

  @doc false
  def run_beside(mebibytes, count) do
    Ballast.with(mebibytes, fn ->
      for _ <- 1..div(count, 4), do: ViaExile.run(["true"])
      latencies = Measure.latencies(count, fn -> ViaExile.run(["true"]) end)
      Map.put(latencies, :resident, Measure.resident() / 1_048_576)
    end)
  end

  defp guard(count) do
    %Case{
      name: "guard",
      title: "running `true` #{count} times in a new VM, without and with the guard",
      metrics: Case.latencies(),
      baselines: ["without"],
      contenders: [
        {"without", fn -> FreshVM.call(__MODULE__, :run_guarded, [false, count]) end},
        {"with the guard", fn -> FreshVM.call(__MODULE__, :run_guarded, [true, count]) end}
      ],
      goals: [{"with the guard", :p50, "without", :at_most, 1.1}],
      warm_up: false
    }
  end

  @doc false
  def run_guarded(guard?, count) do
    # That an application stops is a notice.
    :ok = :logger.set_primary_config(:level, :warning)
    :ok = Application.stop(:exile)
    :ok = Application.put_env(:exile, :guard, guard?)
    :ok = Application.start(:exile)
    ^guard? = Process.whereis(Exile.Runtime.Guard) != nil
    for _ <- 1..div(count, 4), do: ViaExile.run(["true"])
    Measure.latencies(count, fn -> ViaExile.run(["true"]) end)
  end

  defp echo(count) do
    message = String.duplicate("x", @message_size)

    %Case{
      name: "echo",
      title: "#{@message_size} bytes to `cat` and back, #{count} times",
      metrics: Case.latencies(),
      baselines: ["port", "Rust"],
      contenders: [
        {"Exile.Process", fn -> ViaExile.echo(count, message) end},
        {"port", fn -> ViaPort.echo(count, message) end},
        ViaRust.contender("Rust", fn ->
          ["echo", count, @message_size] |> ViaRust.limits() |> Measure.percentiles()
        end)
      ],
      goals: [{"Exile.Process", :p50, "Rust", :at_most, 1.2}]
    }
  end
end

defmodule Bench.Ballast do
  # Memory in use while something else is done: one half binaries, the other process heaps.

  @mebibyte 1_048_576
  @per_process 64
  @cell 16

  def with(0, fun), do: fun.()

  def with(mebibytes, fun) do
    binaries = for n <- 1..div(mebibytes, 2), do: :binary.copy(<<rem(n, 256)>>, @mebibyte)
    owner = self()

    keepers =
      for _ <- 1..div(mebibytes, 2 * @per_process) do
        words = div(@per_process * @mebibyte, 8) + 100_000

        {pid, _monitor} =
          keeper =
          :erlang.spawn_opt(fn -> keep(owner) end, [:link, :monitor, min_heap_size: words])

        receive(do: ({^pid, :ready} -> :ok))
        keeper
      end

    try do
      fun.()
    after
      for {pid, monitor} <- keepers do
        send(pid, :done)
        receive(do: ({:DOWN, ^monitor, _, _, _} -> :ok))
      end

      # Still here.
      true = length(binaries) > 0
    end
  end

  defp keep(owner) do
    list = Enum.to_list(1..div(@per_process * @mebibyte, @cell))
    send(owner, {self(), :ready})
    receive(do: (:done -> length(list)))
  end
end
