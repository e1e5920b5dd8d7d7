import pickle
import random
import time

import numpy as np
import pytest

from mmseg.errors import ConfigError, DataError
from mmseg.evaluation import VideoConsistency, VSPWEvaluator
from tests.evaluation import vc_reference
from tests.evaluation.metric_cases import drawn_videos, feed, stored_videos
from tests.golden_cases import Case

STILL = np.zeros((4, 6), np.uint8)


@pytest.mark.parametrize("name", ["vc_lengths", "vc_ignore_nan", "vc_script"])
def test_every_window_is_the_golden_one_to_the_bit(name):
    case = Case("metrics", name)
    metric = feed(VideoConsistency(case.config["lengths"], min_frames=1), stored_videos(case))
    checked = 0
    for key in case["outputs"]:
        length, video = key.split("/")
        ours = metric.windows(video)[int(length.removeprefix("VC"))]
        assert np.array_equal(ours, case.arrays[key], equal_nan=True), key
        checked += len(ours)
    if "windows" in case["expected"]:
        for video, counts in case["expected"]["windows"].items():
            assert {str(n): len(w) for n, w in metric.windows(video).items()} == counts
    assert checked > 40


@pytest.mark.parametrize("name", ["vc_lengths", "vc_ignore_nan"])
def test_scores_under_the_three_rules_for_short_videos(name):
    case = Case("metrics", name)
    videos, expected = stored_videos(case), case["expected"]
    common = feed(VideoConsistency((8, 16)), videos).compute()
    own = feed(VideoConsistency((8, 16), min_frames=1), videos)
    for length in ("VC8", "VC16"):
        assert common[length] == pytest.approx(expected["common"][length], abs=1e-12, rel=0)
        assert own.compute()[length] == pytest.approx(expected["own"][length], abs=1e-12, rel=0)
    pooled = np.concatenate([own.windows(v)[n] for n in (8, 16) for v in videos])
    assert np.nanmean(pooled) == pytest.approx(expected["mixed"]["VC16"], abs=1e-12, rel=0)


@pytest.mark.parametrize(
    ("reduce", "min_frames", "entry"),
    [
        (False, 17, "vspw_code (labels not reduced)"),
        (False, 1, "dvis_plus (labels not reduced)"),
        (True, 1, "videos longer than each clip length (univs), reduced labels"),
    ],
)
def test_numbers_of_other_scripts_on_the_same_files(reduce, min_frames, entry):
    case = Case("metrics", "semantic_shapes")
    metric = feed(VideoConsistency(min_frames=min_frames), drawn_videos(case, reduce))
    scores, expected = metric.compute(), case["expected"][entry]
    for key, value in expected.items():
        name = {"VC16_own_windows": "VC16"}.get(key, key)
        if name in scores:
            assert scores[name] == pytest.approx(value, abs=1e-12, rel=0), key


def test_windows_equal_the_direct_transcription_on_noise():
    rng = np.random.default_rng(3)
    target = (rng.random((45, 9, 13)) < 0.1).astype(np.uint8)
    pred = (rng.random((45, 9, 13)) < 0.05).astype(np.uint8)
    metric = feed(VideoConsistency((2, 3, 4, 5, 8, 9, 16, 17, 31)), {"v": (target, pred)})
    for length, scores in metric.windows("v").items():
        assert np.array_equal(scores, vc_reference.window_scores(target, pred, length), equal_nan=True)


def test_all_windows_adds_the_last_one():
    rng = np.random.default_rng(4)
    target, pred = ((rng.random((2, 20, 6, 7)) < 0.05).astype(np.uint8)) * np.uint8(1)
    # one more frame makes the last window of the first 20 frames a counted one
    longer = tuple(np.concatenate([a, a[-1:]]) for a in (target, pred))
    expected = feed(VideoConsistency((4,)), {"v": longer}).windows("v")[4]
    metric = feed(VideoConsistency((4,), all_windows=True), {"v": (target, pred)})
    assert np.array_equal(metric.windows("v")[4], expected)
    assert metric.compute()["windows"] == {4: 17}


def test_ignore_void_leaves_pixels_out_that_are_void_in_any_frame_of_the_window():
    rng = np.random.default_rng(5)
    target, pred = (rng.random((2, 20, 8, 9)) < 0.04).astype(np.uint8)
    target[rng.random(target.shape) < 0.03] = 255
    target[:, :3] = 255
    metric = feed(VideoConsistency((5,), ignore_void=True), {"v": (target, pred)})
    expected = []
    for i in range(15):
        clip, guess = target[i : i + 5], pred[i : i + 5]
        truth = (clip == clip[0]).all(axis=0) & (clip != 255).all(axis=0)
        expected.append((truth & (guess == guess[0]).all(axis=0)).sum() / truth.sum())
    assert np.array_equal(metric.windows("v")[5], expected)


@pytest.mark.parametrize("order_known", [True, False])
def test_results_do_not_depend_on_how_videos_were_dealt(order_known):
    case = Case("metrics", "vc_lengths")
    videos = stored_videos(case)
    names = list(videos)
    order = list(videos) if order_known else None
    whole = feed(VideoConsistency(video_order=order), videos).compute()
    for seed in range(3):
        random.Random(seed).shuffle(names)
        parts = [feed(VideoConsistency(video_order=order), videos, names[k::3]) for k in range(3)]
        total = VideoConsistency(video_order=order)
        for part in parts:
            total.merge(pickle.loads(pickle.dumps(part)))
        merged = total.compute()
        assert repr(merged["VC8"]) == repr(whole["VC8"]) and repr(merged["VC16"]) == repr(whole["VC16"])
        if order_known:
            assert repr(merged) == repr(whole)


def test_videos_may_be_fed_in_turn_and_arrays_reused():
    case = Case("metrics", "vc_lengths")
    videos = stored_videos(case)
    metric, buffers = VideoConsistency(), {}
    for frame in range(40):
        for name, (target, pred) in videos.items():
            if frame < len(target):
                pair = buffers.setdefault(target.shape[1:], np.empty((2, *target.shape[1:]), np.uint8))
                pair[0], pair[1] = target[frame], pred[frame]
                metric.update(name, frame, pair[1], pair[0])
    assert repr(metric.compute()) == repr(feed(VideoConsistency(), videos).compute())


def test_pickling_in_the_middle_of_a_video_goes_on_where_it_was():
    target, pred = stored_videos(Case("metrics", "vc_lengths"))["n40"]
    metric = VideoConsistency()
    for frame in range(40):
        metric.update("v", frame, pred[frame], target[frame])
        metric = pickle.loads(pickle.dumps(metric))
    assert repr(metric.compute()) == repr(feed(VideoConsistency(), {"v": (target, pred)}).compute())


@pytest.mark.parametrize(("frame", "message"), [(0, "a second time"), (1, "a second time"), (3, "when frame 2 is due")])
def test_frames_out_of_order_are_refused(frame, message):
    metric = VideoConsistency()
    metric.update("v", 0, STILL, STILL)
    metric.update("v", 1, STILL, STILL)
    with pytest.raises(DataError, match=message):
        metric.update("v", frame, STILL, STILL)
    metric.update("v", 2, STILL, STILL)  # nothing was disturbed


def test_a_video_has_to_start_with_its_first_frame_and_keep_its_size():
    metric = VideoConsistency()
    with pytest.raises(DataError, match="when frame 0 is due"):
        metric.update("v", 1, STILL, STILL)
    metric.update("v", 0, STILL, STILL)
    with pytest.raises(DataError, match=r"6x4 .* the frame before is 4x6"):
        metric.update("v", 1, STILL.T, STILL.T)


def test_memory_is_bounded_and_a_video_that_was_given_up_is_not_continued():
    metric = VideoConsistency()
    for k in range(40):
        metric.update(f"v{k}", 0, STILL, STILL)
    assert len(pickle.dumps(metric)) < 40_000
    metric.update("v39", 1, STILL, STILL)
    with pytest.raises(DataError, match="taken as finished"):
        metric.update("v0", 1, STILL, STILL)
    metric.end_video()
    with pytest.raises(DataError, match="taken as finished"):
        metric.update("v39", 2, STILL, STILL)


def test_what_is_kept_of_a_long_video_grows_by_numbers_only():
    rng = np.random.default_rng(6)
    frames = rng.integers(0, 4, (8, 60, 80)).astype(np.uint8)
    metric, sizes = VideoConsistency(), {}
    for t in range(2000):
        metric.update("v", t, frames[t % 8], frames[t % 7])
        sizes[t] = len(pickle.dumps(metric)) if t in (99, 1999) else 0
    assert sizes[1999] - sizes[99] <= 1900 * 4 * 8 + 100


def test_a_video_in_two_processes_and_different_settings_are_refused():
    first, second = feed(VideoConsistency(), {"v": (STILL[None], STILL[None])}), VideoConsistency()
    second.update("v", 0, STILL, STILL)
    with pytest.raises(DataError, match="'v' was evaluated by two processes"):
        first.merge(second)
    with pytest.raises(ConfigError, match="settings"):
        first.merge(VideoConsistency((8, 16), all_windows=True))
    for lengths in [(), (1, 8), (8, 8)]:
        with pytest.raises(ConfigError, match="clip lengths"):
            VideoConsistency(lengths)


def test_it_is_much_faster_than_the_transcription():
    """A loose bound that holds on a busy machine; ``vc_reference.py --bench`` measures the ratio."""
    target, pred = vc_reference.moving_shapes(frames=30, height=240, width=426)
    fast, slow = [], []
    for _ in range(3):
        start = time.process_time()
        ours = feed(VSPWEvaluator(124), {"v": (target, pred)}).compute()
        fast.append(time.process_time() - start)
        start = time.process_time()
        reference = vc_reference.vc_perclip({"v": (target, pred)}, 124)
        slow.append(time.process_time() - start)
    for name in ("mIoU", "FWIoU", "Acc", "Acc_class", "VC8", "VC16"):
        assert ours[name] == pytest.approx(reference[name], abs=1e-12, rel=0)
    assert min(slow) > 2 * min(fast)
