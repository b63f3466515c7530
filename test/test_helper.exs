# The summary that ExUnit prints is worded differently in each version of Elixir.
ExUnit.after_suite(fn %{total: total, failures: failures, skipped: skipped, excluded: excluded} ->
  passed = total - failures - skipped - excluded
  IO.puts("\nElixir: #{passed} passed, #{failures} failed, #{skipped} skipped")
end)

# Where the guard is on by default, it would be counted among what commands leave behind. Its own
# tests have VMs of their own.
if Exile.Runtime.Guard.wanted?() do
  :ok = Application.stop(:exile)
  Application.put_env(:exile, :guard, false)
  :ok = Application.start(:exile)
end

# A message that must come may take its time on a loaded machine.
ExUnit.start(assert_receive_timeout: 5_000)
