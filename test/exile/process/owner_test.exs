defmodule Exile.Process.OwnerTest do
  use Exile.Case

  import Exile.ProcessHelpers

  @moduletag :capture_log

  # Prints its own pid and that of a child. Both ignore SIGTERM, SIGINT and SIGHUP.
  @stubborn "trap '' TERM INT HUP; sleep 60 & echo $$ $!; while :; do sleep 60; done"

  # Prints its own pid and those of a child and a grandchild.
  @family "sh -c 'sleep 60 & echo $!; sleep 60' & echo $$; echo $!; wait"

  # Starts a command in another process, which then runs the function sent with `tell/2`. The
  # test owns the command's pipes.
  defp owned_by_other(command, options \\ []) do
    test = self()

    {owner, monitor} =
      spawn_monitor(fn ->
        # Shells report on stderr how their children end.
        {:ok, p} = Exile.Process.start_link(command, [stderr: :disable] ++ options)
        for pipe <- [:stdin, :stdout], do: :ok = Exile.Process.change_pipe_owner(p, pipe, test)
        send(test, {:started, p})
        receive do: ({:do, fun} -> fun.(p))
      end)

    assert_receive {:started, p}, 5_000
    {p, owner, monitor}
  end

  defp tell(owner, fun), do: send(owner, {:do, fun})

  defp assert_gone(os_pids, time \\ 5_000) do
    eventually(fn -> not Enum.any?(os_pids, &os_process_alive?/1) end, time)
  end

  defp numbers(p) do
    p |> read_lines(1) |> hd() |> String.split() |> Enum.map(&String.to_integer/1)
  end

  describe "a command whose owner" do
    for {how, die} <- [
          {"returns", quote(do: fn _ -> :ok end)},
          {"raises", quote(do: fn _ -> raise "oops" end)},
          {"throws", quote(do: fn _ -> throw(:oops) end)},
          {"exits", quote(do: fn _ -> exit(:oops) end)},
          {"shuts down", quote(do: fn _ -> exit(:shutdown) end)},
          {"is killed", quote(do: fn _ -> Process.exit(self(), :kill) end)}
        ] do
      test "#{how} is ended" do
        {p, owner, monitor} = owned_by_other(sh("echo $$; exec sleep 60"))
        [os_pid] = read_numbers(p, 1)
        tell(owner, unquote(die))
        assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
        assert_gone([os_pid])
        eventually(fn -> Exile.Process.os_pid(p) == :undefined end)
        assert Exile.Process.read(p) == :eof
        assert Exile.Process.write(p, "x") == {:error, :epipe}
      end
    end

    test "dies is ended with its group in under a second, although both ignore SIGTERM" do
      {p, owner, monitor} = owned_by_other(sh(@stubborn))
      os_pids = numbers(p)
      tell(owner, fn _ -> Process.exit(self(), :kill) end)
      assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
      {time, :ok} = timed(fn -> assert_gone(os_pids) end)
      assert time < 1_000
    end

    test "dies is ended with its children and grandchildren" do
      {p, owner, monitor} = owned_by_other(sh(@family))
      os_pids = read_numbers(p, 3)
      tell(owner, fn _ -> :ok end)
      assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
      assert_gone(os_pids)
    end

    test "dies is ended even if it is stopped" do
      {p, owner, monitor} = owned_by_other(sh("echo $$; kill -STOP $$"))
      [os_pid] = read_numbers(p, 1)
      tell(owner, fn _ -> :ok end)
      assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
      assert_gone([os_pid])
    end

    test "dies is ended by :teardown with the given waits" do
      script = """
      trap 'echo int' INT; trap 'echo hup' HUP; trap 'echo term; exit 3' TERM
      echo ready; while :; do sleep 0.01; done
      """

      teardown = [sighup: 300, sigint: 1_500, sigterm: 60_000]
      {p, owner, _} = owned_by_other(sh(script), teardown: teardown)
      assert read_lines(p, 1) == ["ready"]
      tell(owner, fn _ -> :ok end)
      {time, output} = timed(fn -> read_all(p) end)
      assert output == "hup\nint\nterm\n"
      assert time in 1_800..10_000
    end

    test "dies keeps its background programs if it had ended by itself" do
      {p, owner, monitor} = owned_by_other(sh("sleep 60 >/dev/null & echo $!"))
      [background] = read_numbers(p, 1)
      eventually(fn -> Exile.Process.os_pid(p) == :undefined end)
      tell(owner, fn _ -> :ok end)
      assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
      eventually(fn -> Exile.Native.counts()[:teardowns] == 0 end)
      assert os_process_alive?(background)
      kill_os_process(background)
    end

    test "waits in await_exit/2 is ended when the owner is killed" do
      {p, owner, monitor} = owned_by_other(sh("echo $$; exec sleep 60"))
      [os_pid] = read_numbers(p, 1)
      tell(owner, fn p -> Exile.Process.await_exit(p, :infinity) end)
      wait_until_waiting(owner)
      Process.exit(owner, :kill)
      assert_receive {:DOWN, ^monitor, _, _, :killed}, 5_000
      assert_gone([os_pid])
    end
  end

  describe "an owner" do
    test "gets no message when the command ends, whether or not it traps exits" do
      for trap <- [false, true] do
        Process.flag(:trap_exit, trap)

        for {command, status} <- [{["true"], 0}, {["false"], 1}, {sh("kill -KILL $$"), 137}] do
          {:ok, p} = Exile.Process.start_link(command)
          eventually(fn -> Exile.Process.os_pid(p) == :undefined end)
          assert_no_message()
          assert Exile.Process.await_exit(p) == {:ok, status}
          assert_no_message()
        end
      end
    end

    test "is linked to nothing and monitors nothing for its command" do
      before = Process.info(self(), [:links, :monitors])
      {:ok, p} = Exile.Process.start_link(["cat"])
      assert Process.info(self(), [:links, :monitors]) == before
      assert Exile.Process.await_exit(p) == {:ok, 0}
      assert Process.info(self(), [:links, :monitors]) == before
    end

    test "has several commands, each of which ends by itself" do
      {:ok, short} = Exile.Process.start_link(["true"])
      {:ok, long} = Exile.Process.start_link(["cat"])
      assert Exile.Process.await_exit(short) == {:ok, 0}
      :ok = Exile.Process.write(long, "hi")
      assert Exile.Process.read(long) == {:ok, "hi"}
      assert Exile.Process.await_exit(long) == {:ok, 0}
    end

    test "that dies ends all its commands" do
      test = self()

      {owner, monitor} =
        spawn_monitor(fn ->
          commands = for _ <- 1..10, do: elem(Exile.Process.start_link(["sleep", "60"]), 1)
          send(test, {:os_pids, for(p <- commands, do: elem(Exile.Process.os_pid(p), 1))})
          Process.sleep(:infinity)
        end)

      assert_receive {:os_pids, os_pids}, 5_000
      Process.exit(owner, :kill)
      assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
      assert_gone(os_pids)
    end

    test "that is killed while it starts commands leaves none behind" do
      for _ <- 1..30 do
        {owner, monitor} =
          spawn_monitor(fn ->
            for _ <- 1..1_000, do: {:ok, _} = Exile.Process.start_link(["cat"])
          end)

        Process.sleep(:rand.uniform(5))
        Process.exit(owner, :kill)
        assert_receive {:DOWN, ^monitor, _, _, :killed}, 5_000
      end
    end
  end
end
