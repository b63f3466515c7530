defmodule Exile.Process.AttributesTest do
  use Exile.Case

  defp output(argv, options), do: argv |> Exile.stream!(options) |> Enum.join()

  # The nice value is the 19th word of /proc/<pid>/stat; the second word may contain blanks.
  defp nice(stat) do
    stat
    |> String.split(") ")
    |> List.last()
    |> String.split()
    |> Enum.at(16)
    |> String.to_integer()
  end

  describe "start_link/2, :nice" do
    test "is the nice value of the program, and the VM keeps its own" do
      ours = nice(File.read!("/proc/self/stat"))

      for value <- [ours + 1, 19] do
        {:ok, process} = Exile.Process.start_link(~w(cat /proc/self/stat), nice: value)
        {:ok, stat} = Exile.Process.read(process)
        assert nice(stat) == value
        assert Exile.Process.await_exit(process) == {:ok, 0}
      end

      assert nice(output(~w(cat /proc/self/stat), [])) == ours
      assert nice(File.read!("/proc/self/stat")) == ours
    end

    test "applies to each command of a pipeline" do
      # Each command prints its own status, the first one on its standard error.
      first = sh("cat /proc/self/stat >&2")
      pipeline = [first, ~w(cat /proc/self/stat)]
      said = pipeline |> Exile.stream!(nice: 7, stderr: :consume) |> Enum.map(&elem(&1, 1))
      assert Enum.map(said, &nice/1) == [7, 7]
    end
  end

  describe "start_link/2, :umask" do
    test "is the umask of the program, and the VM keeps its own" do
      ours = output(sh("umask"), [])

      for {mask, text} <- [{0, "0000"}, {0o027, "0027"}],
          do: assert(output(sh("umask"), umask: mask) == text <> "\n")

      assert output(sh("umask"), umask: nil) == ours
    end
  end

  describe "start_link/2, :arg0" do
    test "is the name that the program sees, but not the one that is looked up" do
      assert output(["sh", "-c", "tr '\\0' ' ' < /proc/$$/cmdline"], arg0: "-login") =~
               ~r/^-login -c /

      assert output(["sh", "-c", "echo $0"], arg0: "a b") == "a b\n"
    end
  end

  # The line of a limit in /proc/<pid>/limits, as the soft and the hard one.
  defp limit(limits, name) do
    [_, soft, hard] = Regex.run(~r/^#{name} +(\w+) +(\w+)/m, limits)
    {soft, hard}
  end

  describe "start_link/2, :limits" do
    @kernel_names [
      cpu: "Max cpu time",
      memory: "Max address space",
      file_size: "Max file size",
      open_files: "Max open files",
      processes: "Max processes",
      core: "Max core file size",
      stack: "Max stack size"
    ]

    test "are those of the program, each by its name, and the VM keeps its own" do
      ours = File.read!("/proc/self/limits")

      # Enough for cat itself, and below what a system without limits of its own allows.
      values = [
        cpu: {50, 60},
        memory: {1_000_000_000, 2_000_000_000},
        file_size: {5, 6},
        open_files: {50, 60},
        processes: {50, 60},
        core: {0, 0},
        stack: {1_048_576, 2_097_152}
      ]

      assert Keyword.keys(values) == Keyword.keys(@kernel_names)
      limits = output(~w(cat /proc/self/limits), limits: values)

      for {resource, {soft, hard}} <- values,
          do: assert(limit(limits, @kernel_names[resource]) == {"#{soft}", "#{hard}"})

      assert File.read!("/proc/self/limits") == ours
      without = output(~w(cat /proc/self/limits), [])
      assert limit(without, "Max cpu time") == limit(ours, "Max cpu time")
    end

    test "are inherited by what the command starts, and each command of a pipeline has its own" do
      first = Exile.stream!(sh("ulimit -t; true"), limits: [cpu: 7])
      assert Enum.join(first) == "7\n"
      both = Exile.stream!(sh("cat; sh -c 'ulimit -t'"), input: first, limits: [cpu: 8])
      assert Enum.join(both) == "7\n8\n"
    end

    test "of processor time end a program, which may put off the soft limit" do
      busy = sh("while :; do :; done")

      assert {:error, %{reason: {:signal, :sigxcpu}}} = Exile.run(busy, limits: [cpu: {1, 3}])

      stubborn = sh("trap '' XCPU; while :; do :; done")
      assert {:error, %{reason: {:signal, :sigkill}}} = Exile.run(stubborn, limits: [cpu: {1, 2}])
    end

    @tag :tmp_dir
    test "of the size of files end a program that writes more", %{tmp_dir: directory} do
      file = Path.join(directory, "file")
      options = [stdout: {:file, file}, limits: [file_size: 4096]]

      assert {:error, %{reason: {:signal, :sigxfsz}}} =
               Exile.run(~w(head -c 100000 /dev/zero), options)

      assert File.stat!(file).size == 4096
    end

    test "of memory and descriptors make the program fail, and not the VM" do
      hungry = sh("head -c 300000000 /dev/zero | tail -c 299999999 | wc -c")
      assert Exile.run!(hungry, limits: [memory: 4_000_000_000]).stdout =~ "299999999"

      assert %{stdout: out, stderr: err} =
               Exile.run!(hungry, limits: [memory: 200_000_000], success: :any)

      refute out =~ "299999999"
      assert err =~ "memory"
      assert {:error, %{reason: {:signal, _}}} = Exile.run(["cat"], limits: [memory: 4096])
      assert {:error, %{reason: {:status, _}}} = Exile.run(["cat"], limits: [open_files: 3])
    end
  end

  describe "start_link/2, :cpus" do
    test "are the processors of the program, and the VM keeps its own" do
      allowed = &Regex.run(~r/^Cpus_allowed_list:\s+(.*)$/m, &1, capture: :all_but_first)
      ours = allowed.(File.read!("/proc/self/status"))
      [first | _] = ours |> hd() |> String.split(["-", ","])
      cpus = [String.to_integer(first), 1023]
      assert output(~w(cat /proc/self/status), cpus: cpus) |> allowed.() == [first]
      assert output(~w(cat /proc/self/status), []) |> allowed.() == ours
      assert allowed.(File.read!("/proc/self/status")) == ours
    end

    test "that do not exist are an error with the name of the option, and nothing runs" do
      {:error, error} = Exile.Process.start_link(["true"], cpus: [1023])
      assert %{operation: :cpus, reason: :einval} = error

      assert Exception.message(error) ==
               "could not apply :cpus to \"true\": invalid argument (einval)"
    end
  end

  describe "start_link/2, :io_priority" do
    test "is that of the program, and the VM keeps its own" do
      ionice = fn options -> ["ionice"] |> output(options) |> String.trim() end
      ours = ionice.([])
      assert ionice.(io_priority: :idle) == "idle"

      for level <- [0, 7],
          do: assert(ionice.(io_priority: {:best_effort, level}) == "best-effort: prio #{level}")

      assert ionice.([]) == ours
    end
  end

  describe "start_link/2, :no_new_privs" do
    test "holds for the program and what it starts, and not for the VM" do
      line = ~w(grep NoNewPrivs /proc/self/status)
      ours = output(line, [])
      assert output(line, no_new_privs: true) == "NoNewPrivs:\t1\n"
      assert output(sh(Enum.join(line, " ") <> "; true"), no_new_privs: true) =~ "\t1\n"
      assert output(line, no_new_privs: false) == ours
      assert File.read!("/proc/self/status") =~ ours
    end
  end

  describe "an option that cannot be applied" do
    @describetag :tmp_dir

    # A VM that has dropped its privileges may not raise the priority of a command.
    test "is an error with the name of the option, and nothing runs", %{tmp_dir: directory} do
      marker = Path.join(directory, "ran")

      program = """
      {:ok, _} = Application.ensure_all_started(:exile)
      # The last limit exceeds the VM's own.
      for option <- [nice: -5, limits: [core: 0, cpu: 1_000_000]] do
        {:error, error} = Exile.Process.start_link(["touch", #{inspect(marker)}], [option])
        IO.puts(Exception.message(error))
        IO.inspect({error.operation, error.reason, Exile.Native.counts()[:children]})
      end
      """

      ebin = Application.app_dir(:exile, "ebin")
      # Drops CAP_SYS_NICE and CAP_SYS_RESOURCE, and sets limits that do not allow it either.
      dropped = "-sys_nice,-sys_resource"
      drop = ["setpriv", "--bounding-set", dropped, "--inh-caps", dropped]
      drop = drop ++ ~w(prlimit --nice=0:0 --cpu=500000:500000)
      {output, 0} = System.cmd(hd(drop), tl(drop) ++ ["elixir", "-pa", ebin, "-e", program])

      assert output =~ "could not apply :nice to \"touch\": permission denied (eacces)"
      assert output =~ "{:nice, :eacces, 0}"
      assert output =~ ~r/could not apply :limits to "touch": .*\(eperm\)/
      assert output =~ "{:limits, :eperm, 0}"
      refute File.exists?(marker)
    end
  end
end
