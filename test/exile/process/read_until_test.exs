defmodule Exile.Process.ReadUntilTest do
  use Exile.Case

  import Exile.Process
  import Exile.ProcessHelpers

  defp cat(output) do
    {:ok, p} = start_link(["cat"])
    :ok = write(p, output)
    p
  end

  describe "read_until/3" do
    test "returns what there is up to the first match, and leaves the rest" do
      p = cat("login: guest\npassword: ")
      assert read_until(p, ": ", 5_000) == {:ok, "login: ", ": "}
      assert read_until(p, ~r/pass\w+/, 5_000) == {:ok, "guest\npassword", "password"}
      assert read(p) == {:ok, ": "}
    end

    test "returns the match of several that begins first, or the longest of these" do
      for {patterns, expected} <- [
            {["c", "b"], {:ok, "ab", "b"}},
            {["c", ~r/b./], {:ok, "abc", "bc"}},
            {["b", "bcd", ~r/bc/], {:ok, "abcd", "bcd"}},
            {[~r/d/, ~r/x/], {:ok, "abcd", "d"}}
          ] do
        assert "abcdef" |> cat() |> read_until(patterns, 5_000) == expected
      end
    end

    test "finds a match that comes in pieces" do
      for pattern <- ["needle", ["x", "needle"], ~r/ne+dle/] do
        {:ok, p} = start_link(["cat"])
        searcher = waiting_task(p, :stdout, fn -> read_until(p, pattern) end)

        for piece <- ["hay nee", "n", "e", "e", "d", "l"] do
          :ok = write(p, piece)
          wait_until_waiting(searcher.pid)
        end

        :ok = write(p, "e and hay")
        assert {:ok, "hay neeneedle", match} = Task.await(searcher)
        assert match in ["needle", "neeneedle"]
      end
    end

    test "returns what is left when the output ends without a match" do
      {:ok, p} = start_link(["printf", "some output"])
      assert read_until(p, "x") == {:eof, "some output"}
      assert read_until(p, "x") == {:eof, ""}
      assert read(p) == :eof
    end

    test "is over when the command exits, though its descendants hold the output open" do
      {:ok, p} = start_link(sh("sleep 60 & printf \"$! some\""))
      assert {:eof, output} = read_until(p, "x")
      assert [sleep, "some"] = String.split(output)
      kill_os_process(sleep)
    end

    test "loses nothing when it times out" do
      p = cat("some")
      assert read_until(p, "x", 20) == {:error, :timeout}
      assert read_until(p, "x", 0) == {:error, :timeout}
      assert_no_message()
      assert read_until(p, "e", 5_000) == {:ok, "some", "e"}
    end

    test "looks at a mebibyte, and loses nothing of it" do
      size = 1_048_576
      script = "head -c #{size - 3} /dev/zero; printf abcdef; head -c 5 /dev/zero"

      {:ok, p} = start_link(sh(script))
      assert {:ok, data, "abc"} = read_until(p, ["abc", "abcd"])
      assert byte_size(data) == size

      {:ok, p} = start_link(sh(script))
      assert read_until(p, "abcd") == {:error, :no_match}
      assert read_until(p, ~r/f/) == {:error, :no_match}
      assert byte_size(read_all(p)) == size + 8
    end

    test "takes patterns that match bytes, and ones that match characters" do
      p = cat(<<0xFF, 0, "é">>)
      assert read_until(p, <<0>>, 5_000) == {:ok, <<0xFF, 0>>, <<0>>}
      <<half, rest>> = "ü"
      :ok = write(p, <<half>>)
      assert read_until(p, ~r/ü/u, 20) == {:error, :timeout}
      :ok = write(p, <<rest>>)
      assert read_until(p, ~r/ü/u, 5_000) == {:ok, "éü", "ü"}
    end

    test "of a pattern that matches nothing takes nothing" do
      p = cat("some")
      assert read_until(p, ~r/x*/, 5_000) == {:ok, "", ""}
      assert read(p) == {:ok, "some"}
    end

    test "refuses what is no pattern" do
      p = cat("")

      for pattern <- ["", [], nil, :a, ~c"a", ["a", ""], [~r/a/, 1]] do
        message =
          "expected a non-empty binary, a regular expression or a list of these, got: " <>
            inspect(pattern)

        assert_raise ArgumentError, message, fn -> read_until(p, pattern) end
      end
    end

    test "is for the owner of an open pipe alone" do
      p = cat("some")
      invalid = {:error, :pipe_closed_or_invalid_caller}
      assert fn -> read_until(p, "x") end |> Task.async() |> Task.await() == invalid
      :ok = close_stdout(p)
      assert read_until(p, "x") == invalid
    end
  end
end
