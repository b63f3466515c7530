defmodule Bench.Measure do
  # Time, memory, and the check that the work was done.

  @doc "How long `fun` takes, in nanoseconds."
  def nanoseconds(fun) do
    start = System.monotonic_time(:nanosecond)
    _ = fun.()
    System.monotonic_time(:nanosecond) - start
  end

  @doc "The speed at which `fun`, which returns how many bytes it has seen, moves `bytes`."
  def throughput(bytes, fun) do
    start = System.monotonic_time(:nanosecond)
    seen = fun.()
    time = System.monotonic_time(:nanosecond) - start
    check!(bytes, seen)
    speed(bytes, time)
  end

  @doc "Bytes in nanoseconds, as megabytes (of a million) a second."
  def speed(bytes, nanoseconds), do: %{speed: bytes * 1_000 / nanoseconds}

  @doc "Runs `fun` `count` times; how long one takes."
  def latencies(count, fun), do: percentiles(for _ <- 1..count, do: nanoseconds(fun))

  @doc "What was measured, in nanoseconds, as microseconds."
  def percentiles(times) do
    %{p50: percentile(times, 0.5) / 1_000, p99: percentile(times, 0.99) / 1_000}
  end

  @doc "The one of `times` that the given share of them is below."
  def percentile(times, share) do
    times = Enum.sort(times)
    Enum.at(times, min(trunc(length(times) * share), length(times) - 1))
  end

  @doc "What `fun` returns, which must not take longer than `timeout` milliseconds."
  def within!(timeout, fun) do
    caller = self()
    {pid, monitor} = spawn_monitor(fn -> send(caller, {:done, self(), fun.()}) end)

    receive do
      {:done, ^pid, result} ->
        Process.demonitor(monitor, [:flush])
        result

      {:DOWN, ^monitor, :process, ^pid, reason} ->
        raise "failed: #{inspect(reason)}"
    after
      timeout ->
        Process.exit(pid, :kill)
        raise "not done in #{div(timeout, 1_000)} s"
    end
  end

  @doc "Fails the contender when it has not done all the work."
  def check!(expected, expected), do: :ok
  def check!(expected, got), do: raise("expected #{inspect(expected)}, got #{inspect(got)}")

  @doc "The resident memory of this VM in bytes; Linux only."
  def resident do
    status = File.read!("/proc/self/status")
    [_, kibibytes] = Regex.run(~r/^VmRSS:\s+(\d+) kB/m, status)
    String.to_integer(kibibytes) * 1024
  end
end

defmodule Bench.FreshVM do
  # Work in a VM of its own, for what depends on what a VM has done before: its memory.

  @modules {__MODULE__, :modules}

  @doc "Remembers the code of the benchmarks, which is in no file a new VM could load."
  def remember(modules), do: :persistent_term.put(@modules, modules)

  @doc "Calls `module.function(arguments)` in a new VM with Exile started."
  def call(module, function, arguments) do
    paths = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])
    {:ok, peer, _node} = :peer.start_link(%{connection: :standard_io, args: paths})

    try do
      for {name, code} <- :persistent_term.get(@modules) do
        {:module, ^name} = :peer.call(peer, :code, :load_binary, [name, ~c"bench", code])
      end

      {:ok, _} = :peer.call(peer, :application, :ensure_all_started, [:exile])
      :peer.call(peer, module, function, arguments, :infinity)
    after
      :peer.stop(peer)
    end
  end
end
