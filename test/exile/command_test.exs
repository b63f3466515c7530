defmodule Exile.CommandTest do
  use ExUnit.Case, async: true

  alias Exile.Command
  alias Exile.Command.Options

  defp new!(options), do: Command.new!(["true"], options).options

  defp assert_refused(options, message) do
    assert_raise ArgumentError, message, fn -> new!(options) end
  end

  describe "new!/2, the command" do
    test "is a list of binaries and is kept unchanged" do
      for argv <- [["true"], ["./a b", "", "-x", "żółć", <<0xFF, 1>>]] do
        assert %Command{argv: ^argv} = Command.new!(argv, [])
      end
    end

    test "of another kind is refused" do
      for bad <- [[], nil, "true", true, 1, %{}, {"true"}, [true], [nil], [~c"true"], [["true"]]] do
        message =
          "expected a command to be a non-empty list of binaries, program first, " <>
            "got: #{inspect(bad)}"

        assert_raise ArgumentError, message, fn -> Command.new!(bad, []) end
      end
    end

    test "without a program name is refused" do
      assert_raise ArgumentError, "the program of a command must not be empty", fn ->
        Command.new!([""], [])
      end
    end

    test "that is an improper list is refused" do
      message = "expected a command to be a proper list, got: [\"a\" | \"b\"]"
      assert_raise ArgumentError, message, fn -> Command.new!(["a" | "b"], []) end
    end

    test "with an argument that is not a binary is refused, naming it" do
      for bad <- [:a, 1, nil, ~c"a", ["a"], <<1::3>>] do
        message = "expected every argument of a command to be a binary, got: #{inspect(bad)}"
        assert_raise ArgumentError, message, fn -> Command.new!(["a", "b", bad], []) end
      end
    end

    test "with a NUL byte is refused, naming the argument" do
      message = "an argument of the command must not contain a NUL byte, got: <<97, 0>>"
      assert_raise ArgumentError, message, fn -> Command.new!(["true", <<"a", 0>>], []) end
      assert_raise ArgumentError, message, fn -> Command.new!([<<"a", 0>>], []) end
    end
  end

  describe "new!/2, options" do
    test "have defaults" do
      assert new!([]) == %{
               arg0: nil,
               nice: nil,
               umask: nil,
               cpus: nil,
               io_priority: nil,
               limits: [],
               no_new_privs: false,
               cd: nil,
               env: [],
               clear_env: false,
               stderr: :console,
               teardown: :default,
               start_timeout: :infinity
             }
    end

    test "that are nil have their defaults" do
      for option <- Options.process() do
        assert new!([{option.name, nil}]) == new!([])
      end
    end

    test "that are not a keyword list are refused" do
      for bad <- [nil, :cd, %{cd: "/"}, [:cd], [{"cd", "/"}], [{:cd, "/"} | :x], {:cd, "/"}] do
        assert_refused(bad, "expected options to be a keyword list, got: #{inspect(bad)}")
      end
    end

    @known "; the known ones are :cd, :env, :clear_env, :arg0, :stderr, :nice, :umask, :cpus, " <>
             ":io_priority, :limits, :no_new_privs, :teardown, :start_timeout"

    test "that are unknown are refused, naming the option, the value and the known ones" do
      assert_refused([cdd: "/"], "unknown option :cdd with value \"/\"" <> @known)
      assert_refused([cd: "/", timeout: 5], "unknown option :timeout with value 5" <> @known)
      assert_refused([stdin: :null], "unknown option :stdin with value :null" <> @known)
      assert_refused([argv: ["a"]], "unknown option :argv with value [\"a\"]" <> @known)
      assert_refused([cdd: nil], "unknown option :cdd with value nil" <> @known)
    end

    test "given twice have their first value" do
      assert %{cd: "/a"} = new!(cd: "/a", cd: "/b")
      assert %{stderr: :disable} = new!(stderr: :disable, stderr: :console)
    end

    test "given twice are both checked" do
      assert_refused([cd: "/a", cd: 1], ~r/:cd/)
    end
  end

  describe "new!/2, :cd" do
    test "is a binary or nil" do
      assert %{cd: "/tmp"} = new!(cd: "/tmp")
      assert %{cd: "żółć"} = new!(cd: "żółć")
      assert %{cd: nil} = new!(cd: nil)
    end

    test "of another kind is refused" do
      for bad <- [:tmp, ~c"tmp", 1, ["/tmp"], false, <<1::3>>] do
        assert_refused(
          [cd: bad],
          "invalid value for option :cd: expected a directory as a binary, got: #{inspect(bad)}"
        )
      end
    end

    test "with a NUL byte is refused" do
      assert_refused([cd: <<"/", 0>>], ":cd must not contain a NUL byte, got: <<47, 0>>")
    end
  end

  describe "new!/2, an integer in a range" do
    test "is kept, and any other value is refused" do
      for {name, first, last} <- [{:nice, -20, 19}, {:umask, 0, 0o777}] do
        for good <- [first, 0, last], do: assert(new!([{name, good}])[name] == good)

        for bad <- [first - 1, last + 1, 1.0, "1", true, [1], 1.0e300, 2 ** 70] do
          assert_refused(
            [{name, bad}],
            "invalid value for option #{inspect(name)}: expected an integer from #{first} to " <>
              "#{last}, got: #{inspect(bad)}"
          )
        end
      end
    end
  end

  describe "new!/2, :arg0" do
    test "is a binary without a NUL byte" do
      for good <- ["-sh", "", <<255>>], do: assert(new!(arg0: good).arg0 == good)
      assert_refused([arg0: :sh], "invalid value for option :arg0: expected a binary, got: :sh")
      assert_refused([arg0: <<"a", 0>>], ":arg0 must not contain a NUL byte, got: <<97, 0>>")
    end
  end

  describe "new!/2, :env" do
    test "is a list or a map of pairs" do
      assert %{env: []} = new!(env: [])
      assert %{env: []} = new!(env: %{})
      assert %{env: [{"A", "1"}]} = new!(env: [{"A", "1"}])
      assert %{env: [{"A", "1"}]} = new!(env: %{"A" => "1"})
      assert %{env: [{"A", ""}]} = new!(env: %{"A" => ""})
    end

    test "has nil and false for unset variables" do
      for {name, value} <- new!(env: [{"A", nil}, {"B", false}]).env do
        assert name in ["A", "B"]
        assert value in [nil, false]
      end
    end

    test "uses the last of several values for one name" do
      assert %{env: [{"A", "2"}]} = new!(env: [{"A", "1"}, {"A", "2"}])
      assert %{env: [{"A", nil}]} = new!(env: [{"A", "1"}, {"A", nil}])
    end

    test "of another kind is refused" do
      for bad <- [:a, "A=1", 1, {"A", "1"}, [{"A", "1"} | :x], 1..2, MapSet.new()] do
        assert_refused(
          [env: bad],
          "invalid value for option :env: expected a list or map of names and values, " <>
            "got: #{inspect(bad)}"
        )
      end
    end

    test "converts names and values that are atoms, numbers or charlists to text" do
      for {given, text} <- [
            {"b", "b"},
            {:b, "b"},
            {true, "true"},
            {1, "1"},
            {-1.5, "-1.5"},
            {~c"żółć", "żółć"},
            {[], ""},
            {[?a, "b", [?c]], "abc"},
            {<<0xFF>>, <<0xFF>>}
          ] do
        assert %{env: [{"A", ^text}]} = new!(env: [{"A", given}])
        if text != "", do: assert(%{env: [{^text, "1"}]} = new!(env: [{given, "1"}]))
      end

      assert %{env: [{"A", "b"}]} = new!(env: [A: "b"])
      assert %{env: [{"1", "a"}]} = new!(env: %{1 => "a"})
    end

    test "uses the last of several values for one name, however the name is given" do
      assert %{env: [{"A", "2"}]} = new!(env: [{"A", "1"}, {:A, "2"}])
      assert %{env: [{"A", nil}]} = new!(env: [{~c"A", "1"}, {"A", false}])
    end

    test "with anything but pairs is refused, naming it" do
      for bad <- ["A=1", {"A"}, {"A", "b", "c"}, [], ["A", "b"], :A] do
        assert_refused(
          [env: [{"OK", "1"}, bad]],
          "invalid value for option :env: expected pairs of a name and a value " <>
            "(or nil to unset), got: #{inspect(bad)}"
        )
      end
    end

    test "with a name or a value that is not text is refused, naming it" do
      for bad <- [
            <<1::3>>,
            {},
            %{},
            self(),
            make_ref(),
            &is_nil/1,
            MapSet.new(),
            [:a],
            [1 | 2],
            [-1],
            [0xD800],
            [<<1::3>>]
          ] do
        message = fn what ->
          "invalid value for option :env: expected #{what} to be a binary, a charlist, an atom or " <>
            "a number, got: #{inspect(bad)}"
        end

        assert_refused([env: [{"A", bad}]], message.("a value"))
        assert_refused([env: [{bad, "1"}]], message.("a name"))
      end
    end

    test "with an empty name or an equals sign in a name is refused" do
      for bad <- ["", "A=", "=A", "A=B", "=", :"A=", ~c"=", [], :""], value <- ["1", nil] do
        assert_refused(
          [env: [{bad, value}]],
          "invalid value for option :env: a name must not be empty or contain \"=\", " <>
            "got: #{inspect(bad)}"
        )
      end
    end

    test "with a NUL byte is refused" do
      assert_refused(
        [env: [{<<"A", 0>>, "1"}]],
        "a name in :env must not contain a NUL byte, got: <<65, 0>>"
      )

      assert_refused(
        [env: %{"A" => <<0>>}],
        "a value in :env must not contain a NUL byte, got: <<0>>"
      )

      assert_refused(
        [env: [{"A", [0]}]],
        "a value in :env must not contain a NUL byte, got: <<0>>"
      )
    end
  end

  describe "new!/2, :clear_env" do
    test "is a boolean" do
      assert %{clear_env: true} = new!(clear_env: true)
      assert %{clear_env: false} = new!(clear_env: false)
    end

    test "of another kind is refused" do
      for bad <- [1, "true", []] do
        assert_refused(
          [clear_env: bad],
          "invalid value for option :clear_env: expected a boolean, got: #{inspect(bad)}"
        )
      end
    end
  end

  describe "new!/2, :stderr" do
    test "is one of four atoms, or a file" do
      for where <- [:console, :redirect_to_stdout, :disable, :consume] do
        assert %{stderr: ^where} = new!(stderr: where)
      end

      assert %{stderr: {:file, "a", false}} = new!(stderr: {:file, "a"})
      assert %{stderr: {:file, "a", true}} = new!(stderr: {:file, "a", :append})
    end

    test "of another kind is refused" do
      for bad <- [true, :inherit, "console", [:consume], :tail, {:file, 1}, {:file, "a", :other}] do
        assert_refused(
          [stderr: bad],
          "invalid value for option :stderr: expected :console, :redirect_to_stdout, :disable, " <>
            ":consume, {:file, path} or {:file, path, :append}, got: #{inspect(bad)}"
        )
      end
    end
  end

  describe "new!/2, :teardown" do
    test "is a list of signals with milliseconds" do
      for steps <- [[], [sigint: 0], [sigint: 1_000, sigterm: 5_000, sigint: 0xFFFF_FFFF]] do
        assert %{teardown: ^steps} = new!(teardown: steps)
      end
    end

    test "of another kind is refused" do
      for bad <- [:sigterm, 500, %{sigterm: 500}, {:sigterm, 500}, [{:sigterm, 5} | :x]] do
        assert_refused(
          [teardown: bad],
          "invalid value for option :teardown: expected a list of signals with milliseconds, " <>
            "[sigterm: 500], got: #{inspect(bad)}"
        )
      end
    end

    test "with a step of another kind is refused, naming it" do
      for bad <- [
            :sigterm,
            {:sigterm, -1},
            {:sigterm, 1.5},
            {:sigterm, :infinity},
            {"sigterm", 1},
            {:sigterm},
            {15, 1},
            {:sigterm, 0x1_0000_0000},
            {:sigterm, 1, 2},
            nil
          ] do
        assert_refused(
          [teardown: [{:sigint, 1}, bad]],
          "invalid value for option :teardown: expected a signal and the milliseconds to wait " <>
            "after it, got: #{inspect(bad)}"
        )
      end
    end

    test "with an unknown signal is refused, naming it" do
      for bad <- [:sigfoo, :term, :SIGTERM, nil, true, :"", :"sigterm\0", :sigżółć] do
        assert_refused(
          [teardown: [{bad, 1}]],
          "invalid value for option :teardown: #{inspect(bad)} is no signal of this system"
        )
      end
    end
  end

  describe "new!/2, :start_timeout" do
    test "is milliseconds or :infinity" do
      for timeout <- [0, 1, 5_000, 0xFFFF_FFFF, :infinity] do
        assert %{start_timeout: ^timeout} = new!(start_timeout: timeout)
      end
    end

    test "of another kind is refused" do
      for bad <- [-1, 1.5, "1", :never, 0x1_0000_0000, false] do
        assert_refused(
          [start_timeout: bad],
          "invalid value for option :start_timeout: expected milliseconds or :infinity, " <>
            "got: #{inspect(bad)}"
        )
      end
    end
  end
end
