"""Frames from files, folders, cameras and programs."""

import logging

import cv2
import numpy as np
import pytest

from mmseg.datasets.sources import FrameSource
from mmseg.errors import DataError

LEVELS = [20, 60, 100, 140, 180, 220, 250, 10, 50, 90, 130]  # of eleven frames


def images():
    return [np.full((32, 48, 3), level, np.uint8) for level in LEVELS]


@pytest.fixture
def folder(tmp_path):
    """Eleven pictures 1.png ... 11.png, made in another order."""
    path = tmp_path / "holiday.2024"
    path.mkdir()
    for i in np.random.default_rng(1).permutation(len(LEVELS)):
        cv2.imwrite(str(path / f"{i + 1}.png"), images()[i])
    (path / "._1.png").touch()
    (path / "notes.txt").touch()
    return path


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.5, (48, 32))
    for image in images():
        writer.write(image)
    writer.release()
    return path


def levels(source):
    return [round(float(frame.image.mean()) / 10) * 10 for frame in source]


def test_folder(folder):
    source = FrameSource(folder)
    frames = list(source)
    assert (source.name, source.length, source.fps) == ("holiday.2024", 11, None)
    assert levels(frames) == LEVELS == levels(source)  # it may be read again
    assert [frame.number for frame in frames] == list(range(11))
    assert [frame.name for frame in frames] == [str(i) for i in range(1, 12)]
    assert frames[9].path == str(folder / "10.png")
    frames[9].image = None
    np.testing.assert_array_equal(frames[9].picture(), images()[9])


def test_video_file(video):
    source = FrameSource(str(video))
    assert (source.name, source.length, source.fps) == ("clip", 11, 12.5)
    frames = list(source)
    assert levels(frames) == LEVELS == levels(source)
    assert [frame.name for frame in frames][:2] == ["000000", "000001"]


def test_an_open_capture_is_read_from_where_it_stands_and_stays_open(video):
    capture = cv2.VideoCapture(str(video))
    capture.read()
    source = FrameSource(capture)
    assert source.fps == 12.5
    iterator = iter(source)
    assert levels([next(iterator)]) == LEVELS[1:2]
    iterator.close()
    assert levels(source) == LEVELS[2:] and capture.isOpened()
    capture.release()
    with pytest.raises(DataError, match="not open"):
        FrameSource(capture)


def test_a_pattern_of_names_goes_through_a_capture(folder):
    assert levels(FrameSource(cv2.VideoCapture(str(folder / "%d.png")))) == LEVELS


def test_frames_of_a_program():
    for given in (images(), tuple(images()), np.stack(images())):
        source = FrameSource(given)
        assert (source.name, source.length, source.fps) == ("frames", 11, None)
        assert levels(source) == LEVELS == levels(source)


def test_a_generator_is_read_one_frame_at_a_time():
    taken = []

    def camera():
        for number, image in enumerate(images()):
            taken.append(number)
            yield image

    source = FrameSource(camera())
    assert source.length is None and taken == []
    iterator = iter(source)
    assert next(iterator).name == "000000" and next(iterator).number == 1 and taken == [0, 1]
    assert levels(iterator) == LEVELS[2:]
    with pytest.raises(DataError, match="no frame"):
        next(iter(source))


def test_a_video_that_breaks_off_is_told(tmp_path, caplog):
    path = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"XVID"), 12.5, (48, 32))
    for seed in range(11):
        writer.write(np.random.default_rng(seed).integers(0, 256, (32, 48, 3), dtype=np.uint8))
    writer.release()
    with caplog.at_level(logging.WARNING, "mmseg.datasets"):
        assert len(list(FrameSource(path))) == 11 and not caplog.text
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 2 // 3])  # the header still says 11
        count = len(list(FrameSource(path)))
    assert 0 < count < 9
    assert f"cut.avi: only {count} of its 11 frames" in caplog.text


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path / "none.mp4", "none.mp4' does not exist"),
        (lambda path: str(path / "text.mp4"), "cannot be opened"),
        (lambda path: path / "empty", "holds no pictures"),
        (lambda path: "a\0b", "cannot be listed"),
        (lambda path: 321, "camera 321 cannot be opened"),
        (lambda path: "321", "camera 321 cannot be opened"),
        (lambda path: "http://127.0.0.1:9/none", "http://127.0.0.1:9/none cannot be opened"),
        (lambda path: None, "None instead of a video"),
        (lambda path: True, "True instead of a video"),
        (lambda path: 2.5, "2.5 instead of a video"),
        (lambda path: images()[0], r"an array \(32, 48, 3\)"),
    ],
)
def test_what_is_no_video(tmp_path, make, words):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=words) as caught:
        FrameSource(make(tmp_path))
    assert caught.value.expected and caught.value.action


def test_no_frames_and_damaged_frames(folder):
    with pytest.raises(DataError, match="no frame"):
        list(FrameSource([]))
    data = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(data[: len(data) // 2])
    iterator = iter(FrameSource(folder))
    assert levels([next(iterator), next(iterator)]) == LEVELS[:2]
    with pytest.raises(DataError, match=r"3\.png"):
        next(iterator)
