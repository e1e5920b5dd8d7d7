"""Names of MiT weights: what Hugging Face and OpenMMLab call the weights that SegFormer's ImageNet files hold."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# Name there -> name here. Groups: the stage (counted from 0 there, from 1 here), then the block and the like.
_HUGGING_FACE = (
    (r"patch_embeddings\.(\d+)\.proj\.", "patch_embed{0}.proj."),
    (r"patch_embeddings\.(\d+)\.layer_norm\.", "patch_embed{0}.norm."),
    (r"block\.(\d+)\.(\d+)\.layer_norm_([12])\.", "block{0}.{1}.norm{2}."),
    (r"block\.(\d+)\.(\d+)\.attention\.self\.query\.", "block{0}.{1}.attn.q."),
    (r"block\.(\d+)\.(\d+)\.attention\.self\.(key|value)\.", "block{0}.{1}.attn.{2}."),
    (r"block\.(\d+)\.(\d+)\.attention\.self\.sr\.", "block{0}.{1}.attn.sr."),
    (r"block\.(\d+)\.(\d+)\.attention\.self\.layer_norm\.", "block{0}.{1}.attn.norm."),
    (r"block\.(\d+)\.(\d+)\.attention\.output\.dense\.", "block{0}.{1}.attn.proj."),
    (r"block\.(\d+)\.(\d+)\.mlp\.dense([12])\.", "block{0}.{1}.mlp.fc{2}."),
    (r"block\.(\d+)\.(\d+)\.mlp\.dwconv\.dwconv\.", "block{0}.{1}.mlp.dwconv.dwconv."),
    (r"layer_norm\.(\d+)\.", "norm{0}."),
)
_TRANSFORMERS_5 = (  # the modules of transformers 5; files that it saves keep the names above
    (r"stages\.(\d+)\.patch_embeddings\.proj\.", "patch_embed{0}.proj."),
    (r"stages\.(\d+)\.patch_embeddings\.layer_norm\.", "patch_embed{0}.norm."),
    (r"stages\.(\d+)\.blocks\.(\d+)\.layernorm_before\.", "block{0}.{1}.norm1."),
    (r"stages\.(\d+)\.blocks\.(\d+)\.layernorm_after\.", "block{0}.{1}.norm2."),
    (r"stages\.(\d+)\.blocks\.(\d+)\.attention\.q_proj\.", "block{0}.{1}.attn.q."),
    (r"stages\.(\d+)\.blocks\.(\d+)\.attention\.k_proj\.", "block{0}.{1}.attn.key."),
    (r"stages\.(\d+)\.blocks\.(\d+)\.attention\.v_proj\.", "block{0}.{1}.attn.value."),
    (r"stages\.(\d+)\.blocks\.(\d+)\.attention\.o_proj\.", "block{0}.{1}.attn.proj."),
    (r"stages\.(\d+)\.blocks\.(\d+)\.attention\.sequence_reduction\.sequence_reduction\.", "block{0}.{1}.attn.sr."),
    (r"stages\.(\d+)\.blocks\.(\d+)\.attention\.sequence_reduction\.layer_norm\.", "block{0}.{1}.attn.norm."),
    (r"stages\.(\d+)\.blocks\.(\d+)\.mlp\.fc([12])\.", "block{0}.{1}.mlp.fc{2}."),
    (r"stages\.(\d+)\.blocks\.(\d+)\.mlp\.dwconv\.dwconv\.", "block{0}.{1}.mlp.dwconv.dwconv."),
    (r"stages\.(\d+)\.layer_norm\.", "norm{0}."),
)
_OPENMMLAB = (
    (r"layers\.(\d+)\.0\.projection\.", "patch_embed{0}.proj."),
    (r"layers\.(\d+)\.0\.norm\.", "patch_embed{0}.norm."),
    (r"layers\.(\d+)\.1\.(\d+)\.norm([12])\.", "block{0}.{1}.norm{2}."),
    (r"layers\.(\d+)\.1\.(\d+)\.attn\.attn\.in_proj_", "block{0}.{1}.attn.in_proj."),
    (r"layers\.(\d+)\.1\.(\d+)\.attn\.attn\.out_proj\.", "block{0}.{1}.attn.proj."),
    (r"layers\.(\d+)\.1\.(\d+)\.attn\.(sr|norm)\.", "block{0}.{1}.attn.{2}."),
    (r"layers\.(\d+)\.1\.(\d+)\.ffn\.layers\.0\.", "block{0}.{1}.mlp.fc1."),
    (r"layers\.(\d+)\.1\.(\d+)\.ffn\.layers\.1\.", "block{0}.{1}.mlp.dwconv.dwconv."),
    (r"layers\.(\d+)\.1\.(\d+)\.ffn\.layers\.4\.", "block{0}.{1}.mlp.fc2."),
    (r"layers\.(\d+)\.2\.", "norm{0}."),
)
_NAMINGS = (_HUGGING_FACE, _TRANSFORMERS_5, _OPENMMLAB)
_PREFIX = re.compile(r"(segformer\.)?(encoder\.)?")  # of Hugging Face's models


def own_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """MiT weights of any of the known sources under SegFormer's names, which are ours.

    Of a file in another naming, what lies outside the encoder (classifier, decode head) is left out; a file in ours is
    returned as it is.
    """
    naming = next((naming for naming in _NAMINGS if any(_renamed(name, naming[:1]) for name in state)), None)
    if naming is None:
        return dict(state)
    renamed = {_renamed(name, naming): value for name, value in state.items()}
    renamed.pop(None, None)
    return _joined(renamed)


def _renamed(name: str, naming: tuple[tuple[str, str], ...]) -> str | None:
    """Our name; None for what is not of this naming."""
    name = name[_PREFIX.match(name).end() :]
    for pattern, ours in naming:
        match = re.match(pattern, name)
        if match:
            stage, *rest = match.groups()
            return ours.format(int(stage) + 1, *rest) + name[match.end() :]
    return None


def _joined(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value as ``q`` and ``kv``, 1x1 convolutions as linear layers."""
    for name in [name for name in state if ".attn.key." in name]:
        value_name = name.replace(".key.", ".value.")
        if value_name in state:
            state[name.replace(".key.", ".kv.")] = torch.cat([state.pop(name), state.pop(value_name)])
    for name in [name for name in state if ".attn.in_proj." in name]:
        in_proj = state.pop(name)  # (3C, C) or (3C,)
        query, key, value = in_proj.chunk(3)
        state[name.replace(".in_proj.", ".q.")] = query
        state[name.replace(".in_proj.", ".kv.")] = torch.cat([key, value])
    for name, value in state.items():
        if re.search(r"\.mlp\.fc[12]\.weight$", name) and value.shape[2:] == (1, 1):
            state[name] = value.flatten(1)  # (out, in, 1, 1) -> (out, in)
    return state
