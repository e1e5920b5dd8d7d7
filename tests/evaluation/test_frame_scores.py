"""The scores of single frames: they are those that the evaluators count, and the worst are found in a stream."""

from __future__ import annotations

import numpy as np
import pytest

from mmseg.evaluation import (
    DAVIS16Evaluator,
    DAVIS17Evaluator,
    DAVIS17UnsupervisedEvaluator,
    VideoSaliencyEvaluator,
    VOSBenchmarkEvaluator,
    VSPWEvaluator,
)
from mmseg.evaluation.frame_scores import LARGEST_STRIDE, FrameScores, WorstFrames, worst_frames
from mmseg.evaluation.semantic import frame_miou
from tests.evaluation.metric_cases import feed, stored_videos
from tests.golden_cases import Case

OBJECTS = {
    "davis16": DAVIS16Evaluator,
    "davis17_semi": DAVIS17Evaluator,
    "davis17_unsup": DAVIS17UnsupervisedEvaluator,
    "vos_benchmark": VOSBenchmarkEvaluator,
}


def test_classes_frame_by_frame():
    videos = stored_videos(Case("metrics", "vc_script"))
    evaluator = VSPWEvaluator(124)
    for name, (target, pred) in videos.items():
        for t in range(len(target)):
            evaluator.update(name, t, pred[t], target[t])
            assert evaluator.frame_score(name) == pytest.approx(frame_miou(pred[t], target[t]), nan_ok=True)
    found = evaluator.compute()
    for name, (target, _) in videos.items():
        scores = evaluator.frame_scores(name)
        assert list(scores.numbers) == list(range(len(target))) and list(scores.curves) == ["mIoU", "VC8", "VC16"]
        assert scores.ranking[-1] == pytest.approx(evaluator.frame_score(name), nan_ok=True)
        if name not in found["skipped_videos"]:
            for length in (8, 16):
                windows = np.array(scores.curves[f"VC{length}"])
                assert np.isnan(windows[: length - 1]).all() and np.isnan(windows[-1])  # the last one does not count
                expected = found["per_video"][name][f"VC{length}"]
                assert np.nanmean(windows) == pytest.approx(expected, nan_ok=True)


def test_classes_of_frames_in_any_order_and_from_several_processes():
    videos = stored_videos(Case("metrics", "vc_script"))
    name, (target, pred) = next(iter(videos.items()))
    parts = [VSPWEvaluator(124).segmentation, VSPWEvaluator(124).segmentation]
    for t in reversed(range(len(target))):
        parts[t % 2].update(name, t, pred[t], target[t])
    parts[0].merge(parts[1])
    expected = feed(VSPWEvaluator(124), videos, [name]).segmentation.frame_scores(name)
    assert parts[0].frame_scores(name).numbers == expected.numbers
    np.testing.assert_array_equal(parts[0].frame_scores(name).ranking, expected.ranking)


def test_a_gap_leaves_the_curves_of_consistency_out():
    evaluator, labels = VSPWEvaluator(2, gaps=True), np.ones((4, 6), np.uint8)
    for number in (0, 5, 9):
        evaluator.update("a", number, labels, labels)
    scores = evaluator.frame_scores("a")
    assert scores.numbers == [0, 5, 9] and scores.curves == {"mIoU": [1.0, 1.0, 1.0]}


@pytest.mark.parametrize("case", OBJECTS)
def test_objects_frame_by_frame(case):
    videos = stored_videos(Case("metrics", case))
    evaluator, fed = OBJECTS[case](), {}
    for name, (target, pred) in videos.items():
        for t in range(len(target)):
            evaluator.update(name, t, pred[t], target[t])
            fed[name, t] = evaluator.frame_score(name)
    evaluator.end_video()
    for name, row in evaluator.compute()["per_sequence"].items():
        scores, own = evaluator.frame_scores(name), evaluator.videos[name]
        both = (own.region + own.boundary) / 2
        assert list(scores.numbers) == own.frames and list(scores.curves)[:3] == ["J&F", "J", "F"]
        means = [column[~np.isnan(column)].mean() if (column == column).any() else np.nan for column in both.T]
        np.testing.assert_allclose(scores.ranking, means, rtol=0, atol=1e-12)
        if not np.isnan(both).any():
            assert np.mean(scores.ranking) == pytest.approx(row["J&F-Mean"])
        for number in own.ids if len(own.ids) > 1 else ():
            np.testing.assert_array_equal(scores.curves[f"object {number}"], both[own.ids.index(number)])
        if case in ("davis16", "davis17_semi"):  # known at once, but for frames that do not count
            assert [fed[name, t] for t in scores.numbers] == pytest.approx(list(scores.ranking), nan_ok=True)
            assert np.isnan(fed[name, 0])
        else:  # known when the video is complete
            assert all(np.isnan(fed[name, t]) for t in scores.numbers)


def test_saliency_frame_by_frame():
    videos = stored_videos(Case("metrics", "vsod_dataset"))
    evaluator = VideoSaliencyEvaluator()
    seen = {}
    for name, (target, pred) in videos.items():
        for t in range(len(target)):
            evaluator.update(name, t, pred[t], target[t])
            seen[name, t] = evaluator.frame_score(name)
    for name, row in evaluator.compute()["per_sequence"].items():
        scores = evaluator.frame_scores(name)
        assert list(scores.numbers) == list(range(1, len(videos[name][0]) - 1))
        assert list(scores.ranking) == [seen[name, t] for t in scores.numbers]
        assert {key: float(np.mean(scores.curves[key])) for key in scores.curves} == pytest.approx(
            {key: row[key] for key in scores.curves}
        )


def drawn_scores(seed: int) -> list[tuple[float, str, int]]:
    rng = np.random.default_rng(seed)
    frames = [(name, t) for name in "abcd" for t in range(30)]
    return [(float(rng.integers(0, 12)) if rng.random() > 0.1 else float("nan"), *frame) for frame in frames]


@pytest.mark.parametrize(("seed", "limit", "stride"), [(0, 5, 8), (1, 5, 8), (2, 15, 8), (3, 40, 3), (4, 200, 1)])
def test_the_worst_frames_do_not_depend_on_order_or_processes(seed, limit, stride):
    drawn = drawn_scores(seed)
    lowest: dict[tuple[str, int], tuple] = {}  # by definition: the lowest of each stride, then the lowest of these
    for frame in drawn:
        if not np.isnan(frame[0]):
            place = frame[1], frame[2] // stride
            lowest[place] = min(lowest.get(place, frame), frame)
    expected = sorted(lowest.values())[:limit]
    order = np.random.default_rng(seed).permutation(len(drawn))
    one, *parts = (WorstFrames(limit, len(drawn)) for _ in range(3))
    scores = {
        name: FrameScores([t for _, v, t in drawn if v == name], {"J": [s for s, v, _ in drawn if v == name]})
        for name in "abcd"
    }
    for index in order:
        one.offer(*drawn[index])
        parts["ab".find(drawn[index][1]) < 0].offer(*drawn[index])
    parts[0].merge(parts[1])
    for worst in (one, parts[0], worst_frames(scores, limit)):
        assert [frame[:3] for frame in worst.sorted()] == expected


def test_pictures_are_made_of_frames_that_are_kept():
    made = []
    worst = WorstFrames(2, 100)
    for number, score in enumerate([0.5, 0.9, 0.4, float("nan"), 0.45]):
        worst.offer(
            score, "a", number * LARGEST_STRIDE, lambda number=number: made.append(number) or f"picture {number}"
        )
    assert made == [0, 1, 2, 4] and [frame.shown for frame in worst.sorted()] == ["picture 2", "picture 4"]
    assert not worst_frames({}, 3).sorted()
    nothing = WorstFrames(0, 9)
    nothing.offer(0.1, "a", 0, lambda: pytest.fail("made"))
    assert nothing.sorted() == []
