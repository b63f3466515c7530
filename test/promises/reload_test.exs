defmodule Exile.ReloadTest do
  use Exile.Case

  # Reloads the module as `recompile` in IEx does.
  defp reload do
    :code.purge(Exile.Native)
    {:module, Exile.Native} = :code.load_file(Exile.Native)
  end

  describe "loading the native module again" do
    test "does not affect running commands or later ones" do
      {:ok, p} = Exile.Process.start_link(["cat"])
      for _ <- 1..3, do: reload()
      assert Exile.Process.write(p, "hello") == :ok
      assert Exile.Process.read(p) == {:ok, "hello"}
      assert Exile.Process.await_exit(p) == {:ok, 0}
      assert Exile.stream!(["cat"], input: "again") |> Enum.to_list() == ["again"]
    end

    test "lets teardowns that are under way finish" do
      {:ok, p} = Exile.Process.start_link(sh("trap '' TERM; echo ready; sleep 60; sleep 60"))
      {:ok, "ready\n"} = Exile.Process.read(p)
      exit = Task.async(fn -> Process.sleep(50) && reload() end)
      assert Exile.Process.await_exit(p, 400) == {:ok, 137}
      assert {:module, _} = Task.await(exit)
    end

    test "wakes a process that was waiting before the reload" do
      {:ok, p} = Exile.Process.start_link(sh("read line; echo got $line"))
      parent = self()

      writer =
        Task.async(fn ->
          Exile.Process.change_pipe_owner(p, :stdin, self())
          send(parent, :go)
          reload()
          Exile.Process.write(p, "it\n")
        end)

      assert_receive :go
      assert Exile.Process.read(p) == {:ok, "got it\n"}
      assert Task.await(writer) == :ok
    end
  end

  # These tests run in another VM, because a loaded library stays until the VM ends.
  describe "loading another build of the library" do
    @describetag :tmp_dir

    setup %{tmp_dir: dir} do
      app = Path.join(dir, "exile")

      for part <- ["ebin", "priv"] do
        File.mkdir_p!(app)
        File.cp_r!(Application.app_dir(:exile, part), Path.join(app, part))
      end

      %{app: app}
    end

    # Replaces the library as the compiler does. Extra bytes at the end of an ELF file do no harm.
    @start """
    alias Exile.Native
    alias Exile.Native.Library
    Logger.configure(level: :none)
    Process.flag(:trap_exit, true)
    {:ok, _} = Application.ensure_all_started(:exile)

    load_another = fn ->
      directory = Application.app_dir(:exile, "priv/native")
      {:ok, library} = Library.find(directory)
      content = File.read!(library) <> "another"
      File.write!(Path.join(directory, Library.file_name(content)), content)
      File.rm!(library)
      :code.purge(Native)
      {:module, Native} = :code.load_file(Native)
      :code.purge(Native)
      true = File.read!("/proc/self/maps") =~ Library.file_name(content)
    end

    alive? = fn os_pid ->
      case File.read("/proc/\#{os_pid}/stat") do
        {:ok, stat} -> not (stat =~ ~r/\\) [ZX] /)
        {:error, _} -> false
      end
    end

    eventually = fn condition ->
      Enum.find(1..1_000, fn _ -> condition.() or (Process.sleep(10) && false) end) ||
        raise "it did not become true"
    end
    """

    defp run(app, program) do
      arguments = ["-pa", Path.join(app, "ebin"), "-e", @start <> program]
      {output, _} = System.cmd("elixir", arguments, stderr_to_stdout: true)
      assert output == "done\n"
    end

    test "runs later commands with the new build", %{app: app} do
      run(app, """
      load_another.()
      ["new"] = Enum.to_list(Exile.stream!(["cat"], input: "new"))
      {:ok, p} = Exile.Process.start_link(["sh", "-c", "exit 3"])
      {:ok, 3} = Exile.Process.await_exit(p)
      eventually.(fn -> Enum.all?(Native.counts(), &match?({_, 0}, &1)) end)
      IO.puts("done")
      """)
    end

    test "leaves running commands to their owners and the old build", %{app: app} do
      run(app, """
      parent = self()

      owner =
        spawn(fn ->
          {:ok, p} = Exile.Process.start_link(["sleep", "600"])
          send(parent, Exile.Process.os_pid(p))
          Process.sleep(:infinity)
        end)

      os_pid = receive do: ({:ok, os_pid} -> os_pid)
      {:ok, p} = Exile.Process.start_link(["cat"])
      {:ok, cat} = Exile.Process.os_pid(p)
      load_another.()

      ArgumentError = try do: Exile.Process.write(p, "x"), rescue: (e -> e.__struct__)
      true = alive?.(cat) and alive?.(os_pid)
      Process.exit(owner, :kill)
      eventually.(fn -> not alive?.(os_pid) end)
      true = alive?.(cat)

      ["new"] = Enum.to_list(Exile.stream!(["cat"], input: "new"))
      IO.puts("done")
      """)
    end

    test "stops a process that waits for an old command when the command exits", %{app: app} do
      run(app, """
      script = "read line; echo $line"
      {:ok, p} = Exile.Process.start_link(["sh", "-c", script])
      {:ok, os_pid} = Exile.Process.os_pid(p)
      {pid, ref} = spawn_monitor(fn ->
        :ok = Exile.Process.change_pipe_owner(p, :stdout, self())
        Exile.Process.read(p)
      end)
      eventually.(fn -> match?({:status, :waiting}, Process.info(pid, :status)) end)
      load_another.()
      System.cmd("kill", ["\#{os_pid}"])
      {:badarg, _} = receive do: ({:DOWN, ^ref, _, _, reason} -> reason)
      IO.puts("done")
      """)
    end

    test "after the application was stopped moves everything to the new build", %{app: app} do
      run(app, """
      Application.put_env(:exile, :guard, true)
      for _ <- 1..2 do
        {:ok, p} = Exile.Process.start_link(["sleep", "600"])
        {:ok, os_pid} = Exile.Process.os_pid(p)
        :ok = Application.stop(:exile)
        false = alive?.(os_pid)
        load_another.()
        {:ok, _} = Application.ensure_all_started(:exile)
        ["new"] = Enum.to_list(Exile.stream!(["cat"], input: "new"))
      end
      IO.puts("done")
      """)
    end
  end
end
