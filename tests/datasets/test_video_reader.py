"""Video files, addresses and cameras, by PyAV and by OpenCV: the same frames, exact rates; what is broken is told."""

import contextlib
import functools
import http.server
import socket
import sys
import threading
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg.datasets import video_reader
from mmseg.datasets.sources import FrameSource
from mmseg.datasets.video_reader import CaptureReader, PyAVReader, open_video
from mmseg.errors import ConfigError, DataError
from mmseg.video_io import exact_rate
from tests.datasets.made_videos import NTSC, greys, noise, write_sound, write_video

BT601, BT709 = 6, 1


@pytest.fixture
def without_pyav(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)


def levels(frames) -> list[int]:
    """The greys of :func:`greys`."""
    return [round((float(frame.image.mean()) - 10) / 20) for frame in frames]


def by_opencv(path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    return [capture.retrieve()[1] for _ in iter(capture.grab, False)]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".ts", ".webm", ".avi"])
def test_rate_and_frames_of_many_containers(tmp_path, suffix):
    path = write_video(tmp_path / f"clip{suffix}")
    source = FrameSource(path)
    assert (source.name, source.fps, source.length, source.sar) == ("clip", NTSC, 11, 1)
    assert levels(source) == list(range(11)) == levels(source)  # it may be read again
    thinned = FrameSource(path, every=4, max_frames=2)
    assert (thinned.fps, thinned.length) == (NTSC / 4, 2)
    assert [(frame.number, frame.name) for frame in thinned] == [(0, "000000"), (1, "000004")]
    assert FrameSource(path, every=4).length == 3 == len(list(FrameSource(path, every=4)))


def test_opencv_takes_over_where_pyav_is_missing(tmp_path, without_pyav, capfd):
    path = write_video(tmp_path / "clip.mp4", sar=2, rotation=90)
    assert isinstance(open_video(path), CaptureReader)
    source = FrameSource(path, every=5)
    assert (source.fps, source.length, source.sar) == (NTSC / 5, 3, Fraction(1, 2))
    assert levels(source) == [0, 5, 10] and next(iter(source)).image.shape == (64, 48, 3)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DataError, match=r"text\.mp4 cannot be opened by OpenCV or PyAV \(PyAV, which reads videos, is"):
        FrameSource(tmp_path / "text.mp4")


@pytest.mark.parametrize("tags", [{}, {"colorspace": BT601}, {"colorspace": BT709}, {"color_range": 2}])
@pytest.mark.parametrize("size", [(48, 64), (46, 62)])
def test_colours_are_those_of_opencv(tmp_path, tags, size):
    smooth = [cv2.GaussianBlur(picture, (0, 0), 3) for picture in noise(4, size)]
    path = write_video(tmp_path / "clip.mp4", smooth, **tags)
    frames = [frame.image for frame in FrameSource(path)]
    difference = np.abs(np.stack(frames).astype(int) - np.stack(by_opencv(path)))
    assert len(frames) == 4 and difference.max() <= 1


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv422p", "yuv444p", "gray"])
def test_pixel_formats_are_read_as_opencv_reads_them(tmp_path, pix_fmt):
    smooth = [cv2.GaussianBlur(picture, (0, 0), 3) for picture in noise(2, (46, 62))]
    path = write_video(tmp_path / "clip.nut", smooth, pix_fmt=pix_fmt)
    frames = [frame.image for frame in FrameSource(path)]
    assert frames[0].flags["C_CONTIGUOUS"] and frames[0].flags["WRITEABLE"]
    np.testing.assert_array_equal(np.stack(frames), np.stack(by_opencv(path)))


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_is_applied_and_turns_the_pixels_too(tmp_path, degrees):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32] = 255  # one bright quarter
    path = write_video(tmp_path / "phone.mp4", [picture] * 3, sar=2, rotation=degrees)
    source = FrameSource(path)
    frames = [frame.image for frame in source]
    assert frames[0].flags["C_CONTIGUOUS"] and len(frames) == 3
    assert np.abs(frames[0].astype(int) - np.rot90(picture, degrees // 90)).max() < 12
    np.testing.assert_array_equal(frames[0], by_opencv(path)[0])
    assert source.sar == (2 if degrees == 180 else Fraction(1, 2))


def test_rates():
    assert [exact_rate(value) for value in (29.97, 23.976, 59.94, 25.0, 12.5)] == [
        NTSC,
        Fraction(24000, 1001),
        Fraction(60000, 1001),
        25,
        Fraction(25, 2),
    ]
    assert [exact_rate(value) for value in (None, 0, -1.0, float("inf"), float("nan"))] == [None] * 5
    assert exact_rate(NTSC / 7) == NTSC / 7


@pytest.mark.parametrize("name", ["every", "max_frames"])
def test_numbers_that_take_nothing(tmp_path, name):
    with pytest.raises(ConfigError, match=f"{name} = 0"):
        FrameSource(greys(), **{name: 0})
    with pytest.raises(ConfigError, match=f"{name} = 2.5"):
        FrameSource(greys(), **{name: 2.5})
    assert [frame.name for frame in FrameSource(iter(greys()), every=3, max_frames=3)] == ["000000", "000003", "000006"]


def test_a_truncated_file_gives_what_it_has_and_tells_what_is_missing(tmp_path, caplog, capfd):
    path = write_video(tmp_path / "cut.mp4", noise(20), gop_size=5)
    whole = path.read_bytes()
    source = FrameSource(path)
    assert len(list(source)) == 20 and source.fault is None and not caplog.text
    path.write_bytes(whole[: len(whole) // 2])  # the index is at its start
    count = len(list(source))
    assert 5 <= count <= 11
    assert f"only {count} of its 20 frames could be decoded, {20 - count} are missing" in source.fault
    assert [message for message in caplog.messages if "cut.mp4" in message and source.fault in message]
    assert len(list(FrameSource(path, max_frames=3))) == 3 and len(caplog.messages) == 1  # nothing is missing of these
    path.write_bytes(whole[:-40])
    last = FrameSource(path)
    count = len(list(last))
    assert count < 20 and f"only {count} of its 20 frames" in last.fault
    assert capfd.readouterr() == ("", "")


def test_damage_in_the_middle_is_told_and_shifts_nothing(tmp_path, caplog, capfd):
    path = write_video(tmp_path / "scratched.mp4", noise(20), gop_size=10)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(300)
    path.write_bytes(data)
    source = FrameSource(path)
    frames = list(source)
    assert [frame.number for frame in frames] == list(range(len(frames)))
    assert (
        "with damage" in source.fault
        and "scratched.mp4: " + source.fault in caplog.text
        and capfd.readouterr() == ("", "")
    )


def test_a_trimmed_file_lacks_nothing(tmp_path, caplog):
    """Its edit list leaves out the frames before the start, which its index counts."""
    path = tmp_path / "trimmed.mp4"
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled", "use_editlist": "1"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.max_b_frames = 0
        packets = [p for g in greys() for p in stream.encode(av.VideoFrame.from_ndarray(g, format="bgr24"))]
        for packet in [*packets, *stream.encode()]:
            packet.pts, packet.dts = packet.pts - 4, packet.dts - 4
            container.mux(packet)
    source = FrameSource(path)
    assert source.length == 7 and levels(source) == list(range(4, 11))
    assert source.fault is None and not caplog.text


def test_an_animated_gif_is_a_video(tmp_path):
    pictures = [Image.fromarray(grey) for grey in greys(5)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=200)
    source = FrameSource(tmp_path / "a.gif")
    assert source.fps == 5 and levels(source) == list(range(5))


def test_a_video_that_changes_its_size(tmp_path):
    parts = [write_video(tmp_path / f"{size[0]}.ts", greys(4, size)).read_bytes() for size in ((48, 64), (32, 48))]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(parts))
    iterator = iter(FrameSource(path))
    assert [next(iterator).number for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(DataError, match="changes from 64x48 to 48x32 pixels at frame 4") as caught:
        next(iterator)
    assert "scale=64:48" in caught.value.action


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: write_sound(path / "talk.mp4"), r"talk\.mp4: no video in it, only audio"),
        (lambda path: touched(path / "empty.mp4"), r"empty\.mp4 cannot be opened: an empty file"),
        (lambda path: headless(path / "moov.mp4"), r"moov\.mp4 cannot be opened .*Invalid data"),
        (lambda path: cut_at_start(path / "start.mp4"), r"start\.mp4: none of its 11 frames could be read"),
        (
            lambda path: "rtsp://me:secret@127.0.0.1:9/a//b",
            r"^rtsp://me:\*\*\*@127\.0\.0\.1:9/a//b cannot be opened \(Conn",
        ),
        (lambda path: "/dev/video321", "camera 321 cannot be opened"),
        (lambda path: 321, "camera 321 cannot be opened"),
    ],
)
def test_bad_input_is_one_error_and_ffmpeg_says_nothing(tmp_path, capfd, make, words):
    with pytest.raises(DataError, match=words) as caught:
        list(FrameSource(make(tmp_path)))
    assert caught.value.expected and caught.value.action and "secret" not in str(caught.value)
    assert "video321" not in capfd.readouterr().err  # OpenCV's own words about cameras


def touched(path):
    path.touch()
    return path


def headless(path):
    """A recording that broke off before its index was written."""
    data = write_video(path).read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])
    return path


def cut_at_start(path):
    data = write_video(path).read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 6])
    return path


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Endless(Silent):
    """What a camera of the network gives: pictures without a last one."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        picture = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
        head = b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture)
        with contextlib.suppress(ConnectionError):
            while True:
                self.wfile.write(head + picture + b"\r\n")


def test_what_comes_as_time_goes_by_is_live(tmp_path):
    write_video(tmp_path / "clip.mp4")
    assert not FrameSource(tmp_path / "clip.mp4").live and not FrameSource([np.zeros((4, 4, 3), np.uint8)]).live
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            source = FrameSource(f"http://127.0.0.1:{server.server_address[1]}/camera", max_frames=3)
            assert source.live and len(list(source)) == 3
        finally:
            server.shutdown()


def test_an_address_is_read_as_it_is(tmp_path):
    write_video(tmp_path / "clip.mp4")
    handler = functools.partial(Silent, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            source = FrameSource(f"http://127.0.0.1:{server.server_address[1]}/clip.mp4", max_frames=5)
            assert (source.name, source.fps, source.length) == ("stream", NTSC, 5)
            assert levels(source) == list(range(5))
            with pytest.raises(DataError, match="could be read"):  # it has been used up
                list(source)
            with pytest.raises(DataError, match=r"gone\.mp4 cannot be opened"):
                FrameSource(f"http://127.0.0.1:{server.server_address[1]}/gone.mp4")
        finally:
            server.shutdown()


def test_an_address_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(video_reader, "_PATIENCE", (0.2, 0.2))
    words = r"cannot be opened \(no answer within 0.2 seconds\)"
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(DataError, match=words):
        open_video(f"http://127.0.0.1:{server.getsockname()[1]}/clip.mp4")


def test_a_name_with_a_colon_is_no_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mp4").rename("concat:a.mp4")
    assert isinstance(open_video("concat:a.mp4"), PyAVReader) and len(list(FrameSource("concat:a.mp4"))) == 11


def test_decoding_runs_ahead_and_stops_with_the_reader(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", greys(12) * 5)
    taken = []
    original = PyAVReader._picture
    monkeypatch.setattr(
        PyAVReader, "_picture", lambda self, frame: taken.append(threading.get_ident()) or original(self, frame)
    )
    iterator = iter(FrameSource(path))
    next(iterator)
    for _ in range(200):
        if len(taken) >= 4:
            break
        threading.Event().wait(0.02)
    threading.Event().wait(0.1)
    assert 2 <= len(taken) <= 8 and set(taken) != {threading.get_ident()}
    iterator.close()
    count = len(taken)
    threading.Event().wait(0.05)
    assert len(taken) == count and not [t for t in threading.enumerate() if t.name.startswith("frames")]
