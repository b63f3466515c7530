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

  describe "an option that cannot be applied" do
    @describetag :tmp_dir

    # A VM that has dropped its privileges may not raise the priority of a command.
    test "is an error with the name of the option, and nothing runs", %{tmp_dir: directory} do
      marker = Path.join(directory, "ran")

      program = """
      {:ok, _} = Application.ensure_all_started(:exile)
      {:error, error} = Exile.Process.start_link(["touch", #{inspect(marker)}], nice: -5)
      IO.write(Exception.message(error))
      IO.inspect({error.operation, error.reason, Exile.Native.counts()[:children]})
      """

      ebin = Application.app_dir(:exile, "ebin")
      # Drops CAP_SYS_NICE, and sets a limit that does not allow it either.
      drop = ~w(setpriv --bounding-set -sys_nice --inh-caps -sys_nice prlimit --nice=0:0)
      {output, 0} = System.cmd(hd(drop), tl(drop) ++ ["elixir", "-pa", ebin, "-e", program])

      assert output =~ "could not apply :nice to \"touch\": permission denied (eacces)"
      assert output =~ "{:nice, :eacces, 0}"
      refute File.exists?(marker)
    end
  end
end
