"""What a data set says is scored and written."""

from pathlib import Path

import numpy as np
import pytest

from mmseg.datasets import build_dataset
from mmseg.datasets.base import VideoDataset, VideoFiles
from mmseg.errors import ConfigError, DataError
from mmseg.writing.base import ResultOptions
from mmseg.writing.label_pickle import LabelPickleWriter
from mmseg.writing.label_png import LabelPngWriter
from mmseg.writing.pictures import ContactSheetWriter, OverlayVideoWriter
from tests.datasets.vspw_folder import write_vspw

NAMES = ["name0", "name1", "name2"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = write_vspw(tmp_path_factory.mktemp("vspw"), val={"a": 3, "b": 2}, classes=3)
    return build_dataset(dict(type="VSPWDataset", data_root=str(root), split="val", test_mode=True, frame_rate=24.0))


def test_the_first_metric_is_the_default(dataset):
    assert dataset.metric_names == ("mIoU", "mDice")
    (evaluator,) = dataset.metrics(ResultOptions())
    assert evaluator.metrics == ("mIoU",) and evaluator.class_names == NAMES
    assert evaluator.video_order == ["a", "b"] and evaluator.segmentation.num_classes == 3
    assert dataset.metrics(ResultOptions(metrics=())) == []


def test_metrics_and_their_options_are_the_users_to_say(dataset):
    options = ResultOptions(metrics=["mDice"], metric_options=dict(lengths=[3], ignore_void=True, efficient_test=True))
    (evaluator,) = dataset.metrics(options)
    assert evaluator.metrics == ("mDice",) and evaluator.consistency.lengths == (3,)
    assert evaluator.consistency.ignore_void and not evaluator.consistency.all_windows
    (renamed,) = dataset.metrics(ResultOptions(class_names=["x", "y", "z"]))
    assert renamed.class_names == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(metrics=["mIou"]), "did you mean 'mIoU'"),
        (dict(metrics=["mIoU", "J&F"]), r"--eval J&F\n  expected: mIoU or mDice, or None"),
        (dict(metric_options=dict(all_window=True)), "did you mean 'all_windows'"),
        (dict(metric_options=dict(class_names=["a", "b", "c"])), "what the data set leaves open"),
        (dict(metric_options=dict(min_frames="many")), "--eval-options.min_frames = 'many'"),
        (dict(metric_options=dict(lengths=[8, 1])), "lengths"),
    ],
)
def test_what_it_does_not_know_is_refused(dataset, options, message):
    with pytest.raises(ConfigError, match=message):
        dataset.metrics(ResultOptions(**options))


def test_every_score_has_its_name_beforehand(dataset):
    names = dataset.score_names()
    assert {"mIoU", "FWIoU", "VC8", "mmseg/mIoU", "mmseg/mDice", "all_videos/mIoU", "IoU.name0", "Dice.name2"} < {
        *names
    }
    assert dataset.score_names(ResultOptions(metric_options=dict(lengths=[3])))[4:6] == ["VC3", "mmseg/mIoU"]
    (evaluator,) = dataset.metrics(ResultOptions())
    for index, video in enumerate(dataset.videos):
        for number in range(video.num_frames):
            truth = dataset.load_label(index, number)
            evaluator.update(video.name, number, np.where(truth == 255, 1, truth), truth)
    scores = evaluator.scores()
    assert list(scores) == names and all(type(value) is float for value in scores.values())
    assert scores["IoU.name1"] == scores["mmseg/mIoU"] == 1.0


def test_writers(dataset, tmp_path):
    options = ResultOptions(tmp_path / "res.pkl", save_png=True, show_dir=tmp_path / "show", report=dict)
    pickle, png, overlays, sheet = dataset.writers(options)
    assert (type(pickle), pickle.path, pickle.report) == (LabelPickleWriter, tmp_path / "res.pkl", dict)
    assert (type(png), png.folder) == (LabelPngWriter, tmp_path / "result_submission")
    assert (type(overlays), overlays.folder, overlays.fps) == (OverlayVideoWriter, tmp_path / "show", 24.0)
    assert (type(sheet), list(sheet.class_names)) == (ContactSheetWriter, NAMES)
    assert dataset.writers(ResultOptions(None)) == []
    (png,) = dataset.writers(ResultOptions(tmp_path / "out", format_only=True))
    assert (type(png), png.folder) == (LabelPngWriter, tmp_path / "out/result_submission")
    joined = ResultOptions(tmp_path / "res.pkl", tmpdir=tmp_path / "parts", gpu_collect=True)
    (pickle,) = dataset.writers(joined)
    assert pickle.gather and pickle._parts.name.parent == tmp_path / "parts"
    palette = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    (overlays, sheet) = dataset.writers(
        ResultOptions(None, show_dir=tmp_path, palette=palette, class_names=["x", "y", "z"])
    )
    assert sheet.table[:3].tolist() == palette and sheet.class_names == ["x", "y", "z"]


def test_a_data_set_without_classes(tmp_path):
    objects = VideoDataset([VideoFiles.of("v", ["0.jpg"])], test_mode=True, reduce_zero_label=False)
    assert objects.metric_names == () and objects.metrics(ResultOptions()) == [] == objects.score_names()
    with pytest.raises(ConfigError, match="no scores of its own"):
        objects.metrics(ResultOptions(metrics=["mIoU"]))
    sheet = objects.writers(ResultOptions(None, show_dir=Path(tmp_path)))[1]
    assert sheet.class_names is None and not sheet.table[0].any() and sheet.table[200].any()


def test_videos_without_masks_cannot_be_scored(dataset):
    bare = VideoDataset(
        [VideoFiles.of("a", ["0.jpg"], ["0.png"]), VideoFiles.of("b", ["0.jpg"])], test_mode=True, classes=NAMES
    )
    with pytest.raises(DataError, match=r"\(1 of 2, the first is 'b'\)"):
        bare.metrics(ResultOptions())
    assert bare.metrics(ResultOptions(metrics=())) == []
