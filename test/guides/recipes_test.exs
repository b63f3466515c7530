defmodule Exile.RecipesTest do
  @moduledoc """
  Tests what the guide "Recipes" says of its programs and cannot show. `Exile.GuidesTest` compiles
  them, and runs the other examples.
  """

  use Exile.Case

  @guide "guides/recipes.md"

  # The programs of the guide, by module.
  defp programs do
    for [source] <-
          Regex.scan(~r/^```elixir\n(defmodule .*?)^```$/ms, File.read!(@guide),
            capture: :all_but_first
          ),
        into: %{} do
      [_, name] = Regex.run(~r/^defmodule (\w+)/, source)
      {name, source}
    end
  end

  # Under a name of its own, so that two tests may use it.
  defp compile(name) do
    source =
      String.replace(programs()[name], "defmodule #{name}", "defmodule Exile.Recipes.#{name}")

    [{module, _} | _] = Code.compile_string(source, @guide)

    on_exit(fn ->
      :code.delete(module)
      :code.purge(module)
    end)

    module
  end

  # A handler of Logger.
  def log(%{msg: {:string, line}, meta: %{followed: path}}, %{config: %{test: test}}),
    do: send(test, {:logged, path, IO.chardata_to_string(line)})

  def log(_event, _config), do: :ok

  describe "the programs" do
    test "are short" do
      most = %{
        "Download" => 24,
        "Calculator" => 30,
        "Follow" => 15,
        "Convert" => 16,
        "Words" => 12
      }

      for {name, most} <- most do
        lines =
          programs()[name]
          |> String.split("\n")
          |> Enum.reject(&(String.trim(&1) == "" or String.trim(&1) =~ ~r/^#/))

        assert length(lines) <= most, "#{name} has #{length(lines)} lines"
      end
    end
  end

  describe "Follow" do
    @describetag :tmp_dir
    @describetag :capture_log

    test "logs the lines that are added to a file, also to the one that replaces it", context do
      follow = compile("Follow")
      path = Path.join(context.tmp_dir, "log")
      File.write!(path, "old\n")
      level = Logger.level()
      Logger.configure(level: :info)
      :ok = :logger.add_handler(__MODULE__, __MODULE__, %{config: %{test: self()}})

      on_exit(fn ->
        :logger.remove_handler(__MODULE__)
        Logger.configure(level: level)
      end)

      start_supervised!({follow, path})
      add_until_logged(path, "first")
      File.rename!(path, path <> ".1")
      add_until_logged(path, "second")
      stop_supervised!(follow)
      refute_received {:logged, _, "old"}
    end
  end

  # When the program looks at the file, nobody says.
  defp add_until_logged(path, line, tries \\ 500) do
    File.write!(path, line <> "\n", [:append])

    receive do
      {:logged, ^path, ^line} -> :ok
    after
      10 -> if tries > 0, do: add_until_logged(path, line, tries - 1), else: flunk("not logged")
    end
  end

  describe "Calculator" do
    @describetag :capture_log

    test "does not take a late answer for the next one: it stops" do
      Process.flag(:trap_exit, true)
      calculator = compile("Calculator")
      {:ok, server} = calculator.start_link([])
      {:error, problem} = calculator.calculate(server, "while (1) { }")
      assert problem == {:error, :timeout}
      assert_receive {:EXIT, ^server, {:shutdown, ^problem}}
    end
  end

  describe "Download" do
    test "closes no download that has failed with the chunk that completes it" do
      download = compile("Download")
      {:ok, listener} = :gen_tcp.listen(0, [:binary, active: false])
      {:ok, port} = :inet.port(listener)
      {:ok, client} = :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: false])
      {:ok, socket} = :gen_tcp.accept(listener)
      :ok = :gen_tcp.send(client, "GET /")

      assert_raise Exile.Stream.AbnormalExit, fn ->
        download.serve(socket, sh("echo some; exit 1"))
      end

      :gen_tcp.close(socket)
      assert client |> receive_all("") |> String.ends_with?("\r\n5\r\nsome\n\r\n")
      Enum.each([listener, client], &:gen_tcp.close/1)
    end

    defp receive_all(client, received) do
      case :gen_tcp.recv(client, 0, 5_000) do
        {:ok, data} -> receive_all(client, received <> data)
        {:error, :closed} -> received
      end
    end
  end
end
