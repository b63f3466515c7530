defimpl Enumerable, for: Exile.Stream do
  # Takes one element after another from a run, and ends it when the reader stops early or fails.

  alias Exile.Stream.Run

  def count(_stream), do: {:error, __MODULE__}
  def member?(_stream, _element), do: {:error, __MODULE__}
  def slice(_stream), do: {:error, __MODULE__}

  def reduce(_stream, {:halt, acc}, _fun), do: {:halted, acc}
  def reduce(stream, {:suspend, acc}, fun), do: {:suspended, acc, &reduce(stream, &1, fun)}
  def reduce(stream, {:cont, acc}, fun), do: stream |> Run.start!() |> run({:cont, acc}, fun)

  defp run(run, {:cont, acc}, fun) do
    case Run.next!(run) do
      {:element, element, run} -> run(run, feed(run, element, acc, fun), fun)
      {:last, element} -> last(element, acc, fun)
      :done -> {:done, acc}
    end
  end

  defp run(run, {:suspend, acc}, fun) do
    {:suspended, acc, &resume(run, &1, fun)}
  end

  defp run(run, {:halt, acc}, _fun) do
    Run.halt!(run)
    {:halted, acc}
  end

  # `Stream.transform/3` and similar functions halt us both when their reader stops early and when
  # it raises. An exception from here would replace the reader's, so nothing is raised.
  defp resume(run, {:halt, acc}, _fun) do
    run |> Run.resume() |> Run.halt()
    {:halted, acc}
  end

  defp resume(run, command, fun), do: run |> Run.resume() |> run(command, fun)

  # A separate function, because a `catch` around the loop above would make its stack grow.
  defp feed(run, element, acc, fun) do
    fun.(element, acc)
  catch
    kind, reason ->
      Run.abandon(run)
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  defp last(element, acc, fun) do
    case fun.(element, acc) do
      {:cont, acc} -> {:done, acc}
      {:halt, acc} -> {:halted, acc}
      {:suspend, acc} -> {:suspended, acc, &after_last/1}
    end
  end

  defp after_last({:cont, acc}), do: {:done, acc}
  defp after_last({:halt, acc}), do: {:halted, acc}
  defp after_last({:suspend, acc}), do: {:suspended, acc, &after_last/1}
end
