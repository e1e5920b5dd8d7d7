"""J, F and the protocols of DAVIS against the numbers of the public toolkits, on stored and drawn masks."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from mmseg.errors import ConfigError, DataError
from mmseg.evaluation import (
    DAVIS16Evaluator,
    DAVIS17Evaluator,
    DAVIS17UnsupervisedEvaluator,
    PooledFramesEvaluator,
    VOSBenchmarkEvaluator,
    YouTubeVOSEvaluator,
    boundary_measure,
    frame_statistics,
    region_similarity,
)
from mmseg.evaluation.boundary import boundary_counts
from mmseg.evaluation.object_evaluator import ObjectEvaluator
from mmseg.evaluation.object_scores import label_scores
from tests.evaluation.metric_cases import Videos, drawn_videos, feed, stored_videos
from tests.golden_cases import Case, fill

EXACT = dict(rel=1e-12, abs=1e-12)
CLOSE = dict(rel=1e-9, abs=1e-9)
SHAPES = Case("metrics", "davis_shapes")


@pytest.fixture(scope="module")
def shapes() -> Videos:
    return drawn_videos(SHAPES, reduce=False)


def approx(expected, **tolerance):
    """`expected`, with None for nan, and dicts and lists compared entry by entry."""
    if isinstance(expected, dict):
        return {key: approx(value, **tolerance) for key, value in expected.items()}
    if isinstance(expected, list):
        return [approx(value, **tolerance) for value in expected]
    return pytest.approx(float("nan") if expected is None else expected, nan_ok=True, **(tolerance or EXACT))


def lists(evaluator: ObjectEvaluator, video: str) -> dict[str, dict[str, list[float]]]:
    """Statistics of a video as the toolkit lists them: measure -> statistic -> objects."""
    rows = evaluator.per_object()
    own = [rows[evaluator.object_name(video, number)] for number in evaluator.videos[video].ids]
    return {m: {s: [row[m][s] for row in own] for s in ("mean", "recall", "decay")} for m in "JF"}


def single(evaluator: ObjectEvaluator, video: str) -> dict[str, dict[str, float]]:
    return {m: {s: values[0] for s, values in row.items()} for m, row in lists(evaluator, video).items()}


def totals(evaluator: ObjectEvaluator) -> dict[str, dict[str, float]]:
    found = evaluator.compute()
    return {m: {s: found[f"{m}-{s.title()}"] for s in ("mean", "recall", "decay")} for m in "JF"}


# -- one frame


@pytest.mark.parametrize("name", list(SHAPES["videos"]))
def test_j_f_and_counts_of_drawn_objects(shapes, name):
    target, pred = shapes[name]
    ids = SHAPES["expected"][name]["ids"]
    for t in range(len(target)):
        j, f = label_scores(pred[t], target[t], ids)
        np.testing.assert_array_equal(j, SHAPES.arrays[f"{name}/J"][:, t])
        np.testing.assert_array_equal(f, SHAPES.arrays[f"{name}/F"][:, t])
        for k, number in enumerate(ids):
            n_p, m_p, n_g, m_g = SHAPES.arrays[f"{name}/counts"][k, t]
            found = boundary_counts(pred[t] == number, target[t] == number)
            assert found == ((n_p, m_p, n_g, m_g) if n_p and n_g else (n_p, 0, n_g, 0))


def test_j_and_f_of_mask_pairs():
    case = Case("metrics", "jf_pairs")
    for name, (target, pred) in stored_videos(case).items():
        assert region_similarity(pred[0], target[0]) == case["expected"]["J"][name], name
        assert boundary_measure(pred[0], target[0]) == case["expected"]["F"][name], name


@pytest.mark.parametrize("name", ["two", "edge"])
def test_j_and_f_at_real_sizes(name):
    case = Case("metrics", "jf_480p")
    target, pred = stored_videos(case)[name]
    for t in range(len(target)):
        j, f = label_scores(pred[t], target[t], [1, 2])
        np.testing.assert_array_equal(j, case.arrays[f"J/{name}"][:, t])
        np.testing.assert_array_equal(f, case.arrays[f"F/{name}"][:, t])


def test_j_and_f_of_gsfms_case():
    case = Case("gsfm", "davis_metrics")
    target = fill.blocks(*case["inputs"]["gt"][1:]).numpy().astype(np.uint8)
    pred = np.roll(target, (2, 3), axis=(1, 2))
    pred[0][pred[0] == 1] = 0
    target[-1][target[-1] == 2] = pred[-1][pred[-1] == 2] = 0
    scores = np.array([label_scores(p, g, [1, 2]) for p, g in zip(pred, target)])
    np.testing.assert_allclose(scores[:, 0].T, case.arrays["J"], atol=1e-9)
    np.testing.assert_allclose(scores[:, 1].T, case.arrays["F"], atol=1e-9)


# -- statistics over frames


def test_statistics_of_plain_lists():
    case = Case("metrics", "statistics")
    for name, expected in case["expected"].items():
        values = case.arrays[f"values/{name}"]
        assert frame_statistics(values, nan_is_miss=True) == approx(expected["davis17"], **CLOSE), name
        if expected["davis16"] is not None:
            inner = frame_statistics(values[1:-1], nan_is_miss=True)
            assert {**inner, "mean": frame_statistics(values)["mean"]} == approx(expected["davis16"], **CLOSE), name


def test_frames_that_do_not_count_are_no_misses():
    assert frame_statistics([np.nan, 0.9, 0.2, np.nan])["recall"] == 0.5


def test_decay_of_long_videos_does_not_wrap(shapes):
    expected = SHAPES["expected"]["many_frames"]["decay with indices that do not wrap"]
    for evaluator, frames in (
        (DAVIS17Evaluator(), "inner frames"),
        (DAVIS17UnsupervisedEvaluator(), "all frames"),
    ):
        feed(evaluator, shapes, ["many_frames"])
        found = totals(evaluator)
        assert {m: found[m]["decay"] for m in "JF"} == approx(expected[frames])


# -- protocols


@pytest.mark.parametrize("name", [name for name in SHAPES["videos"] if name != "many_frames"])
def test_every_protocol_on_each_drawn_video(shapes, name):
    expected = SHAPES["expected"][name]
    semi = expected["davis2017 semi-supervised"]
    if isinstance(semi, str):
        with pytest.raises(DataError, match=rf"frame \d+ of video '{name}': id \d"):
            feed(DAVIS17Evaluator(), shapes, [name]).end_video()
    else:
        assert lists(feed(DAVIS17Evaluator(), shapes, [name]), name) == approx(semi)
    unsupervised = feed(DAVIS17UnsupervisedEvaluator(), shapes, [name])
    found = lists(unsupervised, name)
    order = np.argsort([unsupervised.videos[name].matches[k] or 99 for k in unsupervised.videos[name].ids])
    by_proposal = {m: {s: [values[k] for k in order] for s, values in row.items()} for m, row in found.items()}
    assert by_proposal == approx(expected["davis2017 unsupervised"])
    for key, all_frames in (("inner", False), ("all", True)):
        joined = feed(DAVIS16Evaluator(all_frames=all_frames), shapes, [name])
        wanted = expected[f"davis2016 foreground {key} frames"]
        means = {m: single(joined, name)[m]["mean"] for m in "JF"}
        assert means == approx({m: wanted[m]["mean"] for m in "JF"})
        if not all_frames:
            assert single(joined, name) == approx(wanted)
        benchmark = feed(VOSBenchmarkEvaluator(all_frames=all_frames), shapes, [name])
        rows = benchmark.per_object()
        assert {
            str(k): {m: 100 * rows[f"{name}_{k}"][m]["mean"] for m in "JF"} for k in benchmark.videos[name].ids
        } == approx(expected[f"vos-benchmark {key} frames"])


def test_protocols_over_the_set_of_drawn_videos(shapes):
    sets = SHAPES["sets"]
    for key, evaluator in (
        ("davis2017 semi-supervised", DAVIS17Evaluator()),
        ("davis2017 unsupervised", DAVIS17UnsupervisedEvaluator()),
    ):
        assert feed(evaluator, shapes, sets[key]["videos"]).scores() == approx(sets[key]["scores"])
    for key in ("inner", "all"):
        group = sets[f"vos-benchmark {key} frames"]
        found = feed(VOSBenchmarkEvaluator(all_frames=key == "all"), shapes, group["videos"]).scores()
        assert {name: 100 * found[f"{name}-Mean"] for name in ("J&F", "J", "F")} == approx(group["scores"])
    group = sets["davis2016 foreground inner frames"]
    assert totals(feed(DAVIS16Evaluator(), shapes, group["videos"])) == approx(group["scores"])
    group = sets["pooled frames (training-time metric of HFAN)"]
    assert feed(PooledFramesEvaluator(), shapes, group["videos"]).scores() == approx(group["scores"])


def test_davis_2016_toolkit():
    case = Case("metrics", "davis16")
    videos, expected = stored_videos(case), case["expected"]
    evaluator = feed(DAVIS16Evaluator(), videos)
    found = totals(evaluator)
    for name in videos:
        assert single(evaluator, name) == approx(expected["sequences"][name], **CLOSE)
        np.testing.assert_allclose(evaluator.videos[name].region[0], case.arrays[f"J/{name}"][1:-1], atol=1e-12)
        np.testing.assert_allclose(evaluator.videos[name].boundary[0], case.arrays[f"F/{name}"][1:-1], atol=1e-12)
    assert {**found, "J&F": evaluator.compute()["J&F-Mean"]} == approx(expected["davis16"], **CLOSE)
    pooled = feed(PooledFramesEvaluator(), videos)
    assert pooled.scores() == approx(expected["hfan_training_time"], **CLOSE)


@pytest.mark.parametrize(
    ("name", "kind"), [("davis17_semi", DAVIS17Evaluator), ("davis17_unsup", DAVIS17UnsupervisedEvaluator)]
)
def test_davis_2017_toolkit(name, kind):
    case = Case("metrics", name)
    videos = stored_videos(case)
    evaluator = feed(kind(), videos)
    assert evaluator.scores() == approx(case["expected"]["global"], **CLOSE)
    rows = evaluator.per_object()
    for video in videos:
        scores = evaluator.videos[video]
        # the toolkit numbers the rows of the unsupervised task by proposal, ours are called after the object
        order = sorted(scores.ids, key=lambda k: scores.matches.get(k, k) or 99)
        for place, number in enumerate(order, start=1):
            expected = case["expected"]["per_object"][f"{video}_{place}"]
            assert rows[f"{video}_{number}"] == approx(expected, **CLOSE)
            np.testing.assert_array_equal(scores.region[number - 1], case.arrays[f"J/{video}"][place - 1])
            np.testing.assert_array_equal(scores.boundary[number - 1], case.arrays[f"F/{video}"][place - 1])


@pytest.mark.parametrize(("key", "all_frames"), [("skip_first_and_last", False), ("all_frames", True)])
def test_vos_benchmark(key, all_frames):
    case = Case("metrics", "vos_benchmark")
    expected = case["expected"][key]
    evaluator = feed(VOSBenchmarkEvaluator(all_frames=all_frames), stored_videos(case))
    found, rows = evaluator.scores(), evaluator.per_object()
    assert {name: 100 * found[f"{name}-Mean"] for name in ("J&F", "J", "F")} == approx(expected["mean"], **CLOSE)
    for video, objects in expected["per_object"].items():
        assert [str(k) for k in evaluator.videos[video].ids] == list(objects)
        for number, scores in objects.items():
            assert {m: 100 * rows[f"{video}_{number}"][m]["mean"] for m in "JF"} == approx(scores, **CLOSE)


def test_youtube_vos_estimate():
    case = Case("metrics", "youtube_vos")
    evaluator = feed(YouTubeVOSEvaluator(case.config["meta"], case.config["seen"]), stored_videos(case))
    expected = case["expected"]
    assert evaluator.scores() == approx({name: expected[name] for name in evaluator.score_names}, **CLOSE)
    rows = evaluator.compute()["per_object"]
    for row in expected["per_object"]:
        found = rows[f"{row['video']}_{row['object']}"]
        assert {m: found[m]["mean"] for m in "JF"} == approx({m: row[m] for m in "JF"}, **CLOSE)
        assert (found["category"], found["seen"]) == (row["category"], row["seen"])


def test_youtube_vos_takes_the_first_frame_that_shows_an_object_where_meta_has_no_frames():
    case = Case("metrics", "youtube_vos")
    videos = stored_videos(case)
    evaluator = feed(YouTubeVOSEvaluator({"alpha": {2: ("okapi", None)}}, ["dog"]), videos, ["alpha"])
    shown = [t for t, target in enumerate(videos["alpha"][0]) if (target == 2).any()]
    counted = np.flatnonzero(~np.isnan(evaluator._videos["alpha"].region[0])) if evaluator.end_video() is None else []
    assert counted.tolist() == list(range(shown[0] + 1, len(videos["alpha"][0])))


def test_hfans_metrics():
    case = Case("hfan", "metrics")
    videos: Videos = {}
    for spec in case["inputs"]["videos"]:
        size = (spec["frames"], spec["height"], spec["width"])
        blocks = [
            fill.blocks(f"metrics/{spec['name']}/{key}", size, high, cell).numpy()
            for key, high, cell in (("gt", 3, spec["cell"]), ("noise", 9, max(2, spec["cell"] // 3)))
        ]
        target = blocks[0] == 1
        pred = np.roll(target, (2, 3), axis=(1, 2)) ^ (blocks[1] == 0)
        for what, t in spec["drop"]:
            if what in ("gt", "both"):
                target[t] = False
            if what in ("pred", "both"):
                pred[t] = False
            if what == "full":
                pred[t] = True
            if what == "perfect":
                pred[t] = target[t]
        videos[spec["name"]] = (target.astype(np.uint8), pred.astype(np.uint8))
    pooled = feed(PooledFramesEvaluator(), videos)
    expected = case["expected"]
    assert pooled.scores() == approx(expected["training_time"], **CLOSE)
    assert pooled.mmseg_evaluate() == expected["rounded"]
    for name in videos:
        np.testing.assert_allclose(pooled.videos[name].region[0], case.arrays[f"J/{name}"], atol=1e-9)
        np.testing.assert_allclose(pooled.videos[name].boundary[0], case.arrays[f"F/{name}"], atol=1e-9)
    published = feed(DAVIS16Evaluator(), videos)
    assert {**totals(published), "J&F": published.compute()["J&F-Mean"]} == approx(expected["davis16"], **CLOSE)
    for name in videos:
        assert single(published, name) == approx(expected["sequences"][name], **CLOSE)


# -- accumulators


ALL = [DAVIS16Evaluator, DAVIS17UnsupervisedEvaluator, VOSBenchmarkEvaluator, PooledFramesEvaluator]


@pytest.mark.parametrize("kind", ALL)
def test_numbers_do_not_depend_on_the_processes(shapes, kind):
    names = ["discs", "void", "gap_in_ids", "medium"]
    whole = feed(kind(video_order=names), shapes, names)
    parts = [feed(kind(video_order=names), shapes, own) for own in (names[2:], names[:2])]
    travelled = [pickle.loads(pickle.dumps(part)) for part in parts]
    travelled[0].merge(travelled[1])
    assert travelled[0].report() == whole.report()
    with pytest.raises(DataError, match="evaluated by two processes"):
        travelled[0].merge(parts[1])


def test_evaluators_of_different_settings_do_not_merge():
    with pytest.raises(ConfigError, match="settings"):
        DAVIS16Evaluator().merge(DAVIS16Evaluator(all_frames=True))
    with pytest.raises(ConfigError, match="merged into"):
        DAVIS16Evaluator().merge(DAVIS17Evaluator())


def test_tables_say_what_they_are(shapes):
    evaluator = feed(DAVIS17Evaluator(), shapes, ["discs", "borders"])
    table = evaluator.tables()
    assert "DAVIS-2017, semi-supervised: 2 videos, 10 frames, 6 objects, first and last frames left out" in table
    assert "equals the davis2017-evaluation toolkit" in table and "borders_4" in table
    assert evaluator.report()["protocol"]["equals"] == "the davis2017-evaluation toolkit (semi-supervised)"
    assert evaluator.protocol()["frames"] == "the first and the last of each video left out"
    assert DAVIS16Evaluator(all_frames=True).protocol()["frames"] == "all"
