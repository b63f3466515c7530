defmodule Exile.TurnTest do
  use Exile.Case

  alias Exile.Process, as: Command

  # A program that somebody has open for writing: starting it takes a while, and fails.
  @moduletag :tmp_dir
  @count 60

  setup %{tmp_dir: dir} do
    path = Path.join(dir, "busy")
    File.cp!("/bin/true", path)
    # Closed when the test ends, of which its device is told.
    File.open!(path, [:append])
    {:ok, busy: path}
  end

  # Processes that start it, all at once.
  defp starters(busy) do
    for _ <- 1..@count, do: Task.async(fn -> Command.start_link([busy]) end)
  end

  defp unfinished(tasks), do: Enum.count(tasks, &Process.alive?(&1.pid))

  describe "many commands that are started at once" do
    test "leave room for the files of the VM", %{busy: busy} do
      tasks = starters(busy)
      # They have come to wait, or to hold all the threads for input and output there are.
      eventually(fn -> Exile.Native.counts()[:waiting] > @count / 2 end)
      for _ <- 1..20, do: File.stat!(busy)
      assert unfinished(tasks) > @count / 2

      for result <- Task.await_many(tasks, 30_000) do
        assert {:error, %Exile.Process.Error{reason: :etxtbsy}} = result
      end
    end

    test "get their turn though others are killed while they wait for theirs", %{busy: busy} do
      Process.flag(:trap_exit, true)

      for _ <- 1..3 do
        tasks = starters(busy)
        eventually(fn -> Exile.Native.counts()[:waiting] > @count / 2 end)
        {killed, others} = tasks |> Enum.shuffle() |> Enum.split(div(@count, 2))
        for task <- killed, do: Process.exit(task.pid, :kill)
        for result <- Task.await_many(others, 30_000), do: assert({:error, _} = result)
        for task <- tasks, do: assert_receive({:EXIT, pid, _} when pid == task.pid)
        for task <- killed, do: assert_receive({:DOWN, ref, _, _, _} when ref == task.ref)
        eventually(fn -> Exile.Native.counts()[:waiting] == 0 end)
      end
    end

    test "come to nothing when their owners are killed before it is their turn", %{
      busy: busy,
      tmp_dir: dir
    } do
      tasks = starters(busy)
      eventually(fn -> Exile.Native.counts()[:waiting] > @count / 2 end)
      file = Path.join(dir, "ran")

      owners = for _ <- 1..10, do: spawn(fn -> {:ok, _} = Command.start_link(["touch", file]) end)

      eventually(fn -> Exile.Native.counts()[:waiting] > @count / 2 end)
      for owner <- owners, do: Process.exit(owner, :kill)
      Task.await_many(tasks, 30_000)
      eventually(fn -> Exile.Native.counts()[:waiting] == 0 end)
      refute File.exists?(file)
    end

    test "all run" do
      tasks =
        for n <- 1..200 do
          Task.async(fn ->
            {:ok, p} = Command.start_link(sh("exit #{n}"))
            Command.await_exit(p, :infinity)
          end)
        end

      assert Task.await_many(tasks, 60_000) == for(n <- 1..200, do: {:ok, n})
    end
  end
end
