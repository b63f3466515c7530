defmodule Bench.ViaExile do
  # Only what Exile documents, so that other builds of it can be measured.

  @chunk 65_536

  def count(enumerable), do: Enum.reduce(enumerable, 0, &(byte_size(&1) + &2))

  @doc "Reads all that `command` writes; returns bytes and reads."
  def read_all(command, read \\ &Exile.Process.read(&1, @chunk)) do
    {:ok, process} = Exile.Process.start_link(command)
    counts = read_on(process, read, 0, 0)
    {:ok, 0} = Exile.Process.await_exit(process, :infinity)
    counts
  end

  defp read_on(process, read, bytes, reads) do
    case read.(process) do
      {:ok, data} -> read_on(process, read, bytes + byte_size(data), reads + 1)
      :eof -> {bytes, reads}
    end
  end

  def run(command) do
    {:ok, process} = Exile.Process.start_link(command)
    {:ok, 0} = Exile.Process.await_exit(process, :infinity)
  end

  @doc "How long each of `count` messages is on its way to `cat` and back."
  def echo(count, message) do
    {:ok, process} = Exile.Process.start_link(["cat"])
    once = fn -> echo_once(process, message) end
    _ = Bench.Measure.latencies(div(count, 16), once)
    latencies = Bench.Measure.latencies(count, once)
    :ok = Exile.Process.close_stdin(process)
    {:ok, 0} = Exile.Process.await_exit(process, :infinity)
    latencies
  end

  defp echo_once(process, message) do
    :ok = Exile.Process.write(process, message)
    read_exactly(process, byte_size(message))
  end

  defp read_exactly(_process, 0), do: :ok

  defp read_exactly(process, size) do
    {:ok, data} = Exile.Process.read(process, size)
    read_exactly(process, size - byte_size(data))
  end
end

defmodule Bench.ViaPort do
  # Ports as a careful user has them: binaries, no copies, the exit status waited for.

  def open([program | arguments], options \\ []) do
    options = [:binary, :stream, :exit_status, :use_stdio, :hide, {:args, arguments} | options]
    Port.open({:spawn_executable, System.find_executable(program)}, options)
  end

  @doc "Reads all that `command` writes; returns bytes and messages."
  def read_all(command, options \\ []), do: command |> open(options) |> read_on()

  @doc "Reads the rest of what a command writes."
  def read_on(port, bytes \\ 0, reads \\ 0) do
    receive do
      {^port, {:data, data}} -> read_on(port, bytes + byte_size(data), reads + 1)
      {^port, {:exit_status, 0}} -> {bytes, reads}
      {^port, {:exit_status, status}} -> raise "exit status #{status}"
    end
  end

  def run(command), do: {0, 0} = read_all(command)

  @doc "The bytes of the lines that `command` writes, without the newlines."
  def count_lines(command), do: command |> open([{:line, 65_536}]) |> count_lines(0)

  defp count_lines(port, bytes) do
    receive do
      {^port, {:data, {:eol, line}}} -> count_lines(port, bytes + byte_size(line))
      {^port, {:exit_status, 0}} -> bytes
    end
  end

  @doc """
  Writes `count` times `chunk` to `cat` and reads it back. A port cannot close its program's
  input alone, so what comes back is counted, and then the port is closed, which ends `cat`.
  """
  def duplex(cat \\ ["cat"], chunk, count) do
    port = open(cat)
    writer = spawn_link(fn -> for _ <- 1..count, do: true = Port.command(port, chunk) end)
    bytes = read_until(port, 0, count * byte_size(chunk))
    Process.unlink(writer)
    Port.close(port)
    bytes
  end

  defp read_until(_port, bytes, wanted) when bytes >= wanted, do: bytes

  defp read_until(port, bytes, wanted) do
    receive do
      {^port, {:data, data}} -> read_until(port, bytes + byte_size(data), wanted)
    end
  end

  def echo(count, message) do
    port = open(["cat"])
    size = byte_size(message)

    once = fn ->
      true = Port.command(port, message)
      ^size = read_until(port, 0, size)
    end

    _ = Bench.Measure.latencies(div(count, 16), once)
    latencies = Bench.Measure.latencies(count, once)
    Port.close(port)
    latencies
  end
end

defmodule Bench.ViaRust do
  # native/limits, which does the work, checks it and takes the time itself.

  @path {__MODULE__, :path}

  def use(path), do: :persistent_term.put(@path, path)

  @doc "A contender; `fun` runs it and makes a sample of the numbers that it printed."
  def contender(name, fun) do
    if :persistent_term.get(@path),
      do: {name, fun},
      else: {name, {:skip, "no --limits PROGRAM given"}}
  end

  def limits(arguments) do
    {output, 0} = System.cmd(path(), Enum.map(arguments, &to_string/1))
    output |> String.split() |> Enum.map(&String.to_integer/1)
  end

  def path, do: :persistent_term.get(@path)

  def read(bytes, capacity) do
    contender("Rust, #{div(capacity, 1024)} KiB pipe", fn ->
      [time] = limits(["read", bytes, capacity])
      Bench.Measure.speed(bytes, time)
    end)
  end

  def duplex(bytes, capacity) do
    contender("Rust, #{div(capacity, 1024)} KiB pipes", fn ->
      [time] = limits(["duplex", bytes, capacity])
      Bench.Measure.speed(bytes, time)
    end)
  end
end

defmodule Bench.Static do
  # A program without a dynamic linker, which takes longer than all the rest of a short command.

  @path {__MODULE__, :path}

  def use(path), do: :persistent_term.put(@path, path)

  @doc "The contenders for it that `fun` makes of its path."
  def contenders(fun) do
    if path = :persistent_term.get(@path),
      do: fun.(path),
      else: for({name, _} <- fun.(nil), do: {name, {:skip, "no --static PROGRAM given"}})
  end
end

defmodule Bench.Others do
  # Libraries that do what Exile does, each where it takes part in the work. They are no
  # dependencies: put them on the code path (see NOTES.md), and they are measured.

  @compile {:no_warn_undefined, [ExCmd, MuonTrap, NetRunner, :exec]}

  @applications %{
    ExCmd => :ex_cmd,
    MuonTrap => :muontrap,
    NetRunner => :net_runner,
    :exec => :erlexec
  }

  def contender(name, module, fun) do
    if Code.ensure_loaded?(module) do
      {:ok, _} = Application.ensure_all_started(@applications[module])
      {name, fun}
    else
      {name, {:skip, "not loaded"}}
    end
  end

  @doc "Those that can read `bytes` from `command`."
  def read(command, bytes) do
    [program | arguments] = command

    [
      contender("ExCmd.stream!", ExCmd, fn -> throughput(bytes, ExCmd.stream!(command)) end),
      contender("NetRunner.stream!", NetRunner, fn ->
        throughput(bytes, NetRunner.stream!(command))
      end),
      # It has no stream: everything is gathered.
      contender("MuonTrap.cmd", MuonTrap, fn ->
        Bench.Measure.throughput(bytes, fn ->
          {output, 0} = MuonTrap.cmd(program, arguments, into: [])
          IO.iodata_length(output)
        end)
      end),
      contender("erlexec", :exec, fn ->
        Bench.Measure.throughput(bytes, fn -> erlexec(command) end)
      end)
    ]
  end

  @doc "Those that can pass `input` through `cat`."
  def duplex(input, bytes) do
    [
      contender("ExCmd.stream!", ExCmd, fn ->
        throughput(bytes, ExCmd.stream!(["cat"], input: input))
      end),
      contender("NetRunner.stream!", NetRunner, fn ->
        throughput(bytes, NetRunner.stream!(["cat"], input: input))
      end)
    ]
  end

  @doc "Those that can run `true`."
  def run(count) do
    [
      contender("ExCmd.stream!", ExCmd, fn ->
        Bench.Measure.latencies(count, fn -> Stream.run(ExCmd.stream!(["true"])) end)
      end),
      contender("NetRunner.run", NetRunner, fn ->
        Bench.Measure.latencies(count, fn -> {"", 0} = NetRunner.run(["true"]) end)
      end),
      contender("MuonTrap.cmd", MuonTrap, fn ->
        Bench.Measure.latencies(count, fn -> {"", 0} = MuonTrap.cmd("true", []) end)
      end),
      contender("erlexec", :exec, fn ->
        Bench.Measure.latencies(count, fn -> erlexec(["true"]) end)
      end)
    ]
  end

  defp throughput(bytes, stream) do
    Bench.Measure.throughput(bytes, fn -> Bench.ViaExile.count(stream) end)
  end

  defp erlexec([program | arguments]) do
    command = [System.find_executable(program) | arguments]
    {:ok, _pid, os_pid} = :exec.run(command, [:stdout, :monitor])
    erlexec_read(os_pid, 0)
  end

  defp erlexec_read(os_pid, bytes) do
    receive do
      {:stdout, ^os_pid, data} -> erlexec_read(os_pid, bytes + byte_size(data))
      {:DOWN, ^os_pid, :process, _, :normal} -> bytes
    end
  end
end
