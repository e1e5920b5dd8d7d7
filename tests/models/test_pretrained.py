"""Files that the weights of a backbone come from."""

from __future__ import annotations

import logging

import pytest
import torch
from safetensors.torch import save_file

from mmseg.errors import CheckpointError, ConfigError
from mmseg.models import build_backbone, build_segmentor
from mmseg.models.backbones.pretrained import backbone_weights, init_from_config, load_pretrained
from tests.models.test_cffm import tiny_config
from tests.models.test_mit_weights import HUGGING_FACE, TRANSFORMERS_5, assert_equal_states, openmmlab, renamed


def backbone(name: str = "mit_b0", seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_backbone(dict(type=name))


LAYOUTS = {
    "ImageNet file": lambda state: {**state, "head.weight": torch.zeros(10, 256), "head.bias": torch.zeros(10)},
    "wrapped": lambda state: {"state_dict": state, "meta": {"epoch": 3}},
    "module prefix": lambda state: {"model": {f"module.{k}": v for k, v in state.items()}},
    "whole segmentor": lambda state: (
        {f"backbone.{k}": v for k, v in state.items()} | {"decode_head.conv_seg.bias": torch.zeros(2)}
    ),
    "Hugging Face": lambda state: renamed(state, HUGGING_FACE, "segformer."),
    "transformers 5": lambda state: renamed(state, TRANSFORMERS_5),
    "OpenMMLab": openmmlab,
    "OpenMMLab segmentor": lambda state: {f"backbone.{k}": v for k, v in openmmlab(state).items()},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_loads(tmp_path, layout, caplog):
    source, model = backbone(seed=1), backbone(seed=2)
    torch.save(layout(source.state_dict()), tmp_path / "mit_b0.pth")
    load_pretrained(model, str(tmp_path / "mit_b0.pth"))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert_equal_states(model.state_dict(), source.state_dict())


def test_safetensors_file(tmp_path):
    state = renamed(backbone(seed=3).state_dict(), HUGGING_FACE)
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "model.safetensors")
    model = backbone(seed=4)
    load_pretrained(model, str(tmp_path / "model.safetensors"))
    assert_equal_states(model.state_dict(), backbone(seed=3).state_dict())


@pytest.mark.parametrize(
    ("pretrained", "told", "not_told"),
    [
        ("/data/pretrained/mit_b1.pth", ["no such file", "pretrained/mit_b1.pth", "nvidia/mit-b1", "SegFormer"], []),
        ("pretrained/none_b0.pth", ["no such file", "pretrained/none_b0.pth"], ["nvidia", "none-b0"]),
        ("https://host/a/mit_b0.pth", ["is not downloaded", "pretrained/mit_b0.pth", "nvidia/mit-b0"], []),
        ("open-mmlab://resnet50_v1c", ["is not downloaded", "pretrained/resnet50_v1c"], ["nvidia"]),
    ],
)
def test_a_missing_file_gives_one_message_in_the_log(tmp_path, monkeypatch, caplog, pretrained, told, not_told):
    monkeypatch.chdir(tmp_path)
    build_segmentor({**tiny_config(), "pretrained": pretrained})
    (message,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert pretrained in message and "random weights" in message
    assert all(word in message for word in told) and not any(word in message for word in not_told)


def test_file_in_the_local_folder_takes_the_place_of_a_missing_path(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pretrained").mkdir()
    source = backbone(seed=5)
    torch.save(source.state_dict(), "pretrained/mit_b0.pth")
    for pretrained in ("/data/pretrained/mit_b0.pth", "https://host/mit_b0.pth"):
        model = build_segmentor({**tiny_config(), "pretrained": pretrained})
        assert_equal_states(model.backbone.state_dict(), source.state_dict())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_weights_of_another_variant_name_the_differences(tmp_path):
    torch.save(backbone("mit_b1").state_dict(), tmp_path / "mit_b1.pth")
    with pytest.raises(CheckpointError, match=r"patch_embed1\.proj\.weight is \[64, 3, 7, 7\] in the file and \[32"):
        load_pretrained(backbone("mit_b0"), str(tmp_path / "mit_b1.pth"))
    torch.save({"conv1.weight": torch.zeros(2)}, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError) as error:
        load_pretrained(backbone(), str(tmp_path / "resnet.pth"))
    assert "patch_embed1.proj.weight" in str(error.value) and "not in the model: conv1.weight" in str(error.value)


def test_a_key_without_its_value_is_reported(tmp_path):
    theirs = renamed(backbone().state_dict(), HUGGING_FACE)
    del theirs["encoder.block.0.0.attention.self.value.weight"]
    torch.save(theirs, tmp_path / "half.bin")
    with pytest.raises(CheckpointError, match=r"missing in the file: block1\.0\.attn\.kv\.weight"):
        load_pretrained(backbone(), str(tmp_path / "half.bin"))


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    state = backbone().state_dict()
    for value in (torch.full((32, 3, 7, 7), float("nan")), torch.zeros(1).expand(10**6, 10**6)):
        torch.save({**state, "patch_embed1.proj.weight": value}, tmp_path / "bad.pth")
        with pytest.raises(CheckpointError, match=r"patch_embed1\.proj\.weight (has|claims)"):
            load_pretrained(backbone(), str(tmp_path / "bad.pth"))
    with pytest.raises(CheckpointError, match="is a folder"):
        load_pretrained(backbone(), str(tmp_path))


@pytest.mark.parametrize("content", [[1, 2], {"lr": 0.1}, "text"])
def test_files_without_weights(content):
    with pytest.raises(CheckpointError, match="holds no weights"):
        backbone_weights(content)


def test_old_files_without_counters_and_with_another_classifier(tmp_path):
    norm = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    state = {name: torch.ones_like(value) for name, value in norm.state_dict().items() if "tracked" not in name}
    torch.save({**state, "fc.weight": torch.zeros(2, 4)}, tmp_path / "resnet.pth")
    load_pretrained(norm, str(tmp_path / "resnet.pth"))
    assert torch.equal(norm[0].weight, torch.ones(4, 3, 1, 1))


def test_init_cfg_of_a_backbone(tmp_path):
    source, model = backbone(seed=6), backbone(seed=7)
    torch.save({f"net.encoder.{k}": v for k, v in source.state_dict().items()}, tmp_path / "w.pth")
    init_from_config(model, None)
    init_from_config(model, dict(type="Pretrained", checkpoint=str(tmp_path / "w.pth"), prefix="net.encoder."))
    assert_equal_states(model.state_dict(), source.state_dict())
    for wrong in (
        5,
        dict(type="Xavier"),
        dict(type="Pretrained"),
        dict(type="Pretrained", checkpoint=3),
        dict(type="Pretrained", checkpoint="a", prefixx="b"),
    ):
        with pytest.raises(ConfigError, match="init_cfg"):
            init_from_config(model, wrong)
