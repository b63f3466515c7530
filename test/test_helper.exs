# The summary that ExUnit prints is worded differently in each version of Elixir.
ExUnit.after_suite(fn %{total: total, failures: failures, skipped: skipped, excluded: excluded} ->
  passed = total - failures - skipped - excluded
  IO.puts("\nElixir: #{passed} passed, #{failures} failed, #{skipped} skipped")
end)

# A message that must come may take its time on a loaded machine.
ExUnit.start(assert_receive_timeout: 5_000)
