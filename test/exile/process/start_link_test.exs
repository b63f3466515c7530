defmodule Exile.Process.StartLinkTest do
  use Exile.Case

  import Exile.ProcessHelpers

  alias Exile.Process.Error

  # Prints each of its arguments followed by a NUL byte.
  @echo ["sh", "-c", ~S(for argument; do printf '%s\0' "$argument"; done), "sh"]

  # Returns the environment that the command gets.
  defp environment(options) do
    {output, 0} = run(["env", "-0"], options)

    for entry <- String.split(output, <<0>>, trim: true), into: %{} do
      [name, value] = String.split(entry, "=", parts: 2)
      {name, value}
    end
  end

  defp put_env(name, value) do
    before = System.get_env(name)

    on_exit(fn ->
      if before, do: System.put_env(name, before), else: System.delete_env(name)
    end)

    if value, do: System.put_env(name, value), else: System.delete_env(name)
  end

  defp temporary_directory do
    path = Path.join(System.tmp_dir!(), "exile-#{System.pid()}-#{System.unique_integer()}")
    File.mkdir_p!(path)
    on_exit(fn -> File.rm_rf!(path) end)
    path
  end

  defp executable(path, content) do
    File.write!(path, content)
    File.chmod!(path, 0o755)
    path
  end

  defp real_path(program) do
    {path, 0} = System.cmd("realpath", [System.find_executable(program)])
    String.trim(path)
  end

  defp root? do
    {"0\n", 0} == System.cmd("id", ["-u"])
  end

  describe "start_link/2" do
    test "starts a command that the caller owns" do
      assert {:ok, %Exile.Process{} = p} = Exile.Process.start_link(["cat"])
      assert {:ok, _os_pid} = Exile.Process.os_pid(p)
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end

    test "starts no Erlang process" do
      before = Process.list()
      {:ok, p} = Exile.Process.start_link(["cat"])
      assert Process.list() -- before == []
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end

    test "works without options" do
      assert {:ok, p} = Exile.Process.start_link(["true"], [])
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end

    test "returns only once the program is executed" do
      {:ok, p} = Exile.Process.start_link(["sleep", "60"])
      {:ok, os_pid} = Exile.Process.os_pid(p)
      program = real_path("sleep")
      eventually(fn -> File.read_link!("/proc/#{os_pid}/exe") == program end)
    end

    test "finds a program with a slash without looking in the PATH" do
      path = executable(Path.join(temporary_directory(), "say"), "#!/bin/sh\necho said\n")
      assert run([path]) == {"said\n", 0}
    end

    test "keeps concurrent commands apart" do
      commands = for _ <- 1..20, do: elem(Exile.Process.start_link(["cat"]), 1)
      for {p, n} <- Enum.with_index(commands), do: assert(Exile.Process.write(p, "#{n}") == :ok)
      for {p, n} <- Enum.with_index(commands), do: assert(Exile.Process.read(p) == {:ok, "#{n}"})
      for p <- commands, do: assert(Exile.Process.await_exit(p) == {:ok, 0})
    end

    test "can be called by many processes at the same time" do
      1..100
      |> Enum.map(fn n -> Task.async(fn -> run(["echo", "#{n}"]) end) end)
      |> Enum.with_index(1)
      |> Enum.each(fn {task, n} -> assert Task.await(task) == {"#{n}\n", 0} end)
    end

    test "runs the command in its own process group" do
      {:ok, p} = Exile.Process.start_link(["cat", "/proc/self/stat"])
      {:ok, stat} = Exile.Process.read(p)
      [pid, _name, _state, _parent, group | _] = String.split(stat)
      assert group == pid
      Exile.Process.await_exit(p)
    end

    test "passes only the three standard streams to the command" do
      # The fourth is the directory that ls lists.
      assert run(["ls", "/proc/self/fd"]) == {"0\n1\n2\n3\n", 0}
    end

    test "starts a command with no signal blocked or ignored, whatever the VM does" do
      {status, 0} = run(["cat", "/proc/self/status"])
      assert status =~ ~r/^SigBlk:\t0{16}$/m
      assert status =~ ~r/^SigIgn:\t0{16}$/m
    end
  end

  describe "start_link/2, arguments" do
    test "passes every byte except NUL" do
      arguments = Enum.map(1..255, &<<&1>>) ++ [:binary.list_to_bin(Enum.to_list(1..255))]
      assert run(@echo ++ arguments) == {Enum.map_join(arguments, &(&1 <> <<0>>)), 0}
    end

    test "passes what a shell would interpret" do
      arguments = ["$HOME", "`id`", "$(id)", "a b", "*", "~", "'", "\"", "\\", "a;b", "a|b", ">x"]
      assert run(@echo ++ arguments) == {Enum.map_join(arguments, &(&1 <> <<0>>)), 0}
    end

    test "passes empty arguments and arguments that look like options" do
      assert run(@echo ++ ["", "-", "--", "-n", ""]) == {"\0-\0--\0-n\0\0", 0}
    end

    test "passes letters that are not ASCII" do
      assert run(@echo ++ ["żółć", "日本語", "🐘"]) == {"żółć\0日本語\0🐘\0", 0}
    end

    test "passes an argument of the maximum length" do
      long = String.duplicate("x", 131_071)
      assert run(@echo ++ [long, "end"]) == {long <> "\0end\0", 0}
    end

    test "passes thousands of arguments" do
      arguments = Enum.map(1..5_000, &"#{&1}")
      assert run(@echo ++ arguments) == {Enum.map_join(arguments, &(&1 <> <<0>>)), 0}
    end

    test "a NUL byte raises and runs nothing" do
      assert_raise ArgumentError, ~r/must not contain a NUL byte, got: <<97, 0, 98>>/, fn ->
        Exile.Process.start_link(["echo", <<"a", 0, "b">>])
      end

      assert_raise ArgumentError, ~r/must not contain a NUL byte/, fn ->
        Exile.Process.start_link([<<"echo", 0>>])
      end

      assert_nothing_started()
    end

    test "a command that is not a list of binaries raises" do
      for bad <- [[], "echo", nil, ["echo", :a], [~c"echo"], [""], ["echo" | "a"], %{}, [nil]] do
        assert_raise ArgumentError, fn -> Exile.Process.start_link(bad) end
      end

      assert_nothing_started()
    end
  end

  describe "start_link/2, option :cd" do
    test "is the directory that the command runs in" do
      path = temporary_directory()
      assert run(["pwd", "-P"], cd: path) == {path <> "\n", 0}
    end

    test "is the VM's directory by default and when nil" do
      assert run(["pwd", "-P"]) == {File.cwd!() <> "\n", 0}
      assert run(["pwd", "-P"], cd: nil) == {File.cwd!() <> "\n", 0}
    end

    test "may be relative, and does not change the VM's directory" do
      before = File.cwd!()
      assert run(["pwd", "-P"], cd: "lib") == {Path.join(before, "lib") <> "\n", 0}
      assert File.cwd!() == before
    end

    test "may contain letters that are not ASCII" do
      path = Path.join(temporary_directory(), "żółć 🐘")
      File.mkdir!(path)
      assert run(["pwd", "-P"], cd: path) == {path <> "\n", 0}
    end

    test "is where a relative program name with a slash is looked up" do
      path = temporary_directory()
      executable(Path.join(path, "say"), "#!/bin/sh\necho said\n")
      assert run(["./say"], cd: path) == {"said\n", 0}
      assert {:error, %Error{reason: :enoent}} = Exile.Process.start_link(["./say"])
    end

    test "that does not exist is :enoent, and the error contains the directory" do
      assert {:error, error} = Exile.Process.start_link(["pwd"], cd: "/no/such/directory")
      assert error == %Error{reason: :enoent, operation: :cd, subject: "/no/such/directory"}

      assert Exception.message(error) ==
               "could not change to the directory \"/no/such/directory\": " <>
                 "no such file or directory (enoent)"
    end

    test "that is empty is :enoent" do
      assert {:error, %Error{reason: :enoent, operation: :cd}} =
               Exile.Process.start_link(["pwd"], cd: "")
    end

    test "that is a file is :enotdir" do
      path = Path.join(temporary_directory(), "file")
      File.write!(path, "")

      assert Exile.Process.start_link(["pwd"], cd: path) ==
               {:error, %Error{reason: :enotdir, operation: :cd, subject: path}}
    end

    test "that may not be entered is :eacces" do
      # Root may enter every directory.
      unless root?() do
        path = Path.join(temporary_directory(), "closed")
        File.mkdir!(path)
        File.chmod!(path, 0o000)

        assert Exile.Process.start_link(["pwd"], cd: path) ==
                 {:error, %Error{reason: :eacces, operation: :cd, subject: path}}

        File.chmod!(path, 0o700)
      end
    end

    test "that links to itself is :eloop, and a name that is too long is :enametoolong" do
      path = Path.join(temporary_directory(), "loop")
      File.ln_s!(path, path)
      assert {:error, %Error{reason: :eloop}} = Exile.Process.start_link(["pwd"], cd: path)
      long = "/" <> String.duplicate("x", 300)
      assert {:error, %Error{reason: :enametoolong}} = Exile.Process.start_link(["pwd"], cd: long)
    end

    test "of a wrong kind raises" do
      for bad <- [:tmp, ~c"tmp", 1, true, <<"a", 0>>] do
        assert_raise ArgumentError, ~r/:cd/, fn -> Exile.Process.start_link(["pwd"], cd: bad) end
      end

      assert_nothing_started()
    end
  end

  describe "start_link/2, option :env" do
    test "adds to the environment of the VM and replaces in it" do
      put_env("EXILE_KEPT", "kept")
      put_env("EXILE_REPLACED", "before")
      found = environment(env: [{"EXILE_ADDED", "added"}, {"EXILE_REPLACED", "after"}])
      assert %{"EXILE_KEPT" => "kept", "EXILE_ADDED" => "added"} = found
      assert found["EXILE_REPLACED"] == "after"
      assert found["PATH"] == System.get_env("PATH")
    end

    test "may be a map" do
      assert %{"EXILE_A" => "1", "EXILE_B" => "2"} =
               environment(env: %{"EXILE_A" => "1", "EXILE_B" => "2"})
    end

    test "follows changes of the VM's environment" do
      put_env("EXILE_LATE", "late")
      assert environment([])["EXILE_LATE"] == "late"
      put_env("EXILE_LATE", nil)
      refute Map.has_key?(environment([]), "EXILE_LATE")
    end

    test "does not change the environment of the VM" do
      environment(env: %{"EXILE_ADDED" => "added"})
      assert System.get_env("EXILE_ADDED") == nil
    end

    test "unsets a variable with nil and with false" do
      put_env("EXILE_A", "1")
      put_env("EXILE_B", "2")
      put_env("EXILE_AB", "3")
      found = environment(env: [{"EXILE_A", nil}, {"EXILE_B", false}, {"EXILE_NONE", nil}])
      refute Map.has_key?(found, "EXILE_A")
      refute Map.has_key?(found, "EXILE_B")
      refute Map.has_key?(found, "EXILE_NONE")
      assert found["EXILE_AB"] == "3"
    end

    test "sets an empty value, which is not the same as unset" do
      assert environment(env: %{"EXILE_EMPTY" => ""})["EXILE_EMPTY"] == ""
    end

    test "keeps an equals sign, a line break and letters that are not ASCII in a value" do
      values = %{"EXILE_A" => "a=b=c", "EXILE_B" => "a\nb", "EXILE_C" => "zażółć 🐘"}
      assert Map.take(environment(env: values), Map.keys(values)) == values
    end

    test "passes bytes that are not letters, in names too" do
      every_byte = :binary.list_to_bin(Enum.to_list(1..255))
      values = %{"EXILE_BYTES" => every_byte, <<"EXILE_", 0xFF>> => "x", "żółć" => "y"}
      assert Map.take(environment(env: values), Map.keys(values)) == values
    end

    test "passes on letters that are not ASCII from the environment of the VM" do
      put_env("EXILE_ŻÓŁĆ", "日本語 🐘 ÿ")
      assert environment([])["EXILE_ŻÓŁĆ"] == "日本語 🐘 ÿ"
      put_env("EXILE_ŻÓŁĆ", "again")
      refute Map.has_key?(environment(env: %{"EXILE_ŻÓŁĆ" => nil}), "EXILE_ŻÓŁĆ")
    end

    test "converts atoms, numbers and charlists to text, as names and as values" do
      env = [{:EXILE_A, :atom}, {~c"EXILE_B", 1}, {"EXILE_C", ~c"żółć"}, {"EXILE_D", true}]

      assert Map.take(environment(env: env), ~w(EXILE_A EXILE_B EXILE_C EXILE_D)) ==
               %{"EXILE_A" => "atom", "EXILE_B" => "1", "EXILE_C" => "żółć", "EXILE_D" => "true"}
    end

    test "uses the last of several values for one name" do
      assert environment(env: [{"EXILE_A", "1"}, {"EXILE_A", "2"}])["EXILE_A"] == "2"
      found = environment(env: [{"EXILE_A", "1"}, {"EXILE_A", nil}])
      refute Map.has_key?(found, "EXILE_A")
    end

    test "does not affect the program lookup, which uses the PATH of the VM" do
      path = temporary_directory()
      executable(Path.join(path, "exile-say"), "#!/bin/sh\necho said\n")

      assert {:error, %{reason: :enoent}} =
               Exile.Process.start_link(["exile-say"], env: [{"PATH", path}])

      put_env("PATH", path <> ":" <> System.get_env("PATH"))
      assert run(["exile-say"], env: [{"PATH", "/bin:/usr/bin"}]) == {"said\n", 0}
    end

    test "of a wrong kind raises, naming what is wrong" do
      assert_raise ArgumentError, ~r/:env.*got: {1}/s, fn ->
        Exile.Process.start_link(["true"], env: [{"A", {1}}])
      end

      assert_raise ArgumentError, ~r/:env.*got: "A=B"/s, fn ->
        Exile.Process.start_link(["true"], env: [{"A=B", "1"}])
      end

      assert_raise ArgumentError, ~r/:env.*NUL.*got: <<97, 0>>/s, fn ->
        Exile.Process.start_link(["true"], env: [{"A", <<"a", 0>>}])
      end

      assert_nothing_started()
    end
  end

  describe "start_link/2, option :clear_env" do
    test "gives the command an empty environment" do
      assert environment(clear_env: true) == %{}
    end

    test "leaves only what :env sets" do
      options = [clear_env: true, env: [{"A", "1"}, {"B", nil}, {"C", false}]]
      assert environment(options) == %{"A" => "1"}
    end

    test "does not depend on the order of the options" do
      assert environment(env: [{"A", "1"}], clear_env: true) == %{"A" => "1"}
    end

    test "as false is the default" do
      assert environment(clear_env: false)["PATH"] == System.get_env("PATH")
    end

    test "of a wrong kind raises" do
      for bad <- [1, "true"] do
        assert_raise ArgumentError, ~r/:clear_env/, fn ->
          Exile.Process.start_link(["true"], clear_env: bad)
        end
      end
    end
  end

  describe "start_link/2, option :stderr" do
    # Returns the targets of the command's standard streams: [stdin, stdout, stderr].
    defp streams(options) do
      {:ok, p} =
        Exile.Process.start_link(sh("for n in 0 1 2; do readlink /proc/$$/fd/$n; done"), options)

      streams = read_lines(p, 3)
      Exile.Process.await_exit(p)
      streams
    end

    test "is the standard error of the VM by default, and with :console" do
      vm = File.read_link!("/proc/self/fd/2")
      assert [_, _, ^vm] = streams([])
      assert [_, _, ^vm] = streams(stderr: :console)
    end

    test "joins standard output with :redirect_to_stdout, in the order of writing" do
      assert [_, "pipe:" <> _ = stdout, stdout] = streams(stderr: :redirect_to_stdout)

      assert run(sh("echo 1; echo 2 >&2; echo 3; echo 4 >&2"), stderr: :redirect_to_stdout) ==
               {"1\n2\n3\n4\n", 0}
    end

    test "is the null device with :disable" do
      assert [_, _, "/dev/null"] = streams(stderr: :disable)
      assert run(sh("echo lost >&2; echo kept"), stderr: :disable) == {"kept\n", 0}
    end

    test "is a separate pipe with :consume" do
      assert [_, stdout, "pipe:" <> _ = stderr] = streams(stderr: :consume)
      assert stderr != stdout
    end

    test "leaves nothing to read unless it is consumed" do
      for where <- [:console, :redirect_to_stdout, :disable] do
        {:ok, p} = Exile.Process.start_link(["true"], stderr: where)
        assert Exile.Process.read_stderr(p) == {:error, :pipe_closed_or_invalid_caller}
        assert Exile.Process.close_stderr(p) == {:error, :pipe_closed_or_invalid_caller}

        assert Exile.Process.change_pipe_owner(p, :stderr, self()) ==
                 {:error, :pipe_closed_or_invalid_caller}

        Exile.Process.await_exit(p)
      end
    end

    test "of a wrong kind raises" do
      for bad <- [true, "console", :stdout, :consum] do
        assert_raise ArgumentError, ~r/:stderr/, fn ->
          Exile.Process.start_link(["true"], stderr: bad)
        end
      end
    end
  end

  describe "start_link/2, other options" do
    test "that are nil have their defaults" do
      options =
        for option <- ~w(cd env clear_env stderr teardown start_timeout)a, do: {option, nil}

      assert run(["echo", "hi"], options) == {"hi\n", 0}
    end

    test "raise with the name, the value and the known ones" do
      message =
        "unknown option :colour with value :red; the known ones are :cd, :env, :clear_env, " <>
          ":arg0, :stderr, :nice, :umask, :cpus, :io_priority, " <>
          ":limits, :no_new_privs, :teardown, :start_timeout"

      assert_raise ArgumentError, message, fn ->
        Exile.Process.start_link(["true"], colour: :red)
      end

      assert_raise ArgumentError, ~r/keyword list, got: %{cd: "\/"}/, fn ->
        Exile.Process.start_link(["true"], %{cd: "/"})
      end

      assert_nothing_started()
    end
  end

  describe "start_link/2, a command that cannot be started" do
    test "because there is no such program is :enoent" do
      assert Exile.Process.start_link(["no-such-program"]) ==
               {:error, %Error{reason: :enoent, operation: :exec, subject: "no-such-program"}}

      assert {:error, %Error{reason: :enoent}} = Exile.Process.start_link(["/no/such/program"])
    end

    test "because the interpreter of the script is missing is :enoent" do
      path = executable(Path.join(temporary_directory(), "script"), "#!/no/such/interpreter\n")
      assert {:error, %Error{reason: :enoent, subject: ^path}} = Exile.Process.start_link([path])
    end

    test "because it may not be executed is :eacces" do
      path = Path.join(temporary_directory(), "text")
      File.write!(path, "#!/bin/sh\n")

      assert {:error, %Error{reason: :eacces, operation: :exec} = error} =
               Exile.Process.start_link([path])

      assert Exception.message(error) ==
               "could not run #{inspect(path)}: permission denied (eacces)"
    end

    test "because it is a directory is :eacces" do
      assert {:error, %Error{reason: :eacces}} = Exile.Process.start_link([temporary_directory()])
    end

    test "because a part of its path is a file is :enotdir" do
      path = Path.join(temporary_directory(), "file")
      File.write!(path, "")
      assert {:error, %Error{reason: :enotdir}} = Exile.Process.start_link([path <> "/program"])
    end

    test "because it is not a program is :enoexec" do
      path = executable(Path.join(temporary_directory(), "data"), "neither script nor program")

      assert {:error, %Error{reason: :enoexec, operation: :exec, subject: ^path}} =
               Exile.Process.start_link([path])
    end

    test "because it is empty is :enoexec" do
      path = executable(Path.join(temporary_directory(), "empty"), "")
      assert {:error, %Error{reason: :enoexec}} = Exile.Process.start_link([path])
    end

    test "because an argument, all arguments together, or a variable is too long is :e2big" do
      long = String.duplicate("x", 131_072)
      assert {:error, %Error{reason: :e2big}} = Exile.Process.start_link(["echo", long])
      many = List.duplicate(String.duplicate("x", 100_000), 100)
      assert {:error, %Error{reason: :e2big}} = Exile.Process.start_link(["echo" | many])

      assert {:error, %Error{reason: :e2big, operation: :exec, subject: "echo"}} =
               Exile.Process.start_link(["echo"], env: [{"A", long}])
    end

    test "because the program is open for writing is :etxtbsy" do
      path = executable(Path.join(temporary_directory(), "busy"), File.read!("/bin/true"))
      file = File.open!(path, [:append, :raw])
      assert {:error, %Error{reason: :etxtbsy}} = Exile.Process.start_link([path])
      :ok = File.close(file)
      assert run([path]) == {"", 0}
    end

    test "because its name is too long is :enametoolong, and a link to itself is :eloop" do
      name = String.duplicate("x", 300)
      # No directory of the PATH contains a program of this name.
      assert {:error, %Error{reason: :enoent}} = Exile.Process.start_link([name])
      assert {:error, %Error{reason: :enametoolong}} = Exile.Process.start_link(["/" <> name])
      path = Path.join(temporary_directory(), "loop")
      File.ln_s!(path, path)
      assert {:error, %Error{reason: :eloop}} = Exile.Process.start_link([path])
    end

    test "because the VM has too many files open is :emfile" do
      # Lowers the limit of the VM, and restores it at the end of its input. A VM without a free
      # descriptor could not start another program to restore the limit.
      limit = """
      was=$(ulimit -S -n)
      prlimit --pid $1 --nofile=$(ls /proc/$1/fd | wc -l): && echo lowered
      read line
      prlimit --pid $1 --nofile=$was:
      """

      {:ok, p} = Exile.Process.start_link(["sh", "-c", limit, "sh", System.pid()])
      assert read_lines(p, 1) == ["lowered"]

      # A few descriptors below the limit may be free.
      results = for _ <- 1..20, do: Exile.Process.start_link(["cat"])
      errors = for {:error, error} <- results, do: error
      Exile.Process.close_stdin(p)
      assert Exile.Process.await_exit(p) == {:ok, 0}
      for {:ok, other} <- results, do: assert(Exile.Process.await_exit(other) == {:ok, 0})

      assert [%Error{reason: :emfile, operation: :stdio, subject: "cat"} | _] = errors
    end

    test "leaves the caller without links and messages" do
      for trap <- [false, true] do
        task =
          Task.async(fn ->
            Process.flag(:trap_exit, trap)
            links = links()
            for _ <- 1..50, do: {:error, _} = Exile.Process.start_link(["no-such-program"])

            for _ <- 1..50,
                do: {:error, _} = Exile.Process.start_link(["true"], cd: "/no/directory")

            {links == links(), Process.info(self(), [:messages, :monitors])}
          end)

        assert Task.await(task) == {true, [messages: [], monitors: []]}
      end
    end

    test "leaves no Erlang process behind" do
      before = Process.list()
      for _ <- 1..20, do: {:error, _} = Exile.Process.start_link(["no-such-program"])
      eventually(fn -> Process.list() -- before == [] end)
    end
  end

  defp links do
    {:links, links} = Process.info(self(), :links)
    Enum.sort(links)
  end

  defp assert_nothing_started do
    assert Enum.filter(links(), &is_pid/1) == []
    assert_no_message()
  end
end
