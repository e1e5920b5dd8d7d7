"""Folders of PNGs: what is in a file, where it may stand, and that the videos of a run appear together."""

import numpy as np
import pytest
from PIL import Image

from mmseg.errors import DataError, WriteError
from mmseg.structures import Video
from mmseg.visualization import palette_table
from mmseg.writing.label_png import LabelPngFolder, LabelPngWriter, write_label_png
from mmseg.writing.submission_zip import ZippedPngWriter
from tests.writing.feeding import expected, feed, in_two_processes, label_map, largest_file, left_in, result, videos

TABLE = palette_table([[i, 2 * i, 255 - i] for i in range(124)], 124)
ALL = sorted(f"out/{video.name}/{t:08d}.png" for video in videos() for t in range(video.num_frames))


def test_palette_pngs(tmp_path):
    writer = LabelPngWriter(tmp_path / "out", TABLE)
    feed(writer, missing=[(1, 4)])
    assert not (tmp_path / "out").exists()
    writer.finish()
    assert left_in(tmp_path) == sorted(set(ALL) - {"out/second/00000004.png"})
    picture = Image.open(tmp_path / "out" / "nested" / "third" / "00000002.png")
    assert picture.mode == "P" and np.array_equal(np.asarray(picture), label_map(2, 2))
    assert np.array_equal(np.asarray(picture.getpalette()).reshape(-1, 3)[:124], TABLE[:124])
    reader = LabelPngFolder(tmp_path / "out", {"first": [f"{t:08d}" for t in range(7)]})
    assert np.array_equal(reader.read("first", "00000006"), expected()[6])


def test_a_frame_without_answer_has_no_file(tmp_path):
    writer = LabelPngWriter(tmp_path / "out", TABLE)
    video = videos()[0]
    writer.start([video], [0])
    writer.begin_video(video)
    writer.add(result(video, 0, None))
    writer.add(result(video, 1, np.zeros((4, 5), np.uint8)))
    writer.end_video()
    writer.finish()
    assert left_in(tmp_path) == ["out/first/00000001.png"]


def test_a_video_replaces_what_an_earlier_run_has_left_of_it(tmp_path, caplog):
    for name in ("first/stale.png", "second/stale.png", "other/kept.png"):
        write_label_png(tmp_path / "out" / name, np.zeros((4, 5), np.uint8), TABLE.tobytes())
    before = left_in(tmp_path)
    writer = LabelPngWriter(tmp_path / "out", TABLE)
    feed(writer)
    writer.abort()
    assert left_in(tmp_path) == before
    feed(writer)
    writer.finish()
    assert left_in(tmp_path) == sorted([*ALL, "out/other/kept.png"])
    assert len(caplog.messages) == 1 and "does not replace: other" in caplog.messages[0]


def test_two_runs_into_one_folder_never_mix(tmp_path):
    first, second = LabelPngWriter(tmp_path / "out", TABLE), LabelPngWriter(tmp_path / "out", TABLE)

    def runs() -> set[int]:
        stored = {name: np.asarray(Image.open(tmp_path / name)) for name in ALL}
        return {
            run
            for run in (1, 2)
            for v in videos()
            for t in range(v.num_frames)
            if np.array_equal(stored[f"out/{v.name}/{t:08d}.png"], label_map(v.index, t, run))
        }

    feed(first, run=1)
    feed(second, run=2)
    second.finish()
    assert runs() == {2}
    first.finish()
    assert runs() == {1} and left_in(tmp_path) == ALL


def test_a_video_in_the_folder_of_another_one(tmp_path):
    both = [Video(0, "a/b", 1), Video(1, "a", 1)]
    for _ in range(2):  # the second time in place of the first
        writer = LabelPngWriter(tmp_path / "out", TABLE)
        writer.start(both, [0, 0])
        for video in both:
            writer.begin_video(video)
            writer.add(result(video, 0, np.zeros((4, 5), np.uint8)))
            writer.end_video()
        writer.finish()
        assert left_in(tmp_path) == ["out/a/00000000.png", "out/a/b/00000000.png"]


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "", ".", "a//b", "nul\0"])
def test_nothing_is_written_outside_whatever_a_video_is_called(tmp_path, name):
    writer = LabelPngWriter(tmp_path / "folder" / "out", TABLE)
    writer.start([Video(0, name, 1)], [0])
    with pytest.raises(DataError, match="as the name of a result"):
        writer.begin_video(Video(0, name, 1))
    writer.begin_video(videos()[0])
    bad = result(videos()[0], 0, np.zeros((4, 5), np.uint8))
    bad.frame.name = f"../{name}"
    with pytest.raises(DataError, match="as the name of a result"):
        writer.add(bad)
    writer.abort()
    assert left_in(tmp_path) == []


def test_what_is_in_the_way_is_told_at_the_start(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(WriteError, match="out: cannot be written, a part of the path is a file"):
        LabelPngWriter(tmp_path / "out", TABLE).start(videos(), [0, 0, 0])
    (tmp_path / "zipped.zip").mkdir()
    writer = LabelPngWriter(tmp_path / "zipped", TABLE)
    with pytest.raises(WriteError, match=r"zipped\.zip: cannot be written, there is a folder of this name"):
        ZippedPngWriter(writer, writer.folder).start(videos(), [0, 0, 0])
    assert left_in(tmp_path) == ["out"]


def test_a_zip_that_does_not_fit_leaves_the_pictures_alone(tmp_path):
    writer = LabelPngWriter(tmp_path / "out", TABLE)
    zipped = ZippedPngWriter(writer, writer.folder)
    feed(zipped)
    with largest_file(4000), pytest.raises(WriteError, match=r"out\.zip: cannot be written, the file is larger"):
        zipped.finish()
    zipped.abort()
    assert left_in(tmp_path) == ALL


def test_a_full_disk_leaves_nothing(tmp_path):
    writer = LabelPngWriter(tmp_path / "out", TABLE)
    with largest_file(500), pytest.raises(WriteError, match=r"\.png: cannot be written, the file is larger than"):
        feed(writer)
    writer.abort()
    assert left_in(tmp_path) == []


RUN = """
from mmseg.writing.label_png import LabelPngWriter
from mmseg.visualization import palette_table
table = palette_table([[i, 2 * i, 255 - i] for i in range(124)], 124)
writer = LabelPngWriter("out" if {shared} else f"rank {{rank}}/out", table)
feed(writer, rank=rank, owners=OWNERS)
writer.finish()
"""


@pytest.mark.slow
def test_two_processes_give_the_files_of_one(tmp_path):
    in_two_processes(RUN.format(shared=True), tmp_path)
    assert left_in(tmp_path) == ALL
    writer = LabelPngWriter(tmp_path / "alone" / "out", TABLE)
    feed(writer)
    writer.finish()
    for name in ALL:
        assert (tmp_path / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


@pytest.mark.slow
def test_processes_without_a_common_disk_write_their_own_videos(tmp_path):
    in_two_processes(RUN.format(shared=False), tmp_path)
    assert {name.split("/")[1] for name in left_in(tmp_path / "rank 0")} == {"second"}
    assert {name.split("/")[1] for name in left_in(tmp_path / "rank 1")} == {"first", "nested"}
