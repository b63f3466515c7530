defmodule Exile.Native.Library do
  @moduledoc false

  # Finds the library among the files in priv/native, and describes in words what is wrong with
  # them. They may have been built with another version of Exile: see EXILE_NATIVE_PATH in
  # `Mix.Tasks.Compile.Exile`.

  @version Mix.Project.config()[:version]

  @doc "The version that the library must have."
  @spec version() :: binary
  def version, do: @version

  @doc """
  The name under which a library with this content is installed.

  It differs for every build, because a VM that has loaded a library never loads another one from
  the same path.
  """
  @spec file_name(content :: binary) :: binary
  def file_name(content) do
    hash = content |> :erlang.md5() |> Base.encode16(case: :lower)
    "libexile_nif-#{hash}.so"
  end

  @doc "Where the library is installed. The VM finds applications by their directory names."
  @spec directory() :: {:ok, Path.t()} | {:error, message :: binary}
  def directory do
    case :code.priv_dir(:exile) do
      {:error, :bad_name} ->
        names = "exile or exile-#{@version}"

        {:error,
         remember(
           "the directory that Exile is installed in must be named #{names}. " <>
             "An escript cannot contain the native library: use a release."
         )}

      priv ->
        {:ok, Path.join(priv, "native")}
    end
  end

  @doc "All libraries in a directory. A library that is not yet installed has the plain name."
  @spec all(Path.t()) :: [Path.t()]
  def all(directory) do
    case File.ls(directory) do
      {:ok, names} ->
        for name <- Enum.sort(names), name =~ ~r/^libexile_nif(-.*)?\.so$/ do
          Path.join(directory, name)
        end

      {:error, _} ->
        []
    end
  end

  @doc "The one library in a directory."
  @spec find(Path.t()) :: {:ok, Path.t()} | {:error, message :: binary}
  def find(directory) do
    case all(directory) do
      [path] ->
        {:ok, path}

      [] ->
        {:error, "there is no library in #{directory}"}

      paths ->
        names = Enum.map_join(paths, ", ", &Path.basename/1)
        {:error, "there is more than one library in #{directory}: #{names}"}
    end
  end

  @doc """
  Checks a file as far as possible without loading it.

  Each file contains its name and version. Its file name may have a hash appended.
  """
  @spec check(Path.t()) :: :ok | {:error, message :: binary}
  def check(path) do
    [name | _] = path |> Path.basename(".so") |> String.split("-")

    case File.read(path) do
      {:ok, content} ->
        case Regex.run(~r/#{name} version ([!-:<-~]+);/, content, capture: :all_but_first) do
          [@version] -> :ok
          [other] -> {:error, "#{path} is of version #{other}, but Exile of #{@version}"}
          nil -> {:error, "#{path} is not a part of Exile's native library"}
        end

      {:error, reason} ->
        {:error, "#{path} cannot be read: #{:file.format_error(reason)}"}
    end
  end

  @doc "Remembers why the VM did not load the library at `path`, and returns the reason in words."
  @spec refused(Path.t(), text :: charlist) :: binary
  def refused(path, text) do
    case {check(path), error_number(text)} do
      {{:error, message}, _} -> unusable(message)
      {:ok, nil} -> unusable("#{path} cannot be loaded: #{text}")
      {:ok, number} -> remember("#{path} cannot start here#{why(posix(number), number)}.")
    end
  end

  @doc "Remembers that there is no loadable library, and returns the reason in words."
  @spec unusable(problem :: binary) :: binary
  def unusable(problem) do
    remember(
      problem <>
        ". Compile it again with mix deps.compile exile --force; when EXILE_NATIVE_PATH " <>
        "is set it must name a library of this version, system and processor."
    )
  end

  # When the library refuses to be loaded, the VM's text contains the number that the library
  # returned: 1 if it does not fit this version, otherwise an error number of the system. Error
  # number 1 would be EPERM, which the library handles and never returns.
  defp error_number(text) do
    case Regex.run(~r/-call unsuccessful \((-?\d+)\)/, "#{text}") do
      [_, number] when number not in ["1", "-1"] -> number |> String.to_integer() |> abs()
      _ -> nil
    end
  end

  defp why(nil, number), do: ": error number #{number}"
  defp why(reason, _number), do: " and now: #{:file.format_error(reason)} (#{reason})"

  # The resources that may be missing at the moment.
  defp posix(12), do: :enomem
  defp posix(23), do: :enfile
  defp posix(24), do: :emfile
  defp posix(number), do: if(number == eagain(), do: :eagain)

  defp eagain, do: if(:os.type() == {:unix, :linux}, do: 11, else: 35)

  defp remember(message) do
    :persistent_term.put(__MODULE__, message)
    message
  end

  @doc "Why the library is not loaded."
  @spec problem() :: binary
  def problem, do: :persistent_term.get(__MODULE__, "Exile's native library is not loaded")
end
