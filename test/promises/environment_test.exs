defmodule Exile.EnvironmentTest do
  use ExUnit.Case

  # Compares the environment of the command with what System.cmd/3 passes on. This runs in its own
  # VM, because the environment must be set when the VM starts.
  @program """
  script = "printf %s \\"$EXILE_A\\" | od -An -tx1; printf %s \\"$EXILE_B\\" | od -An -tx1"
  {:ok, _} = Application.ensure_all_started(:exile)
  System.put_env("EXILE_B", "\u00e9")
  {expected, 0} = System.cmd("sh", ["-c", script])
  got = Exile.stream!(["sh", "-c", script]) |> Enum.join()
  IO.inspect({got == expected, expected})
  """

  defp run(flags) do
    {output, 0} =
      System.cmd(
        "env",
        ["EXILE_A=a\xFFb\xC3\xBC", "elixir", "-pa", Application.app_dir(:exile, "ebin")] ++
          ["-e", @program],
        env: [{"ELIXIR_ERL_OPTIONS", flags}, {"LC_ALL", "C.UTF-8"}]
      )

    output
  end

  describe "the environment of the VM reaches a command byte for byte" do
    test "when the VM takes names for UTF-8" do
      assert run("+fnu") == ~S|{true, " 61 ff 62 c3 bc\n c3 a9\n"}| <> "\n"
    end

    test "when the VM takes names for Latin-1" do
      assert run("+fnl") =~ ~r/^\{true, " 61 ff 62 c3 bc\\n /
    end
  end
end
