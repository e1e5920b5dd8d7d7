import math
import pickle

import numpy as np
import pytest

from mmseg.errors import ConfigError, DataError
from mmseg.evaluation import SegmentationMetric, class_scores, mmseg_scores, vspw_scores
from tests.evaluation.metric_cases import feed, stored_videos
from tests.golden_cases import Case

MEANS = 1e-12
GOLDEN = ["semantic_small", "semantic_raw_labels", "semantic_nothing_labelled"]


def same(value, expected):
    return math.isnan(value) if expected is None else value == pytest.approx(expected, abs=MEANS, rel=0)


@pytest.fixture(params=GOLDEN)
def golden(request):
    case = Case("metrics", request.param)
    metric = feed(SegmentationMetric(case.config["num_classes"]), stored_videos(case))
    return case, metric


def test_counts_and_class_scores_are_the_golden_ones_to_the_bit(golden):
    case, metric = golden
    assert np.array_equal(metric.confusion(), case.arrays["confusion"])
    scores = class_scores(metric.confusion())
    for ours, theirs in [
        ("IoU", "mmseg_IoU"),
        ("Acc", "mmseg_Acc"),
        ("Dice", "mmseg_Dice"),
        ("Precision", "precision"),
        ("Acc", "recall"),
    ]:
        assert np.array_equal(scores[ours], case.arrays[theirs], equal_nan=True), theirs


def test_both_definitions_give_the_golden_means(golden):
    case, metric = golden
    scores, expected = metric.compute(), case["expected"]
    for name, key in {"aAcc": "Acc", "mAcc": "Acc_class", "mIoU": "mIoU", "FWIoU": "FWIoU"}.items():
        assert same(scores[key], expected["vspw"][name]), name
    for name, value in expected["mmseg"].items():
        assert same(scores[f"mmseg/{name}"], value), name
    for video, value in expected["vspw_per_video_mIoU"].items():
        assert same(scores["video_mIoU"][video], value), video
    assert scores["videos"] == len(case["inputs"]["videos"])


def test_a_class_that_is_only_predicted_counts_for_mmseg_and_not_for_vspw():
    confusion = np.array([[6, 0, 2], [0, 8, 0], [0, 0, 0]])
    assert vspw_scores(confusion)["mIoU"] == pytest.approx((6 / 8 + 1) / 2)
    assert mmseg_scores(confusion)["mIoU"] == pytest.approx((6 / 8 + 1 + 0) / 3)


def test_merging_equals_counting_in_one_place_and_survives_pickling():
    case = Case("metrics", "semantic_small")
    videos = stored_videos(case)
    whole = feed(SegmentationMetric(6), videos).compute()
    parts = [feed(SegmentationMetric(6), videos, [name]) for name in reversed(videos)]
    total = SegmentationMetric(6)
    for part in parts:
        total.merge(pickle.loads(pickle.dumps(part)))
    assert repr(total.compute()["IoU"]) == repr(whole["IoU"])
    assert total.compute()["mIoU"] == whole["mIoU"] and total.compute()["frames"] == whole["frames"]


def test_frames_of_a_video_may_be_counted_in_any_order_and_in_two_places():
    case = Case("metrics", "semantic_small")
    target, pred = stored_videos(case)["a"]
    first, second = SegmentationMetric(6), SegmentationMetric(6)
    for frame in (4, 0, 2):
        first.update("a", frame, pred[frame], target[frame])
        first.update("other", frame, pred[frame], target[frame])  # in turn with another video
    for frame in (3, 1):
        second.update("a", frame, pred[frame], target[frame])
    first.merge(second)
    assert np.array_equal(first.confusion(["a"]), feed(SegmentationMetric(6), {"a": (target, pred)}).confusion())
    with pytest.raises(DataError, match="by two processes"):
        first.merge(second)


def test_ignored_labels_may_be_any_value():
    target, pred = np.array([[0, 1, 1, 2]], np.uint8), np.array([[1, 1, 0, 2]], np.uint8)
    metric = SegmentationMetric(3, ignore_index=0)
    metric.update("v", 0, pred, target)
    assert metric.confusion().tolist() == [[0, 0, 0], [1, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("pred", "target", "message"),
    [
        (np.full((4, 6), 5, np.uint8), np.zeros((4, 6), np.uint8), "prediction of frame 3 of video 'v': value 5"),
        (np.full((4, 6), 255, np.uint8), np.full((4, 6), 255, np.uint8), "value 255"),
        (np.zeros((4, 6), np.uint8), np.full((4, 6), 5, np.uint8), "label of frame 3 of video 'v': value 5"),
        (np.zeros((4, 5), np.uint8), np.zeros((4, 6), np.uint8), "prediction is 4x5 .* label is 4x6"),
        (np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8), r"shape \(4, 6, 3\)"),
        (np.zeros((4, 6), np.float32), np.zeros((4, 6), np.uint8), "dtype float32"),
        (np.zeros((4, 6), np.uint8), np.full((4, 6), -1), r"values -1\.\.-1"),
        (np.full((4, 6), 256), np.zeros((4, 6), np.uint8), r"values 256\.\.256"),
        (np.zeros((0, 6), np.uint8), np.zeros((0, 6), np.uint8), r"shape \(0, 6\)"),
    ],
)
def test_maps_that_cannot_be_right_are_refused_and_nothing_is_counted(pred, target, message):
    metric = SegmentationMetric(5)
    with pytest.raises(DataError, match=message):
        metric.update("v", 3, pred, target)
    assert metric.confusion().sum() == 0 and metric.videos == []


def test_integer_maps_of_other_types_are_taken():
    metric = SegmentationMetric(5)
    metric.update("v", np.int64(0), np.full((2, 2), 4, np.int64), np.full((2, 2), 255, np.int32))
    metric.update("v", 1, np.full((2, 2), 4, np.int64), np.full((2, 2), 4, np.int32))
    assert metric.confusion()[4, 4] == 4 == metric.confusion().sum()


@pytest.mark.parametrize("frame", [0, -1])
def test_a_frame_twice_or_with_a_negative_number_is_refused(frame):
    metric, labels = SegmentationMetric(5), np.zeros((4, 6), np.uint8)
    metric.update("v", 0, labels, labels)
    with pytest.raises(DataError, match=f"frame {frame} of video 'v'"):
        metric.update("v", frame, labels, labels)


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="num_classes = 257"):
        SegmentationMetric(257)
    with pytest.raises(ConfigError, match="settings"):
        SegmentationMetric(5).merge(SegmentationMetric(6))
