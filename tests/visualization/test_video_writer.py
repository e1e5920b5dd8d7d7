"""Video files: what browsers play, at the rate and in the colours that were asked for; whole, a part, or none."""

import base64
import os
import signal
import sys
import threading
import time
from fractions import Fraction
from types import FrameType

import av
import cv2
import numpy as np
import pytest

from mmseg.engine.interrupts import Interrupted, Interrupts
from mmseg.errors import DataError, WriteError
from mmseg.visualization import VideoWriter
from mmseg.visualization.video_encoders import PyAVEncoder
from tests.writing.feeding import largest_file, left_in

NTSC = Fraction(30000, 1001)
COLOURS = [
    (0, 0, 0),
    (255, 255, 255),
    (0, 0, 255),
    (0, 255, 0),
    (255, 0, 0),
    (30, 144, 200),
    (90, 90, 90),
    (128, 64, 0),
]


def chart() -> np.ndarray:
    """(64, 256, 3): eight colours beside each other."""
    return np.repeat(np.array(COLOURS, np.uint8), 32, axis=0)[None].repeat(64, axis=0)


def by_opencv(path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    return [capture.retrieve()[1] for _ in iter(capture.grab, False)]


def test_what_browsers_play(tmp_path):
    with VideoWriter(tmp_path / "new folder" / "clip", 29.97, sar=Fraction(2, 1)) as video:
        assert video.path is None and left_in(tmp_path) == []
        for _ in range(9):
            video.write(chart())
        assert all(name.startswith("new folder/.clip.mp4") for name in left_in(tmp_path))
    assert (video.path, video.count, video.is_part) == (tmp_path / "new folder" / "clip.mp4", 9, False)
    data = video.path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # it plays while it loads
    with av.open(str(video.path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.average_rate, stream.sample_aspect_ratio, stream.frames) == (NTSC, 2, 9)
        assert (context.colorspace, context.color_range, context.color_primaries) == (6, 1, 1)
    frames = by_opencv(video.path)
    assert len(frames) == 9
    shown = frames[4][32, 16::32].astype(int)  # the middle of each colour
    assert np.abs(shown - np.array(COLOURS)).max() <= 3


def test_chromium_plays_it_in_the_right_shape_and_colours(tmp_path, page):
    with VideoWriter(tmp_path / "clip", NTSC, sar=2) as video:
        for _ in range(30):
            video.write(chart())
    address = "data:video/mp4;base64," + base64.b64encode(video.path.read_bytes()).decode()
    width, height, seconds, colours = page.evaluate(PLAY, address)
    assert (width, height) == (512, 64) and abs(seconds - 30 / NTSC) < 0.01
    assert np.abs(np.array(colours)[:, ::-1] - COLOURS).max() <= 4


PLAY = """async address => {
    const video = document.createElement("video");
    const reached = name => new Promise((done, failed) => { video["on" + name] = done; video.onerror = failed; });
    video.src = address;
    await reached("loadeddata");
    video.currentTime = 0.5;
    await reached("seeked");
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    const context = canvas.getContext("2d");
    context.drawImage(video, 0, 0);
    const places = [...Array(8).keys()].map(i => (i + 0.5) * video.videoWidth / 8);
    const colours = places.map(x => [...context.getImageData(x, 32, 1, 1).data.slice(0, 3)]);
    return [video.videoWidth, video.videoHeight, video.duration, colours];
}"""


@pytest.mark.parametrize("fps", [Fraction(1, 2), NTSC / 7, 12.5, 1000, None])
def test_rates_are_exact(tmp_path, fps):
    with VideoWriter(tmp_path / "clip", fps) as video:
        for _ in range(3):
            video.write(chart())
    with av.open(str(video.path)) as container:
        assert container.streams.video[0].average_rate == (15 if fps is None else Fraction(fps))


def test_a_picture_may_be_reused_and_odd_sides_lose_a_row(tmp_path):
    picture = np.zeros((33, 41, 3), np.uint8)
    with VideoWriter(tmp_path / "clip") as video:
        for level in range(0, 250, 10):
            picture[:] = level  # what a camera does with its buffer
            video.write(picture)
    frames = by_opencv(video.path)
    assert frames[0].shape == (32, 40, 3)
    assert [round(float(frame.mean()) / 10) for frame in frames] == list(range(25))


def test_other_codecs_where_h264_is_missing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    with VideoWriter(tmp_path / "clip", NTSC, sar=Fraction(4, 3)) as video:
        for _ in range(5):
            video.write(chart())
    assert video.path == tmp_path / "clip.webm" and "pixels are square instead of 4/3" in caplog.text
    with av.open(str(video.path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate) == ("vp9", NTSC)
    assert len(by_opencv(video.path)) == 5


def test_opencv_writes_where_pyav_is_missing(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "av", None)
    with VideoWriter(tmp_path / "clip", 12.5, sar=2) as video:
        for _ in range(5):
            video.write(chart())
    assert left_in(tmp_path) == [video.path.name] and len(by_opencv(video.path)) == 5
    assert cv2.VideoCapture(str(video.path)).get(cv2.CAP_PROP_FPS) == 12.5
    assert "square instead of 2; pip install av gives H.264" in caplog.text


def test_no_codec_at_all(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(cv2.VideoWriter, "isOpened", lambda self: False)
    with pytest.raises(DataError, match="neither PyAV nor OpenCV"), VideoWriter(tmp_path / "clip") as video:
        video.write(chart())
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_broken_off_is_a_part_that_plays(tmp_path, error):
    with pytest.raises(error), VideoWriter(tmp_path / "clip") as video:
        for _ in range(30):
            video.write(chart())
        raise error
    assert left_in(tmp_path) == ["clip.part.mp4"]
    assert (video.path, video.is_part, video.count) == (tmp_path / "clip.part.mp4", True, 30)
    assert len(by_opencv(video.path)) == 30
    with VideoWriter(tmp_path / "clip") as whole:
        whole.write(chart())
    assert left_in(tmp_path) == ["clip.mp4"] and not whole.is_part


def test_a_part_of_nothing_and_other_errors_leave_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "clip") as video:
        raise KeyboardInterrupt
    assert video.path is None and video.keep_part() is None
    with pytest.raises(ZeroDivisionError), VideoWriter(tmp_path / "clip") as video:
        video.write(chart())
        raise ZeroDivisionError
    assert video.path is None and left_in(tmp_path) == []


def test_a_full_disk_of_which_opencv_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    noise = np.random.default_rng(0).integers(0, 256, (30, 96, 96, 3), dtype=np.uint8)
    expected = pytest.raises(WriteError, match="the file is larger than allowed")
    with largest_file(40_000), expected, VideoWriter(tmp_path / "clip") as video:
        for picture in noise:
            video.write(picture)
    assert video.path is None and left_in(tmp_path) == []


def test_a_full_disk(tmp_path, caplog):
    noise = np.random.default_rng(0).integers(0, 256, (60, 96, 96, 3), dtype=np.uint8)
    (tmp_path / "clip.mp4").write_bytes(b"of an earlier run")
    for size in (1_000, 100_000):
        expected = pytest.raises(WriteError, match="the file is larger than allowed")
        with largest_file(size), expected, VideoWriter(tmp_path / "clip") as video:
            for picture in noise:
                video.write(picture)
        assert video.path is None and left_in(tmp_path) == ["clip.mp4"]
    with largest_file(1_000), pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "clip") as video:
        video.write(noise[0])
        raise KeyboardInterrupt
    assert video.path is None and "the file is larger than allowed" in caplog.text
    assert (tmp_path / "clip.mp4").read_bytes() == b"of an earlier run"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_pictures_are_written(tmp_path, number):
    video = VideoWriter(tmp_path / "clip")
    with pytest.raises(Interrupted), Interrupts() as interrupts, interrupts.at_once(), video:
        threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
        while True:
            video.write(chart())
    assert left_in(tmp_path) == ["clip.part.mp4"] and video.is_part
    assert len(by_opencv(video.path)) == video.count > 0


def callers(frame: FrameType | None) -> list[str]:
    """The names of the functions that are being run, the innermost first."""
    return [] if frame is None else [frame.f_code.co_name, *callers(frame.f_back)]


def test_a_signal_while_the_file_is_completed(tmp_path, monkeypatch):
    """What is so nearly done becomes whole."""
    close, main = PyAVEncoder.close, threading.main_thread().ident

    def slow(encoder):
        while "exception" not in callers(sys._current_frames()[main]):
            time.sleep(0.001)  # until the writer waits for this
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(0.2)
        close(encoder)

    monkeypatch.setattr(PyAVEncoder, "close", slow)
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "clip") as video:
        for _ in range(5):
            video.write(chart())
    video.discard()  # as a caller does who only sees the signal
    assert left_in(tmp_path) == ["clip.mp4"] and not video.is_part and len(by_opencv(video.path)) == 5
