defmodule Exile.ErrorTest do
  use ExUnit.Case, async: true

  alias Exile.Process.Error

  @operations [
    :exec,
    :cd,
    :stdio,
    :input,
    :output,
    :errors,
    :clone,
    :prepare,
    :watch,
    :read,
    :write,
    :signal,
    :status
  ]

  describe "message/1" do
    test "contains the operation, the subject, and the reason in words and as an atom" do
      for {operation, message} <- [
            exec: "could not run \"prog\": permission denied (eacces)",
            cd: "could not change to the directory \"prog\": permission denied (eacces)",
            stdio: "could not create the pipes for \"prog\": permission denied (eacces)",
            input: "could not open the input \"prog\": permission denied (eacces)",
            output: "could not open the output \"prog\": permission denied (eacces)",
            errors:
              "could not open the file for standard error \"prog\": permission denied (eacces)",
            clone: "could not create a process for \"prog\": permission denied (eacces)",
            prepare: "could not set up a process for \"prog\": permission denied (eacces)",
            watch: "could not watch the process of \"prog\": permission denied (eacces)",
            read: "could not read from \"prog\": permission denied (eacces)",
            write: "could not write to \"prog\": permission denied (eacces)",
            status: "could not get the exit status of \"prog\": permission denied (eacces)",
            signal: "could not end \"prog\": permission denied (eacces)"
          ] do
        error = %Error{reason: :eacces, operation: operation, subject: "prog"}
        assert Exception.message(error) == message
      end
    end

    test "says that the application is not running when a spawn is refused" do
      error = %Error{reason: :ecanceled, operation: :clone, subject: "prog"}

      assert Exception.message(error) ==
               "could not run \"prog\": the application :exile is not started, or is stopping " <>
                 "(ecanceled)"
    end

    test "says that a program took too long to start, and mentions no connection" do
      error = %Error{reason: :etimedout, operation: :exec, subject: "prog"}

      assert Exception.message(error) ==
               "could not run \"prog\": it took too long to start (etimedout)"
    end

    test "says that a refused pipe is closed or belongs to another process" do
      error = %Error{reason: :pipe_closed_or_invalid_caller, operation: :read, subject: "prog"}

      assert Exception.message(error) ==
               "could not read from \"prog\": its pipe is closed, or belongs to another process " <>
                 "(pipe_closed_or_invalid_caller)"
    end

    test "says that a command is a list of words, where it looks like a line for a shell" do
      {:error, error} = Exile.Process.start_link(["git status"])

      assert Exception.message(error) ==
               ~S|could not run "git status": no such file or directory (enoent); | <>
                 ~S(a command is a list of words, as in ["git", "status"])

      {:error, error} = Exile.Process.start_link(["no-such-program"])
      assert error.hint == nil
    end

    test "is text for a program of any bytes that is not found" do
      for prefix <- ["", "./", "/", "~/", "a b"], _ <- 1..50 do
        bytes = for <<byte <- :crypto.strong_rand_bytes(20)>>, byte != 0, into: "", do: <<byte>>
        {:error, error} = Exile.Process.start_link([prefix <> bytes])
        assert String.valid?(Exception.message(error))
      end
    end

    test "names the interpreter that a script lacks" do
      directory =
        Path.join(System.tmp_dir!(), "exile-error-#{System.unique_integer([:positive])}")

      File.mkdir_p!(directory)
      on_exit(fn -> File.rm_rf(directory) end)
      script = Path.join(directory, "script")
      File.write!(script, "#! /no/such/interpreter -x\necho hi\n")
      File.chmod!(script, 0o755)

      for {command, options} <- [{[script], []}, {["./script"], [cd: directory]}] do
        {:error, error} = Exile.Process.start_link(command, options)

        assert Exception.message(error) ==
                 "could not run #{inspect(hd(command))}: no such file or directory (enoent); " <>
                   ~S(the interpreter of this script, "/no/such/interpreter", is missing)
      end

      # Neither a directory nor a file that is no script has one.
      for program <- [directory <> "/none", directory <> "/script/none"] do
        {:error, error} = Exile.Process.start_link([program])
        assert error.hint == nil
      end
    end

    test "works without a subject" do
      assert Exception.message(%Error{reason: :echild, operation: :status}) ==
               "could not get the exit status of the command: no children (echild)"
    end

    test "keeps an unknown reason and an unknown error number" do
      error = %Error{reason: :eodd, operation: :exec, subject: "prog"}
      assert Exception.message(error) == "could not run \"prog\": eodd"
      error = %Error{reason: {:errno, 9_999}, operation: :exec, subject: "prog"}
      assert Exception.message(error) == "could not run \"prog\": error number 9999"
    end

    test "shows a subject that is not text" do
      error = %Error{reason: :enoent, operation: :exec, subject: <<0xFF, 1>>}

      assert Exception.message(error) ==
               "could not run <<255, 1>>: no such file or directory (enoent)"
    end

    test "is text for every operation with every reason, and for invalid values" do
      reasons =
        ~w(e2big eacces eagain echild eio eloop emfile enfile enoent enoexec enomem enotdir eperm
           epipe esrch etxtbsy badarg terminated system_limit)a

      nonsense = [
        nil,
        true,
        1,
        1.5,
        "text",
        <<0xFF>>,
        ~c"list",
        [1 | 2],
        {},
        {:errno, %{}},
        %{},
        self()
      ]

      for operation <- @operations ++ nonsense,
          reason <- reasons ++ [{:errno, 1}, {:errno, -1}] ++ nonsense,
          subject <- [nil, "prog", <<0xFF>> | nonsense] do
        error = %Error{reason: reason, operation: operation, subject: subject}
        message = Exception.message(error)
        assert String.valid?(message)
        assert "#{error}" == message
        refute message =~ "got UndefinedFunctionError"
        refute message =~ "while retrieving Exception.message"
      end
    end
  end

  test "becomes its message in a string" do
    error = %Error{reason: :enoent, operation: :exec, subject: "prog"}

    assert "failed: #{error}" ==
             "failed: could not run \"prog\": no such file or directory (enoent)"

    assert to_string(error) == Exception.message(error)
  end

  test "can be raised and matched" do
    assert_raise Error, "could not run \"prog\": no such file or directory (enoent)", fn ->
      raise Error, reason: :enoent, operation: :exec, subject: "prog"
    end
  end
end
