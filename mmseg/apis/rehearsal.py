"""What a training is about, in numbers, and a rehearsal of it (``tools/train.py --dry-run``) that leaves nothing."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmseg import distributed
from mmseg.engine.resuming import agree_on_newest
from mmseg.files import write_error
from mmseg.models.base import VideoModel

logger = logging.getLogger("mmseg.apis")


def facts_of_run(model: VideoModel, train: Any, val: Any = None) -> dict[str, Any]:
    """Log the sizes of model and data, and return them for the first line of the JSON log.

    Args:
        model: whose parameters are frozen as they will be.
        train, val: data sets, the second one in test mode, or None.
    """
    count = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    parts = [type(part).__name__ for part in (getattr(model, n, None) for n in ("backbone", "decode_head")) if part]
    classes = f", {model.num_classes} classes" if model.num_classes else ""
    logger.info(
        "model: %s%s, %.3f M parameters, %.3f M of them trained%s",
        *(type(model).__name__, f" of {' and '.join(parts)}" if parts else "", count / 1e6, trained / 1e6, classes),
    )
    facts = {"model": {"parameters": count, "trained": trained, "classes": model.num_classes}}
    for name, dataset in (("train", train), ("val", val)):
        videos = [v for part in getattr(dataset, "parts", [dataset]) for v in getattr(part, "videos", ())]
        if videos:
            facts[name] = {"videos": len(videos), "frames": sum(video.num_frames for video in videos)}
    if "val" in facts:
        logger.info("data.val: %(videos)d videos, %(frames)d frames", facts["val"])
    return facts


def rehearse(train: Callable[..., dict[str, float]], work_dir: str | Path, **arguments: Any) -> dict[str, float]:
    """Call `train` for one iteration and the validation of one video, with a folder that is removed afterwards.

    Args:
        train: :func:`mmseg.apis.training.train_segmentor` with its config.
        work_dir: where the training would write; it is looked at, and nothing is written there.
        arguments: further ones of `train`.

    Returns:
        The scores of the video, in the main process.

    Raises:
        WriteError: `work_dir` could not be written.
        SegError: whatever would end the training.
    """
    with distributed.together():
        _require_writable(Path(work_dir))
    if arguments.pop("auto_resume", False):
        arguments["resume_from"] = arguments.get("resume_from") or agree_on_newest(work_dir)
    with tempfile.TemporaryDirectory(prefix="mmseg-dry-run-") as folder:
        return train(work_dir=folder, rehearsal=True, **arguments)


def _require_writable(folder: Path) -> None:
    """Raise WriteError if a folder cannot be made, or nothing be written in it."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise write_error(folder, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise write_error(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
