"""Pictures of numbers."""

import cv2
import numpy as np

from mmseg.visualization.plots import plot_confusion, plot_curves


def read(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


def test_confusion_matrix():
    """Dark where the share of a row is high; classes that never occur have no cells."""
    confusion = np.zeros((5, 5), np.int64)
    confusion[1, 1], confusion[3, 1], confusion[3, 4] = 7, 1000, 3000
    picture = read(plot_confusion(confusion, ["never", "one", "nor this", "two", "three, with a very long name"]))
    dark = (picture.astype(int) - (107, 48, 8)) ** 2  # BGR of 100 %
    matrix = dark.sum(-1)[:, : picture.shape[1] * 3 // 4]  # without the bar of colours
    assert (matrix < 300).sum() > 15**2  # the first class, found in all its pixels
    three = read(plot_confusion(confusion[[1, 3, 4]][:, [1, 3, 4]], ["one", "two", "three, with a very long name"]))
    assert np.array_equal(picture, three)
    renamed = read(plot_confusion(confusion, ["never", "uno", "nor this", "two", "three, with a very long name"]))
    rows = (picture != renamed).nonzero()[0]
    assert np.ptp(rows) > len(picture) / 3  # the names stand beside the rows and below the columns


def test_many_classes_and_none():
    assert min(read(plot_confusion(np.eye(40, dtype=np.int64), [f"class {c}" for c in range(40)])).shape[:2]) > 800
    assert read(plot_confusion(np.zeros((3, 3), np.int64), ["a", "b", "c"])).size


def test_curves_of_one_run_have_one_colour():
    curves = {"loss": {"a": ([1, 2], [3.0, 1.0]), "b": ([1, 2], [2.0, 1.5])}, "mIoU": {"b": ([2], [0.5])}}
    picture = read(plot_curves(curves)).astype(int)
    left, right = np.array_split(picture[: picture.shape[0] * 3 // 4], 2, axis=1)
    blue, orange = (178, 114, 0), (0, 94, 213)  # BGR of the first two runs
    found = [[bool((abs(half - colour).sum(-1) < 10).any()) for colour in (blue, orange)] for half in (left, right)]
    assert found == [[True, True], [False, True]]
