"""A model as a folder to give away: config as plain data, weights as safetensors, a model card; whole or not there."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from mmseg.carried_config import plain_sections
from mmseg.config import require
from mmseg.errors import ConfigError, DataError, WriteError
from mmseg.files import read_json, write_bytes, write_text
from mmseg.model_folder import CARD, CONFIG, FACTS, FORMAT, WEIGHTS
from mmseg.version import WRITER, __version__
from mmseg.weights import check_values
from mmseg.writing.model_card import ModelCard
from mmseg.writing.result_folder import ResultFolder

logger = logging.getLogger("mmseg.writing")

_OF_THE_RUN = ("work_dir", "load_from", "finetune_from", "resume_from", "dist_params")  # nobody else's business
_ADVICE = "the folder that was there, if any, is as it was"


def write_model_folder(
    model: nn.Module,
    folder: str | Path,
    name: str | None = None,
    scores: str | Path | Mapping[str, Any] | None = None,
    license: str | None = None,
    overwrite: bool = False,
    half: bool = False,
    address: str | None = None,
) -> Path:
    """Write ``config.json``, ``model.safetensors`` and ``README.md``; the first appears last, all of them or none.

    Args:
        model: a :class:`~mmseg.models.base.VideoModel` with `cfg`, as ``init_segmentor`` makes it.
        folder: is made if it is missing; files of other names in it stay.
        name: title of the card; None: `address`.
        scores: ``res.json`` of a test, or its content.
        license: identifier of the Hub (apache-2.0, cc-by-nc-4.0 ...), for the card.
        overwrite: take the place of such files that are there.
        half: store floating-point numbers as float16.
        address: what the examples of the card call the model; None: the name of the folder.

    Returns:
        The folder.

    Raises:
        ConfigError: the model has no config, or one that is no plain data; scores of other classes.
        CheckpointError: weights that are not finite, or do not fit into float16.
        DataError: scores that cannot be read.
        WriteError: the folder has such files already, or cannot be written; it is as it was.
    """
    folder = Path(os.path.abspath(folder))
    _check_place(folder, overwrite)
    facts = facts_of(model)
    address = address or folder.name
    card = ModelCard(model, facts, name or address, address, read_scores(scores, facts), license)
    state = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    if half:
        state = halved(state)
    check_values(f"the {type(model).__name__}", state, {})
    with ResultFolder(folder.parent, folder.name, FACTS, "a model to share", _ADVICE) as new:
        write_bytes(new.path / WEIGHTS, encoded(state), _ADVICE)
        write_text(new.path / CARD, card.text(sum(value.numel() for value in state.values())), _ADVICE)
        new.publish(facts)
    return folder


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers as float16; whole numbers stay as they are."""
    return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}


def encoded(state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of tensors that share no memory."""
    return save(dict(state), {"format": "pt", **(metadata or {})})


def facts_of(model: nn.Module) -> dict[str, Any]:
    """The content of ``config.json``: what ``meta`` of a checkpoint says, the config as an object among it.

    What belongs to the run and not to the model is left out, and absolute paths are cut to their last part, since they
    lead nowhere on other machines and tell about this one.

    Raises:
        ConfigError: the model has no config, or one that is no plain data.
    """
    cfg = getattr(model, "cfg", None)
    if not cfg:
        raise ConfigError(
            f"{type(model).__name__} without its config",
            "a model from init_segmentor or from_pretrained",
            "set model.cfg to the config (mmseg.config.load_config) that it was made from",
        )
    require(cfg, "model")
    sections = {key: value for key, value in plain_sections(cfg).items() if key not in _OF_THE_RUN}
    sections["model"] = _without_starts({**sections["model"], "pretrained": None})
    cut: list[str] = []
    sections = _without_places(sections, "", cut)
    if cut:
        logger.info("config.json: paths of this machine are cut to their last part: %s", ", ".join(cut))
    plain = {"CLASSES": model.CLASSES, "PALETTE": model.PALETTE, **getattr(model, "facts", {})}
    plain = {key: torch.as_tensor(v).tolist() if key == "PALETTE" else v for key, v in plain.items() if v is not None}
    return {"format": FORMAT, "writer": WRITER, "mmseg_version": __version__, **plain, CONFIG: sections}


def read_scores(scores: str | Path | Mapping[str, Any] | None, facts: Mapping[str, Any]) -> dict[str, float]:
    """The single numbers of a ``res.json``.

    Raises:
        DataError: the file cannot be read, or has no scores.
        ConfigError: the scores are of other classes than the model's.
    """
    if scores is None:
        return {}
    place = "the scores" if isinstance(scores, Mapping) else str(scores)
    content = scores if isinstance(scores, Mapping) else read_json(scores)
    numbers = content if isinstance(content, Mapping) else {}
    numbers = {key: value for key, value in numbers.items() if type(value) in (int, float) and math.isfinite(value)}
    if not numbers:
        raise DataError(
            f"{place}: no scores", "res.json of tools/test.py, or {name: number}", "test the model with --out DIR first"
        )
    rows = content.get("per_class")
    tested = [row.get("class") for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    names = list(facts.get("CLASSES") or ())
    if tested and names and tested != names:
        raise ConfigError(
            f"{place}: scores of {len(tested)} classes ({', '.join(map(str, tested[:3]))} ...), "
            f"the model has {len(names)} ({', '.join(names[:3])} ...)",
            "the scores of this model",
            "test it with tools/test.py, and give the res.json of that test",
        )
    return numbers


def _check_place(folder: Path, overwrite: bool) -> None:
    """Raise WriteError if something is there that would be replaced."""
    if not folder.name:
        raise WriteError(f"{folder}: is no place for a model", "a folder to be made", "choose another name")
    there = [name for name in (FACTS, WEIGHTS, CARD) if os.path.lexists(folder / name) and not overwrite]
    if there:
        raise WriteError(
            f"{folder}: has {', '.join(there)} already",
            "a new folder, or one without these",
            "choose another one, or replace them: --overwrite (Python: overwrite=True)",
        )


def _without_starts(value: Any) -> Any:
    """`value` without the files that parts of a model start from: the weights at hand take their place."""
    if isinstance(value, dict):
        return {
            key: _without_starts(entry)
            for key, entry in value.items()
            if not (key == "init_cfg" and isinstance(entry, dict) and "checkpoint" in entry)
        }
    return [_without_starts(entry) for entry in value] if isinstance(value, list) else value


def _without_places(value: Any, place: str, cut: list[str]) -> Any:
    """`value` with the last part alone of absolute paths, whose dotted keys are added to `cut`."""
    if isinstance(value, dict):
        return {key: _without_places(entry, f"{place}.{key}".lstrip("."), cut) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_places(entry, place, cut) for entry in value]
    if isinstance(value, str) and (os.path.isabs(value) or value.startswith("~")):
        cut.append(place)
        return Path(value).name or "."
    return value
