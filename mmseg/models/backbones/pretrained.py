"""Weights that a backbone starts from: ``model.pretrained`` and ``backbone.init_cfg`` of a config."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmseg.errors import CheckpointError, ConfigError, nearest
from mmseg.weights import check_values, differences, read_weights_file, strip_prefix

logger = logging.getLogger("mmseg.models")

_CLASSIFIERS = ("head.", "fc.", "classifier.")  # of ImageNet, in the files of several sources
_INIT_KEYS = ("type", "checkpoint", "prefix")


def load_pretrained(backbone: nn.Module, pretrained: str, prefix: str | None = None) -> None:
    """Load the file `pretrained` into `backbone`; if there is none, look in ``pretrained/``, else warn and go on.

    Args:
        backbone: receives the weights. Its method ``adapt_names(state)``, if it has one, turns names of other sources
            into its own.
        pretrained: path of the file.
        prefix: of the names in the file that are meant; by default ``backbone.``, if there are such names.

    Raises:
        CheckpointError: the file is damaged, or its weights do not fit.
    """
    found = find_pretrained(pretrained)
    if found is None:
        logger.warning("%s", _missing(pretrained, Path("pretrained") / Path(pretrained).name))
        return
    own = backbone.state_dict()
    state = backbone_weights(read_weights_file(found), str(found), prefix)
    check_values(found, state, own)
    adapt = getattr(backbone, "adapt_names", None)
    if adapt is not None:
        state = adapt(state)
    counters = {name: own[name] for name in own if name.endswith("num_batches_tracked")}  # absent in old files
    state = {**counters, **state}
    difference = differences(backbone, state)
    if difference:
        raise CheckpointError(
            f"{found} does not fit the backbone {type(backbone).__name__}: {difference}",
            "weights of the same variant, under names of a known source",
            "check model.pretrained and model.backbone.type",
        )
    backbone.load_state_dict(state)
    logger.info("weights of the backbone: %s", found)


def find_pretrained(pretrained: str) -> Path | None:
    """The file `pretrained`, or the one of its name in ``pretrained/``; None if there is neither."""
    path = Path(pretrained)
    return next((c for c in (path, Path("pretrained") / path.name) if path.name and c.exists()), None)


def init_from_config(backbone: nn.Module, init_cfg: Any, where: str = "model.backbone.init_cfg") -> None:
    """Honour ``init_cfg=dict(type='Pretrained', checkpoint=FILE, prefix=...)`` of a backbone; None does nothing.

    Raises:
        ConfigError: another kind of initialisation, which a backbone does by itself.
        CheckpointError: see :func:`load_pretrained`.
    """
    if init_cfg is None:
        return
    if not isinstance(init_cfg, Mapping) or init_cfg.get("type") != "Pretrained":
        found = init_cfg.get("type") if isinstance(init_cfg, Mapping) else init_cfg
        raise ConfigError(
            f"{where} = {str(found)[:60]!r}",
            "dict(type='Pretrained', checkpoint=FILE)",
            "remove it: the backbone initialises itself as its paper says",
        )
    for key in init_cfg:
        if key not in _INIT_KEYS:
            raise ConfigError(f"{where}.{key}", f"keys from {', '.join(_INIT_KEYS)}", nearest(str(key), _INIT_KEYS))
    checkpoint, prefix = init_cfg.get("checkpoint"), init_cfg.get("prefix")
    if not isinstance(checkpoint, str) or not isinstance(prefix, str | None):
        raise ConfigError(f"{where} = {dict(init_cfg)}", "checkpoint and prefix as text", "give the path of a file")
    load_pretrained(backbone, checkpoint, prefix)


def backbone_weights(content: Any, source: str = "the file", prefix: str | None = None) -> dict[str, Tensor]:
    """The backbone's state dict from the content of a file, without the ImageNet classifier.

    Accepts a flat dict, one wrapped in ``{'state_dict': ...}`` or ``{'model': ...}``, and names prefixed by ``module.``
    or by `prefix` (default ``backbone.``, of a whole segmentor).

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
    named = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    state = strip_prefix(named, "module.")
    prefix, layers = ("backbone.", 2) if prefix is None else (prefix, 1)  # HFAN's backbone lies in another one
    for _ in range(layers):
        if any(name.startswith(prefix) for name in state):
            state = strip_prefix({name: value for name, value in state.items() if name.startswith(prefix)}, prefix)
    return {name: value for name, value in state.items() if not name.startswith(_CLASSIFIERS)}


def _missing(pretrained: str, local: Path) -> str:
    """What to say about a file that is not there."""
    what = "is not downloaded" if "://" in pretrained else "no such file"
    text = f"{pretrained}: {what}, and there is no {local}; the backbone starts from random weights. "
    variant = re.fullmatch(r"mit[_-]b([0-5])", local.stem)
    if variant:
        return text + (
            f"To start from ImageNet weights put SegFormer's mit_b{variant[1]}.pth there: it is among the ImageNet "
            "weights linked from the SegFormer repository (NVlabs/SegFormer), or save the weights of "
            f"nvidia/mit-b{variant[1]} (Hugging Face) under that name."
        )
    return text + "To start from trained weights put a file with those of this backbone there."
