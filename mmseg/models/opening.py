"""A model for inference, from a config and a checkpoint, or from a checkpoint that carries its config."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmseg.carried_config import config_of
from mmseg.config import check_config, load_config, override, require
from mmseg.errors import CheckpointError, ConfigError
from mmseg.hub import is_address, is_repo_id, parse_address
from mmseg.mmengine_names import Config
from mmseg.model_folder import FILE_ENDINGS, fetch_model
from mmseg.models.builder import build_segmentor
from mmseg.registry import DATASETS, class_of
from mmseg.values import checked
from mmseg.version import WRITER
from mmseg.weights import load_checkpoint

logger = logging.getLogger("mmseg.models")

_KEPT = ("iter", "score")  # of `meta`, which a model keeps


@checked
def init_segmentor(
    config: str | Path | Config | None = None,
    checkpoint: str | Path | None = None,
    device: str | torch.device = "cpu",
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build the model of a config for inference, a :class:`~mmseg.models.base.VideoModel`.

    Args:
        config: a config file (it is executed) or a loaded config; None takes that which the checkpoint carries, and
            executes nothing (:func:`mmseg.carried_config.config_of`).
        checkpoint: weights to load: a file, a folder that :meth:`VideoModel.save_pretrained` wrote, or
            ``hf://user/name``; None leaves the random initialisation.
        device: where the model goes: ``cpu``, ``cuda`` or ``cuda:N``.
        options: dotted config keys and their new values.

    Returns:
        The model in eval mode, with ``cfg``, and with ``CLASSES`` and ``PALETTE`` of the checkpoint, else of
        the data set's type; None if neither fits the number of classes. ``trained_classes``: those that the checkpoint
        names, None if it does not. ``facts``: what else it says of itself, `iter` and `score`.

    Raises:
        ConfigError: the config is missing, broken or has unknown keys; no such device.
        CheckpointError: the checkpoint is missing, damaged or of another model.
    """
    if config is None:
        cfg = config_of(_given(checkpoint), options)
    else:
        cfg = override(config, options or {}) if isinstance(config, Config) else load_config(config, options)
    require(cfg, "model")
    check_config(cfg, tell=True)
    model_cfg = {**cfg.model, "pretrained": None}  # the checkpoint holds the backbone as well
    model = build_segmentor(model_cfg, cfg.get("train_cfg"), cfg.get("test_cfg"))
    meta = load_checkpoint(model, checkpoint, purpose="test").get("meta", {}) if checkpoint is not None else {}
    test = (cfg.get("data") or {}).get("test") or {}
    dataset = class_of(DATASETS, test)
    for name in ("CLASSES", "PALETTE"):
        known = (meta.get(name), getattr(dataset, name, None))
        if model.num_classes and known[0] is not None and len(known[0]) != model.num_classes:
            logger.warning(
                "%s: %s of %d classes, not used: the model has %d", checkpoint, name, len(known[0]), model.num_classes
            )
        setattr(model, name, next((v for v in known if v is not None and len(v) == model.num_classes), None))
    model.trained_classes = meta.get("CLASSES")
    model.facts = {name: meta[name] for name in _KEPT if name in meta and meta.get("writer") == WRITER}
    model.cfg = cfg
    return model.to(known_device(device)).eval()


def _given(checkpoint: str | Path | None) -> str | Path:
    if checkpoint is None:
        raise ConfigError("config = None without a checkpoint", "one of them", "give config=, or checkpoint=, or both")
    return checkpoint


def from_pretrained(
    name: str | Path,
    device: str | torch.device = "cpu",
    options: Mapping[str, Any] | None = None,
    revision: str | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> nn.Module:
    """A model for inference from a folder that ``save_pretrained`` wrote, or from a repository of the Hub.

    Args:
        name: a folder; else ``user/name`` or ``hf://user/name``, which needs ``huggingface_hub``. A checkpoint that
            carries its config is fine as well.
        device: where the model goes: ``cpu``, ``cuda`` or ``cuda:N``.
        options: dotted config keys and their new values.
        revision: branch, tag or commit of the repository.
        token: of the user of the Hub; None takes that of ``hf auth login``.
        local_files_only: take of the Hub what has been downloaded before.

    Returns:
        What :func:`init_segmentor` returns. Nothing in the folder is executed.

    Raises:
        CheckpointError: neither a folder nor a repository, no network, damaged files, or weights of another model.
        ConfigError: the config has unknown keys or needs modules of its author; no such device; a repository without
            ``huggingface_hub``.
    """
    text = str(name)
    if is_address(text):
        repo_id, written = parse_address(text)
        if written is not None and revision not in (None, written):
            raise ConfigError(f"{text} and revision = {revision!r}", "one revision", "leave one of them out")
        revision = written if revision is None else revision
        place = fetch_model(repo_id, revision, token, local_files_only)
    elif os.path.lexists(text) or not is_repo_id(text) or text.endswith(FILE_ENDINGS):
        place = Path(text)
        if revision is not None:
            raise ConfigError(
                f"revision = {revision!r} of {text}, which is on this machine",
                "a repository of the Hub",
                "leave revision out, or write hf://user/name",
            )
    else:
        try:
            place = fetch_model(text, revision, token, local_files_only)
        except (CheckpointError, ConfigError) as error:
            found = f"{text}: no such folder on this machine; {error.found}"
            raise type(error)(found, error.expected, error.action) from error
    return init_segmentor(checkpoint=place, device=device, options=options)


def known_device(name: str | torch.device) -> torch.device:
    """`name` as a device. Raises ConfigError for another one than a CPU or a GPU, or a GPU that is not there."""
    try:
        device = torch.device(name)
        known = device.type in ("cpu", "cuda")
    except RuntimeError:
        known = False
    if not known:
        raise ConfigError(f"device {str(name)!r}", "cpu, cuda or cuda:N", "fix the name")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name!r}, {torch.cuda.device_count()} GPUs found", "a GPU of this machine", "use cpu"
        )
    return device
