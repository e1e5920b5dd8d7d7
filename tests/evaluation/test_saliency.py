"""S, E, F and MAE against pysodmetrics and the Matlab toolbox, on stored and drawn maps."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from mmseg.errors import ConfigError, DataError
from mmseg.evaluation import VideoSaliencyEvaluator, saliency_scores
from mmseg.evaluation.saliency import SaliencyScores
from tests.evaluation.metric_cases import drawn_videos, feed, stored_videos
from tests.evaluation.test_davis import approx
from tests.golden_cases import Case

FRAMES = Case("metrics", "sod_frames")
SHAPES = Case("metrics", "saliency_shapes")
TIGHT = dict(rel=1e-10, abs=1e-10)


def eight(scores: SaliencyScores) -> dict[str, float]:
    own = {name: getattr(scores, name) for name in ("S", "MAE", "adpF", "adpE")}
    return {
        **own,
        **{f"max{n}": getattr(scores, n).max() for n in "FE"},
        **{f"mean{n}": getattr(scores, n).mean() for n in "FE"},
    }


@pytest.mark.parametrize("name", list(FRAMES["expected"]))
def test_single_frames(name):
    target, pred = (maps[0] for maps in stored_videos(FRAMES)[name])
    expected = dict(FRAMES["expected"][name])
    matlab, defined = expected.pop("S_matlab"), expected.pop("S_defined")
    scores = saliency_scores(pred, target, empty_blocks=True)
    assert {key: eight(scores)[key] for key in eight(scores)} == approx(
        {k: expected[k] for k in eight(scores)}, **TIGHT
    )
    np.testing.assert_allclose(scores.E, FRAMES.arrays[f"E/{name}"], atol=1e-12)
    np.testing.assert_allclose(scores.F, FRAMES.arrays[f"F/{name}"], atol=1e-12)
    found = {"S": saliency_scores(pred, target).S, "matlab": saliency_scores(pred, target, "vsod", True).S}
    assert found == approx({"S": defined, "matlab": matlab}, **TIGHT)


@pytest.mark.parametrize("name", list(SHAPES["videos"]))
def test_drawn_videos(name):
    videos = drawn_videos(SHAPES, reduce=False)
    target, pred = videos[name]
    scores = [saliency_scores(p, g, empty_blocks=True) for p, g in zip(pred, target)]
    for key in ("S", "MAE", "adpF", "adpE"):
        np.testing.assert_allclose([getattr(s, key) for s in scores], SHAPES.arrays[f"{name}/{key}"], atol=1e-10)
    for key in "FE":
        curve = np.mean([getattr(s, key) for s in scores[1:-1]], axis=0)
        np.testing.assert_allclose(curve, SHAPES.arrays[f"{name}/{key}_curve"], atol=1e-10)
    expected = SHAPES["expected"][name]
    for key, all_frames in (("inner", False), ("all", True)):
        evaluator = VideoSaliencyEvaluator(all_frames=all_frames, empty_blocks=True)
        assert feed(evaluator, videos, [name]).scores() == approx(expected[f"pysodmetrics, {key} frames"], **TIGHT)


def test_sets_of_drawn_videos():
    videos = drawn_videos(SHAPES, reduce=False)
    names = [name for name in videos if name != "last_row"]
    found = feed(VideoSaliencyEvaluator(empty_blocks=True), videos, names).scores()
    assert found == approx(SHAPES["sets"]["pysodmetrics, inner frames, mean over videos"], **TIGHT)
    found = feed(VideoSaliencyEvaluator("vsod"), videos, names).scores()
    expected = SHAPES["sets"]["vsod toolbox"]
    assert {key: found[key] for key in expected} == approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in SHAPES["videos"] if name != "last_row"])
def test_drawn_videos_by_the_toolbox(name):
    videos = drawn_videos(SHAPES, reduce=False)
    found = feed(VideoSaliencyEvaluator("vsod"), videos, [name]).scores()
    expected = SHAPES["expected"][name]["vsod toolbox"]
    assert {key: found[key] for key in expected} == approx(expected, rel=1e-9, abs=1e-9)


def test_a_data_set_by_both_toolkits():
    case = Case("metrics", "vsod_dataset")
    videos, expected = stored_videos(case), case["expected"]
    assert feed(VideoSaliencyEvaluator(), videos).scores() == approx(expected["frames_of_pysodmetrics"], **TIGHT)
    pooled = VideoSaliencyEvaluator(all_frames=True, pooled=True)
    assert feed(pooled, videos).scores() == approx(expected["all_frames_pooled"], **TIGHT)
    toolbox = feed(VideoSaliencyEvaluator("vsod"), videos)
    total = expected["toolbox"]["total"]
    found = toolbox.scores()
    assert found == approx(total, rel=1e-9, abs=1e-9)
    rows = toolbox.compute()["per_sequence"]
    for video, row in expected["toolbox"]["sequences"].items():
        assert {key: rows[video][key] for key in row} == approx(row, rel=1e-9, abs=1e-9)


def test_processes_tables_and_settings():
    videos = stored_videos(Case("metrics", "vsod_dataset"))
    names = list(videos)
    whole = feed(VideoSaliencyEvaluator(video_order=names), videos)
    parts = [feed(VideoSaliencyEvaluator(video_order=names), videos, own) for own in (names[1:], names[:1])]
    travelled = [pickle.loads(pickle.dumps(part)) for part in parts]
    travelled[0].merge(travelled[1])
    assert travelled[0].report() == whole.report()
    assert "video saliency (VSOD): 3 videos, 14 frames" in whole.tables()
    with pytest.raises(DataError, match="two processes"):
        travelled[0].merge(parts[1])
    with pytest.raises(ConfigError, match="settings"):
        whole.merge(VideoSaliencyEvaluator("vsod"))


def test_empty_quarters_are_left_out_unless_asked_for():
    videos = drawn_videos(SHAPES, reduce=False)
    ours = feed(VideoSaliencyEvaluator(), videos, ["last_row"])
    toolkits = feed(VideoSaliencyEvaluator(empty_blocks=True), videos, ["last_row"])
    assert 0 < ours.scores()["S"] < 1 and np.isnan(toolkits.scores()["S"])
    assert ours.protocol()["S"] == "empty quarters left out"
    assert toolkits.protocol()["S"] == "nan where the toolkits divide by zero"


def test_masks_of_zeros_and_ones_are_not_taken_for_empty_ones():
    target = np.zeros((4, 10, 12), np.uint8)
    target[:, 2:6, 3:9] = 1
    with pytest.raises(DataError, match="the largest value is 1") as caught:
        feed(VideoSaliencyEvaluator(), {"a": (target, target)})
    assert "--truth-threshold 0" in caught.value.action
    same = feed(VideoSaliencyEvaluator(truth_threshold=0), {"a": (target, target)}).scores()
    assert same["MAE"] == 0 and same["maxF"] == 1


def test_short_videos_and_frames_out_of_order():
    maps = np.full((2, 6, 6), 255, np.uint8)
    evaluator = feed(VideoSaliencyEvaluator(), {"a": (maps, maps)})
    with pytest.raises(DataError, match="frame 1 of video 'a' arrives late or twice"):
        evaluator.update("a", 1, maps[0], maps[0])
    with pytest.raises(DataError, match="2 frames with a truth"):
        evaluator.compute()
