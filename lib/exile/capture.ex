defmodule Exile.Capture do
  @moduledoc false

  # Runs a stream's commands to their end and keeps what they write: `Exile.run/2`.

  alias Exile.{Command, Result, Stream}
  alias Exile.Capture.Output
  alias Exile.Process.Error
  alias Exile.Stream.{Builder, Run, Verdict}

  @spec run(term, term) :: {:ok, Result.t()} | {:error, Error.t()}
  def run(command, options) do
    {stream, outputs} = Builder.for_capture!(command, options)
    start = System.monotonic_time()

    case halting(outputs, fn -> Run.start(stream) end) do
      {:ok, run} ->
        {ended, outputs} = read(run, outputs)
        outputs = Map.new(outputs, fn {name, output} -> {name, Output.finish(output)} end)
        result(ended, stream, outputs, System.monotonic_time() - start)

      {:error, error} ->
        halt(outputs)
        {:error, error}
    end
  end

  defp halt(outputs), do: Enum.each(outputs, fn {_name, output} -> Output.halt(output) end)

  defp read(run, outputs) do
    case halting(outputs, fn -> Run.next(run) end) do
      {:element, element, run} ->
        {name, data} = if is_binary(element), do: {:stdout, element}, else: element

        case keep(outputs, name, data, run) do
          {:ok, outputs} ->
            read(run, outputs)

          {too_much, outputs} ->
            {halting(outputs, fn -> Run.cut(run, too_much, name) end), outputs}
        end

      ended ->
        {ended, outputs}
    end
  end

  # A collectable learns that no more comes also where the evaluation of the input has failed.
  defp halting(outputs, fun) do
    fun.()
  catch
    kind, reason ->
      halt(outputs)
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  defp keep(outputs, name, data, run) do
    {verdict, output} = outputs |> Map.fetch!(name) |> Output.keep(data)
    {verdict, %{outputs | name => output}}
  catch
    # Code of the user's: the collectable.
    kind, reason ->
      Run.abandon(run)
      halt(outputs)
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  defp result({:exited, statuses, late, tail}, stream, outputs, duration) do
    verdict = Verdict.of(stream, statuses, late)
    outputs = with_tail(outputs, tail)
    result = result(stream, statuses, verdict.index, outputs, duration)

    if verdict.failure == nil,
      do: {:ok, result},
      else: {:error, failed(result, stream, verdict.index, late)}
  end

  defp result({:error, error, ended, tail}, stream, outputs, duration) do
    outputs = with_tail(outputs, tail)

    index =
      case error.stage do
        {which, _count} -> which - 1
        nil -> Verdict.first_failed(stream, ended) || length(ended) - 1
      end

    {:error, %{error | result: result(stream, ended, index, outputs, duration)}}
  end

  defp result(%Stream{commands: commands}, ended, index, outputs, duration) do
    stages = for {command, status} <- Enum.zip(commands, ended), do: stage(command, status)
    %{status: status, signal: signal} = Enum.at(stages, index)

    %Result{
      stdout: outputs.stdout.data,
      stderr: outputs.stderr.data,
      status: status,
      signal: signal,
      duration: System.convert_time_unit(duration, :native, :microsecond),
      stages: stages,
      truncated: for(name <- [:stdout, :stderr], outputs[name].truncated, do: name)
    }
  end

  # Standard error whose tail the stream has kept.
  defp with_tail(outputs, %{data: nil}), do: outputs
  defp with_tail(outputs, tail), do: %{outputs | stderr: tail}

  defp stage(command, %{code: code, signal: signal}),
    do: %{command: command.argv, status: code, signal: signal}

  defp stage(command, _unknown), do: %{command: command.argv, status: nil, signal: nil}

  defp failed(result, %Stream{commands: commands}, index, late) do
    %{status: status, signal: signal} = Enum.at(result.stages, index)
    %{Command.failure(commands, index, reason(status, signal, late)) | result: result}
  end

  defp reason(_status, _signal, late) when late != nil, do: :exit_timeout
  defp reason(status, nil, nil), do: {:status, status}
  defp reason(_status, signal, nil), do: {:signal, signal}
end
