defmodule Exile.Native.LibraryTest do
  use ExUnit.Case, async: true

  alias Exile.Native.Library

  @moduletag :tmp_dir

  # Copies the application with its library, to be loaded by another VM.
  setup %{tmp_dir: dir} do
    app = Path.join(dir, "exile")
    File.mkdir_p!(app)
    File.cp_r!(Application.app_dir(:exile, "ebin"), Path.join(app, "ebin"))
    File.cp_r!(Application.app_dir(:exile, "priv"), Path.join(app, "priv"))
    {:ok, library} = Library.find(Path.join(app, "priv/native"))
    %{app: app, library: library}
  end

  @program """
  Logger.configure(level: :error)
  IO.puts(
    case Application.ensure_all_started(:exile) do
      {:ok, _} -> Enum.join(Exile.stream!(["echo", "started"]))
      {:error, {:exile, {reason, {Exile.Runtime.Application, :start, _}}}} -> reason
    end
  )
  """

  # Returns the output of a VM that starts the application.
  defp start(app, options \\ []) do
    arguments = ["-pa", Path.join(app, "ebin")] ++ options ++ ["-e", @program]
    {output, 0} = System.cmd("elixir", arguments, stderr_to_stdout: true)
    output
  end

  test "the version is the same in mix.exs and Cargo.toml" do
    [_, version] = Regex.run(~r/^version = "(.*)"/m, File.read!("Cargo.toml"))
    assert version == Library.version()
    assert Application.spec(:exile, :vsn) == String.to_charlist(version)
  end

  describe "the application" do
    test "starts with the library that was built with it", %{app: app} do
      assert start(app) =~ "started"
    end

    test "reports a library of another version", %{app: app, library: file} do
      File.rm!(Path.join(app, "ebin/Elixir.Exile.Native.Library.beam"))
      source = File.read!("lib/exile/native/library.ex")
      later = String.replace(source, "Mix.Project.config()[:version]", ~s("77.0.0"))
      refute later == source
      File.write!(Path.join(app, "later.ex"), later)

      assert start(app, ["-r", Path.join(app, "later.ex")]) =~
               "#{file} is of version #{Library.version()}, but Exile of 77.0.0."
    end

    test "reports a library for another processor", %{app: app, library: file} do
      # The machine is the 16-bit number 18 bytes from the start of an ELF file.
      <<start::binary-size(18), _::16, rest::binary>> = File.read!(file)
      File.write!(file, <<start::binary, 0xFFFF::16, rest::binary>>)
      assert start(app) =~ "#{file} cannot be loaded: "
    end

    test "reports a file that is not a library", %{app: app, library: file} do
      File.write!(file, "no library")
      assert start(app) =~ "#{file} is not a part of Exile's native library."
    end

    test "reports a missing library", %{app: app, library: file} do
      File.rm!(file)
      assert start(app) =~ "there is no library in #{Path.dirname(file)}. Compile it again"
    end

    test "reports a directory with the wrong name", %{app: app} do
      moved = Path.join(Path.dirname(app), "moved")
      File.rename!(app, moved)

      assert start(moved) =~
               "the directory that Exile is installed in must be named exile or exile-"
    end

    test "reports a lack of descriptors, and starts later", %{app: app, library: file} do
      program = """
      Logger.configure(level: :none)
      # One descriptor is left for reading files. It is not enough for the library.
      open = fn open, files ->
        case :file.open("/dev/null", [:read, :raw]) do
          {:ok, file} -> open.(open, [file | files])
          {:error, :emfile} -> files
        end
      end
      [one | others] = open.(open, [])
      :file.close(one)
      {:error, {:exile, {reason, _}}} = Application.ensure_all_started(:exile)
      for file <- others, do: :file.close(file)
      IO.puts(reason)
      {:ok, _} = Application.ensure_all_started(:exile)
      IO.puts(Enum.join(Exile.stream!(["echo", "started"])))
      """

      arguments = ["elixir", "-pa", Path.join(app, "ebin"), "-e", program]
      limited = ["-c", ~S(ulimit -n 256; exec "$@"), "sh" | arguments]
      # The source is given because detecting it takes descriptors, too.
      env = [{"EXILE_EXIT_SOURCE", "wait"}]
      {output, 0} = System.cmd("sh", limited, env: env, stderr_to_stdout: true)

      assert output =~ "#{file} cannot start here and now: too many open files (emfile).\n"
      assert output =~ "started"
    end

    test "reports two libraries", %{app: app, library: file} do
      File.cp!(file, Path.join(Path.dirname(file), "libexile_nif.so"))

      assert start(app) =~
               "there is more than one library in #{Path.dirname(file)}: " <>
                 "#{Path.basename(file)}, libexile_nif.so. Compile it again"
    end

    test "starts with a library under its plain name", %{app: app, library: file} do
      File.rename!(file, Path.join(Path.dirname(file), "libexile_nif.so"))
      assert start(app) =~ "started"
    end
  end

  describe "check/1" do
    test "accepts the files that were built", %{library: file} do
      assert Library.check(file) == :ok
      assert Library.check(Path.join(Path.dirname(file), "exile_guard")) == :ok
    end

    test "distinguishes the library from the guard", %{library: file} do
      guard = Path.join(Path.dirname(file), "exile_guard")
      File.cp!(guard, file)
      assert {:error, message} = Library.check(file)
      assert message =~ "is not a part of"
    end

    test "reports a missing file", %{library: file} do
      File.rm!(file)
      assert Library.check(file) == {:error, "#{file} cannot be read: no such file or directory"}
    end
  end

  describe "file_name/1" do
    test "differs for different contents" do
      refute Library.file_name("one") == Library.file_name("two")
      assert Library.file_name("one") =~ ~r/^libexile_nif-[0-9a-f]{32}\.so$/
    end
  end

  describe "refused/2" do
    # refused/2 stores its text globally, but the text is read only if the library is not loaded.
    defp refused(file, number, callback \\ "load") do
      Library.refused(file, ~c"Library #{callback}-call unsuccessful (#{number}).")
    end

    test "names the resource that the system lacks", %{library: file} do
      for {number, words} <- [
            {if(:os.type() == {:unix, :linux}, do: 11, else: 35),
             "resource temporarily unavailable (eagain)"},
            {12, "not enough memory (enomem)"},
            {23, "file table overflow (enfile)"},
            {24, "too many open files (emfile)"}
          ],
          sign <- [1, -1],
          callback <- ["load", "upgrade"] do
        assert refused(file, sign * number, callback) ==
                 "#{file} cannot start here and now: #{words}."
      end
    end

    test "keeps an unknown error number", %{library: file} do
      assert refused(file, 4095) == "#{file} cannot start here: error number 4095."
    end

    test "reports a library that does not fit", %{library: file} do
      assert refused(file, 1) =~
               "#{file} cannot be loaded: Library load-call unsuccessful (1).. Compile it again"
    end

    test "checks the file first", %{library: file} do
      File.write!(file, "no library")
      assert refused(file, 11) =~ "#{file} is not a part of Exile's native library. Compile"
    end
  end
end
