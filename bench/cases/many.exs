defmodule Bench.Many do
  # Many commands at once.

  alias Bench.{Case, FreshVM, Measure, ViaExile, ViaPort}

  @mebibyte 1_048_576

  def cases(quick?) do
    sleepers = if quick?, do: 100, else: 1_000
    streams = if quick?, do: 20, else: 200
    [idle(sleepers), streams(streams, if(quick?, do: 4, else: 16) * @mebibyte)]
  end

  defp idle(count) do
    %Case{
      name: "idle",
      title: "#{count} idle commands (`sleep`) at once, in a new VM each time",
      metrics: [
        %{id: :time, title: "time to start them all", unit: "ms", better: :lower},
        %{
          id: :memory,
          title: "memory by the VM's account, for each",
          unit: "KiB",
          better: :lower
        },
        %{id: :resident, title: "resident memory, for each", unit: "KiB", better: :lower}
      ],
      baselines: ["port"],
      contenders: [
        {"Exile.Process", fn -> FreshVM.call(__MODULE__, :sleepers, [:exile, count]) end},
        {"port", fn -> FreshVM.call(__MODULE__, :sleepers, [:port, count]) end}
      ],
      goals: [{"Exile.Process", :memory, nil, :at_most, 20.0}],
      warm_up: false
    }
  end

  @doc false
  def sleepers(kind, count) do
    # Some first, so that code is loaded and what is there once for all is there.
    kind |> start(20) |> stop()
    :erlang.garbage_collect()
    memory = :erlang.memory(:total)
    resident = Measure.resident()

    start = System.monotonic_time(:nanosecond)
    commands = start(kind, count)
    time = System.monotonic_time(:nanosecond) - start

    :erlang.garbage_collect()
    memory = :erlang.memory(:total) - memory
    resident = Measure.resident() - resident
    Measure.check!(count, length(commands))
    stop(commands)

    %{time: time / 1.0e6, memory: memory / count / 1024, resident: resident / count / 1024}
  end

  defp start(:exile, count) do
    for _ <- 1..count do
      {:ok, process} = Exile.Process.start_link(["sleep", "600"])
      process
    end
  end

  defp start(:port, count), do: for(_ <- 1..count, do: ViaPort.open(["sleep", "600"]))

  defp stop([first | _] = ports) when is_port(first) do
    # Nothing but a signal ends a program that does not read.
    for batch <- Enum.chunk_every(ports, 200) do
      numbers =
        for port <- batch, do: port |> Port.info(:os_pid) |> elem(1) |> Integer.to_string()

      {"", 0} = System.cmd("kill", ["-KILL" | numbers])
    end

    for port <- ports, do: receive(do: ({^port, {:exit_status, _}} -> :ok))
  end

  defp stop(processes) do
    for process <- processes, do: :ok = Exile.Process.kill(process, :sigkill)
    for process <- processes, do: {:ok, 137} = Exile.Process.await_exit(process, :infinity)
  end

  defp streams(count, bytes) do
    command = ["head", "-c", "#{bytes}", "/dev/zero"]

    %Case{
      name: "streams",
      title: "#{count} commands at once, #{div(bytes, @mebibyte)} MiB from each",
      metrics: [
        Case.throughput(),
        %{id: :fairness, title: "slowest to fastest", unit: "times as long", better: :lower}
      ],
      baselines: ["port"],
      contenders: [
        {"Exile.stream!",
         fn -> together(count, bytes, fn -> ViaExile.count(Exile.stream!(command)) end) end},
        {"port",
         fn -> together(count, bytes, fn -> command |> ViaPort.read_all() |> elem(0) end) end}
      ]
    }
  end

  # All start at one sign, from which the time of each is counted.
  defp together(count, bytes, fun) do
    starter = self()

    readers =
      for _ <- 1..count do
        spawn_monitor(fn ->
          receive(do: (:go -> :ok))
          seen = fun.()
          send(starter, {:done, self(), seen, System.monotonic_time(:nanosecond)})
        end)
      end

    start = System.monotonic_time(:nanosecond)
    for {pid, _} <- readers, do: send(pid, :go)

    times =
      for {pid, monitor} <- readers do
        receive do
          {:DOWN, ^monitor, :process, ^pid, :normal} -> :ok
          {:DOWN, ^monitor, :process, ^pid, reason} -> raise "a reader failed: #{inspect(reason)}"
        end

        {seen, finish} = receive(do: ({:done, ^pid, seen, finish} -> {seen, finish}))
        Measure.check!(bytes, seen)
        finish - start
      end

    {fastest, slowest} = Enum.min_max(times)
    Map.put(Measure.speed(count * bytes, slowest), :fairness, slowest / fastest)
  end
end
