defmodule Exile.ReloadTest do
  use Exile.Case

  # What a shell that recompiles does.
  defp reload do
    :code.purge(Exile.Native)
    {:module, Exile.Native} = :code.load_file(Exile.Native)
  end

  describe "loading the native module again" do
    test "does no harm to commands that run, nor to later ones" do
      {:ok, p} = Exile.Process.start_link(["cat"])
      for _ <- 1..3, do: reload()
      assert Exile.Process.write(p, "hello") == :ok
      assert Exile.Process.read(p) == {:ok, "hello"}
      assert Exile.Process.await_exit(p) == {:ok, 0}
      assert Exile.stream!(["cat"], input: "again") |> Enum.to_list() == ["again"]
    end

    test "leaves teardowns under way to be finished" do
      {:ok, p} = Exile.Process.start_link(sh("trap '' TERM; echo ready; sleep 60; sleep 60"))
      {:ok, "ready\n"} = Exile.Process.read(p)
      exit = Task.async(fn -> Process.sleep(50) && reload() end)
      assert Exile.Process.await_exit(p, 400) == {:ok, 137}
      assert {:module, _} = Task.await(exit)
    end

    test "wakes a process that waits across it" do
      {:ok, p} = Exile.Process.start_link(sh("read line; echo got $line"))
      parent = self()

      writer =
        Task.async(fn ->
          Exile.Process.change_pipe_owner(p, :stdin, self())
          send(parent, :go)
          reload()
          Exile.Process.write(p, "it\n")
        end)

      assert_receive :go
      assert Exile.Process.read(p) == {:ok, "got it\n"}
      assert Task.await(writer) == :ok
    end
  end
end
