import json
import pickle

import numpy as np
import pytest

from mmseg.errors import ConfigError, DataError
from mmseg.evaluation import VSPWEvaluator, class_scores
from mmseg.registry import METRICS, build
from tests.evaluation import vc_reference
from tests.evaluation.metric_cases import block_videos, drawn_videos, feed, stored_videos
from tests.golden_cases import Case


def near(expected):
    return pytest.approx(expected, abs=1e-12, rel=0)


def check_perclip(scores, expected):
    names = {"pixel_acc": "Acc", "class_acc": "Acc_class", "aAcc": "Acc", "mAcc": "Acc_class"}
    for name, value in expected.items():
        ours = scores.get(names.get(name, name))
        if isinstance(value, float):
            assert ours == near(value), name


def test_the_toy_set_of_the_official_code():
    case = Case("cffm", "metrics_vspw")
    videos, expected = block_videos(case), case["expected"]
    evaluator = feed(VSPWEvaluator(124, video_order=list(videos)), videos)
    scores = evaluator.compute()
    check_perclip(scores, expected["vc_perclip"])
    assert scores["good_videos"] == expected["vc_perclip"]["good_videos"]
    assert scores["counts"]["windows"] == {8: 56, 16: 24}
    assert scores["skipped_videos"] == ["v_short"]
    for name, value in expected["mmseg_raw"].items():
        assert scores[f"mmseg/{name}"] == near(value)
    for name, value in expected["mmseg_printed"].items():
        assert scores[f"all_videos/{name}"] == near(value)
    assert evaluator.mmseg_evaluate() == expected["mmseg_evaluate"]
    assert set(evaluator.mmseg_evaluate(["mDice"])) == {"mDice", "mAcc", "aAcc"}
    per_class = class_scores(evaluator.segmentation.confusion())
    assert np.array_equal(per_class["IoU"], case.arrays["iou"], equal_nan=True)
    assert np.array_equal(per_class["Acc"], case.arrays["acc"], equal_nan=True)
    for length in (8, 16):
        windows = [evaluator.consistency.windows(v)[length] for v in videos if v != "v_short"]
        assert np.array_equal(np.concatenate(windows), case.arrays[f"vc{length}_windows"], equal_nan=True)


def test_drawn_videos():
    case = Case("metrics", "semantic_shapes")
    videos, expected = drawn_videos(case), case["expected"]
    evaluator = feed(VSPWEvaluator(124, video_order=list(videos)), videos)
    scores, perclip = evaluator.compute(), expected["vc_perclip"]
    check_perclip(scores, perclip)
    assert scores["good_videos"] == perclip["good_videos_0.8"]
    assert [v for v, row in scores["per_video"].items() if row["counted"]] == perclip["videos"]
    assert all(scores["all_videos/" + k] == near(v) for k, v in
               expected["all videos, short ones included (dvis_plus mIoU script)"].items() if "IoU" in k)  # fmt: skip
    assert all(scores[f"mmseg/{k}"] == near(v) for k, v in expected["mmseg"].items())
    confusion = evaluator.segmentation.confusion(perclip["videos"])
    rows, cols = perclip["confusion_rows"], perclip["confusion_cols"]
    assert np.array_equal(confusion[np.ix_(rows, cols)], case.arrays["confusion"])
    assert confusion.sum() == case.arrays["confusion"].sum()
    per_class = class_scores(evaluator.segmentation.confusion())
    for name in ("IoU", "Acc", "Dice"):
        assert np.array_equal(per_class[name], case.arrays[f"mmseg_{name.lower()}"], equal_nan=True)
    for length in (8, 16):
        windows = [evaluator.consistency.windows(v)[length] for v in perclip["videos"]]
        assert np.array_equal(np.concatenate(windows), case.arrays[f"vc{length}_windows"], equal_nan=True)


def test_the_whole_script():
    case = Case("metrics", "vc_script")
    videos, expected = stored_videos(case), case["expected"]
    scores = feed(VSPWEvaluator(124), videos).compute()
    check_perclip(scores, expected["printed"])
    assert scores["good_videos"] == expected["printed"]["good_videos"]
    for video, value in expected["per_video_mIoU"].items():
        assert scores["per_video"][video]["mIoU"] == near(value)
    own = feed(VSPWEvaluator(124, min_frames=1), videos).compute()
    check_perclip(own, {**expected["own"], **expected["all_videos"]})
    assert all(scores[f"mmseg/{k}"] == near(v) for k, v in expected["mmseg_all_videos"].items())


def test_the_transcription_of_the_definition_agrees_with_the_golden_numbers():
    for name, videos, expected in [
        ("cffm/metrics_vspw", block_videos, lambda e: e["vc_perclip"]),
        ("metrics/vc_script", stored_videos, lambda e: e["printed"]),
    ]:
        case = Case(*name.split("/"))
        check_perclip(vc_reference.vc_perclip(videos(case), 124), expected(case["expected"]))


def test_results_do_not_depend_on_how_videos_were_dealt():
    case = Case("metrics", "semantic_shapes")
    videos = drawn_videos(case)
    order = list(videos)
    whole = feed(VSPWEvaluator(124, video_order=order), videos)
    shuffled = sorted(order, key=lambda name: name[::-1])
    total = VSPWEvaluator(124, video_order=order)
    for k in range(3):
        part = feed(VSPWEvaluator(124, video_order=order), videos, shuffled[k::3])
        part.end_video()
        blob = pickle.dumps(part)
        assert len(blob) < 100_000  # no frames travel
        total.merge(pickle.loads(blob))
    assert repr(total.report()) == repr(whole.report())
    assert total.tables() == whole.tables()


def test_report_is_plain_json_and_says_what_was_done():
    case = Case("metrics", "vc_script")
    videos = stored_videos(case)
    evaluator = feed(VSPWEvaluator(124, video_order=list(videos)), videos)
    report = json.loads(json.dumps(evaluator.report(), allow_nan=False))
    assert report["mIoU"] == evaluator.compute()["mIoU"]  # full precision
    assert report["skipped_videos"] == ["0003_short", "0005_d"]
    assert report["per_video"]["0003_short"]["VC8"] is None and report["per_video"]["0003_short"]["frames"] == 16
    assert report["counts"] == {
        "videos": 5, "frames": 98, "videos_counted": 3, "frames_counted": 70, "windows": {"8": 46, "16": 22},
        "labelled_pixels": int(evaluator.segmentation.confusion().sum()),
    }  # fmt: skip
    assert len(report["per_class"]) == 124 and report["per_class"][1]["IoU"] is None
    assert "at least 17 frames" in json.dumps(report["protocol"])


def test_pixels_of_a_class_are_the_labelled_ones():
    truth = np.full((20, 4, 6), 2, np.uint8)
    truth[:, :, :2] = 1
    truth[:, 0] = 255
    report = feed(VSPWEvaluator(3), {"v": (truth, truth * 0 + 1)}).report()  # everything is predicted as class 1
    assert [row["pixels"] for row in report["per_class"]] == [0, 20 * 3 * 2, 20 * 3 * 4]
    assert report["counts"]["labelled_pixels"] == 20 * 3 * 6
    assert report["confusion_matrix"] == [[0, 0, 0], [0, 20 * 3 * 2, 0], [0, 20 * 3 * 4, 0]]  # truth by prediction


def test_metrics_choose_the_columns():
    labels = np.zeros((2, 4, 6), np.uint8)
    labels[:, :, 3:] = 1
    pred = labels.copy()
    pred[:, :, 3] = 0  # class 0: 24 of 32 hit, class 1: 16 of 24
    both = feed(VSPWEvaluator(2, ["sky", "road"], metrics=["mDice", "mIoU"]), {"v": (labels, pred)})
    assert "Class   Dice    IoU     Acc" in both.tables() and "sky    85.71  75.00  100.00" in both.tables()
    expected = {"mDice": 0.8286, "mIoU": 0.7083, "mAcc": 0.8333, "aAcc": 0.8333}
    assert both.report()["mmseg_evaluate"] == {name: near(value) for name, value in expected.items()}
    dice = feed(VSPWEvaluator(2, ["sky", "road"], metrics=["mDice"]), {"v": (labels, pred)})
    assert list(dice.mmseg_evaluate()) == ["mDice", "mAcc", "aAcc"]
    assert "Class   Dice     Acc" in dice.tables()


def test_numbers_that_cannot_be_are_refused():
    truth = np.repeat(np.arange(4, dtype=np.uint8), 6)[None].repeat(20, axis=0)[:, None]  # (20, 1, 24), four classes

    def check(pred, target):
        feed(VSPWEvaluator(5), {"v": (target, pred)}).check_plausible()

    check(truth, truth)
    check(truth * 0, truth)  # a model that knows one class
    check(truth[..., ::-1], truth)
    with pytest.raises(DataError, match=r"100.00 % .* next class, 0.00 % as their own(.|\n)*--no-reduce-zero-label"):
        check(truth + np.uint8(1), truth)
    with pytest.raises(DataError, match=r"previous class(.|\n)*leave reduction on"):
        check(truth, truth + np.uint8(1))
    with pytest.raises(DataError, match="not a single labelled pixel"):
        check(truth, truth * 0 + np.uint8(255))


def test_a_video_that_has_ended_leaves_nothing_behind():
    labels = np.zeros((4, 6), np.uint8)
    evaluator = VSPWEvaluator(3)
    for video in "ab":
        evaluator.update(video, 0, labels, labels)
    evaluator.end_video("a")
    evaluator.update("b", 1, labels, labels)  # goes on
    with pytest.raises(DataError, match="taken as finished"):
        evaluator.update("a", 1, labels, labels)
    evaluator.end_video()
    with pytest.raises(DataError, match="taken as finished"):
        evaluator.update("b", 2, labels, labels)
    assert evaluator.segmentation.confusion().sum() == 3 * 24


def test_tables_are_for_people():
    labels = np.zeros((2, 4, 6), np.uint8)
    labels[:, :, 3:] = 1
    evaluator = feed(VSPWEvaluator(3, ["sky", "road", "dog"]), {"v": (labels, labels)})
    text = evaluator.tables()
    assert "sky    100.00  100.00" in text and "dog       nan     nan" in text
    assert "0 of 1 videos, 0 of 2 frames" in text and "do not count for VC_perclip: v" in text


def test_nothing_labelled_gives_nan_and_null():
    void = np.full((20, 4, 6), 255, np.uint8)
    evaluator = feed(VSPWEvaluator(3), {"v": (void, void * 0)})
    report = evaluator.report()
    assert report["mIoU"] is None and report["Acc"] is None and report["FWIoU"] == 0.0
    assert report["VC8"] == 1.0  # void is a label like any other


def test_undefined_scores_say_why():
    why = VSPWEvaluator(3).why_undefined
    assert why("IoU.class 1") == "no pixel is labelled, or predicted, as this class"
    assert why("mmseg/mIoU") == "no pixel is labelled"
    assert why("VC8") == "it counts videos of at least 17 frames"


def test_errors_leave_nothing_half_counted():
    labels = np.zeros((4, 6), np.uint8)
    evaluator = VSPWEvaluator(3, video_order=["a", "b"])
    evaluator.update("a", 0, labels, labels)
    for video, frame, pred, message in [
        ("c", 0, labels, "'c' is not in the split"),
        ("a", 2, labels, "is due"),
        ("a", 1, labels + np.uint8(3), "value 3"),
        ("a", 1, labels[1:], "prediction is 3x6"),
    ]:
        with pytest.raises(DataError, match=message):
            evaluator.update(video, frame, pred, labels)
    with pytest.raises(DataError, match=r"6x4 .* the frame before is 4x6"):
        evaluator.update("a", 1, labels.T, labels.T)
    assert evaluator.segmentation.confusion().sum() == 24
    with pytest.raises(DataError, match="1 of 2 videos of the split have no predictions: b"):
        evaluator.compute()


def test_it_is_built_from_a_config():
    evaluator = build(METRICS, dict(type="VSPWEvaluator", num_classes=2, class_names=["a", "b"], good_threshold=0.7))
    assert evaluator.good_threshold == 0.7
    with pytest.raises(ConfigError, match="1 class names"):
        VSPWEvaluator(2, ["a"])
    with pytest.raises(ConfigError, match="metric 'mFscore'"):
        evaluator.mmseg_evaluate(["mFscore"])
