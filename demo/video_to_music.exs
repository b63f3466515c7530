# Turns a video into music. The video goes into ffmpeg and the music comes out of it
# through pipes; neither is ever in memory as a whole.
#
#     mix run demo/video_to_music.exs VIDEO MUSIC

import Exile.Sigil

[video, music] = System.argv()
size = File.stat!(video).size

now = fn -> System.monotonic_time(:millisecond) end
decimal = fn float -> :erlang.float_to_binary(float, decimals: 1) end

started = now.()
# Counts what goes in. The input is evaluated in another process, so the counter is shared.
taken = :counters.new(1, [])

progress = fn given ->
  bytes = :counters.get(taken, 1)
  milliseconds = max(now.() - started, 1)

  "#{div(100 * bytes, max(size, 1))} %: #{decimal.(bytes / 1_000_000)} MB in, " <>
    "#{decimal.(given / 1_000_000)} MB out, #{decimal.(bytes / 1000 / milliseconds)} MB/s, " <>
    "#{decimal.(milliseconds / 1000)} s"
end

# On a terminal one line is rewritten. In a log there is a line now and then.
{show, pause} =
  if IO.ANSI.enabled?(),
    do: {fn text -> IO.write(["\r", IO.ANSI.clear_line(), text]) end, 50},
    else: {&IO.puts/1, 5_000}

# With -xerror, ffmpeg does not take a part of a video for the whole.
convert = ~x"ffmpeg -hide_banner -loglevel error -xerror -i pipe:0 -f mp3 pipe:1"

run = fn from, to ->
  input = from |> IO.binstream(65_536) |> Stream.each(&:counters.add(taken, 1, byte_size(&1)))

  convert
  |> Exile.stream!(input: input, stderr: :tail)
  |> Enum.reduce({0, started}, fn chunk, {given, shown} ->
    :ok = IO.binwrite(to, chunk)
    given = given + byte_size(chunk)

    if now.() - shown > pause do
      show.(progress.(given))
      {given, now.()}
    else
      {given, shown}
    end
  end)
end

explain = fn
  %Exile.Stream.AbnormalExit{stderr: said} = error ->
    cond do
      said =~ "moov atom not found" or said =~ "partial file" ->
        "#{video} has its index at the end, so it cannot be read from a pipe; move it to the front: " <>
          "ffmpeg -i #{Exile.shell_quote(video)} -c copy -movflags +faststart front.mp4"

      said =~ "does not contain any stream" ->
        "#{video} has no sound"

      said =~ "Invalid data found" ->
        "#{video} is not a video that ffmpeg can read from a pipe"

      true ->
        Exception.message(error)
    end

  error ->
    Exception.message(error)
end

try do
  {given, _shown} =
    File.open!(video, [:read], fn from ->
      File.open!(music, [:write, :raw], fn to -> run.(from, to) end)
    end)

  show.(progress.(given))
  if IO.ANSI.enabled?(), do: IO.puts("")
rescue
  error in [Exile.Stream.AbnormalExit, Exile.Process.Error, File.Error] ->
    _ = File.rm(music)
    if IO.ANSI.enabled?(), do: IO.write(["\r", IO.ANSI.clear_line()])
    IO.puts(:stderr, "demo: " <> explain.(error))
    exit({:shutdown, 1})
end
