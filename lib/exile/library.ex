defmodule Exile.Library do
  @moduledoc false

  # What can be wrong with the files in priv/native, in words. They need not have been built with
  # this version of Exile: see EXILE_NATIVE_PATH in `Mix.Tasks.Compile.Exile`.

  @version Mix.Project.config()[:version]

  @doc "The version that the library must have."
  @spec version() :: binary
  def version, do: @version

  @doc """
  Says what is wrong with a file, so far as can be seen without loading it.

  Each file says its name and version somewhere in the midst of its code.
  """
  @spec check(Path.t()) :: :ok | {:error, message :: binary}
  def check(path) do
    name = Path.basename(path, ".so")

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

  @doc "Remembers why the VM did not load the library, and returns it in words."
  @spec refused(charlist, text :: charlist) :: binary
  def refused(path, text) do
    path = "#{path}.so"

    problem =
      case check(path) do
        {:error, message} -> message
        :ok -> "#{path} cannot be loaded: #{text}"
      end

    message =
      problem <>
        ". Compile it again with mix deps.compile exile --force; when EXILE_NATIVE_PATH " <>
        "is set it must name a library of this version, system and processor."

    :persistent_term.put(__MODULE__, message)
    message
  end

  @doc "Why the library is not loaded."
  @spec problem() :: binary
  def problem, do: :persistent_term.get(__MODULE__, "Exile's native library is not loaded")
end
