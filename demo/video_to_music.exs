# Turns a video into music. The video goes into ffmpeg and the music comes out of it
# through pipes; neither is ever in memory as a whole.
#
#     mix run demo/video_to_music.exs VIDEO MUSIC

[video, music] = System.argv()

now = fn -> System.monotonic_time(:millisecond) end
decimal = fn float -> :erlang.float_to_binary(float, decimals: 1) end

started = now.()
# Counts what goes in. The input is read by a process of its own, hence a shared counter.
taken = :counters.new(1, [])

line = fn given ->
  bytes = :counters.get(taken, 1)
  milliseconds = max(now.() - started, 1)

  "#{decimal.(bytes / 1_000_000)} MB in, #{decimal.(given / 1_000_000)} MB out, " <>
    "#{decimal.(bytes / 1000 / milliseconds)} MB/s, #{decimal.(milliseconds / 1000)} s"
end

# A line that is rewritten in place would be a mess in a log.
terminal? = IO.ANSI.enabled?()
rewrite = fn text -> if terminal?, do: IO.write(["\r", IO.ANSI.clear_line(), text]) end

input =
  video
  |> File.stream!([], 65_535)
  |> Stream.each(&:counters.add(taken, 1, byte_size(&1)))

{given, _} =
  File.open!(music, [:write, :raw], fn file ->
    ~w(ffmpeg -hide_banner -loglevel error -i pipe:0 -f mp3 pipe:1)
    |> Exile.stream!(input: input)
    |> Enum.reduce({0, started}, fn chunk, {given, shown} ->
      :ok = IO.binwrite(file, chunk)
      given = given + byte_size(chunk)

      if now.() - shown > 50 do
        rewrite.(line.(given))
        {given, now.()}
      else
        {given, shown}
      end
    end)
  end)

rewrite.("")
IO.puts(line.(given))
