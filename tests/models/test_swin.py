"""Swin against timm and torchvision, whose weights are loaded under their own names."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision

from mmseg.errors import ConfigError
from mmseg.models import build_backbone
from mmseg.models.backbones.pretrained import load_pretrained


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Weights that no default hides: norms, biases and tables of positions too."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def timm_maps(x: torch.Tensor, path) -> list[torch.Tensor]:
    model = randomised(
        timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, img_size=x.shape[-2:], num_classes=5)
    )
    torch.save(model.state_dict(), path)
    return model.forward_intermediates(x, intermediates_only=True)


def torchvision_maps(x: torch.Tensor, path) -> list[torch.Tensor]:
    model = randomised(torchvision.models.swin_t(num_classes=5))
    torch.save(model.state_dict(), path)
    maps, features = [], model.features
    y = features[0](x)
    for stage in range(4):
        y = features[2 * stage + 1](y)
        maps.append(y.permute(0, 3, 1, 2))
        y = features[2 * stage + 2](y) if stage < 3 else y
    return maps


def swin_repository(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm's entries under the names of the Swin repository: patches are merged at the end of a stage."""
    named = {}
    for name, value in state.items():
        if ".downsample." in name:
            stage = int(name.split(".")[1])
            name = name.replace(f"layers.{stage}.", f"layers.{stage - 1}.")
        named[name] = value
    return {**named, "layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}


def without_norm(model: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Maps before the norms that classifiers do not have."""
    for s in range(4):
        setattr(model, f"norm{s}", torch.nn.Identity())
    with torch.no_grad():
        return model.eval()(x)


@pytest.mark.parametrize("source", [timm_maps, torchvision_maps, "repository"], ids=["timm", "torchvision", "official"])
def test_maps_and_names(tmp_path, source):
    """At a size of whole windows. The others do not shift the single window of the last stage, and timm pads later."""
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    path = tmp_path / "swin.pth"
    with torch.no_grad():
        expected = (timm_maps if source == "repository" else source)(x, path)
    if source == "repository":
        torch.save({"model": swin_repository(torch.load(path))}, path)
    model = build_backbone(dict(type="SwinTransformer"))
    load_pretrained(model, str(path))
    for ours, theirs in zip(without_norm(model, x)[:3], expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def test_sizes_that_are_no_multiples_of_a_window(tmp_path):
    """Padding, shifting and merging as torchvision does them on odd sides."""
    x = torch.randn(1, 3, 120, 208, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = torchvision_maps(x, tmp_path / "swin.pth")
    model = build_backbone(dict(type="SwinTransformer"))
    load_pretrained(model, str(tmp_path / "swin.pth"))
    maps = without_norm(model, x)
    assert [tuple(y.shape[1:]) for y in maps] == [(96, 30, 52), (192, 15, 26), (384, 8, 13), (768, 4, 7)]
    for ours, theirs in zip(maps[:3], expected):  # torchvision does not shift where a window is as high as the map
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def test_own_names_are_those_of_openmmlab(tmp_path):
    source = build_backbone(dict(type="SwinTransformer"))
    state = source.state_dict()
    assert list(state)[:6] == [
        "patch_embed.projection.weight",
        "patch_embed.projection.bias",
        "patch_embed.norm.weight",
        "patch_embed.norm.bias",
        "stages.0.blocks.0.norm1.weight",
        "stages.0.blocks.0.norm1.bias",
    ]
    assert "stages.2.blocks.5.attn.w_msa.relative_position_bias_table" in state
    assert {"stages.0.blocks.0.ffn.layers.0.0.weight", "stages.0.blocks.0.ffn.layers.1.weight"} <= set(state)
    assert "stages.0.downsample.reduction.weight" in state and "norm3.weight" in state
    torch.save({"state_dict": {f"backbone.{name}": value for name, value in state.items()}}, tmp_path / "a.pth")
    model = build_backbone(
        dict(type="SwinTransformer", init_cfg=dict(type="Pretrained", checkpoint=f"{tmp_path}/a.pth"))
    )
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_gradients_checkpointing_and_freezing():
    model = build_backbone(dict(type="SwinTransformer", frozen_stages=1, with_cp=True, drop_path_rate=0.0)).train()
    plain = build_backbone(dict(type="SwinTransformer", drop_path_rate=0.0))
    plain.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    grads = []
    for net in (model, plain):
        sum(maps.square().mean() for maps in net(x)[1:]).backward()
        grads.append(net.stages[2].blocks[0].attn.w_msa.qkv.weight.grad)
    torch.testing.assert_close(*grads)
    assert model.patch_embed.projection.weight.grad is None and not model.stages[0].training


@pytest.mark.parametrize("keys", [dict(depths=[2, 2]), dict(window_size=0), dict(drop_path_rate=1.0), dict(depth=3)])
def test_keys_that_cannot_work(keys):
    with pytest.raises(ConfigError):
        build_backbone(dict(type="SwinTransformer", **keys))
