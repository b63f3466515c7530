defmodule Exile.StopTest do
  use Exile.Case

  import ExUnit.CaptureLog

  setup do
    on_exit(fn -> {:ok, _} = Application.ensure_all_started(:exile) end)
  end

  defp restart do
    capture_log(fn -> Application.stop(:exile) end)
    {:ok, _} = Application.ensure_all_started(:exile)
  end

  describe "when the application was never started" do
    test "starting a command fails at once with that reason" do
      program = """
      {time, {:error, error}} = :timer.tc(fn -> Exile.Process.start_link(["true"]) end)
      if time < 5_000_000, do: IO.puts(error)
      """

      path = Application.app_dir(:exile, "ebin")
      assert {output, 0} = System.cmd("elixir", ["-pa", path, "-e", program])

      assert output ==
               "could not run \"true\": the application :exile is not started, or is stopping " <>
                 "(ecanceled)\n"
    end
  end

  describe "when the application has stopped" do
    test "no command can be started until it is started again" do
      capture_log(fn -> Application.stop(:exile) end)
      assert {:error, error} = Exile.Process.start_link(~w(true))
      assert error.reason == :ecanceled
      assert Exception.message(error) =~ "the application :exile is not started, or is stopping"
      assert_raise Exile.Process.Error, fn -> Stream.run(Exile.stream!(~w(true))) end
      {:ok, _} = Application.ensure_all_started(:exile)
      assert {:ok, p} = Exile.Process.start_link(~w(true))
      assert Exile.Process.await_exit(p) == {:ok, 0}
    end

    test "no command is left, however many were being started" do
      for _ <- 1..10 do
        starters = for _ <- 1..8, do: Task.async(fn -> start_many([]) end)
        eventually(fn -> Exile.Native.counts()[:children] > 20 end)
        capture_log(fn -> Application.stop(:exile) end)
        assert Exile.LeftBehind.os_children() == []

        # All commands have ended, and none was started afterwards.
        commands = starters |> Task.await_many(30_000) |> List.flatten()
        assert length(commands) >= 20
        assert commands |> Enum.map(&Exile.Process.os_pid/1) |> Enum.uniq() == [:undefined]
        assert Exile.LeftBehind.os_children() == []
        {:ok, _} = Application.ensure_all_started(:exile)
      end
    end

    defp start_many(started) do
      case Exile.Process.start_link(~w(sleep 600)) do
        {:ok, p} -> start_many([p | started])
        {:error, %{reason: :ecanceled}} -> started
      end
    end

    test "every command has had its teardown, however long another's may take" do
      {:ok, patient} = Exile.Process.start_link(~w(sleep 600), teardown: [sigterm: 0xFFFFFFFF])

      script =
        "trap 'sleep 0.3; echo done; exit 0' TERM; echo ready; while :; do sleep 0.01; done"

      {:ok, other} = Exile.Process.start_link(sh(script), teardown: [sigterm: 5_000])
      {:ok, "ready\n"} = Exile.Process.read(other)
      capture_log(fn -> Application.stop(:exile) end)
      assert Exile.Process.read(other) == {:ok, "done\n"}
      assert Exile.Process.await_exit(other) == {:ok, 0}
      assert Exile.Process.await_exit(patient) == {:ok, 143}
      {:ok, _} = Application.ensure_all_started(:exile)
    end

    test "and is started again, commands run as before" do
      for _ <- 1..3, do: restart()
      assert Enum.join(Exile.stream!(~w(echo hi))) == "hi\n"
    end
  end
end
