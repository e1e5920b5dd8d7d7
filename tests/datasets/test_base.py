"""Data sets without classes, whose masks hold object ids, and what base classes leave open."""

import cv2
import numpy as np
import pytest

from mmseg.datasets import ConcatDataset, VideoDataset, VideoFiles, VSPWDataset
from mmseg.errors import ConfigError
from mmseg.writing.base import ResultOptions
from tests.datasets.vspw_folder import TEST, TRAIN, write_vspw

OBJECTS = (0, 7, 200, 254)


@pytest.fixture
def files(tmp_path):
    """Twelve frames whose masks hold ids that no list of classes would allow."""
    root = write_vspw(tmp_path, train=dict(a=12), classes=5)
    columns = np.repeat(np.array(OBJECTS, np.uint8), 9)[None].repeat(24, 0)
    for path in (root / "data" / "a" / "mask").iterdir():
        cv2.imwrite(str(path), columns)
    return VSPWDataset(root, "train").videos


def test_object_masks(files):
    dataset = VideoDataset(files, TEST, test_mode=True, reduce_zero_label=False)
    assert (dataset.CLASSES, dataset.num_classes, dataset.dilation) == (None, None, ())
    frames = list(dataset.frames(0))
    assert len(frames) == 12 and all(np.unique(frame.truth).tolist() == list(OBJECTS) for frame in frames)
    assert dataset.metric_names == () and dataset.metrics(ResultOptions()) == []


def test_training_on_object_masks(files):
    pipeline = [step for step in TRAIN if step["type"] not in ("RandomCrop", "Resize")]
    pipeline = [dict(type="LoadLabels") if step["type"] == "LoadLabels" else step for step in pipeline]
    dataset = VideoDataset(files, pipeline, dilation=[-2], reduce_zero_label=False)
    clip = dataset[0, (1,)]
    assert clip["img"].shape[0] == 2 and set(np.unique(clip["gt_semantic_seg"])) == {*OBJECTS, 255}
    assert np.flatnonzero(dataset.label_counts()).tolist() == list(OBJECTS)
    assert ConcatDataset([dataset, dataset]).num_classes is None
    named = VideoDataset(files, pipeline, [-2], classes=["x"], reduce_zero_label=False)
    with pytest.raises(ConfigError, match="have other classes: no classes in one"):
        ConcatDataset([dataset, named])


def test_videos_get_their_place_and_no_references_by_default(files):
    video = files[0]
    dataset = VideoDataset([VideoFiles.of(name, video.frames[:n]) for name, n in (("b", 1), ("c", 3))])
    assert [(v.index, v.name, v.num_frames, v.labels) for v in dataset.videos] == [(0, "b", 1, None), (1, "c", 3, None)]
    assert dataset.draw_clip(1, np.random.default_rng(0)) == [0]  # the target alone: a video of one frame will do
