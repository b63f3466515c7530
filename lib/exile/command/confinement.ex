defmodule Exile.Command.Confinement do
  @moduledoc false

  # The values of options that limit what a command may use, as the native side expects them.

  # The native side accepts no larger number.
  @cpus 0..1023

  @resources [:cpu, :memory, :file_size, :open_files, :processes, :core, :stack]

  # What the kernel takes for no limit.
  @infinity 0xFFFF_FFFF_FFFF_FFFF

  @typedoc "A resource, its soft limit, and its hard one."
  @type limit :: {atom, 0..0xFFFF_FFFF_FFFF_FFFF, 0..0xFFFF_FFFF_FFFF_FFFF}

  @doc "Checks a list of processors."
  @spec cpus(term) :: {:ok, [0..1023, ...]} | :error
  def cpus([_ | _] = cpus) when length(cpus) > 0,
    do: if(Enum.all?(cpus, &(is_integer(&1) and &1 in @cpus)), do: {:ok, cpus}, else: :error)

  def cpus(_other), do: :error

  @doc "Checks a priority for the use of disks."
  @spec io_priority(term) :: {:ok, :idle | {:best_effort, 0..7}} | :error
  def io_priority(:idle), do: {:ok, :idle}

  def io_priority({:best_effort, level}) when is_integer(level) and level in 0..7,
    do: {:ok, {:best_effort, level}}

  def io_priority(_other), do: :error

  @doc "Checks limits, and returns each as a soft and a hard one."
  @spec limits(term) :: {:ok, [limit]} | :error | {:error, binary}
  def limits(limits) do
    if Keyword.keyword?(limits) do
      # As for options, the first wins, and those that are not used are checked too.
      with {:ok, checked} <- each(limits, []), do: {:ok, Enum.uniq_by(checked, &elem(&1, 0))}
    else
      :error
    end
  end

  defp each([], checked), do: {:ok, Enum.reverse(checked)}

  defp each([{resource, limit} | rest], checked) when resource in @resources do
    case soft_and_hard(limit) do
      {soft, hard} when soft <= hard ->
        each(rest, [{resource, soft, hard} | checked])

      {_soft, _hard} ->
        {:error, problem(resource, "expected the soft limit not to exceed the hard one", limit)}

      :error ->
        {:error, problem(resource, "expected a number, :infinity or {soft, hard}", limit)}
    end
  end

  defp each([{resource, _limit} | _rest], _checked) do
    {:error,
     "invalid value for option :limits: unknown resource #{inspect(resource)}; the known ones are " <>
       Enum.map_join(@resources, ", ", &inspect/1)}
  end

  defp problem(resource, expected, limit),
    do:
      "invalid value for option :limits: #{expected} for #{inspect(resource)}, got: #{inspect(limit)}"

  defp soft_and_hard({soft, hard}) do
    with soft when is_integer(soft) <- number(soft),
         hard when is_integer(hard) <- number(hard),
         do: {soft, hard}
  end

  defp soft_and_hard(limit) do
    with limit when is_integer(limit) <- number(limit), do: {limit, limit}
  end

  defp number(:infinity), do: @infinity
  defp number(limit) when is_integer(limit) and limit >= 0 and limit < @infinity, do: limit
  defp number(_other), do: :error
end
