# A message that must come may take its time on a loaded machine.
ExUnit.start(assert_receive_timeout: 5_000)
