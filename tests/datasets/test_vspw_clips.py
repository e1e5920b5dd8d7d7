"""VSPW as THE-Mask reads it: which frames form a training clip, and clips that show nothing."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmseg import compat
from mmseg.config import load_config, with_data_sets_of_method
from mmseg.datasets import VSPWClipDataset, VSPWDataset, build_dataset
from mmseg.errors import DataError
from mmseg.writing.base import ResultOptions
from mmseg.writing.frame_truth import FrameScoreWriter, TruthPngWriter
from mmseg.writing.label_png import LabelPngWriter
from tests.datasets.vspw_folder import TEST, TRAIN, write_vspw

OFFICIAL = """
model = dict(type='EncoderDecoder_clips', backbone=dict(type='mit_b1'), decode_head=dict(type={head!r}))
train = dict(type='VSPWDataset2', data_root='d', split='train', dilation=[0])
data = dict(
    train=dict(type='RepeatDataset', times=50, dataset=train),
    val=dict(type='VSPWDataset_multiFrameTest', data_root='d', split='val', test_size=32),
    test=dict(type='VSPWDataset_multiFrameTest', data_root='d', split='val', test_size=32))
"""


@pytest.fixture
def root(tmp_path):
    return write_vspw(tmp_path / "d", train=dict(a=12, b=11), val=dict(c=4), classes=5)


def hide_labels(root, *videos):
    for video in videos:
        for path in (root / "data" / video / "mask").iterdir():
            cv2.imwrite(str(path), np.zeros((24, 36), np.uint8))


@pytest.mark.parametrize(
    ("dilation", "clips"),
    [
        ([0], {(t,) for t in range(5)}),
        ([-3], {(0, 3), (1, 4), (4, 1), (3, 0)}),
        ([-3, 0], {(0, 3), (1, 4), (4, 1), (3, 0)}),
        ([-3, -2, -1], {(0, 1, 2, 3), (1, 2, 3, 4), (4, 3, 2, 1), (3, 2, 1, 0)}),
    ],
)
def test_the_target_is_in_its_clip_once(root, dilation, clips):
    dataset = VSPWClipDataset(root, dilation=dilation)
    rng = np.random.default_rng(0)
    assert {tuple(dataset.draw_clip(5, rng)) for _ in range(300)} == clips


def test_clips_without_labels_are_replaced_by_those_of_other_videos(root):
    hide_labels(root, "a")
    dataset = VSPWClipDataset(root, pipeline=TRAIN, dilation=[-1])
    for seed in range(20):
        clip = dataset[0, (seed,)]
        assert clip["img_metas"]["video"] == "b" and bool((clip["gt_semantic_seg"] != 255).any())
        again = dataset[0, (seed,)]
        assert torch.equal(clip["img"], again["img"])  # a function of the sample's own generator
    kept = VSPWClipDataset(root, pipeline=TRAIN, dilation=[-1], redraws=0)[0, (0,)]
    assert kept["img_metas"]["video"] == "a" and bool((kept["gt_semantic_seg"] == 255).all())
    assert VSPWDataset(root, pipeline=TRAIN, dilation=[-1])[0, (0,)]["img_metas"]["video"] == "a"


def test_too_many_clips_without_labels_are_an_error(root):
    hide_labels(root, "a", "b")
    with pytest.raises(DataError, match=r"^11 training clips in a row without a labelled pixel"):
        VSPWClipDataset(root, pipeline=TRAIN, dilation=[-1])[0, (0,)]


@pytest.mark.parametrize("head", ["THEMask1fHead", "THEMaskHead"])
def test_official_names_of_data_sets_go_by_the_head(tmp_path, root, head, monkeypatch, caplog):
    monkeypatch.setattr(compat, "_told", set())
    path = tmp_path / "official.py"
    path.write_text(OFFICIAL.format(head=head))
    monkeypatch.chdir(tmp_path)
    for config in (load_config(path), with_data_sets_of_method(Config.fromfile(path))):
        train = build_dataset(config.data.train)
        assert type(train.dataset) is VSPWClipDataset and train.dataset.redraws == 10
        assert train.dataset.draw_clip(5, np.random.default_rng(0))[1:] == []
        val, test = (build_dataset(config.data[name], f"data.{name}", test_mode=True) for name in ("val", "test"))
        assert (type(val), val.test_size) == (VSPWClipDataset, 1)
        assert (type(test), test.test_size) == (VSPWClipDataset, 32)  # refused by the stream
    assert sum("data.val.test_size = 32 gives no clips" in message for message in caplog.messages) == 1
    path.write_text(OFFICIAL.format(head="CFFMHead_clips_resize1_8"))
    dataset = build_dataset(load_config(path).data.train).dataset
    assert type(dataset) is VSPWDataset and len(dataset.draw_clip(5, np.random.default_rng(0))) == 2


def test_what_format_only_writes(root, tmp_path):
    dataset = VSPWClipDataset(root, "val", TEST, test_mode=True, test_size=2)
    for out, folder in ((tmp_path / "x", tmp_path / "x"), (tmp_path / "x" / "res.pkl", tmp_path / "x")):
        writers = dataset.writers(ResultOptions(out, metrics=(), format_only=True))
        pngs, truths, scores = writers[-3:]
        assert (type(pngs), pngs.folder) == (LabelPngWriter, folder / "result_submissionval")
        assert (type(truths), truths.folder) == (TruthPngWriter, folder / "gts")
        assert (type(scores), scores.path) == (FrameScoreWriter, folder / "miou.txt")
        assert len(writers) == 3 + (out.suffix == ".pkl")
