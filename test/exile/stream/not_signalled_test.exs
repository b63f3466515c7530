defmodule Exile.Stream.NotSignalledTest do
  use ExUnit.Case

  # A VM that may not signal its commands: it runs as root without the right to signal processes
  # of other users, and the commands become another user. The commands end by themselves.
  @program """
  {:ok, _} = Application.ensure_all_started(:exile)

  stranger = fn script ->
    ["setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", script]
  end

  waits = stranger.("echo ready; exec sleep 2")
  closes = stranger.("exec >&-; exec sleep 2")
  me = self()

  sleeps = fn _ ->
    Process.flag(:trap_exit, true)
    send(me, {:input, self()})
    Process.sleep(:infinity)
  end

  outcome = fn name, fun ->
    outcome =
      try do
        fun.()
      rescue
        error in RuntimeError -> error.message
        error in Exile.Process.Error -> {error.operation, error.reason}
      catch
        kind, reason -> {kind, reason}
      end

    IO.inspect({name, outcome})
  end

  for {name, input} <- [{:without, nil}, {:with, sleeps}] do
    options = [input: input]
    outcome.(name, fn -> Enum.each(Exile.stream!(waits, options), fn _ -> raise "reader" end) end)
    outcome.(name, fn -> Enum.each(Exile.stream(waits, options), fn _ -> throw(:reader) end) end)
    outcome.(name, fn -> Enum.take(Exile.stream!(waits, options), 1) end)
    outcome.(name, fn -> Enum.to_list(Exile.stream(closes, [exit_timeout: 20] ++ options)) end)
  end

  fails = fn _ -> raise "input" end
  outcome.(:input, fn -> Stream.run(Exile.stream!(waits, input: fails)) end)

  # The inputs have ended although the commands have not.
  for _ <- 1..4 do
    monitor = receive do: ({:input, input} -> Process.monitor(input))
    receive do: ({:DOWN, ^monitor, _, _, _} -> :ok)
  end

  IO.inspect(Process.info(self(), :messages))

  # All commands end by themselves in the end.
  at_rest = fn at_rest ->
    counts = Exile.Native.counts()
    if Enum.all?(counts, &(elem(&1, 1) == 0)), do: :at_rest, else: Process.sleep(10) && at_rest.(at_rest)
  end

  IO.inspect(at_rest.(at_rest))
  """

  @without ~w(setpriv --bounding-set=-kill --inh-caps=-kill)

  # Checks that this user may become another one and may not signal that one's processes.
  @check "setpriv --reuid=65534 --clear-groups sleep 5 & sleep 0.2; ! kill $! 2>/dev/null"

  if System.find_executable("setpriv") != nil and
       match?(
         {_, 0},
         System.cmd("setpriv", tl(@without) ++ ["sh", "-c", @check], stderr_to_stdout: true)
       ) do
    @moduletag :not_signalled
  else
    @moduletag skip: "this user may not become another one"
  end

  test "when commands may not be signalled, failures of the reader and the input take precedence" do
    path = ["elixir", "-pa", Application.app_dir(:exile, "ebin"), "-e", @program]
    {output, status} = System.cmd("setpriv", tl(@without) ++ path, stderr_to_stdout: true)

    assert output == """
           {:without, "reader"}
           {:without, {:throw, :reader}}
           {:without, {:signal, :eperm}}
           {:without, {:signal, :eperm}}
           {:with, "reader"}
           {:with, {:throw, :reader}}
           {:with, {:signal, :eperm}}
           {:with, {:signal, :eperm}}
           {:input, "input"}
           {:messages, []}
           :at_rest
           """

    assert status == 0
  end
end
