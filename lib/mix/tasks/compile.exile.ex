defmodule Mix.Tasks.Compile.Exile do
  @shortdoc "Builds Exile's native library"

  @moduledoc """
  Builds Exile's native library with cargo and puts it where the VM loads it from.

  This is a compiler of the `:exile` project. It runs as part of `mix compile`, also
  when Exile is a dependency, and needs Rust; `Cargo.toml` states the oldest version.
  Cargo only runs when a Rust source, a Cargo file or a setting has changed, when the
  library is missing, and for `mix compile --force`.

  Cargo builds in the build directory of the application (`_build/dev/lib/exile/native`).
  The library goes to the `priv/native` directory beside it, from which a release takes it.
  Nothing is written to the source tree.

  ## In a running VM

  The library is installed under a name with a hash of its contents, in place of the
  previous one. A running VM keeps using the library that it has loaded. To switch to the
  new one, stop the application, which ends its commands, load the module again, and start
  the application:

      Application.stop(:exile)
      :code.purge(Exile.Native)
      :code.load_file(Exile.Native)
      Application.start(:exile)

  Without the stop, running commands stay with the old library. They are ended when their
  owners die, but calls on them raise `ArgumentError`, their owners get exit signals when
  the commands exit, and the guard does not know of new commands.

  ## Without Rust

  If `EXILE_NATIVE_PATH` names a directory with a built library (the files
  `libexile_nif.so` and `exile_guard`), these files are used and cargo is not needed:

      EXILE_NATIVE_PATH=/opt/exile-native mix compile

  `script/package` creates an archive of such a directory. The files must have the same
  version as the Exile that is compiled, and fit the system and processor that it will run
  on. The version is checked here and again when the library is loaded.

  ## For another platform

  Set `CARGO_BUILD_TARGET` to Rust's name for the platform, and
  `CARGO_TARGET_<NAME>_LINKER` to the linker:

      export CARGO_BUILD_TARGET=aarch64-unknown-linux-gnu
      export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc

  Nerves, like other tools for C code, describes the platform with `TARGET_ARCH`,
  `TARGET_OS`, `TARGET_ABI` and `CROSSCOMPILE`, which cargo ignores. If one of them is set,
  `CARGO_BUILD_TARGET` must be set too.

  ## Environment variables

    * `EXILE_NATIVE_PATH` - a directory with a built library, as an absolute path. Default:
      none, the library is built
    * `CARGO` - the cargo to run. Default: the one in `PATH`
    * `CARGO_BUILD_TARGET` - the platform to build for. Default: the one in cargo's
      configuration, or else this one
    * `RUSTFLAGS` - flags for the Rust compiler

  Cargo also uses its other variables and its configuration files.
  """

  use Mix.Task.Compiler

  # The names that cargo gives to the files on the different platforms, by their name in a
  # package. The VM expects ".so" on macOS too.
  @artefacts %{
    "exile_guard" => ["exile_guard"],
    "libexile_nif.so" => ["libexile_nif.so", "libexile_nif.dylib"]
  }

  # The variables with which tools for C code describe the target platform. Cargo ignores them.
  @foreign ~w(CROSSCOMPILE TARGET_ABI TARGET_ARCH TARGET_OS)

  # Cargo may build a different library when one of these variables changes, or one with one of
  # these prefixes.
  @settings @foreign ++
              ~w(CARGO CARGO_ENCODED_RUSTFLAGS CC RUSTC RUSTC_WORKSPACE_WRAPPER) ++
              ~w(RUSTC_WRAPPER RUSTFLAGS RUSTUP_TOOLCHAIN)
  @prefixes ~w(CARGO_BUILD_ CARGO_PROFILE_ CARGO_TARGET_)

  @impl true
  def run(args) do
    fingerprint = fingerprint()

    if "--force" not in args and built?(fingerprint) do
      {:noop, []}
    else
      with {:ok, files} <- if(prebuilt(), do: take(prebuilt()), else: build()) do
        install(files)
        File.mkdir_p!(Path.dirname(manifest()))
        File.write!(manifest(), fingerprint)
        {:ok, []}
      else
        {:error, message} ->
          Mix.shell().error(message)
          {:error, [diagnostic(message)]}
      end
    end
  end

  @impl true
  def manifests, do: [manifest()]

  @impl true
  def clean do
    Enum.each([manifest(), target_dir(), guard() | libraries()], &File.rm_rf!/1)
  end

  defp built?(fingerprint) do
    File.read(manifest()) == {:ok, fingerprint} and File.exists?(guard()) and
      length(libraries()) == 1
  end

  # The architecture is included because build directories are copied, for instance into
  # containers, and the library of another platform cannot be loaded.
  defp fingerprint do
    sources =
      if prebuilt(),
        do: Enum.map(Map.keys(@artefacts), &Path.join(prebuilt(), &1)),
        else: Path.wildcard("Cargo.{toml,lock}") ++ Path.wildcard("native/**/*.{rs,toml}")

    content = {architecture(), settings(), Enum.map(sources, &{&1, File.read(&1)})}

    content |> :erlang.term_to_binary() |> :erlang.md5() |> Base.encode16()
  end

  defp settings do
    variables =
      for {name, _} = variable <- System.get_env(),
          name in @settings or String.starts_with?(name, @prefixes),
          do: variable

    {Enum.sort(variables), Enum.map(configuration(), &File.read/1)}
  end

  # Cargo reads its configuration from this directory, all directories above it, and its home.
  defp configuration do
    above = File.cwd!() |> Path.split() |> Enum.scan(&Path.join(&2, &1))
    home = System.get_env("CARGO_HOME") || Path.join(System.user_home() || "/", ".cargo")

    for directory <- Enum.map(above, &Path.join(&1, ".cargo")) ++ [home],
        name <- ~w(config config.toml),
        do: Path.join(directory, name)
  end

  # The directory of a library that is already built.
  defp prebuilt do
    case System.get_env("EXILE_NATIVE_PATH", "") do
      "" -> nil
      directory -> directory
    end
  end

  # Returns the files to install, as a map from their names in a package.
  defp take(directory) do
    files = Map.new(@artefacts, fn {name, _} -> {name, Path.join(directory, name)} end)

    case Enum.find_value(files, fn {_, path} -> problem(path) end) do
      nil -> {:ok, files}
      problem -> {:error, "#{problem}. EXILE_NATIVE_PATH is #{directory}."}
    end
  end

  defp problem(path) do
    case Exile.Native.Library.check(path) do
      :ok -> nil
      {:error, message} -> message
    end
  end

  # Returns the same as `take/1`.
  defp build do
    with {:ok, cargo} <- find_cargo(),
         :ok <- check_version(cargo),
         :ok <- check_target(),
         :ok <- run_cargo(cargo),
         {:ok, made_in} <- find_made_in(cargo),
         do: find_made(made_in)
  end

  defp find_cargo do
    name = System.get_env("CARGO", "cargo")

    case System.find_executable(name) do
      nil ->
        {:error, "Exile builds a small Rust library, but #{name} was not found. " <> advice()}

      path ->
        {:ok, path}
    end
  end

  defp check_version(cargo) do
    {output, exit_status} = System.cmd(cargo, ["--version"], stderr_to_stdout: true)

    case Regex.run(~r/^cargo (\d+\.\d+\.\d+)/m, output) do
      [_, version] when exit_status == 0 ->
        if parts(version) >= parts(minimum_version()) do
          :ok
        else
          {:error,
           "Exile cannot be built with #{cargo}, which is version #{version}. " <> advice()}
        end

      _ ->
        {:error, "#{cargo} does not say its version:\n\n#{output}\n" <> advice()}
    end
  end

  # [1, 85] <= [1, 85, 0] <= [1, 100, 0]
  defp parts(version), do: version |> String.split(".") |> Enum.map(&String.to_integer/1)

  defp minimum_version do
    [_, version] = Regex.run(~r/^rust-version = "([\d.]+)"/m, File.read!("Cargo.toml"))
    version
  end

  defp advice do
    "Install Rust #{minimum_version()} or later, from https://rustup.rs or as a package of " <>
      "your system, or let the environment variable CARGO name the cargo to use. A library " <>
      "that is already built needs none of it: see mix help compile.exile."
  end

  # Without CARGO_BUILD_TARGET, cargo would silently build for this machine.
  defp check_target do
    foreign = Enum.filter(@foreign, &(System.get_env(&1, "") != ""))

    if foreign == [] or target() do
      :ok
    else
      {:error,
       "#{Enum.join(foreign, ", ")} in the environment asks for Exile's native library to be " <>
         "built for another platform; set CARGO_BUILD_TARGET to the name that Rust has for it."}
    end
  end

  defp target do
    case System.get_env("CARGO_BUILD_TARGET", "") do
      "" -> nil
      target -> target
    end
  end

  defp run_cargo(cargo) do
    Mix.shell().info("Building Exile's native library with cargo")
    options = [into: IO.stream(), stderr_to_stdout: true, env: build_env()]

    case System.cmd(cargo, build_args(), options) do
      {_, 0} ->
        :ok

      {_, exit_status} ->
        {:error,
         "Exile's native library could not be built: cargo exited with status " <>
           "#{exit_status}, its output is above."}
    end
  end

  defp build_args, do: ["build", "--release", "--locked", "--target-dir", target_dir()]

  # For musl, Rust links statically by default and then makes no shared library.
  defp build_env do
    if (target() || architecture()) =~ "musl" do
      [{"RUSTFLAGS", "#{System.get_env("RUSTFLAGS")} -C target-feature=-crt-static"}]
    else
      []
    end
  end

  # If a platform is set, in the environment or in cargo's configuration, the files are in a
  # directory of that name. Directories of earlier builds may be beside it, so we ask cargo,
  # which has nothing left to build.
  defp find_made_in(cargo) do
    args = build_args() ++ ["--quiet", "--message-format=json"]
    {output, _} = System.cmd(cargo, args, env: build_env())
    targets = Regex.scan(~r{([^/"]+)/release/exile_guard"}, output, capture: :all_but_first)
    host = Path.basename(target_dir())

    case targets |> List.flatten() |> Enum.uniq() do
      [^host] ->
        {:ok, Path.join(target_dir(), "release")}

      [target] ->
        {:ok, Path.join([target_dir(), target, "release"])}

      [] ->
        {:error, "cargo does not say where it built exile_guard."}

      several ->
        {:error,
         "cargo built Exile's native library for #{Enum.join(several, " and ")}; set " <>
           "CARGO_BUILD_TARGET to one of them."}
    end
  end

  defp find_made(made_in) do
    Enum.reduce_while(@artefacts, {:ok, %{}}, fn {name, candidates}, {:ok, files} ->
      case Enum.find(candidates, &File.exists?(Path.join(made_in, &1))) do
        nil ->
          {:halt, {:error, "cargo made no #{Enum.join(candidates, " or ")} in #{made_in}."}}

        made ->
          {:cont, {:ok, Map.put(files, name, Path.join(made_in, made))}}
      end
    end)
  end

  defp install(files) do
    make_directory()
    replace(files["exile_guard"], guard())
    source = files["libexile_nif.so"]
    library = Path.join(directory(), Exile.Native.Library.file_name(File.read!(source)))
    replace(source, library)
    Enum.each(libraries() -- [library], &File.rm!/1)
  end

  # If the sources have a priv directory, Mix makes priv a link to it. An upgrade that removes
  # that directory leaves the link dangling.
  defp make_directory do
    priv = Path.dirname(directory())
    _ = File.exists?(priv) || File.rm(priv)
    File.mkdir_p!(directory())
  end

  # A running VM has the old file mapped and would crash if its contents changed.
  # A rename leaves that file alone.
  defp replace(source, destination) do
    temporary = "#{destination}.#{System.pid()}"
    File.cp!(source, temporary)
    File.chmod!(temporary, 0o755)
    File.rename!(temporary, destination)
  end

  defp diagnostic(message) do
    %Mix.Task.Compiler.Diagnostic{
      compiler_name: "Exile",
      file: Path.absname("Cargo.toml"),
      message: message,
      position: 0,
      severity: :error
    }
  end

  defp guard, do: Path.join(directory(), "exile_guard")
  defp libraries, do: Exile.Native.Library.all(directory())
  defp directory, do: Path.join(Mix.Project.app_path(), "priv/native")
  defp target_dir, do: Path.join(Mix.Project.app_path(), "native")
  defp manifest, do: Path.join(Mix.Project.manifest_path(), "compile.exile")
  defp architecture, do: to_string(:erlang.system_info(:system_architecture))
end
