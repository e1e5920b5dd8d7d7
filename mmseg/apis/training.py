"""Training from a config: everything that stands between ``tools/train.py`` and the training loop."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from mmseg import distributed
from mmseg.apis.testing import Validation
from mmseg.config import check_config, data_sets, require
from mmseg.datasets import build_dataset, check_same_classes
from mmseg.engine.checkpoints import find_latest, saved_seed
from mmseg.engine.log import close_logging, environment, setup_logging, timestamp
from mmseg.engine.lr import Schedule
from mmseg.engine.optim import build_optimizer
from mmseg.engine.predict import at, stream_settings
from mmseg.engine.seeding import draw_seed, seed_all, set_determinism, set_matmul_precision
from mmseg.engine.train import Trainer
from mmseg.errors import ConfigError, DataError
from mmseg.files import write_text
from mmseg.folder_lock import FolderLock
from mmseg.models import build_segmentor
from mmseg.weights import load_checkpoint

logger = logging.getLogger("mmseg.apis")

_SECTIONS = ("model", "data.train", "optimizer", "lr_config", "runner")


def train_segmentor(
    cfg: Config,
    work_dir: str | Path,
    seed: int | None = None,
    deterministic: bool = False,
    validate: bool = True,
    load_from: str | None = None,
    resume_from: str | None = None,
    auto_resume: bool = False,
) -> dict[str, float]:
    """Train the model of a config on its data. :func:`mmseg.distributed.init` may have been called before.

    Args:
        cfg: see :class:`mmseg.engine.train.Trainer`; its ``load_from``, ``resume_from`` and ``seed`` serve as defaults.
        work_dir: receives the config, logs and checkpoints; made if it is missing.
        seed: None takes that of the checkpoint to resume from, else a random one.
        deterministic: take reproducible GPU algorithms.
        validate: evaluate on ``data.val``.
        load_from: checkpoint whose weights the training starts from.
        resume_from: checkpoint of a run that is to go on.
        auto_resume: go on from the newest checkpoint in `work_dir`, if there is one.

    Returns:
        The scores of the last evaluation, in the main process.

    Raises:
        SegError: bad input; see :meth:`mmseg.engine.train.Trainer.run` for what else ends a training.
    """
    folder, name = Path(work_dir), timestamp()
    lock = _lock(folder)
    try:
        setup_logging(folder / f"{name}.log", distributed.is_main(), cfg.get("log_level") or "INFO")
        if lock is not None and lock.previous is not None:
            logger.info("process %(pid)d on %(host)s, which trained here since %(since)s, has died", lock.previous)
        check_config(cfg, tell=True)
        require(cfg, *_SECTIONS)
        _try_optimizer(cfg)
        resume_from = resume_from or (auto_resume and find_latest(folder)) or cfg.get("resume_from")
        resume_from = distributed.broadcast_object(resume_from)  # disks that are shared may not look the same to all
        seed = _agree_on_seed(cfg.get("seed") if seed is None else seed, resume_from)
        set_determinism(deterministic or bool(cfg.get("deterministic")), bool(cfg.get("cudnn_benchmark")))
        set_matmul_precision(cfg.get("float32_matmul_precision"))
        if distributed.device().type == "cpu":
            torch.set_flush_denormal(True)  # denormal numbers are many times slower and mean nothing here
        with distributed.together():
            _report(cfg, folder, seed)
            dataset = build_dataset(cfg.data.train, where="data.train")
            model = _build_model(cfg, seed, dataset, None if resume_from else load_from or cfg.get("load_from"))
        evaluate = _evaluation(cfg, dataset) if validate else None
        meta = {"CLASSES": dataset.CLASSES, "PALETTE": dataset.PALETTE, "config": cfg.pretty_text}
        return Trainer(cfg, model, dataset, folder, seed, evaluate, resume_from, meta, name).run()
    finally:
        close_logging()
        if lock is not None:
            lock.release()


def _lock(folder: Path) -> FolderLock | None:
    """Keep other trainings out of the work folder: the lock in the main process; all processes are refused together."""
    with distributed.together():
        return FolderLock(folder, "a training") if distributed.is_main() else None


def _try_optimizer(cfg: Config) -> None:
    """Raise ConfigError for an optimiser or a schedule that cannot be, before data and model are made."""
    optimizer = build_optimizer(nn.Linear(1, 1), cfg.optimizer)
    Schedule(optimizer, cfg.lr_config, cfg.runner.max_iters)


def _agree_on_seed(seed: int | None, resume_from: str | Path | None) -> int:
    """The same seed in all processes: the given one, that of the run to resume, or a new one."""
    if seed is None and resume_from:
        with distributed.together():
            seed = saved_seed(resume_from)
    return distributed.broadcast_object(draw_seed() if seed is None else seed)


def _report(cfg: Config, folder: Path, seed: int) -> None:
    """Log what runs where, and keep the config as it is after all overrides."""
    if not distributed.is_main():
        return
    for key, value in environment(distributed.device()).items():
        logger.info("%s: %s", key, value)
    path = folder / (Path(cfg.filename).name if cfg.filename else "config.py")
    write_text(path, cfg.dump())
    logger.info("%d process(es), seed %d, config %s", distributed.world_size(), seed, path)


def _build_model(cfg: Config, seed: int, dataset: Any, load_from: str | None) -> nn.Module:
    """The model with weights that depend on `seed` alone, or those of a checkpoint."""
    seed_all(seed)
    model = build_segmentor(cfg.model, cfg.get("train_cfg"), cfg.get("test_cfg"))
    if model.num_classes != dataset.num_classes:
        raise ConfigError(
            f"model.decode_head.num_classes = {model.num_classes}",
            f"{dataset.num_classes}, the number of classes of data.train",
            "set one to the other",
        )
    for place, section in data_sets(cfg.data.train, "data.train"):
        with at(place):
            stream_settings(section, None, model)  # training clips are as long as those of testing
    model.CLASSES, model.PALETTE = dataset.CLASSES, dataset.PALETTE
    if load_from:
        load_checkpoint(model, load_from, purpose="train")
        logger.info("weights of %s loaded", load_from)
    return model


def _evaluation(cfg: Config, train: Any) -> Validation | None:
    """What scores a model on ``data.val``; None, with a warning, if a process has no such data."""
    if cfg.data.get("val") is None:
        logger.warning("the config has no data.val: training without validation")
        return None
    try:
        with distributed.together():
            validation = Validation(cfg)
    except DataError as error:
        logger.warning("training without validation, data.val cannot be used: %s", error)
        return None
    check_same_classes(train, validation.dataset, "data.train", "data.val")
    return validation
