# The summary that ExUnit prints differs between versions of Elixir.
ExUnit.after_suite(fn %{total: total, failures: failures, skipped: skipped, excluded: excluded} ->
  passed = total - failures - skipped - excluded
  IO.puts("\nElixir: #{passed} passed, #{failures} failed, #{skipped} skipped")
end)

# Where the guard is on by default, Exile.LeftBehind would count it. The tests of the guard start
# their own VMs.
if Exile.Runtime.Guard.wanted?() do
  :ok = Application.stop(:exile)
  Application.put_env(:exile, :guard, false)
  :ok = Application.start(:exile)
end

# Messages may take longer on a loaded machine.
ExUnit.start(assert_receive_timeout: 5_000)
