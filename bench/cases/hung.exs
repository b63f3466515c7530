defmodule Bench.Hung do
  # What the rest of the VM notices of programs that cannot be executed for a long time, as those
  # on a file server that does not answer.

  alias Bench.{Case, FreshVM, Measure, ViaExile, ViaRust}

  @hung 8
  # In milliseconds. Nothing here takes as long, unless it waits for what hangs.
  @patience 10_000
  # In seconds: the program that is in the way gives up by itself.
  @longest 40

  def cases(quick?), do: [hung(if(quick?, do: 50, else: 300))]

  defp hung(runs) do
    title = "beside #{@hung} that hang"

    contender = fn name, count ->
      ViaRust.contender(name, fn ->
        FreshVM.call(__MODULE__, :run_beside, [count, runs, ViaRust.path()])
      end)
    end

    %Case{
      name: "hung",
      title:
        "running `true` #{runs} times, alone and beside #{@hung} commands whose `exec` hangs, in a new VM each time",
      metrics: [
        %{id: :p50, title: "median", unit: "µs", better: :lower},
        %{id: :read, title: "File.read of a small file, median", unit: "µs", better: :lower}
      ],
      baselines: ["alone"],
      contenders: [contender.("alone", 0), contender.(title, @hung)],
      goals: [{title, :p50, "alone", :at_most, 1.2}],
      warm_up: false
    }
  end

  @doc false
  def run_beside(0, runs, _limits), do: measured(runs)

  def run_beside(count, runs, limits) do
    program = Path.join(System.tmp_dir!(), "exile-bench-#{System.pid()}-hung")
    File.write!(program, "#!/bin/sh\n")
    File.chmod!(program, 0o755)
    lease = hold(limits, program)
    {:os_pid, holder} = Port.info(lease, :os_pid)
    callers = for _ <- 1..count, do: spawn_monitor(fn -> ViaExile.run([program]) end)

    try do
      wanted!(holder, @patience)
      measured(runs)
    after
      for {pid, _} <- callers, do: Process.exit(pid, :kill)
      Port.close(lease)
      for {_, monitor} <- callers, do: receive(do: ({:DOWN, ^monitor, _, _, _} -> :ok))
      File.rm!(program)
    end
  end

  # Who executes the program waits until the port is closed.
  defp hold(limits, program) do
    options = [:binary, :exit_status, args: ["lease", program, "#{@longest}"]]
    port = Port.open({:spawn_executable, limits}, options)

    receive do
      {^port, {:data, "held\n"}} -> port
      {^port, {:exit_status, status}} -> raise "no lease: exit status #{status}"
    end
  end

  # Returns when somebody has been made to wait for the lease.
  defp wanted!(holder, patience) when patience > 0 do
    unless File.read!("/proc/locks") =~ ~r/LEASE +BREAKING +\w+ +#{holder} / do
      Process.sleep(10)
      wanted!(holder, patience - 10)
    end
  end

  defp wanted!(_holder, _patience), do: raise("nobody was made to wait")

  defp measured(runs) do
    # Some first, in which all of those that hang get there.
    work = fn ->
      for _ <- 1..div(runs, 4), do: ViaExile.run(["true"])
      %{p50: run} = Measure.latencies(runs, fn -> ViaExile.run(["true"]) end)
      %{p50: read} = Measure.latencies(runs, fn -> {:ok, _} = File.read("/proc/version") end)
      %{p50: run, read: read}
    end

    Measure.within!(@patience, work)
  end
end
