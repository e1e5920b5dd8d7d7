"""Overlay videos and the contact sheet."""

import av
import cv2
import numpy as np
import pytest

from mmseg.errors import DataError
from mmseg.visualization import OverlayVideo, Row, contact_sheet, legend_strip, palette_table


def test_overlay_video_has_every_frame(tmp_path):
    table = palette_table(None, 3)
    labels = np.random.default_rng(0).integers(0, 3, (33, 40), np.uint8)
    with OverlayVideo(tmp_path / "some folder" / "v", table) as video:
        for _ in range(5):
            video.add(np.full((33, 40, 3), 128, np.uint8), labels, labels)
    capture = cv2.VideoCapture(str(video.path))
    shapes = []
    while (got := capture.read())[0]:
        shapes.append(got[1].shape)
    assert shapes == [(32, 120, 3)] * 5


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 5)])
def test_tiny_and_odd_frames_make_videos_and_sheets(tmp_path, size):
    table = palette_table(None, 3)
    frame, labels = np.full((*size, 3), 90, np.uint8), np.ones(size, np.uint8)
    with OverlayVideo(tmp_path / "v", table) as video:
        video.add(frame, labels)
    assert cv2.VideoCapture(str(video.path)).read()[0]
    row = Row("thin", frame, labels).shrunk(16)
    assert min(row.frame.shape) > 0 and contact_sheet([row], table, ["a", "b", "c"], width=16).size


def test_overlay_video_errors(tmp_path):
    table = palette_table(None, 3)
    labels, frame = np.zeros((32, 40), np.uint8), np.zeros((32, 40, 3), np.uint8)
    with pytest.raises(DataError, match="as in the frames before"), OverlayVideo(tmp_path / "v", table) as video:
        video.add(frame, labels)
        video.add(frame[:20], labels[:20])
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_while_the_file_is_opened_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(av, "open", interrupted)
    with pytest.raises(KeyboardInterrupt), OverlayVideo(tmp_path / "a", palette_table(None, 3)) as clip:
        clip.add(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8))
    assert not list(tmp_path.iterdir())


def test_overlay_video_without_frames_and_rate_of_the_source(tmp_path):
    table = palette_table(None, 3)
    with OverlayVideo(tmp_path / "none", table) as video:
        pass
    assert video.path is None and list(tmp_path.iterdir()) == []
    with OverlayVideo(tmp_path / "slow", table, fps=7) as video:
        video.add(np.zeros((32, 40, 3), np.uint8), np.zeros((32, 40), np.uint8))
    assert cv2.VideoCapture(str(video.path)).get(cv2.CAP_PROP_FPS) == 7
    video.close()  # once more, without effect
    video.discard()
    assert video.path.is_file()


def test_an_overlay_video_with_a_legend(tmp_path):
    """Below the three pictures, in every frame and of one size, whatever is in it."""
    table, sizes = palette_table(None, 3), set()
    with OverlayVideo(tmp_path / "v", table, class_names=["a", "b", "c"], with_truth=True) as video:
        for label in (0, 1, 255):
            labels = np.full((60, 80), label, np.uint8)
            video.add(np.full((60, 80, 3), 200, np.uint8), labels, labels if label else None)
    capture = cv2.VideoCapture(str(video.path))
    while (got := capture.read())[0]:
        sizes.add(got[1].shape)
        assert got[1][60:].mean() < 60 < 150 < got[1][:60].mean()
    assert len(sizes) == 1 and sizes.pop()[1] == 240


def test_contact_sheet_shows_rows_and_legend():
    table = palette_table(None, 5)
    labels = np.zeros((45, 80), np.uint8)
    labels[:, 40:] = 3
    frame = np.full((45, 80, 3), 200, np.uint8)
    rows = [Row("one", frame, labels, np.full_like(labels, 3)), Row("two", frame[:30], labels[:30])]
    sheet = contact_sheet(rows, table, ["a", "b", "c", "d", "e"], width=160)
    assert sheet.dtype == np.uint8 and sheet.shape[1] == 3 * 166 + 6
    inside = (sheet[:, 86] == 200).all(axis=-1).nonzero()[0][10]
    shown, predicted, truth = (sheet[inside, left : left + 160] for left in (6, 172, 338))
    assert (shown == 200).all() and not np.array_equal(predicted[10], predicted[150])
    assert np.array_equal(truth[10], predicted[150]) and np.ptp(truth, axis=0).max() == 0
    strip = legend_strip([3, 0], ["a", "b", "c", "d", "e"], table, sheet.shape[1])
    assert np.array_equal(sheet[-len(strip) :], strip)
    assert contact_sheet(rows[1:], table, list("abcde"), width=160).shape[1] == 2 * 166 + 6
