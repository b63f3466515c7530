defmodule Mix.Tasks.Compile.ExileTest do
  # The task reads the environment and the working directory, which all tests share.
  use ExUnit.Case, async: false

  import ExUnit.CaptureIO

  alias Mix.Tasks.Compile

  @moduletag :tmp_dir

  # A fake cargo. It logs every build and copies a source file as the result. With
  # --message-format=json it prints where its results are.
  @cargo ~S"""
  #!/bin/sh
  if [ "$1" = --version ]; then echo "cargo ${FAKE_VERSION:-1.100.0} (0123abc 2025-01-01)"; exit; fi
  while [ "$1" != --target-dir ]; do shift; done
  target=${CARGO_BUILD_TARGET:-$FAKE_TARGETS}
  if [ "$4" = --message-format=json ]; then
    for each in ${target:-.}; do
      echo "{\"fresh\":true,\"executable\":\"$2/$each/release/exile_guard\"}" | sed 's|/\./|/|'
    done
    exit
  fi
  echo build >> "$FAKE_LOG"
  printf %s "$RUSTFLAGS" > "$FAKE_LOG.flags"
  if [ -n "$FAKE_FAILURE" ]; then echo "error: $FAKE_FAILURE" >&2; exit 101; fi
  for each in ${target:-.}; do
    mkdir -p "$2/$each/release" && for result in exile_guard libexile_nif.so; do
      cat native/nif/src/lib.rs > "$2/$each/release/$result"
    done
  done
  """

  setup %{tmp_dir: tmp_dir} do
    project = Path.join(tmp_dir, "a project")
    cargo = Path.join(tmp_dir, "cargo")
    log = Path.join(tmp_dir, "builds")

    write(cargo, @cargo)
    File.chmod!(cargo, 0o755)
    write(log, "")

    put_env(%{
      "CARGO" => cargo,
      "CARGO_BUILD_TARGET" => nil,
      "CROSSCOMPILE" => nil,
      "EXILE_NATIVE_PATH" => nil,
      "FAKE_FAILURE" => nil,
      "FAKE_LOG" => log,
      "FAKE_TARGETS" => nil,
      "FAKE_VERSION" => nil,
      "MIX_BUILD_PATH" => nil,
      "RUSTFLAGS" => nil,
      "TARGET_ABI" => nil,
      "TARGET_ARCH" => nil,
      "TARGET_OS" => nil
    })

    write(Path.join(project, "mix.exs"), """
    defmodule Mix.Tasks.Compile.ExileTest.Project do
      use Mix.Project
      def project, do: [app: :exile_stand_in, version: "1.0.0"]
    end
    """)

    write(Path.join(project, "Cargo.toml"), ~s([workspace.package]\nrust-version = "1.85"\n))
    write(Path.join(project, "Cargo.lock"), "version = 4\n")
    write(Path.join(project, "native/nif/Cargo.toml"), "[package]\n")
    write(Path.join(project, "native/nif/src/lib.rs"), "first")

    %{project: project}
  end

  describe "run/1" do
    test "puts cargo's results where the VM loads them from", %{project: project} do
      assert {{:ok, []}, output} = compile(project)
      assert output =~ "with cargo"
      assert File.read!(library(project)) == "first"
    end

    test "leaves nothing else in priv", %{project: project} do
      compile(project)
      hash = "first" |> :erlang.md5() |> Base.encode16(case: :lower)
      assert Enum.sort(File.ls!(native(project))) == ["exile_guard", "libexile_nif-#{hash}.so"]
    end

    test "removes all earlier libraries", %{project: project} do
      write(Path.join(native(project), "libexile_nif.so"), "older")
      write(Path.join(native(project), "libexile_nif-0123.so"), "old")
      compile(project)
      assert File.read!(library(project)) == "first"

      write(Path.join(project, "native/nif/src/lib.rs"), "second")
      compile(project)
      assert File.read!(library(project)) == "second"
    end

    test "writes nothing to the source tree", %{project: project} do
      before = File.ls!(project)
      compile(project)
      assert File.ls!(project) -- before == ["_build"]
    end

    test "says and does nothing when nothing has changed", %{project: project} do
      compile(project)
      assert compile(project) == {{:noop, []}, ""}
      assert builds() == 1
    end

    for file <- ~w(Cargo.toml Cargo.lock native/nif/Cargo.toml native/nif/src/lib.rs) do
      test "runs cargo again when #{file} has changed", %{project: project} do
        compile(project)
        File.write!(Path.join(project, unquote(file)), "\n# changed", [:append])

        assert {{:ok, []}, _} = compile(project)
        assert builds() == 2
      end
    end

    test "runs cargo again when a Rust source was added", %{project: project} do
      compile(project)
      write(Path.join(project, "native/os/src/lib.rs"), "")
      assert {{:ok, []}, _} = compile(project)
    end

    for variable <- ~w(RUSTFLAGS CC CARGO_TARGET_RISCV64GC_UNKNOWN_LINUX_GNU_LINKER) do
      test "runs cargo again when #{variable} has changed", %{project: project} do
        compile(project)
        put_env(%{unquote(variable) => "something else"})
        assert {{:ok, []}, _} = compile(project)
        assert compile(project) == {{:noop, []}, ""}
      end
    end

    test "runs cargo again when its configuration has changed", %{project: project} do
      compile(project)
      write(Path.join(project, ".cargo/config.toml"), "[net]\noffline = true\n")
      assert {{:ok, []}, _} = compile(project)
      assert compile(project) == {{:noop, []}, ""}
    end

    test "finds cargo's results for another platform", %{project: project} do
      put_env(%{"CARGO_BUILD_TARGET" => "riscv64gc-unknown-linux-gnu"})
      assert {{:ok, []}, _} = compile(project)
      assert File.read!(library(project)) == "first"
    end

    test "finds cargo's results for a platform set in its configuration", %{project: project} do
      compile(project)
      write(Path.join(project, "native/nif/src/lib.rs"), "for the other")
      put_env(%{"FAKE_TARGETS" => "riscv64gc-unknown-linux-gnu"})
      assert {{:ok, []}, _} = compile(project)
      assert File.read!(library(project)) == "for the other"
    end

    test "does not choose from several platforms", %{project: project} do
      put_env(%{"FAKE_TARGETS" => "one-unknown-linux-gnu two-unknown-linux-gnu"})

      assert_fails(project, [
        "for one-unknown-linux-gnu and two-unknown-linux-gnu; set CARGO_BUILD_TARGET to one"
      ])
    end

    for variable <- ~w(CROSSCOMPILE TARGET_ABI TARGET_ARCH TARGET_OS) do
      test "asks for cargo's name of the platform when there is #{variable}", %{project: project} do
        put_env(%{unquote(variable) => "aarch64"})
        assert_fails(project, ["#{unquote(variable)} in the environment", "CARGO_BUILD_TARGET"])
        assert builds() == 0

        put_env(%{"CARGO_BUILD_TARGET" => "aarch64-unknown-linux-gnu"})
        assert {{:ok, []}, _} = compile(project)
      end
    end

    test "builds a shared library for musl", %{project: project} do
      put_env(%{"CARGO_BUILD_TARGET" => "aarch64-unknown-linux-musl", "RUSTFLAGS" => "-g"})
      compile(project)
      assert flags() == "-g -C target-feature=-crt-static"
    end

    test "adds no flags for another libc", %{project: project} do
      put_env(%{"CARGO_BUILD_TARGET" => "aarch64-unknown-linux-gnu", "RUSTFLAGS" => "-g"})
      compile(project)
      assert flags() == "-g"
    end

    test "runs cargo again when the library is gone", %{project: project} do
      compile(project)
      File.rm!(library(project))

      assert {{:ok, []}, _} = compile(project)
      assert File.exists?(library(project))
    end

    test "runs cargo again with --force", %{project: project} do
      compile(project)
      assert {{:ok, []}, _} = compile(project, ["--force"])
    end

    test "does not write into the library that a running VM has mapped", %{project: project} do
      compile(project)
      {:ok, mapped} = File.open(library(project))
      compile(project, ["--force"])
      write(Path.join(project, "native/nif/src/lib.rs"), "second")
      compile(project)

      assert IO.read(mapped, 100) == "first"
      assert File.read!(library(project)) == "second"
    end

    test "replaces a priv link that points to nothing", %{project: project} do
      priv = Path.dirname(native(project))
      File.mkdir_p!(Path.dirname(priv))
      File.ln_s!(Path.join(project, "priv"), priv)

      assert {{:ok, []}, _} = compile(project)
    end

    test "says what to install when there is no cargo", %{project: project} do
      put_env(%{"CARGO" => "/nowhere/cargo"})
      assert_fails(project, ["/nowhere/cargo was not found", "Install Rust 1.85 or later"])
    end

    test "says what to install when cargo is too old", %{project: project} do
      put_env(%{"FAKE_VERSION" => "1.84.1"})
      assert_fails(project, ["which is version 1.84.1", "Install Rust 1.85 or later"])
      assert builds() == 0
    end

    test "accepts the oldest cargo that Cargo.toml allows", %{project: project} do
      put_env(%{"FAKE_VERSION" => "1.85.0"})
      assert {{:ok, []}, _} = compile(project)
    end

    test "shows cargo's output when cargo fails", %{project: project} do
      put_env(%{"FAKE_FAILURE" => "mismatched types"})
      assert assert_fails(project, ["cargo exited with status 101"]) =~ "error: mismatched types"
    end

    test "tries again after a failure even if nothing has changed", %{project: project} do
      compile(project)
      put_env(%{"FAKE_FAILURE" => "mismatched types"})
      write(Path.join(project, "native/nif/src/lib.rs"), "second")
      assert {{:error, _}, _} = compile(project)

      put_env(%{"FAKE_FAILURE" => nil})
      assert {{:ok, []}, _} = compile(project)
    end
  end

  describe "run/1 with EXILE_NATIVE_PATH" do
    setup %{tmp_dir: tmp_dir} do
      directory = Path.join(tmp_dir, "built elsewhere")
      for name <- ~w(exile_guard libexile_nif.so), do: build(directory, name, "first")
      # No cargo is available.
      put_env(%{"CARGO" => "/nowhere/cargo", "EXILE_NATIVE_PATH" => directory})
      %{directory: directory}
    end

    # Writes a fake file of the library.
    defp build(directory, name, content, version \\ Exile.Native.Library.version()) do
      mark = "#{Path.basename(name, ".so")} version #{version};"
      write(Path.join(directory, name), <<0, 255, mark::binary, content::binary>>)
    end

    test "installs the files without cargo", %{project: project, directory: directory} do
      assert compile(project) == {{:ok, []}, ""}

      guard = Path.join(native(project), "exile_guard")

      for {name, installed} <- [{"exile_guard", guard}, {"libexile_nif.so", library(project)}] do
        assert Exile.Native.Library.check(installed) == :ok
        assert File.read!(installed) == File.read!(Path.join(directory, name))
        assert %File.Stat{mode: mode} = File.stat!(installed)
        assert Bitwise.band(mode, 0o111) == 0o111
      end
    end

    test "says and does nothing when nothing has changed", %{project: project} do
      compile(project)
      write(Path.join(project, "native/nif/src/lib.rs"), "second")
      assert compile(project) == {{:noop, []}, ""}
    end

    test "installs a changed file again", %{project: project, directory: directory} do
      compile(project)
      build(directory, "libexile_nif.so", "second")
      assert compile(project) == {{:ok, []}, ""}
      assert File.read!(library(project)) =~ "second"
    end

    test "ignores the variables that name the target platform", %{project: project} do
      put_env(%{"TARGET_ARCH" => "arm"})
      assert compile(project) == {{:ok, []}, ""}
    end

    test "replaces cargo's results and is replaced by them", %{project: project} do
      compile(project)
      put_env(%{"CARGO" => nil, "EXILE_NATIVE_PATH" => nil, "PATH" => fake_path()})
      assert {{:ok, []}, _} = compile(project)
      assert File.read!(library(project)) == "first"
    end

    test "reports a missing file", %{project: project, directory: directory} do
      File.rm!(Path.join(directory, "exile_guard"))

      assert_fails(project, [
        "#{directory}/exile_guard cannot be read: no such file or directory.",
        "EXILE_NATIVE_PATH is #{directory}."
      ])
    end

    test "reports a file of another version", %{project: project, directory: directory} do
      build(directory, "exile_guard", "first", "7.0.0-rc.1")
      assert_fails(project, ["#{directory}/exile_guard is of version 7.0.0-rc.1, but Exile of"])
    end

    test "reports a file that is something else", %{project: project, directory: directory} do
      write(Path.join(directory, "libexile_nif.so"), "hello")
      assert_fails(project, ["#{directory}/libexile_nif.so is not a part of Exile's"])
    end
  end

  describe "clean/0" do
    test "removes everything that run/1 created", %{project: project} do
      compile(project)
      in_project(project, &Compile.Exile.clean/0)

      assert Path.wildcard(Path.join(project, "_build/**"), match_dot: true)
             |> Enum.filter(&File.regular?/1) == []
    end
  end

  # A PATH that contains the fake cargo of setup.
  defp fake_path, do: "#{Path.dirname(System.fetch_env!("FAKE_LOG"))}:#{System.get_env("PATH")}"

  # Returns the result of the task and everything it printed.
  defp compile(project, args \\ []) do
    {{result, stdout}, stderr} =
      with_io(:stderr, fn ->
        with_io(fn -> in_project(project, fn -> Compile.Exile.run(args) end) end)
      end)

    {result, stdout <> stderr}
  end

  # Returns everything that was printed.
  defp assert_fails(project, messages) do
    assert {{:error, [diagnostic]}, output} = compile(project)
    assert %Mix.Task.Compiler.Diagnostic{severity: :error} = diagnostic
    assert output =~ diagnostic.message
    for message <- messages, do: assert(diagnostic.message =~ message)
    assert Exile.Native.Library.all(native(project)) == []

    output
  end

  defp in_project(project, fun) do
    Mix.Project.in_project(:exile_stand_in, project, fn _module -> fun.() end)
  end

  defp library(project) do
    {:ok, library} = Exile.Native.Library.find(native(project))
    library
  end

  defp native(project) do
    Path.join([project, "_build", to_string(Mix.env()), "lib/exile_stand_in/priv/native"])
  end

  # The RUSTFLAGS of the last build.
  defp flags, do: File.read!(System.fetch_env!("FAKE_LOG") <> ".flags")

  defp builds do
    System.fetch_env!("FAKE_LOG") |> File.read!() |> String.split() |> length()
  end

  defp write(path, content) do
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, content)
  end

  defp put_env(variables) do
    before = Map.new(variables, fn {name, _} -> {name, System.get_env(name)} end)
    on_exit(fn -> System.put_env(before) end)
    System.put_env(variables)
  end
end
