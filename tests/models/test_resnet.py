"""ResNet and ResNetV1c: torchvision's and timm's weights and maps, freezing, and keys that cannot work."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision

from mmseg.errors import ConfigError
from mmseg.models import build_backbone
from mmseg.models.backbones.pretrained import load_pretrained

X = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def timm_maps(name: str, path) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).train()
    model(X)  # statistics that are no defaults
    torch.save(model.state_dict(), path)
    return model.eval().forward_intermediates(X, intermediates_only=True)[1:]


@torch.no_grad()
def torchvision_maps(name: str, path) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)().train()
    model(X)
    torch.save(model.state_dict(), path)
    model.eval()
    x, maps = model.maxpool(model.relu(model.bn1(model.conv1(X)))), []
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = layer(x)
        maps.append(x)
    return maps


@pytest.mark.parametrize(
    ("kind", "depth", "source", "name"),
    [
        ("ResNet", 50, torchvision_maps, "resnet50"),
        ("ResNet", 18, torchvision_maps, "resnet18"),
        ("ResNet", 50, timm_maps, "resnet50"),
        ("ResNetV1c", 50, timm_maps, "resnet50c"),
    ],
)
def test_maps_and_names(tmp_path, kind, depth, source, name):
    expected = source(name, tmp_path / "resnet.pth")
    model = build_backbone(dict(type=kind, depth=depth))
    load_pretrained(model, str(tmp_path / "resnet.pth"))
    with torch.no_grad():
        maps = model.eval()(X)
    assert tuple(x.shape[1] for x in maps) == model.out_channels
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_names_of_the_deep_stem():
    state = list(build_backbone(dict(type="ResNetV1c", depth=101)).state_dict())
    assert state[:2] == ["stem.0.weight", "stem.1.weight"] and "stem.7.running_var" in state
    assert state.index("layer1.0.conv1.weight") > state.index("stem.7.running_var")


def test_residual_blocks_begin_as_identities():
    model = build_backbone(dict(type="ResNet", depth=50))
    assert not model.layer1[0].bn3.weight.any() and model.layer1[0].bn2.weight.all()


def test_freezing_and_checkpointing():
    model = build_backbone(dict(type="ResNet", depth=18, frozen_stages=1, norm_eval=True, with_cp=True)).train()
    assert not model.layer2[0].bn1.training and model.layer2[0].training
    model(X)[-1].sum().backward()
    assert model.conv1.weight.grad is None and model.layer1[0].conv1.weight.grad is None
    assert model.layer2[0].conv1.weight.grad is not None


@pytest.mark.parametrize(
    "keys",
    [dict(depth=42), dict(style="caffe"), dict(strides=(1, 2, 2, 1)), dict(dilations=(1, 1, 2, 4)),
     dict(norm_cfg=dict(type="GN")), dict(out_indices=(3,))],
)  # fmt: skip
def test_keys_that_cannot_work(keys):
    with pytest.raises(ConfigError):
        build_backbone({"type": "ResNet", "depth": 50, **keys})
