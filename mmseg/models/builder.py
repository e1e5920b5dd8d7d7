"""Builds models from config dicts, the official ones included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mmseg.errors import ConfigError
from mmseg.registry import MODELS, build


def build_backbone(cfg: Mapping[str, Any]) -> nn.Module:
    """The backbone of ``dict(type='mit_b1', ...)``. Raises ConfigError for an unknown type."""
    return build(MODELS, cfg, where="model.backbone")


def build_head(cfg: Mapping[str, Any]) -> nn.Module:
    """The decode head of ``dict(type='CFFMHead', ...)``. Raises ConfigError for an unknown type or key."""
    return build(MODELS, cfg, where="model.decode_head")


def build_segmentor(
    cfg: Mapping[str, Any], train_cfg: Mapping[str, Any] | None = None, test_cfg: Mapping[str, Any] | None = None
) -> nn.Module:
    """The segmentor of a config's ``model`` dict.

    Args:
        cfg: ``dict(type=..., pretrained=..., backbone=dict(...), decode_head=dict(...), train_cfg=..., test_cfg=...)``;
            official type names are accepted.
        train_cfg, test_cfg: for configs that keep them outside the model dict.

    Raises:
        ConfigError: an unknown type or key, or `train_cfg` / `test_cfg` given in both places.
    """
    if not isinstance(cfg, Mapping):
        return build(MODELS, cfg, where="model")  # says what is wrong with it
    outside = {k: v for k, v in (("train_cfg", train_cfg), ("test_cfg", test_cfg)) if v is not None}
    for key in outside:
        if cfg.get(key) is not None:
            raise ConfigError(f"{key} is given both inside and outside of model", "one of them", f"remove one {key}")
    return build(MODELS, {**cfg, **outside}, where="model")
