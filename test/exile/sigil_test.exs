defmodule Exile.SigilTest do
  use Exile.Case

  import Exile.Sigil

  doctest Exile.Sigil

  # The same, but the compiler does not know what it is.
  defp unknown(value), do: Process.get(:unknown, value)

  # A command as the code of a user, compiled now.
  defp compile(code) do
    {command, _} = Code.eval_string("import Exile.Sigil\n" <> code)
    command
  end

  describe "~x" do
    test "splits at white space, wherever it is" do
      assert ~x"ls" == ["ls"]
      assert ~x"  ls   -l  " == ["ls", "-l"]
      assert compile("~x\"ls\t-l\r\n-a\"") == ["ls", "-l", "-a"]

      assert ~x"""
             ffmpeg -i in.mkv
               -f mp3   out.mp3
             """ == ["ffmpeg", "-i", "in.mkv", "-f", "mp3", "out.mp3"]
    end

    test "keeps words in quotes together, also within a word" do
      assert ~x(a 'b c' "d e" f'g h'"i j"k) == ["a", "b c", "d e", "fg hi jk"]
      assert ~x(a '' "") == ["a", "", ""]
      assert ~x(a "it's" '"') == ["a", "it's", "\""]
      assert ~x(a '|' "$x" '<>' ";&`") == ["a", "|", "$x", "<>", ";&`"]
    end

    test "knows the backslashes of a shell" do
      assert ~x(grep '\.txt$' "\.md$" a\ b \\ \' \" \|) ==
               ["grep", "\\.txt$", "\\.md$", "a b", "\\", "'", "\"", "|"]

      assert ~x(a "\"b\"" "c\\d" 'e\\f' "g\n") == ["a", "\"b\"", "c\\d", "e\\\\f", "g\\n"]
      assert ~x(a "\#{b}" \#{b}) == ["a", "\#{b}", "\#{b}"]
      assert ~x(a "#{"\n"}") == ["a", "\n"]
    end

    test "takes bytes of UTF-8 as they are" do
      assert ~x"échо 日本 'ü ö'" == ["échо", "日本", "ü ö"]
    end

    test "makes an interpolation one argument or a part of one, whatever it contains" do
      for value <- ["a b", "", "'", "\"", "$x | y; z", "a\nb", "\\n"] do
        assert ~x"p #{value}" == ["p", value]
        assert ~x"p --x=#{value}.#{value} y" == ["p", "--x=" <> value <> "." <> value, "y"]
        assert ~x(p '#{value}' "-#{value}") == ["p", value, "-" <> value]
      end

      assert ~x"head -n #{10} #{:file}" == ["head", "-n", "10", "file"]
      assert ~x"#{"cat"} x" == ["cat", "x"]
    end

    test "splices a list, and leaves nil out, in a place of its own" do
      {none, some, absent} = {[], unknown(["a b", :c, 4]), nil}
      assert ~x"p #{none} x #{some} #{absent} y" == ["p", "x", "a b", "c", "4", "y"]
      assert ~x"#{some}" == ["a b", "c", "4"]
      assert ~x(p "#{absent}") == ["p", ""]
      assert_raise ArgumentError, ~r/a list can only be interpolated/, fn -> ~x"p -x#{some}" end
      assert_raise ArgumentError, ~r/a list can only be interpolated/, fn -> ~x(p "#{some}") end
    end

    test "evaluates what is interpolated once and in order" do
      tell = fn value -> send(self(), value) && value end
      assert ~x"p #{tell.("1")} x#{tell.("2")}y '#{tell.("3")}'" == ["p", "1", "x2y", "3"]
      assert Process.info(self(), :messages) == {:messages, ["1", "2", "3"]}
      for n <- ["1", "2", "3"], do: assert_received(^n)
    end

    test "does not compile with what takes a shell, and says what to use" do
      for {code, words} <- [
            {"~x(a | b)", "no shell for |: for a pipeline use a list of commands"},
            {"~x(a |b)", "no shell for |"},
            {"~x(a > b)", "no shell for >: use the option stdout"},
            {"~x(a 2>&1)", "no shell for >"},
            {"~x(a < b)", "no shell for <: use the option input"},
            {"~x(a; b)", "no shell for ;"},
            {"~x(a && b)", "no shell for &"},
            {"~x(a $HOME)", "no shell for $: use an interpolation"},
            {"~x(a `b`)", "no shell for `"},
            {"~x(a 'b)", "the quote ' is not closed"},
            {"~x(a \"b)", "the quote \" is not closed"},
            {"~x()", "a command needs a program"},
            {"~x(  )", "a command needs a program"}
          ] do
        error = assert_raise CompileError, fn -> compile(code) end
        assert Exception.message(error) =~ words
      end
    end

    test "reaches the program byte for byte" do
      value = for byte <- 1..255, into: "", do: <<byte>>
      assert Exile.run!(~x"printf '%s\0' #{value} 'a b'").stdout == value <> "\0a b\0"
    end
  end

  describe "shell_quote/1" do
    test "is taken literally by every shell that is here, whatever the bytes" do
      shells = Enum.filter(["dash", "bash", "busybox"], &System.find_executable/1)
      assert shells != []
      all = for byte <- 1..255, into: "", do: <<byte>>

      random =
        for length <- 0..60,
            do: for(<<b <- :crypto.strong_rand_bytes(length)>>, b != 0, into: "", do: <<b>>)

      words = [
        "",
        "-n",
        "a b",
        "'",
        "''",
        "\\",
        "\n",
        "~",
        "*",
        "A=b",
        "#",
        "!!",
        "{a,b}",
        all | random
      ]

      for shell <- shells do
        script = "printf '%s\\0' " <> Exile.shell_quote(words)
        argv = if shell == "busybox", do: ["busybox", "sh"], else: [shell]
        output = Exile.run!(argv ++ ["-c", script], env: [LC_ALL: "C"]).stdout
        assert output == Enum.map_join(words, &(&1 <> "\0"))
      end
    end

    test "leaves plain words as they are, and refuses NUL" do
      assert Exile.shell_quote("a-b_c.d/e") == "a-b_c.d/e"
      assert Exile.shell_quote([]) == ""

      assert_raise ArgumentError, ~r/must not contain a NUL byte/, fn ->
        Exile.shell_quote("a\0")
      end
    end
  end
end
