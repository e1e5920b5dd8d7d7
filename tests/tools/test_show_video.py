"""``tools/show_video.py``: pictures of a video and its label maps."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg.apis.showing import show_video
from mmseg.errors import ConfigError, DataError
from mmseg.visualization import overlay, palette_table
from mmseg.visualization.video_writer import VideoWriter
from mmseg.writing.label_png import write_label_png

TABLE = palette_table(None, 3)


@pytest.fixture
def video(tmp_path):
    """Six frames; labels for the first five, of one size, that change in one place."""
    rng = np.random.default_rng(0)
    frame = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)
    for name in ("frames", "a/labels", "b", "truth", "grey"):
        (tmp_path / name).mkdir(parents=True)
    for number in range(6):
        cv2.imwrite(str(tmp_path / f"frames/{number:03d}.png"), frame)
        labels = np.zeros((48, 64), np.uint8)
        labels[:, 32:] = 1
        if number < 5:
            write_label_png(tmp_path / f"b/{number:03d}.png", labels, TABLE.tobytes())
            labels[8:24, 8:24] = 2 * (number % 2)
            write_label_png(tmp_path / f"a/labels/{number:03d}.png", labels, TABLE.tobytes())
            cv2.imwrite(str(tmp_path / f"grey/{number:03d}.png"), 255 * (labels > 0).astype(np.uint8))
        if number % 3 == 0:
            cv2.imwrite(str(tmp_path / f"truth/{number:03d}.png"), np.where(labels == 1, 2, 1).astype(np.uint8))
    return tmp_path


def test_sheet_and_flicker(video, call):
    arguments = [video / "frames", video / "a/labels", f"still={video / 'b'}", "--out", video / "out"]
    names = ["--classes", "floor", "wall", "box"]
    output = call("show_video.py", *arguments, *names, "--number", 3, "--columns", 2, "--width", 64)
    assert "5 frames with labels" in output and "still: 0.00 % of pixels flicker" in output
    assert "\na: 7." in output  # 15 x 15 to 16 x 16 of 48 x 64 pixels
    sheet = cv2.imread(str(video / "out/frames_sheet.png"))
    assert sheet.shape[1] == 2 * 70 + 6 and cv2.imread(str(video / "out/frames_flicker.png")) is not None
    frame = cv2.imread(str(video / "frames/004.png"))
    last = cv2.imread(str(video / "a/labels/004.png"), cv2.IMREAD_COLOR)  # its colours, from the palette of the file
    assert (last[0, 0] == TABLE[0, ::-1]).all()
    labels = np.zeros((48, 64), np.uint8)
    labels[:, 32:] = 1
    top = 2 * (20 + 48 + 6) + 20
    assert np.array_equal(sheet[top : top + 48, 6:70], overlay(frame, labels, TABLE))


def test_a_truth_for_some_frames(video):
    """Frames that have one are shown; in masks like those of VSPW class numbers are one higher."""
    shown = show_video(video / "frames", {"b": video / "b"}, video / "truth", list("abc"), True, width=64)
    assert shown.sheet.shape[1] == 2 * 70 + 6  # frames 0 and 3
    answer, truth = shown.sheet[20:68, 6:70], shown.sheet[94:142, 6:70]
    assert np.array_equal(answer, truth)


def test_masks_of_one_object(video):
    """Grey ones of 0 and 255, as the DAVIS toolkits take them."""
    shown = show_video(video / "frames", {"grey": video / "grey"}, width=64, columns=9)
    frame = cv2.imread(str(video / "frames/000.png"))
    first = shown.sheet[20:68, 6:70]
    assert np.array_equal(first[:, :32], frame[:, :32]) and (first[:, 34:] != frame[:, 34:]).any(-1).mean() > 0.9


def test_a_video_file(video):
    """Its frames have numbers for names, and a time."""
    with VideoWriter(video / "clip", fps=Fraction(30000, 1001)) as writer:
        for number in range(5):
            writer.write(cv2.imread(str(video / f"frames/{number:03d}.png")))
            (video / f"b/{number:03d}.png").rename(video / f"b/mask_{number}.png")
    for folders in ({"b": video / "b"}, {"a": video / "a/labels", "b": video / "b"}):
        shown = show_video(writer.path, folders, video / "truth", width=64)
        assert (shown.name, shown.num_frames, shown.sheet.shape[1]) == ("clip", 5, 2 * 70 + 6)  # two have a truth


def test_a_single_map_has_no_flicker(video):
    for number in range(1, 5):
        (video / f"b/{number:03d}.png").unlink()
    shown = show_video(video / "frames", {"b": video / "b"})
    assert shown.flicker is None and shown.num_frames == 1 and shown.shares == {}


def test_mistakes(video, call):
    (video / "none").mkdir()
    (video / "others").mkdir()
    (video / "small").mkdir()
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(video / "others/frame_77.png")
    Image.fromarray(np.zeros((24, 64), np.uint8)).save(video / "small/001.png")
    for labels, message in [
        (["gone"], "no such folder"),
        ([video / "none"], "no label maps in it"),
        ([video / "others"], "maps are called frame_77"),
        ([video / "small"], "a map of 64x24"),
        ([video / "b", video / "b"], "two folders with the title b"),
        ([video / "b", "--classes", video], "no classes.json in it"),
    ]:
        assert message in call("show_video.py", video / "frames", *labels, "--out", video / "out", status=2)
    assert not (video / "out").exists()
    with pytest.raises(ConfigError, match="beside a truth"):
        show_video(video / "frames", {"truth": video / "b"}, video / "b")
    with pytest.raises(DataError, match="no label map belongs"):
        show_video(video / "frames", {"b": video / "b", "others": video / "others"})


def test_labels_without_frames_are_told(video, caplog):
    (video / "frames/004.png").unlink()
    assert show_video(video / "frames", {"b": video / "b"}).num_frames == 4
    assert "1 label maps belong to no frame" in caplog.text
