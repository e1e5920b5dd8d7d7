"""What the evaluators of object masks refuse, and what they say then."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mmseg.errors import DataError
from mmseg.evaluation import DAVIS16Evaluator, DAVIS17Evaluator, DAVIS17UnsupervisedEvaluator, YouTubeVOSEvaluator
from mmseg.evaluation.davis import soft_levels
from mmseg.evaluation.object_scores import VOID
from tests.evaluation.metric_cases import feed


def frames(number: int, fill_value: int = 1) -> np.ndarray:
    labels = np.zeros((number, 20, 30), np.uint8)
    labels[:, 5:12, 6:20] = fill_value
    return labels


def test_an_id_too_many_is_no_fault_in_frames_that_do_not_count():
    target, pred = frames(5), frames(5)
    pred[0, 0, 0] = pred[-1, 0, 0] = 9
    assert feed(DAVIS17Evaluator(), {"a": (target, pred)}).compute()["J-Mean"] == 1
    pred[2, 0, 0] = VOID
    with pytest.raises(DataError, match="frame 2 of video 'a': id 255") as caught:
        feed(DAVIS17Evaluator(), {"a": (target, pred)})
    assert "background as 0" in caught.value.action


def test_too_many_proposals():
    with pytest.raises(DataError, match="proposal 21"):
        feed(DAVIS17UnsupervisedEvaluator(), {"a": (frames(4), frames(4, 21))})


def test_masks_of_davis_2016_under_davis_2017():
    evaluator = feed(DAVIS17Evaluator(), {"a": (frames(5, 255), frames(5, 0))})
    with pytest.raises(DataError, match="no object in the truth") as caught:
        evaluator.check_plausible()
    assert "--protocol davis16" in caught.value.action
    with pytest.raises(DataError, match="id 255") as caught:
        feed(DAVIS17Evaluator(), {"a": (frames(5, 255), frames(5, 255))})
    assert "take davis16" in caught.value.action


def test_soft_maps_are_refused_as_masks():
    soft = np.tile(np.arange(240, dtype=np.uint8), (4, 20, 1))
    with pytest.raises(DataError, match="240 different values"):
        feed(DAVIS16Evaluator(), {"a": (np.zeros_like(soft), soft)})


@pytest.mark.parametrize("kind", [DAVIS16Evaluator, DAVIS17Evaluator])
def test_videos_too_short_for_inner_frames(kind):
    with pytest.raises(DataError, match="2 frames with a truth"):
        feed(kind(), {"a": (frames(2), frames(2))}).compute()


def test_frames_out_of_order_other_sizes_and_missing_videos():
    evaluator = DAVIS16Evaluator(video_order=["a", "b"])
    feed(evaluator, {"a": (frames(4), frames(4))})
    with pytest.raises(DataError, match="frame 3 of video 'a' arrives after frame 3"):
        evaluator.update("a", 3, frames(1)[0], frames(1)[0])
    with pytest.raises(DataError, match="prediction is 10x30"):
        evaluator.update("a", 4, frames(1)[0, :10], frames(1)[0])
    with pytest.raises(DataError, match="'c' is not in the split"):
        evaluator.update("c", 0, frames(1)[0], frames(1)[0])
    evaluator.end_video("a")
    with pytest.raises(DataError, match="after the end of its video"):
        evaluator.update("a", 4, frames(1)[0], frames(1)[0])
    with pytest.raises(DataError, match="1 of 2 videos have no predictions: b"):
        evaluator.compute()


def test_a_video_in_two_evaluators_is_seen_before_either_says_that_it_ended():
    ours, theirs = (feed(DAVIS16Evaluator(), {"a": (frames(4), frames(4))}) for _ in range(2))
    with pytest.raises(DataError, match="'a' was evaluated by two processes"):
        ours.merge(theirs)


@pytest.mark.parametrize("number", [0, 256, -1])
def test_ids_of_meta_json_that_no_mask_can_have(number):
    with pytest.raises(DataError, match=f"object {number} of video 'a'"):
        YouTubeVOSEvaluator({"a": {number: ("dog", None)}}, ["dog"])


def test_objects_that_masks_and_meta_json_do_not_share_are_told(caplog):
    target = frames(5)
    target[:, 15:, :5] = 3
    objects = {"a": {1: ("dog", [0, 1, 2]), 2: ("cat", [0, 1, 2])}}
    feed(YouTubeVOSEvaluator(objects, ["dog"]), {"a": (target, target)}).compute()
    assert "'a': objects [3] are not in meta.json and do not count" in caplog.text
    assert "'a': objects [2] of meta.json are in none of the true masks" in caplog.text
    caplog.clear()
    given_before = {"a": {1: ("dog", [-1, 0, 1])}}
    pred = target.copy()
    pred[0] = 0  # the first mask counts, as an earlier frame gives the object
    found = feed(YouTubeVOSEvaluator(given_before, ["dog"]), {"a": (target, pred)}).compute()
    assert found["J_seen"] == pytest.approx(0.5)
    caplog.clear()
    objects["a"] |= {2: ("cat", None), 3: ("cat", None)}
    target[:, :2, :2] = 2
    feed(YouTubeVOSEvaluator(objects, ["dog"]), {"a": (target, target)}).compute()
    assert not caplog.text


@pytest.mark.parametrize("kind", [DAVIS17Evaluator, DAVIS17UnsupervisedEvaluator])
def test_objects_that_come_after_the_first_mask_are_told(kind, caplog):
    target = frames(6)
    target[:, 18:, 3:] = VOID  # void is no object
    feed(kind(), {"a": (target, frames(6))}).compute()
    assert not caplog.text
    target[3:, 15:18, :5] = 4
    feed(kind(), {"a": (target, frames(6))}).compute()
    assert "'a': ids up to 4 in the truth" in caplog.text and "(1 to 1)" in caplog.text
    assert ("--protocol vos-benchmark" in caplog.text) == (kind is DAVIS17Evaluator)  # which matches no proposals
    target[0] = 0
    feed(kind(), {"a": (target, frames(6, 0))}).compute()
    assert "(none)" in caplog.text


def test_an_empty_first_mask_is_not_taken_for_void():
    target = frames(5)
    target[0] = 0
    with pytest.raises(DataError, match="id 1") as caught:
        feed(DAVIS17Evaluator(), {"a": (target, target)})
    assert "empty" in caught.value.action and "vos-benchmark" in caught.value.action


@pytest.mark.parametrize("number", [2, 3])
def test_a_late_object_that_is_predicted_is_not_taken_for_a_wrong_id(number):
    target, pred = frames(5), frames(5)
    target[2:, 15:, :5], pred[2:, 15:, :5] = 2, number
    with pytest.raises(DataError, match=f"id {number}") as caught:
        feed(DAVIS17Evaluator(), {"a": (target, pred)})
    assert ("vos-benchmark" in caught.value.action) == (number == 2)


def soft_masks(number: int = 4) -> np.ndarray:
    mask = np.zeros((60, 90), np.uint8)
    mask[20:40, 30:60] = 255
    stored = cv2.imdecode(cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_GRAYSCALE)
    return np.repeat(stored[None], number, axis=0)


def test_masks_with_soft_edges_are_told_once(caplog):
    soft = soft_masks()
    hard = np.where(soft > 127, np.uint8(255), np.uint8(0))
    feed(DAVIS16Evaluator(), {"a": (hard, soft), "b": (hard, soft)}).compute()
    assert caplog.text.count("prediction of frame 1 of video 'a'") == 1 and "video 'b'" not in caplog.text
    caplog.clear()
    feed(DAVIS16Evaluator(), {"a": (soft, hard)}).compute()
    assert "truth of frame 0 of video 'a'" in caplog.text
    caplog.clear()
    feed(DAVIS16Evaluator(), {"a": (hard, hard)}).compute()
    assert not caplog.text


def test_ids_are_not_taken_for_soft_edges():
    ids = np.zeros((40, 60), np.uint8)
    assert soft_levels(ids) == 0
    ids.reshape(-1)[1:41] = np.arange(1, 41)  # many small objects, one after another
    assert soft_levels(ids) == 0
    ids[10:20, 10:20], ids[10:20, 30:40], ids[30:40, 10:20], ids[30:40, 30:40] = 50, 100, 150, 200  # far apart, large
    assert soft_levels(np.where(ids < 50, np.uint8(0), ids)) == 0
    assert soft_levels(soft_masks()[0]) > 3
