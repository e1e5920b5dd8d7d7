"""What every model can do to be shared: a folder, or a repository of the Hugging Face Hub, and back."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmseg.errors import CheckpointError, ConfigError
from mmseg.hub import has_file, is_address, parse_address, upload
from mmseg.mmengine_names import Config
from mmseg.model_folder import CARD
from mmseg.models.opening import from_pretrained, init_segmentor
from mmseg.writing.shared_model import write_model_folder


class Shared:
    """Methods of a video model; the functions of this file do the same with checkpoints."""

    def save_pretrained(self, folder: str | Path, **options: Any) -> Path:
        """Write a folder that :meth:`from_pretrained` and all commands take; see :func:`save_pretrained`."""
        return save_pretrained(self, folder, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Make the model a repository of the Hub; returns its address. See :func:`push_to_hub`."""
        return push_to_hub(self, repo_id, **options)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, device: str | torch.device = "cpu", options: Mapping[str, Any] | None = None, **hub: Any
    ) -> nn.Module:
        """A model of this class from a folder or a repository; see :func:`mmseg.models.opening.from_pretrained`.

        Raises:
            CheckpointError: it is a model of another class.
        """
        model = from_pretrained(name, device, options, **hub)
        if not isinstance(model, cls):
            raise CheckpointError(
                f"{name}: a {type(model).__name__}",
                f"a {cls.__name__}",
                "call mmseg.apis.from_pretrained, which gives any model",
            )
        return model


def save_pretrained(
    model: nn.Module | str | Path,
    folder: str | Path,
    name: str | None = None,
    scores: str | Path | Mapping[str, Any] | None = None,
    license: str | None = None,
    overwrite: bool = False,
    half: bool = False,
    config: str | Path | Config | None = None,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model as a folder: ``config.json``, ``model.safetensors`` and ``README.md``.

    Args:
        model: from :func:`~mmseg.models.opening.init_segmentor`; or a checkpoint.
        config, options: of a checkpoint that does not carry its config (those of the official code, for instance), as
            for :func:`~mmseg.models.opening.init_segmentor`.
        folder, name, scores, license, overwrite, half: see
            :func:`~mmseg.writing.shared_model.write_model_folder`, for the errors, too.
    """
    model = _opened(model, config, options)
    return write_model_folder(model, folder, name, scores, license, overwrite, half)


def push_to_hub(
    model: nn.Module | str | Path,
    repo_id: str,
    name: str | None = None,
    scores: str | Path | Mapping[str, Any] | None = None,
    license: str | None = None,
    overwrite: bool = False,
    half: bool = False,
    private: bool = False,
    token: str | None = None,
    message: str | None = None,
    config: str | Path | Config | None = None,
    options: Mapping[str, Any] | None = None,
) -> str:
    """Upload a model to the Hub in one commit.

    Args:
        model, config, options, scores, license, half: see :func:`save_pretrained`.
        repo_id: ``user/name``, or ``hf://user/name``; is made if it is missing.
        name: title of the card; None: `repo_id`.
        overwrite: write a new card, too; else the card of a repository that has one stays, since people edit it.
        private: whether a new repository is.
        token: with the right to write; None takes that of ``hf auth login``.
        message: of the commit.

    Returns:
        The address of the repository.

    Raises:
        SegError: see :func:`save_pretrained` and :func:`mmseg.hub.upload`; the repository is as it was.
    """
    if is_address(repo_id):
        repo_id, revision = parse_address(repo_id)
        if revision is not None:
            raise ConfigError(f"hf://{repo_id}@{revision}", "a repository without @", "leave out the revision")
    has_card = has_file(repo_id, CARD, token)  # a name that cannot be is told before anything is read
    model = _opened(model, config, options)
    with tempfile.TemporaryDirectory(prefix="mmseg-") as place:
        folder = write_model_folder(model, Path(place, "model"), name, scores, license, half=half, address=repo_id)
        if has_card and not overwrite:
            (folder / CARD).unlink()
        return upload(folder, repo_id, message or f"A {type(model).__name__}", private, token)


def _opened(model: Any, config: Any, options: Mapping[str, Any] | None) -> nn.Module:
    if isinstance(model, nn.Module):
        if config is not None or options:
            raise ConfigError(
                f"config or options beside a {type(model).__name__}",
                "a model, which has its own, or the file of a checkpoint",
                "leave them out, or give them to init_segmentor",
            )
        return model
    return init_segmentor(config, model, options=options)
