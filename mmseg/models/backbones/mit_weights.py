"""Files of MiT weights: SegFormer's ImageNet files and the Hugging Face naming of the same weights."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmseg.errors import CheckpointError
from mmseg.weights import differences, read_weights_file, strip_prefix

# Hugging Face name -> ours, with (stage, block) counted from 0 there and the stage from 1 here.
_RENAMED = (
    (r"patch_embeddings\.(\d+)\.proj\.", r"patch_embed{0}.proj."),
    (r"patch_embeddings\.(\d+)\.layer_norm\.", r"patch_embed{0}.norm."),
    (r"block\.(\d+)\.(\d+)\.layer_norm_([12])\.", r"block{0}.{1}.norm{2}."),
    (r"block\.(\d+)\.(\d+)\.attention\.self\.query\.", r"block{0}.{1}.attn.q."),
    (r"block\.(\d+)\.(\d+)\.attention\.self\.(key|value)\.", r"block{0}.{1}.attn.{2}."),
    (r"block\.(\d+)\.(\d+)\.attention\.self\.sr\.", r"block{0}.{1}.attn.sr."),
    (r"block\.(\d+)\.(\d+)\.attention\.self\.layer_norm\.", r"block{0}.{1}.attn.norm."),
    (r"block\.(\d+)\.(\d+)\.attention\.output\.dense\.", r"block{0}.{1}.attn.proj."),
    (r"block\.(\d+)\.(\d+)\.mlp\.dense([12])\.", r"block{0}.{1}.mlp.fc{2}."),
    (r"block\.(\d+)\.(\d+)\.mlp\.dwconv\.dwconv\.", r"block{0}.{1}.mlp.dwconv.dwconv."),
    (r"layer_norm\.(\d+)\.", r"norm{0}."),
)
_HF_PREFIXES = ("segformer.encoder.", "encoder.")


def backbone_weights(content: Any, source: str = "the file") -> dict[str, Tensor]:
    """The backbone's state dict from the content of a file, under our names.

    Accepts a flat dict, one wrapped in ``{'state_dict': ...}`` or ``{'model': ...}``, names prefixed by ``module.`` or
    ``backbone.`` (a whole segmentor), and the Hugging Face naming. The ImageNet classifier ``head.*`` is left out.

    Raises:
        CheckpointError: the content is not a dict of tensors.
    """
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(
            f"{source} holds no weights but a {type(content).__name__}",
            "a dict from names to tensors",
            "use another file",
        )
    state = strip_prefix(content, "module.")
    if any(name.startswith("backbone.") for name in state):
        state = {name: value for name, value in state.items() if name.startswith("backbone.")}
        state = strip_prefix(state, "backbone.")
    if any(name.startswith(prefix) for name in state for prefix in _HF_PREFIXES):
        state = from_hugging_face(state)
    return {name: value for name, value in state.items() if not name.startswith("head.")}


def from_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a Hugging Face SegFormer encoder under our names; key and value become one `kv`.

    Entries outside the encoder (classifier, decode head) are left out.
    """
    converted: dict[str, Tensor] = {}
    for name, value in state.items():
        prefix = next((p for p in _HF_PREFIXES if name.startswith(p)), None)
        if prefix is not None:
            converted[_our_name(name[len(prefix) :])] = value
    for name in [name for name in converted if ".attn.key." in name]:
        value_name = name.replace(".key.", ".value.")
        if value_name in converted:
            parts = [converted.pop(name), converted.pop(value_name)]
            converted[name.replace(".key.", ".kv.")] = torch.cat(parts)
    return converted


def _our_name(name: str) -> str:
    for pattern, ours in _RENAMED:
        match = re.match(pattern, name)
        if match:
            stage, *rest = match.groups()
            return ours.format(int(stage) + 1, *rest) + name[match.end() :]
    return name


def load_pretrained(backbone: nn.Module, pretrained: str) -> None:
    """Load the file `pretrained` into `backbone`; if there is none, look in ``pretrained/``, else warn and go on.

    Raises:
        CheckpointError: the file is damaged, or its weights do not fit.
    """
    path = Path(pretrained)
    local = Path("pretrained") / path.name
    found = next((candidate for candidate in (path, local) if candidate.is_file()), None)
    if found is None:
        _warn_missing(pretrained, local)
        return
    state = backbone_weights(read_weights_file(found), str(found))
    difference = differences(backbone, state)
    if difference:
        raise CheckpointError(
            f"{found} does not fit the backbone {type(backbone).__name__}: {difference}",
            "weights of the same variant",
            "check model.pretrained and model.backbone.type",
        )
    backbone.load_state_dict(state)


def _warn_missing(pretrained: str, local: Path) -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_rank() > 0:
        return  # the first process has said it
    warnings.warn(
        f"{pretrained}: no such file, and no {local} either; the backbone starts from random weights. "
        f"To start from ImageNet weights put SegFormer's {local.name} there: it is in the ImageNet weights linked "
        "from the SegFormer repository (NVlabs/SegFormer), or save the weights of nvidia/"
        f"{local.stem.replace('_', '-')} (Hugging Face) under that name.",
        stacklevel=3,
    )
