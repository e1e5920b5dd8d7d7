"""Overlay videos and the contact sheet as writers: complete or not there, the same from one or several processes."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from mmseg.datasets.video_files import VideoFiles
from mmseg.errors import ConfigError, DataError, WriteError
from mmseg.structures import Video
from mmseg.visualization import palette_table
from mmseg.writing.object_masks import PaintingWriter
from mmseg.writing.pictures import ContactSheetWriter, OverlayVideoWriter
from tests.writing.feeding import feed, in_two_processes, label_map, largest_file, left_in, result, videos

TABLE = palette_table(None, 3)
NAMES = ["floor", "box", "ball"]


def read_video(path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while (got := capture.read())[0]:
        frames.append(got[1])
    return frames


def noisy(video: Video, number: int, size: int = 64):
    return result(video, number, np.random.default_rng(number).integers(0, 3, (size, size), np.uint8))


def test_one_video_file_for_each_video(tmp_path):
    writer = OverlayVideoWriter(tmp_path / "show", TABLE)
    feed(writer)
    writer.finish()
    assert left_in(tmp_path) == ["show/first.mp4", "show/nested/third.mp4", "show/second.mp4"]
    assert [len(read_video(tmp_path / "show" / f"{v.name}.mp4")) for v in videos()] == [7, 18, 5]
    assert cv2.VideoCapture(str(tmp_path / "show" / "first.mp4")).get(cv2.CAP_PROP_FPS) == 15


def test_paintings_have_their_opacity_and_those_of_another_run_are_told(tmp_path, caplog):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old_00000000.jpg").touch()
    writer, flat = PaintingWriter(folder, TABLE, 0.25), np.ones((64, 64), np.uint8)
    writer.start(videos(), [0, 0, 0])
    writer.add(result(videos()[0], 3, flat))
    writer.finish()
    frame = result(videos()[0], 3, flat).frame.image
    expected = 0.75 * frame + 0.25 * TABLE[1, ::-1]
    assert np.abs(cv2.imread(str(folder / "first_00000003.jpg")) - expected).max() < 5
    assert f"{folder} still holds 1 of another run, which this one does not replace: old_00000000.jpg" in caplog.text


def test_two_runs_do_not_mix_their_videos(tmp_path):
    first, second = OverlayVideoWriter(tmp_path, TABLE), OverlayVideoWriter(tmp_path, TABLE, 24.0)
    first.start(videos(), [0, 0, 0])
    with pytest.raises(WriteError, match="in use by the pictures of a test"):
        second.start(videos(), [0, 0, 0])
    second.abort()  # leaves the other's lock
    with pytest.raises(WriteError, match="in use"):
        second.start(videos(), [0, 0, 0])
    first.finish()
    feed(second)
    second.finish()
    assert cv2.VideoCapture(str(tmp_path / "first.mp4")).get(cv2.CAP_PROP_FPS) == 24
    assert ".lock" not in left_in(tmp_path)


def test_videos_of_an_earlier_test_are_told(tmp_path, caplog):
    (tmp_path / "nested").mkdir()
    for name in ("first.mp4", "nested/old.avi", "nested/third.mp4", "notes.txt"):
        (tmp_path / name).write_bytes(b"of an earlier test")
    writer = OverlayVideoWriter(tmp_path, TABLE)
    feed(writer)
    writer.finish()
    assert [m for m in caplog.messages if "nested/old.avi" in m and "1 of another run" in m] == caplog.messages != []
    assert (tmp_path / "nested" / "old.avi").read_bytes() == b"of an earlier test"


def test_a_frame_without_answer_shows_the_frame(tmp_path):
    writer = OverlayVideoWriter(tmp_path, TABLE)
    video = videos()[0]
    labels = np.full((64, 64), 1, np.uint8)
    writer.start([video], [0])
    writer.begin_video(video)
    for number in range(6):  # the truth is there in the first frame only
        answer = result(video, number, labels if number % 2 else None, truth=labels if number == 0 else None)
        answer.frame.image = np.full((64, 64, 3), 200, np.uint8)
        writer.add(answer)
    writer.end_video()
    frames = read_video(tmp_path / "first.mp4")
    assert len(frames) == 6
    # mean of each of the three pictures, without their edges
    bare, coloured = (frame.reshape(64, 3, 64, 3)[8:-8, :, 8:-8].mean(axis=(0, 2, 3)) for frame in frames[2:4])
    assert np.allclose(bare, 200, atol=8)
    assert abs(coloured[0] - 200) < 8 and abs(coloured[1] - 200) > 12 and abs(coloured[2] - 200) < 8


def test_an_unfinished_video_is_removed(tmp_path):
    writer = OverlayVideoWriter(tmp_path, TABLE)
    writer.start(videos(), [0, 0, 0])
    writer.begin_video(videos()[0])
    writer.add(noisy(videos()[0], 0))
    assert len(left_in(tmp_path)) == 2  # with the lock
    writer.abort()
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("limit", [2_000, 40_000, 150_000])
def test_a_disk_that_is_full_is_noticed_although_opencv_says_nothing(tmp_path, limit):
    writer = OverlayVideoWriter(tmp_path, TABLE)
    writer.start(videos(), [0, 0, 0])
    with largest_file(limit), pytest.raises(WriteError, match=r"first\.mp4: cannot be written, the file is larger"):
        writer.begin_video(videos()[0])
        for number in range(40):
            writer.add(noisy(videos()[0], number, 128))
        writer.end_video()
    writer.abort()
    assert left_in(tmp_path) == []


def test_unwritable_places_are_told_before_the_first_frame(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WriteError, match="file/show: cannot be written, a part of the path is a file"):
        OverlayVideoWriter(tmp_path / "file" / "show", TABLE).start(videos(), [0, 0, 0])
    with pytest.raises(ConfigError, match=r"\.png or \.jpg"):
        ContactSheetWriter(tmp_path / "sheet.txt", TABLE, NAMES)


def test_nothing_is_written_outside_whatever_a_video_is_called(tmp_path):
    writer = OverlayVideoWriter(tmp_path / "show", TABLE)
    with pytest.raises(DataError, match="as the name of a result"):
        writer.begin_video(Video(0, "../outside", 1))


def test_the_sheet_shows_the_middle_of_each_video_or_the_first_answer_after_it(tmp_path):
    writer = ContactSheetWriter(tmp_path / "sheet.png", TABLE, NAMES, width=64)
    feed(writer, missing=[(1, 9), (1, 10)])
    assert {index: row.title for index, row in writer._rows.items()} == {
        0: "first  frame 3",
        1: "second  frame 11",
        2: "nested/third  frame 2",
    }
    writer.finish()
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == 3 * 70 + 6
    assert left_in(tmp_path) == ["sheet.png"]


def test_a_sheet_of_object_masks(tmp_path):
    table = palette_table(None, None)
    assert not table[0].any() and table[1].any() and len({tuple(c) for c in table[:255]}) == 255
    writer = ContactSheetWriter(tmp_path / "sheet.jpg", table, None)
    feed(writer)
    writer.finish()
    assert left_in(tmp_path) == ["sheet.jpg"]


SHEET = """
from mmseg.visualization import palette_table
from mmseg.writing.pictures import ContactSheetWriter
writer = ContactSheetWriter("sheet.png", palette_table(None, 3), ["floor", "box", "ball"])
feed(writer, rank=rank, owners=OWNERS)
writer.finish()
"""


@pytest.mark.slow
def test_the_sheet_of_two_processes_is_that_of_one(tmp_path):
    in_two_processes(SHEET, tmp_path)
    alone = ContactSheetWriter(tmp_path / "alone.png", TABLE, NAMES)
    feed(alone)
    alone.finish()
    assert (tmp_path / "sheet.png").read_bytes() == (tmp_path / "alone.png").read_bytes()


@pytest.mark.parametrize(("labelled", "columns", "shown"), [([2, 5], 3, 5), ([], 2, 4)])
def test_videos_with_a_truth_for_some_frames(tmp_path, labelled, columns, shown):
    """Every picture has a place for it, and the sheet shows a frame that has one."""
    masks = [f"{n}.png" if n in labelled else None for n in range(9)] if labelled else None
    video = replace(VideoFiles.of("v", [f"{n}.jpg" for n in range(9)], masks), index=0)
    overlays, sheet = OverlayVideoWriter(tmp_path, TABLE), ContactSheetWriter(tmp_path / "sheet.png", TABLE, NAMES)
    for writer in (overlays, sheet):
        writer.start([video], [0])
        writer.begin_video(video)
        for number in range(9):
            labels = label_map(0, number, size=(64, 64))
            writer.add(result(video, number, labels, truth=labels if number in labelled else None))
        writer.end_video()
    assert sheet._rows[0].title == f"v  frame {shown}"
    overlays.finish()
    assert [frame.shape for frame in read_video(tmp_path / "v.mp4")] == [(64, 64 * columns, 3)] * 9
