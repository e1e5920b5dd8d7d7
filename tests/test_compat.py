"""Official names: segmentor and head together, methods that are not here, and keys without effect."""

import logging

import pytest

from mmseg import compat
from mmseg.config import check_config, load_config
from mmseg.datasets import build_dataset
from mmseg.errors import ConfigError
from mmseg.models import build_head, build_segmentor
from mmseg.registry import MODELS
from tests.datasets.vspw_folder import write_vspw

HEAD = dict(in_channels=[32, 64, 160, 256], channels=128, num_classes=8)
MRCFA = "SegFormerHead_clips2_resize_1_8_hypercorrelation2_topk_ensemble4"


def model(segmentor: str, head: str, **more) -> dict:
    return dict(type=segmentor, backbone=dict(type="mit_b0"), decode_head=dict(type=head, **HEAD, **more))


@pytest.mark.parametrize(
    ("segmentor", "head", "more", "ours"),
    [
        ("EncoderDecoder_clips", "CFFMHead_clips_resize1_8", {}, ("ClipSegmentor", "CFFMHead")),
        ("EncoderDecoder_clips", MRCFA, {"hypercorre": True}, ("ClipSegmentor", "MRCFAHead")),
        (
            "EncoderDecoder_clips",
            "SegFormerHead_clips2_resize_1_8",
            {"num_clips": 4, "hypercorre": False},
            ("FrameSegmentor", "SegFormerHead"),
        ),
        ("EncoderDecoder", "SegFormerHead", {}, ("FrameSegmentor", "SegFormerHead")),
        ("EncoderDecoder_clips", "CFFMHead", {}, ("ClipSegmentor", "CFFMHead")),
        ("ClipSegmentor", "CFFMHead_clips_resize1_8", {}, ("ClipSegmentor", "CFFMHead")),
    ],
)
def test_segmentor_and_head_are_translated_together(segmentor, head, more, ours):
    built = build_segmentor(model(segmentor, head, **more))
    assert (type(built).__name__, type(built.decode_head).__name__) == ours


@pytest.mark.parametrize(
    ("segmentor", "head", "right"),
    [
        ("EncoderDecoder", "CFFMHead_clips_resize1_8", "EncoderDecoder_clips"),
        ("FrameSegmentor", "CFFMHead", "ClipSegmentor"),
        ("ClipSegmentor", "SegFormerHead", "FrameSegmentor"),
        ("EncoderDecoder_clips", "SegFormerHead", "FrameSegmentor"),
    ],
)
def test_a_segmentor_that_does_not_fit_the_head_is_refused(segmentor, head, right):
    with pytest.raises(ConfigError, match=r"^model\.type") as error:
        build_segmentor(model(segmentor, head))
    assert right in str(error.value)


# ---------------------------------------------------------------------- keys without effect


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(compat, "_told", set())
    caplog.set_level(logging.WARNING)
    return lambda: [r.message for r in caplog.records if r.name == "mmseg.compat"]


def test_a_key_that_asks_for_something_else_is_told_once_with_its_path(warnings):
    for _ in range(2):
        build_segmentor(model("ClipSegmentor", "CFFMHead", norm_cfg=dict(type="BN")))
    (message,) = warnings()
    assert message.startswith("model.decode_head.norm_cfg = {'type': 'BN'} has no effect here")


def test_a_key_that_asks_for_what_is_done_anyway_is_silent(warnings):
    built = model("ClipSegmentor", "CFFMHead", norm_cfg=dict(type="SyncBN", requires_grad=True), align_corners=False)
    built["backbone"]["style"] = "pytorch"
    build_segmentor({**built, "train_cfg": {}})
    assert warnings() == []


def test_keys_of_inner_dicts(warnings):
    build_head(dict(type="MRCFAHead", decoder_params=dict(embed_dim=256, depths=2), **HEAD))
    (message,) = warnings()
    assert message.startswith("model.decode_head.decoder_params.depths = 2 ")


def test_keys_of_data_sets_and_pipelines(tmp_path, warnings):
    root = write_vspw(tmp_path / "d", train={"a": 12}, classes=3)
    steps = [dict(type="LoadImageFromFile", color_type="gray"), dict(type="LoadAnnotations", imdecode_backend="pillow")]
    build_dataset(dict(type="VSPWDataset2", data_root=str(root), img_dir="images", pipeline=steps))
    assert [message.split(" ")[0] for message in warnings()] == [
        "data.train.img_dir",
        "data.train.pipeline.0.color_type",
    ]


def test_a_class_of_a_users_own_may_take_such_a_key(warnings):
    @MODELS.register_module("HeadWithNorm", force=True)
    class HeadWithNorm(MODELS.get("SegFormerHead")):
        def __init__(self, norm_cfg: dict, **kwargs):
            super().__init__(**kwargs)
            self.norm_type = norm_cfg["type"]

    assert build_head(dict(type="HeadWithNorm", norm_cfg=dict(type="BN"), **HEAD)).norm_type == "BN"
    assert warnings() == []


def test_sections(tmp_path, warnings):
    path = tmp_path / "config.py"
    path.write_text("evaluation = dict(interval=5, gpu_collect=True, efficient_test=True)\ngpu_ids = range(4)\n")
    cfg = load_config(path)
    assert warnings() == []  # the log file is opened later
    check_config(cfg, tell=True)
    assert [message.split(" ")[0] for message in warnings()] == ["evaluation.gpu_collect"]
