"""Training from a config: everything that stands between ``tools/train.py`` and the training loop."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmseg import distributed, launchers
from mmseg.apis.rehearsal import facts_of_run, rehearse
from mmseg.apis.testing import Validation, check_num_classes
from mmseg.carried_config import packed_config
from mmseg.config import check_config, require, with_data_sets_of_method
from mmseg.data_entries import data_sets
from mmseg.datasets import VideoFiles, build_dataset, check_same_classes
from mmseg.datasets.class_names import first_difference
from mmseg.datasets.labels import IGNORED
from mmseg.engine.ahead import at
from mmseg.engine.log import close_logging, environment, setup_logging, timestamp
from mmseg.engine.lr import Schedule
from mmseg.engine.optim import build_optimizer
from mmseg.engine.predict import stream_settings
from mmseg.engine.resuming import SavedRun, agree_on_newest, saved_run
from mmseg.engine.seeding import draw_seed, seed_all, set_determinism, set_matmul_precision
from mmseg.engine.step import amp_dtype
from mmseg.engine.train import Trainer
from mmseg.errors import ConfigError, DataError
from mmseg.files import write_text
from mmseg.folder_lock import FolderLock
from mmseg.mmengine_names import Config
from mmseg.models import build_segmentor
from mmseg.models.base import Purpose, VideoModel
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
    finetune_from: str | None = None,
    resume_from: str | None = None,
    auto_resume: bool = False,
    replace_by: str | None = None,
    rehearsal: bool = False,
) -> dict[str, float]:
    """Train the model of a config on its data. :func:`mmseg.distributed.init` may have been called before.

    Args:
        cfg: see :class:`mmseg.engine.train.Trainer`; its ``load_from``, ``finetune_from``, ``resume_from`` and
            ``seed`` serve as defaults.
        work_dir: receives the config, logs and checkpoints; made if it is missing.
        seed: None takes that of the checkpoint to resume from, else a random one.
        deterministic: take reproducible GPU algorithms.
        validate: evaluate on ``data.val``.
        load_from: checkpoint whose weights the training starts from.
        finetune_from: the same, and only what the method fine-tunes is trained (``model.finetune_trains``).
        resume_from: checkpoint of a run that is to go on.
        auto_resume: go on from the newest checkpoint in `work_dir` that is whole, if there is one. A run that its
            launcher has started anew goes on from the newest one that it has written, whatever is asked for.
        replace_by: checkpoint whose weights replace those of the run that goes on, as in GSFM's script; else as
            `load_from`.
        rehearsal: of the training: one iteration, one checkpoint, the shortest video of the validation.

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
        with distributed.together():
            check_config(cfg, tell=True)
            require(cfg, *_SECTIONS)
            cfg = with_data_sets_of_method(cfg)
            _try_optimizer(cfg)
        start = launchers.restart(os.environ)
        own = _own_checkpoint(folder, start) if start.number else None
        resume_from = own or resume_from or (auto_resume and agree_on_newest(folder)) or cfg.get("resume_from")
        replace_by = None if own else replace_by
        resume_from = distributed.broadcast_object(resume_from)  # disks that are shared may not look the same to all
        with distributed.together():
            resumed = saved_run(resume_from) if resume_from else None
        seed = _agree_on_seed(cfg.get("seed") if seed is None else seed, resumed)
        set_determinism(deterministic or bool(cfg.get("deterministic")), bool(cfg.get("cudnn_benchmark")))
        set_matmul_precision(cfg.get("float32_matmul_precision"))
        if distributed.device().type == "cpu":
            torch.set_flush_denormal(True)  # denormal numbers are many times slower and mean nothing here
        weights = _weights(load_from or replace_by, finetune_from, cfg)
        with distributed.together():
            _report(cfg, folder, seed)
            dataset = build_dataset(cfg.data.train, where="data.train")
            report_data(dataset)
            model = _build_model(cfg, seed, dataset)
            if resume_from:
                compare_classes(resumed.classes, dataset.CLASSES, resume_from, refuse=True)
                asked = not (own or auto_resume) and (load_from or finetune_from)  # the config's have had their effect
                if asked:
                    logger.warning("%s has no effect: the training goes on from %s", asked, resume_from)
            else:
                _load(model, dataset, weights)
        validation = _validation(cfg, dataset, model, must=rehearsal) if validate else None
        if rehearsal and validation is not None:
            validation.shorten()
        trainer = Trainer(
            cfg,
            model,
            dataset,
            folder,
            seed,
            evaluate=validation and partial(validation, amp=amp_dtype(cfg.get("amp"), distributed.device())),
            resume_from=resume_from,
            meta={
                "CLASSES": dataset.CLASSES,
                "PALETTE": dataset.PALETTE,
                **packed_config(cfg),
                **({"run": start.run} if start.run else {}),
            },
            log_name=name,
            score_names=validation.score_names if validation else (),
            why_undefined=validation.why_undefined if validation else lambda name: "",
            finetune_trains=_trained_part(model, weights, resumed),
        )
        if validation is not None:
            trainer.pictures = lambda: validation.pictures
        trainer.about = facts_of_run(model, dataset, validation and validation.dataset)
        if resume_from and replace_by:
            with distributed.together():
                _load(model, dataset, ("train", replace_by))
        return trainer.rehearse() if rehearsal else trainer.run()
    finally:
        close_logging()
        if lock is not None:
            lock.release()


def try_training(cfg: Config, work_dir: str | Path, **arguments: Any) -> dict[str, float]:
    """Rehearse a training: everything is checked and done once, and nothing stays. For the arguments, what is returned
    and what is raised see :func:`train_segmentor` and :func:`mmseg.apis.rehearsal.rehearse`."""
    return rehearse(partial(train_segmentor, cfg), work_dir, **arguments)


def _lock(folder: Path) -> FolderLock | None:
    """Keep other trainings out of the work folder: the lock in the main process; all processes are refused together.

    What a killed training left unfinished goes: of a training the main process alone writes checkpoints and links.
    """
    with distributed.together():
        if not distributed.is_main():
            return None
        lock = FolderLock(folder, "a training")
        lock.sweep()
        return lock


def _own_checkpoint(folder: Path, start: launchers.Restart) -> Path | None:
    """Where a run that its launcher has started anew goes on: its newest checkpoint, not one that it found there."""
    newest = agree_on_newest(folder, start.run)
    if newest is None:
        logger.info("restart %d: this run has saved nothing yet, it starts as it did before", start.number)
    else:
        logger.info("restart %d: going on from %s (%s)", start.number, newest, newest.resolve().name)
    return newest


def _try_optimizer(cfg: Config) -> None:
    """Raise ConfigError for an optimiser or a schedule that cannot be, before data and model are made."""
    optimizer = build_optimizer(nn.Linear(1, 1), cfg.optimizer)
    Schedule(optimizer, cfg.lr_config, cfg.runner.max_iters)


def _agree_on_seed(seed: int | None, resumed: SavedRun | None) -> int:
    """The same seed in all processes: the given one, that of the run to resume, or a new one."""
    seed = resumed.seed if seed is None and resumed else seed
    return distributed.broadcast_object(draw_seed() if seed is None else seed)


def _weights(load_from: str | None, finetune_from: str | None, cfg: Config) -> tuple[Purpose, str | None]:
    """What a new training starts from: the purpose of its weights and their file, if any.

    Raises:
        ConfigError: two files are given.
    """
    given = {"load_from": load_from or cfg.get("load_from"), "finetune_from": finetune_from or cfg.get("finetune_from")}
    if all(given.values()):
        raise ConfigError(
            f"load_from = {given['load_from']} and finetune_from = {given['finetune_from']}",
            "one file of weights",
            "give --load-from to train all of the model, --finetune-from to train what the method fine-tunes",
        )
    return ("finetune", given["finetune_from"]) if given["finetune_from"] else ("train", given["load_from"])


def _trained_part(model: VideoModel, weights: tuple[Purpose, str | None], resumed: SavedRun | None) -> str | None:
    """The part of a parameter's name by which it is trained: as in the run that is resumed, or as the model says."""
    if resumed is not None and resumed.is_ours:
        return resumed.finetune_trains
    purpose, path = weights
    return model.finetune_trains if purpose == "finetune" and path else None


def _report(cfg: Config, folder: Path, seed: int) -> None:
    """Log what runs where, and keep the config as it is after all overrides."""
    if not distributed.is_main():
        return
    for key, value in environment(distributed.device()).items():
        logger.info("%s: %s", key, value)
    path = folder / (Path(cfg.filename).name if cfg.filename else "config.py")
    write_text(path, cfg.dump())
    logger.info("%d process(es), seed %d, config %s", distributed.world_size(), seed, path)


def report_data(dataset: Any) -> None:
    """Log how many videos, frames and labels a training set has, and warn of classes that a sample of it never shows.

    Raises:
        DataError: nothing is labelled, or there is no object, so that there is nothing to learn.
    """
    parts = [part for part in getattr(dataset, "parts", [dataset]) if hasattr(part, "label_counts")]
    if not parts or not distributed.is_main():
        return
    videos = [video for part in parts for video in part.videos]
    frames = sum(video.num_frames for video in videos)
    counts = dataset.label_counts()  # (256,)
    labelled = counts[:IGNORED].sum()
    told, what = (labelled, "are labelled")
    if dataset.CLASSES is None and parts[0].background is not None:
        told, what = labelled - counts[parts[0].background], "belong to objects"
    logger.info(
        "data.train: %d videos, %d frames; in a sample of masks %.1f %% of the pixels %s",
        *(len(videos), frames, 100 * told / counts.sum(), what),
    )
    names = dataset.CLASSES or ()
    shares = [f"{name} {100 * count / labelled:.1f}" for name, count in zip(names, counts) if count]
    unseen = [name for name, count in zip(names, counts) if not count]
    if shares:
        logger.info("labelled pixels by class, in percent: %s", ", ".join(shares))
    if unseen:
        logger.warning("%d classes never occur in that sample: %s", len(unseen), ", ".join(unseen))


def compare_classes(trained: Any, names: Sequence[str] | None, path: str | Path, refuse: bool) -> None:
    """Tell of class names of a checkpoint that are not those of the data.

    Args:
        trained: its class names, if it has any.
        names: those of the data.
        path: the checkpoint.
        refuse: the same classes in another order are an error: labels would change their meaning during a training.

    Raises:
        ConfigError: see `refuse`.
    """
    if not isinstance(trained, Sequence) or not names or list(trained) == list(names):
        return
    where = first_difference(trained, names, "the checkpoint", "the data")
    difference = f"{path} was trained with other classes than data.train: {where}"
    same = sorted(map(str, trained)) == sorted(names)
    if same and refuse:
        raise ConfigError(
            difference, "the same order of classes", "give data.train its `classes` in the order of the checkpoint"
        )
    if same:
        logger.warning(
            "%s. The classifier's weights are loaded for the wrong classes and have to be learned", difference
        )
    elif len(trained) == len(names):
        logger.warning("%s. The classifier starts with weights of those", difference)


def _build_model(cfg: Config, seed: int, dataset: Any) -> VideoModel:
    """The model, with weights that depend on `seed` alone."""
    seed_all(seed)
    model = build_segmentor(cfg.model, cfg.get("train_cfg"), cfg.get("test_cfg"))
    check_num_classes(model, dataset, "data.train")
    ignored = getattr(getattr(model, "decode_head", None), "ignore_index", None)
    if dataset.num_classes and ignored not in (None, dataset.ignore_index):
        raise ConfigError(
            f"the head ignores the label {ignored}, data.train marks ignored pixels by {dataset.ignore_index}",
            "one number",
            f"set the head's ignore_index (THE-Mask: ignore_value) to {dataset.ignore_index}",
        )
    parts = getattr(dataset, "parts", [dataset])
    for (place, section), part in zip(data_sets(cfg.data.train, "data.train"), parts):
        with at(place):
            stream_settings(section, None, model)  # training clips are as long as those of testing
        if hasattr(part, "dilation"):
            given = section.get("dilation", list(part.dilation))
            model.check_training_clips(1 + len(part.dilation), f"{place}.dilation = {given}")
    model.CLASSES, model.PALETTE = dataset.CLASSES, dataset.PALETTE
    return model


def _load(model: VideoModel, dataset: Any, weights: tuple[Purpose, str | None]) -> None:
    """Load what a training starts from."""
    purpose, path = weights
    if path:
        checkpoint = load_checkpoint(model, path, purpose=purpose)
        logger.info("weights of %s loaded", path)
        compare_classes(checkpoint["meta"].get("CLASSES"), dataset.CLASSES, path, refuse=False)


def _tell_of_shared_videos(train: Any, val: Any) -> None:
    """Warn of videos that are trained on and scored, as without split files all are."""
    files = [[video for video in getattr(part, "videos", ()) if isinstance(video, VideoFiles)]
             for part in (*getattr(train, "parts", [train]), val)]  # fmt: skip
    *parts, videos = files
    trained = {video.frames[0] for part in parts for video in part}
    shared = [video.name for video in videos if video.frames[0] in trained]
    if shared:
        logger.warning(
            "%d of %d videos of data.val are in data.train, too (%s): their scores say nothing about new videos",
            *(len(shared), len(videos), shared[0]),
        )


def _validation(cfg: Config, train: Any, model: VideoModel, must: bool = False) -> Validation | None:
    """What scores a model on ``data.val``; None, with a warning, if a process has no such data, unless it `must`."""
    if cfg.data.get("val") is None:
        logger.warning("the config has no data.val: training without validation")
        return None
    try:
        with distributed.together():
            validation = Validation(cfg)
    except DataError as error:
        if must:
            raise
        logger.warning("training without validation, data.val cannot be used: %s", error)
        return None
    check_same_classes(train, validation.dataset, "data.train", "data.val")
    _tell_of_shared_videos(train, validation.dataset)
    with at("data.val"):
        stream_settings(cfg.data.val, model.test_cfg, model)
    return validation
