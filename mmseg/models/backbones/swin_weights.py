"""Names of Swin weights: what the Swin repository, timm and torchvision call what OpenMMLab's files hold.

OpenMMLab also orders the four neighbours that a patch merging joins differently, channel by channel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_NEIGHBOURS = (0, 2, 1, 3)  # ours are upper left, upper right, lower left, lower right; there columns come last


def own_names(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Swin weights of any of the known sources under OpenMMLab's names, which are ours.

    Args:
        state: entries of a file, without its classifier.
        own: entries of the module, for what files of classifiers lack: norms of the maps and tables of positions.
    """
    rename = _naming(state)
    if rename is None:
        renamed = dict(state)
    else:
        renamed = {}
        for name, value in state.items():
            ours = rename(name)
            if ours is not None:
                renamed[ours] = _channel_by_channel(ours, value)
    for name in own:
        if name not in renamed and re.match(r"norm\d\.|.*relative_position_index$", name):
            renamed[name] = own[name]
    return {
        name: value.view_as(own[name]) if name.endswith("relative_position_index") and name in own else value
        for name, value in renamed.items()
        if not name.startswith("norm.")  # before the classifier
    }


def _naming(state: Mapping[str, Tensor]) -> Callable[[str], str | None] | None:
    """What gives our names for those of a file; None if they are ours."""
    if any(name.startswith("features.") for name in state):
        return _from_torchvision
    if not any(name.startswith(("layers.", "layers_")) for name in state):
        return None
    # timm merges patches at the beginning of a stage, the Swin repository at the end of the one before
    earlier = int(any(re.match(r"layers[._]3\.downsample\.", name) for name in state))
    return lambda name: _from_layers(name, earlier)


_BLOCK = (
    (r"^attn\.(qkv|proj|relative_position_bias_table|relative_position_index)", r"attn.w_msa.\1"),
    (r"^mlp\.(fc1|0)\.", "ffn.layers.0.0."),
    (r"^mlp\.(fc2|3)\.", "ffn.layers.1."),
)


def _block_part(name: str) -> str:
    for pattern, ours in _BLOCK:
        name = re.sub(pattern, ours, name)
    return name


def _from_layers(name: str, earlier: int) -> str | None:
    if name.endswith("attn_mask"):
        return None
    match = re.match(r"layers[._](\d)\.(blocks\.\d+|downsample)\.(.*)", name)
    if match is None:
        return re.sub(r"^patch_embed\.proj\.", "patch_embed.projection.", name)
    stage, part, rest = match.groups()
    if part == "downsample":
        return f"stages.{int(stage) - earlier}.downsample.{rest}"
    return f"stages.{stage}.{part}.{_block_part(rest)}"


def _from_torchvision(name: str) -> str | None:
    match = re.match(r"features\.(\d)\.(.*)", name)
    if match is None:
        return name
    number, rest = int(match[1]), match[2]
    if number == 0:
        return re.sub(r"^2\.", "patch_embed.norm.", re.sub(r"^0\.", "patch_embed.projection.", rest))
    if number % 2 == 0:
        return f"stages.{number // 2 - 1}.downsample.{rest}"
    block, _, part = rest.partition(".")
    return f"stages.{number // 2}.blocks.{block}.{_block_part(part)}"


def _channel_by_channel(name: str, value: Tensor) -> Tensor:
    """Weights of a patch merging, (..., 4C) with the neighbours outside, with the channels outside."""
    if ".downsample." not in name:
        return value
    parts = value.unflatten(-1, (4, -1))
    return torch.stack([parts[..., i, :] for i in _NEIGHBOURS], dim=-1).flatten(-2)
