"""Files that weights of the backbone come from."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from mmseg.errors import CheckpointError
from mmseg.models import build_backbone, build_segmentor
from mmseg.models.backbones.mit_weights import backbone_weights, from_hugging_face, load_pretrained
from mmseg.weights import read_weights_file, strip_prefix
from tests.models.test_cffm import tiny_config


def backbone(name: str = "mit_b0", seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_backbone(dict(type=name))


def hugging_face_names(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights under the names that `transformers` gives them (stages from 0, key and value apart)."""
    renamed = {}
    attention = {"q": "self.query", "sr": "self.sr", "norm": "self.layer_norm", "proj": "output.dense"}
    for name, value in state.items():
        module, kind = name.rsplit(".", 1)
        parts = module.split(".")
        stage = int(parts[0][-1]) - 1
        if parts[0].startswith("patch_embed"):
            target = f"patch_embeddings.{stage}." + {"proj": "proj", "norm": "layer_norm"}[parts[1]]
        elif parts[0].startswith("norm"):
            target = f"layer_norm.{stage}"
        else:
            block = f"block.{stage}.{parts[1]}"
            if parts[2:] == ["attn", "kv"]:
                for part, half in zip(("key", "value"), value.chunk(2)):
                    renamed[f"{prefix}{block}.attention.self.{part}.{kind}"] = half
                continue
            if parts[2] == "attn":
                target = f"{block}.attention.{attention[parts[3]]}"
            elif parts[2] == "mlp":
                layer = {"fc1": "dense1", "fc2": "dense2", "dwconv": "dwconv.dwconv"}[parts[3]]
                target = f"{block}.mlp.{layer}"
            else:
                target = f"{block}.layer_{parts[2][:4]}_{parts[2][4]}"
        renamed[f"{prefix}{target}.{kind}"] = value
    return renamed


def assert_equal_states(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert sorted(a) == sorted(b)
    assert all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize("prefix", ["segformer.encoder.", "encoder."])
def test_hugging_face_names(prefix):
    state = backbone().state_dict()
    renamed = hugging_face_names(state, prefix)
    assert f"{prefix}block.0.1.attention.self.key.weight" in renamed
    assert f"{prefix}block.3.0.layer_norm_2.bias" in renamed
    renamed["classifier.weight"] = torch.zeros(3)
    renamed["decode_head.linear_c.0.proj.weight"] = torch.zeros(3)
    assert_equal_states(from_hugging_face(renamed), state)


@pytest.mark.parametrize(
    "layout",
    [
        lambda state: {**state, "head.weight": torch.zeros(10, 256), "head.bias": torch.zeros(10)},
        lambda state: {"state_dict": state, "meta": {"epoch": 3}},
        lambda state: {"model": {f"module.{k}": v for k, v in state.items()}},
        lambda state: {f"backbone.{k}": v for k, v in state.items()} | {"decode_head.conv_seg.bias": torch.zeros(2)},
        lambda state: hugging_face_names(state, "segformer.encoder."),
    ],
    ids=["ImageNet file", "wrapped", "module prefix", "whole segmentor", "Hugging Face"],
)
def test_every_layout_loads(tmp_path, layout):
    source, model = backbone(seed=1), backbone(seed=2)
    torch.save(layout(source.state_dict()), tmp_path / "mit_b0.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_pretrained(model, str(tmp_path / "mit_b0.pth"))
    assert_equal_states(model.state_dict(), source.state_dict())


def test_missing_file_gives_one_warning_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {**tiny_config(), "pretrained": "/cluster/home/someone/mit_b1.pth"}
    with pytest.warns(UserWarning) as caught:
        build_segmentor(config)
    (message,) = [str(w.message) for w in caught]
    assert "/cluster/home/someone/mit_b1.pth" in message and "pretrained/mit_b1.pth" in message
    assert "nvidia/mit-b1" in message and "SegFormer" in message


def test_file_in_the_local_folder_takes_the_place_of_a_missing_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pretrained").mkdir()
    source = backbone(seed=5)
    torch.save(source.state_dict(), "pretrained/mit_b0.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = build_segmentor({**tiny_config(), "pretrained": "/cluster/home/someone/mit_b0.pth"})
    assert_equal_states(model.backbone.state_dict(), source.state_dict())


def test_weights_of_another_variant_name_the_differences(tmp_path):
    torch.save(backbone("mit_b1").state_dict(), tmp_path / "mit_b1.pth")
    with pytest.raises(CheckpointError, match=r"patch_embed1\.proj\.weight is \[64, 3, 7, 7\] in the file and \[32"):
        load_pretrained(backbone("mit_b0"), str(tmp_path / "mit_b1.pth"))
    torch.save({"conv1.weight": torch.zeros(2)}, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError) as error:
        load_pretrained(backbone(), str(tmp_path / "resnet.pth"))
    assert "patch_embed1.proj.weight" in str(error.value) and "not in the model: conv1.weight" in str(error.value)


def test_key_without_value_is_reported(tmp_path):
    renamed = hugging_face_names(backbone().state_dict(), "encoder.")
    del renamed["encoder.block.0.0.attention.self.value.weight"]
    torch.save(renamed, tmp_path / "half.bin")
    with pytest.raises(CheckpointError, match=r"missing in the file: block1\.0\.attn\.kv\.weight"):
        load_pretrained(backbone(), str(tmp_path / "half.bin"))


@pytest.mark.parametrize("content", [[1, 2], {"lr": 0.1}, "text"])
def test_files_without_weights(content):
    with pytest.raises(CheckpointError, match="holds no weights"):
        backbone_weights(content)


def test_safetensors_file(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    state = hugging_face_names(backbone(seed=3).state_dict(), "segformer.encoder.")
    safetensors.save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "model.safetensors")
    model = backbone(seed=4)
    load_pretrained(model, str(tmp_path / "model.safetensors"))
    assert_equal_states(model.state_dict(), backbone(seed=3).state_dict())


def test_missing_weights_file(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read_weights_file(tmp_path / "nothing.pth")


def test_strip_prefix_leaves_other_names():
    assert strip_prefix({"module.a": 1, "b.module.c": 2}) == {"a": 1, "b.module.c": 2}
