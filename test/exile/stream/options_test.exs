defmodule Exile.Stream.OptionsTest do
  use Exile.Case

  import Exile.StreamSteps

  describe "a command" do
    test "gets its arguments byte for byte, without a shell" do
      arguments = ["a b", "$HOME", "*", "'\"\\", "", "\n", <<1, 255, 128>>, ";ls", "--", "|"]
      stream = Exile.stream!(["printf", "%s\\0" | arguments])
      assert Enum.join(stream) == Enum.map_join(arguments, &(&1 <> <<0>>))
    end

    test "that is not a non-empty list of binaries raises ArgumentError" do
      wrong = [
        [],
        "ls",
        :ls,
        nil,
        [:ls],
        [~c"ls"],
        ["ls", 1],
        ["ls" | "x"],
        [""],
        {"ls"},
        ["ls", nil]
      ]

      for command <- wrong, stream <- [&Exile.stream!/1, &Exile.stream/1] do
        assert_raise ArgumentError, fn -> stream.(command) end
      end
    end

    test "with a NUL byte raises ArgumentError" do
      for command <- [["l\0s"], ["ls", "a\0b"]] do
        assert_raise ArgumentError, ~r/NUL/, fn -> Exile.stream!(command) end
      end
    end
  end

  describe "an option of the wrong kind" do
    test "raises an ArgumentError that names it, before anything is enumerated" do
      wrong = [
        max_chunk_size: [0, -1, 1.5, "1", :infinity],
        chunk_size: [0, -1, 1.5, "1", :infinity],
        exit_timeout: [-1, 1.5, "1", :never, Integer.pow(2, 32)],
        drain_timeout: [-1, 1.5, "1", :never, Integer.pow(2, 32)],
        start_timeout: [-1, 1.5, "1", :never, Integer.pow(2, 32)],
        ignore_epipe: [1, :yes, "true"],
        stderr: [true, :stdout, "console", :inherit],
        use_stderr: [1, :consume, "true"],
        cd: [:dir, 1, ~c"/", "a\0b"],
        env: [:none, 1, ["A"], [{"A", {1}}], [{"A", self()}], %{"A=B" => "x"}, %{"" => "x"}],
        clear_env: [1, "true"],
        teardown: [:sigterm, [:sigterm], [sigterm: -1], [nosignal: 1], [{"sigterm", 1}]]
      ]

      for {option, values} <- wrong,
          value <- values,
          stream <- [&Exile.stream!/2, &Exile.stream/2] do
        error = assert_raise ArgumentError, fn -> stream.(~w(true), [{option, value}]) end
        name = if option in [:chunk_size], do: "chunk_size", else: ":#{option}"
        assert error.message =~ name
      end
    end

    test "includes an unknown option" do
      for option <- [:max_chunksize, :timeout, :into, :stdin, :Input] do
        assert_raise ArgumentError, ~r/#{option}/, fn ->
          Exile.stream!(~w(true), [{option, true}])
        end
      end
    end

    test "includes anything that is not a keyword list" do
      for options <- [nil, :input, "input", %{input: "x"}, [:input], [{"input", "x"}], ["x"]] do
        assert_raise ArgumentError, ~r/keyword/, fn -> Exile.stream!(~w(true), options) end
        assert_raise ArgumentError, ~r/keyword/, fn -> Exile.stream(~w(true), options) end
      end
    end
  end

  describe "an option that is nil" do
    test "has its default" do
      options =
        ~w(input stdout max_chunk_size chunk_size exit_timeout drain_timeout ignore_epipe stderr)a ++
          ~w(use_stderr cd env clear_env teardown start_timeout)a

      for key <- options, stream <- [&Exile.stream!/2, &Exile.stream/2] do
        assert stream.(~w(echo hi), [{key, nil}]) == stream.(~w(echo hi), [])
      end

      assert Enum.join(Exile.stream!(~w(echo hi), for(key <- options, do: {key, nil}))) == "hi\n"
    end

    test "does not override a value given later under an older name" do
      assert Exile.stream!(~w(true), max_chunk_size: nil, chunk_size: 2).options.max_chunk_size ==
               2

      assert Exile.stream!(~w(true), chunk_size: nil, max_chunk_size: 2).options.max_chunk_size ==
               2
    end
  end

  describe "older names:" do
    test ":chunk_size is :max_chunk_size" do
      stream = Exile.stream!(sh("printf abcd"), chunk_size: 2)
      assert Enum.to_list(stream) == ["ab", "cd"]
    end

    test ":use_stderr is stderr: :consume or :console" do
      assert Enum.to_list(Exile.stream!(sh("echo e >&2"), use_stderr: true)) == [stderr: "e\n"]
      assert Enum.to_list(Exile.stream!(~w(echo o), use_stderr: false)) == ["o\n"]
      assert Enum.to_list(Exile.stream!(~w(echo o), use_stderr: true)) == [stdout: "o\n"]
    end

    test "one together with the newer name raises an ArgumentError that names both" do
      both = [
        [chunk_size: 1, max_chunk_size: 1],
        [max_chunk_size: 2, chunk_size: 1],
        [use_stderr: true, stderr: :consume],
        [stderr: :console, use_stderr: false],
        [use_stderr: true, stderr: :disable]
      ]

      for options <- both, stream <- [&Exile.stream!/2, &Exile.stream/2] do
        error = assert_raise ArgumentError, fn -> stream.(~w(true), options) end
        for {option, _} <- options, do: assert(error.message =~ inspect(option))
      end
    end
  end

  describe "options of Exile.Process.start_link/2" do
    test ":cd is the directory of the command" do
      assert Enum.join(Exile.stream!(~w(pwd), cd: "/usr")) == "/usr\n"
      assert Enum.join(Exile.stream!(~w(pwd))) == File.cwd!() <> "\n"
      assert Enum.join(Exile.stream!(~w(pwd), cd: nil)) == File.cwd!() <> "\n"
    end

    test ":env adds to, replaces and unsets variables of the VM" do
      System.put_env("EXILE_TEST_KEPT", "kept")
      System.put_env("EXILE_TEST_CHANGED", "old")
      System.put_env("EXILE_TEST_UNSET", "set")

      on_exit(fn ->
        for(v <- ~w(KEPT CHANGED UNSET), do: System.delete_env("EXILE_TEST_" <> v))
      end)

      env = [
        {"EXILE_TEST_NEW", "new = \n value"},
        {"EXILE_TEST_CHANGED", "changed"},
        {"EXILE_TEST_UNSET", nil}
      ]

      for env <- [env, Map.new(env), Map.new(env) |> Map.put("EXILE_TEST_UNSET", false)] do
        output = Enum.join(Exile.stream!(~w(env -0), env: env))
        variables = output |> String.split(<<0>>) |> Enum.filter(&(&1 =~ ~r/^EXILE_TEST_/))

        assert Enum.sort(variables) == [
                 "EXILE_TEST_CHANGED=changed",
                 "EXILE_TEST_KEPT=kept",
                 "EXILE_TEST_NEW=new = \n value"
               ]
      end
    end

    test ":clear_env leaves only what :env sets" do
      stream = Exile.stream!(~w(env -0), clear_env: true, env: %{"A" => "b"})
      assert Enum.join(stream) == "A=b" <> <<0>>
      assert Enum.join(Exile.stream!(~w(env -0), clear_env: true)) == ""
    end

    test "work with stream/2, too" do
      stream = Exile.stream(sh("pwd; echo $A"), cd: "/usr", env: %{"A" => "b"})
      elements = Enum.to_list(stream)
      assert {output, [{:exit, {:status, 0}}]} = Enum.split(elements, -1)
      assert Enum.join(output) == "/usr\nb\n"
    end
  end

  describe "an option given twice" do
    test "has its first value" do
      stream = Exile.stream!(~w(cat), input: "first", input: "second", cd: "/usr", cd: "/none")
      assert Enum.join(stream) == "first"

      stream = Exile.stream!(sh("printf abc"), max_chunk_size: 1, max_chunk_size: 2)
      assert Enum.to_list(stream) == ["a", "b", "c"]
    end
  end

  describe "all options together" do
    test "do what each does alone" do
      stream =
        Exile.stream(sh("cat; echo $A >&2; pwd"),
          input: ["x", "y"],
          stderr: :consume,
          max_chunk_size: 1_000,
          exit_timeout: 30_000,
          drain_timeout: 1_000,
          ignore_epipe: true,
          cd: "/usr",
          env: [{"A", "b"}],
          clear_env: false,
          teardown: [sigterm: 100]
        )

      elements = Enum.to_list(stream)
      assert List.last(elements) == {:exit, {:status, 0}}
      assert elements |> Keyword.get_values(:stdout) |> Enum.join() == "xy/usr\n"
      assert Keyword.get_values(elements, :stderr) == ["b\n"]
      assert_quiet()
    end
  end
end
