defmodule Exile.ExhaustionTest do
  use ExUnit.Case

  # Starts commands until the system runs out of a resource, twice. The second round shows that
  # the failures of the first left nothing behind and that commands run as soon as there is room.
  @program """
  # The guard would be counted.
  Application.put_env(:exile, :guard, false)
  {:ok, _} = Application.ensure_all_started(:exile)
  fds = fn -> length(File.ls!("/proc/self/fd")) end

  start = fn start, started ->
    case Exile.Process.start_link(["sleep", "60"], stderr: :consume) do
      {:ok, p} when length(started) < 500 -> start.(start, [p | started])
      {:ok, p} -> {[p | started], :no_limit}
      {:error, %Exile.Process.Error{reason: reason}} -> {started, reason}
    end
  end

  stop = fn started ->
    for p <- started, do: :ok = Exile.Process.kill(p, :sigkill)
    for p <- started, do: {:ok, 137} = Exile.Process.await_exit(p)
  end

  # The VM may close a descriptor with a short delay.
  wait = fn wait, condition, left ->
    cond do
      condition.() -> true
      left == 0 -> {fds.(), Exile.Native.counts()}
      true -> Process.sleep(10) && wait.(wait, condition, left - 1)
    end
  end

  # The first command creates everything that is created once and kept.
  {:ok, p} = Exile.Process.start_link(["true"])
  {:ok, 0} = Exile.Process.await_exit(p)
  true = wait.(wait, fn -> Enum.all?(Exile.Native.counts(), &(elem(&1, 1) == 0)) end, 500)
  before = {fds.(), Exile.Native.counts()}

  rounds =
    for _ <- 1..2 do
      {started, reason} = start.(start, [])
      failures = for _ <- 1..20, do: elem(start.(start, []), 1)
      stop.(started)
      {length(started) > 3, reason, Enum.uniq(failures), wait.(wait, fn -> {fds.(), Exile.Native.counts()} == before end, 500)}
    end

  IO.inspect(Enum.uniq(rounds))
  """

  defp run(prefix) do
    {output, status} =
      System.cmd(
        "sh",
        ["-c", prefix <> ~S( elixir -pa "$0" -e "$1")] ++
          [Exile.VM.readable_copy(), @program],
        stderr_to_stdout: true,
        env: [{"HOME", "/tmp"}]
      )

    assert status == 0, output
    output
  end

  describe "running out is a typed error, leaves nothing behind and is over when there is room:" do
    test "descriptors" do
      assert run("ulimit -n 64; exec") == "[{true, :emfile, [:emfile], true}]\n"
    end

    @no_user "65534"
    @as_user "exec setpriv --reuid #{@no_user} --regid #{@no_user} --clear-groups " <>
               "prlimit --nproc=100"
    if match?({_, 0}, System.cmd("sh", ["-c", @as_user <> " true"], stderr_to_stdout: true)) do
      test "processes" do
        assert run(@as_user) == "[{true, :eagain, [:eagain], true}]\n"
      end
    else
      @tag skip: "only root can become a user whose processes are limited"
      test "processes"
    end
  end
end
