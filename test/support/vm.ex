defmodule Exile.VM do
  @moduledoc """
  Starts another VM that runs commands, so that tests can end it in various ways.

  Everything that the VM starts has a mark in its environment. With it, tests find the processes
  that are left, whichever process started them and whatever their parent is now. The VM has its
  own directory for temporary files.
  """

  import ExUnit.Assertions
  import ExUnit.Callbacks, only: [on_exit: 1]

  # The script of each kind of command, and how many processes it consists of. Each script prints
  # "ready".
  @kinds %{
    plain: {"echo ready; exec sleep 600", 1},
    stubborn: {"trap '' TERM INT HUP; echo ready; while :; do sleep 600; done", 2},
    stopped: {"echo ready; kill -STOP $$; exec sleep 600", 1},
    parent: {"(trap '' TERM; sleep 600) & sleep 600 & echo ready; wait", 3}
  }

  @doc """
  Starts a VM that runs `count` commands of each of `kinds` and, after `go_on/1`, evaluates
  `finale`. When all commands are ready, returns the port and the mark. `options` become the
  application environment of Exile in that VM.
  """
  def start(kinds, count, finale, options \\ []) do
    mark = mark()
    scripts = for kind <- kinds, _ <- 1..count, do: elem(Map.fetch!(@kinds, kind), 0)

    program = """
    for {key, value} <- #{inspect(options)}, do: Application.put_env(:exile, key, value)
    {:ok, _} = Application.ensure_all_started(:exile)
    commands = for script <- #{inspect(scripts, limit: :infinity)} do
      {:ok, p} = Exile.Process.start_link(["sh", "-c", script], stderr: :disable)
      p
    end
    for p <- commands, do: {:ok, "ready\\n"} = Exile.Process.read(p)
    IO.puts("ready")
    # End-of-file means that the VM which started this one is gone.
    if IO.gets("") == :eof, do: System.halt(1)
    #{finale}
    Process.sleep(:infinity)
    """

    port = open(program, mark)
    assert_receive {^port, {:data, {:eol, "ready"}}}, 60_000
    {port, mark}
  end

  @doc "Returns a new mark."
  def mark, do: "exile-test-#{System.unique_integer([:positive])}-#{System.pid()}"

  @doc "Returns the directory for temporary files of the VM with this mark."
  def tmp_dir(mark), do: Path.join(System.tmp_dir!(), mark)

  @doc """
  Starts a VM that evaluates `program`. Options: `:env` adds environment variables; `:as` is an
  argv prefix, such as `setpriv` with arguments, that runs the VM as another user.
  """
  def open(program, mark, options \\ []) do
    File.mkdir_p!(tmp_dir(mark))
    on_exit(fn -> File.rm_rf!(tmp_dir(mark)) end)
    {prefix, ebin} = as(options[:as])
    [executable | arguments] = prefix ++ ["elixir", "-pa", ebin, "-e", program]

    more =
      for {name, value} <- options[:env] || [],
          do: {String.to_charlist(name), String.to_charlist(value)}

    Port.open({:spawn_executable, System.find_executable(executable)}, [
      :binary,
      :exit_status,
      :stderr_to_stdout,
      line: 10_000,
      env: [
        {~c"EXILE_TEST_MARK", String.to_charlist(mark)},
        {~c"TMPDIR", String.to_charlist(tmp_dir(mark))} | more
      ],
      args: arguments
    ])
  end

  defp as(nil), do: {[], Application.app_dir(:exile, "ebin")}
  defp as(prefix), do: {prefix, readable_copy()}

  @doc "Copies the application to where every user may read it; returns the `ebin` directory."
  def readable_copy do
    copy =
      Path.join(System.tmp_dir!(), "exile-#{System.pid()}-#{System.unique_integer([:positive])}")

    on_exit(fn -> File.rm_rf!(copy) end)

    for part <- ["ebin", "priv"] do
      File.mkdir_p!(copy)
      File.cp_r!(Application.app_dir(:exile, part), Path.join(copy, part))
    end

    {_, 0} = System.cmd("chmod", ["-R", "a+rX", copy])
    Path.join(copy, "ebin")
  end

  @doc "Returns the operating-system process id of the VM."
  def os_pid(port), do: port |> Port.info(:os_pid) |> elem(1)

  @doc "Makes the VM evaluate its finale."
  def go_on(port), do: Port.command(port, "\n")

  @doc "Returns how many processes the commands consist of."
  def size(kinds, count) do
    kinds |> Enum.map(&(elem(Map.fetch!(@kinds, &1), 1) * count)) |> Enum.sum()
  end

  @doc "Returns the processes with the mark, except zombies, as `{os_pid, command line}`."
  def marked(mark) do
    for {os_pid, line} <- processes(),
        {:ok, environment} <- [File.read("/proc/#{os_pid}/environ")],
        String.contains?(environment, mark),
        do: {os_pid, line}
  end

  @doc "Returns the zombies among the children of the VM with this process id."
  def zombies(vm) do
    for entry <- File.ls!("/proc"),
        entry =~ ~r/^\d+$/,
        {:ok, stat} <- [File.read("/proc/#{entry}/stat")],
        stat =~ ~r/\) Z #{vm} /,
        do: String.to_integer(entry)
  end

  @doc "Returns the process id of the guard of the VM with this process id."
  def guard(vm) do
    Enum.find_value(processes(), fn {os_pid, line} ->
      if line =~ "exile_guard #{vm} ", do: os_pid
    end)
  end

  defp processes do
    for entry <- File.ls!("/proc"),
        entry =~ ~r/^\d+$/,
        {:ok, stat} <- [File.read("/proc/#{entry}/stat")],
        not (stat =~ ~r/\) [ZX] /),
        {:ok, line} <- [File.read("/proc/#{entry}/cmdline")],
        do: {String.to_integer(entry), String.replace(line, <<0>>, " ")}
  end
end
