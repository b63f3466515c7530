defmodule Exile.PID1Test do
  use ExUnit.Case

  # In a container the VM is often PID 1, which becomes the parent of every orphan. Here every
  # command leaves an orphan that ends shortly after it.
  @program """
  "1" = System.pid()
  {:ok, _} = Application.ensure_all_started(:exile)

  statuses =
    1..100
    |> Task.async_stream(fn n ->
      {:ok, p} = Exile.Process.start_link(["sh", "-c", "(sleep 0.1 &) ; exit \#{n}"])
      Exile.Process.await_exit(p, :infinity)
    end)
    |> Enum.map(fn {:ok, {:ok, status}} -> status end)

  # All processes except the VM and its helper for ports.
  others = fn ->
    for entry <- File.ls!("/proc"), entry =~ ~r/^[0-9]+$/, entry != "1",
        {:ok, stat} <- [File.read("/proc/" <> entry <> "/stat")],
        not (stat =~ "erl_child_setup"), do: stat
  end

  wait = fn wait, left ->
    cond do
      others.() == [] -> :nobody
      left == 0 -> others.()
      true -> Process.sleep(10) && wait.(wait, left - 1)
    end
  end

  IO.inspect({statuses == Enum.to_list(1..100), wait.(wait, 1_000)})
  """

  defp run(source) do
    System.cmd(
      "unshare",
      ~w(--pid --fork --mount-proc elixir -pa) ++
        [Application.app_dir(:exile, "ebin"), "-e", @program],
      env: [{"EXILE_EXIT_SOURCE", source}],
      stderr_to_stdout: true
    )
  end

  # Creating a namespace takes privileges that a user or a container may not have.
  if match?(
       {_, 0},
       System.cmd("unshare", ~w(--pid --fork --mount-proc true), stderr_to_stdout: true)
     ) do
    @moduletag :pid_1
  else
    @moduletag skip: "this user may not make a PID namespace"
  end

  describe "a VM that is PID 1 reaps the orphans it inherits and loses no status" do
    test "where statuses come from pidfds" do
      assert run("auto") == {"{true, :nobody}\n", 0}
    end

    test "where children are known only by number" do
      assert run("portable") == {"{true, :nobody}\n", 0}
    end

    test "where statuses come from waitid and the sweep reaps orphans" do
      assert run("wait") == {"{true, :nobody}\n", 0}
    end
  end
end
