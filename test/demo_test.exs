defmodule Exile.DemoTest do
  @moduledoc "Tests what the demo says about videos that it can convert, and about those it cannot."

  use Exile.Case

  import ExUnit.CaptureIO

  @moduletag :tmp_dir
  unless System.find_executable("ffmpeg"), do: @moduletag(skip: "there is no ffmpeg")

  # Encodes `sources` into a file of the test's directory.
  defp video(context, name, sources, options \\ []) do
    path = Path.join(context.tmp_dir, name)
    inputs = Enum.flat_map(sources, &["-f", "lavfi", "-i", &1])

    Exile.run!(
      ["ffmpeg", "-loglevel", "error"] ++ inputs ++ ["-c:v", "mpeg4"] ++ options ++ [path]
    )

    path
  end

  @picture "testsrc2=size=320x240:rate=10:duration=2"
  @sound "sine=frequency=440:duration=2"

  # Runs the demo. Returns its status, what it printed, and what it said on standard error.
  defp demo(context, video) do
    arguments = System.argv()
    music = Path.join(context.tmp_dir, "music.mp3")
    System.argv([video, music])
    test = self()

    said =
      capture_io(:stderr, fn ->
        printed = capture_io(fn -> send(test, {:status, status()}) end)
        send(test, {:printed, printed})
      end)

    System.argv(arguments)
    assert_received {:status, status}
    assert_received {:printed, printed}
    assert File.exists?(music) == (status == 0)
    {status, printed, said}
  end

  defp status do
    Code.eval_file("demo/video_to_music.exs")
    0
  catch
    :exit, {:shutdown, status} -> status
  end

  test "a video becomes music, and the last line says how much went in and out", context do
    video = video(context, "video.mkv", [@picture, @sound])
    assert {0, printed, ""} = demo(context, video)
    assert printed =~ ~r/^100 %: \d+\.\d MB in, \d+\.\d MB out, \d+\.\d MB\/s, \d+\.\d s\n$/

    probe = ~w(ffprobe -v error -show_entries format=format_name -of csv=p=0)
    assert Exile.run!(probe ++ [Path.join(context.tmp_dir, "music.mp3")]).stdout == "mp3\n"
  end

  test "a video whose index is at its end is named, and what moves the index", context do
    video = video(context, "end.mp4", [@picture, @sound])

    assert demo(context, video) ==
             {1, "",
              "demo: #{video} has its index at the end, so it cannot be read from a pipe; move it to " <>
                "the front: ffmpeg -i #{Exile.shell_quote(video)} -c copy -movflags +faststart front.mp4\n"}

    front = Path.join(context.tmp_dir, "front.mp4")
    Exile.run!(~w(ffmpeg -loglevel error -i #{video} -c copy -movflags +faststart #{front}))
    assert {0, _printed, ""} = demo(context, front)
  end

  test "a silent video is one", context do
    video = video(context, "silent.mkv", [@picture])
    assert demo(context, video) == {1, "", "demo: #{video} has no sound\n"}
  end

  test "what is no video is none", context do
    for content <- ["just some text\n", ""] do
      path = Path.join(context.tmp_dir, "text.txt")
      File.write!(path, content)

      assert demo(context, path) ==
               {1, "", "demo: #{path} is not a video that ffmpeg can read from a pipe\n"}
    end
  end
end
