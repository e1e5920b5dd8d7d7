"""Speed and memory of streaming inference, of a training step, and of a long video; what ``tools/benchmark.py`` prints.

Every measurement runs in a process of its own, so that none inherits the memory of another. Pictures, labels and
weights are random; the only time that depends on them is the final resize, which a trained network shortens
(:mod:`mmseg.models.cpu.label_map`).
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch

import mmseg
from mmseg.apis.inference import init_segmentor
from mmseg.config import load_config
from mmseg.datasets.base import VideoDataset, VideoFiles
from mmseg.datasets.transforms import TestPipeline
from mmseg.engine import predict as predictor_module
from mmseg.engine.measure import PeakMemory, StageTimer, device_name, used_bytes
from mmseg.engine.optim import build_optimizer
from mmseg.engine.predict import stream_settings
from mmseg.engine.test import test_dataset
from mmseg.errors import ConfigError
from mmseg.images import read_frame
from mmseg.models import build_segmentor
from mmseg.models.base import Segmentor
from mmseg.models.cpu.label_map import resize_logits
from mmseg.models.decode_heads.cffm.prototype_files import PrototypeStore, prototype_file, write_prototypes
from mmseg.structures import Frame, Result
from mmseg.writing.base import ResultOptions, ResultWriter
from mmseg.writing.label_pickle import LabelPickleWriter

VIDEO = "benchmark"
_WARM_UP = 10  # frames until every reference of a stream is there
_NUM_PROTOTYPES = 100
_REFERENCE = "mmseg_reference"  # the name that tests/reference is loaded under


@dataclass(frozen=True)
class Job:
    """One measurement.

    Attributes:
        config: config file.
        options: dotted config keys and their new values.
        size: (height, width) of a frame, of a training crop in training. The test pipeline rounds up to its divisor.
        device: cpu, cuda or cuda:N.
        amp: 'bfloat16' or 'float16' for autocast, None for float32.
        repeats: measured frames or steps; the median counts.
        clips: batch of a training step; 0 takes the config's.
        reference: measure the formulas of the paper (``tests/reference`` of a checkout) with the same weights.
        threads: CPU threads; 0 leaves PyTorch's choice.
    """

    config: str
    options: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int] = (480, 853)
    device: str = "cpu"
    amp: str | None = None
    repeats: int = 5
    clips: int = 0
    reference: bool = False
    threads: int = 0


Row = dict[str, Any]


def in_own_process(measure: Callable[[Job], list[Row]], job: Job) -> list[Row]:
    """``measure(job)`` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, job).result()


# ---------------------------------------------------------------------- streaming inference


def measure_stream(job: Job) -> list[Row]:
    """Time per frame of a stream with warm caches (steady), and of a clip from scratch (cold).

    The reference knows only the latter: it encodes a whole clip for every frame.
    """
    with tempfile.TemporaryDirectory() as folder:
        model = _inference_model(job, Path(folder))
        pipeline = _pipeline(model, job.size)
        files = _write_frames(Path(folder), job.size)
        if job.reference:
            return [_clip_row(job, model, pipeline, files)]
        return [_steady_row(job, model, pipeline, files), _clip_row(job, model, pipeline, files)]


def _steady_row(job: Job, model: Segmentor, pipeline: TestPipeline, files: Sequence[str]) -> Row:
    settings = stream_settings(model.cfg.data.test, model.test_cfg, model)
    predictor = predictor_module.VideoPredictor(model, pipeline, settings, source=VIDEO, amp=_dtype(job))
    timer, memory = StageTimer(predictor.device), PeakMemory(predictor.device)
    with timer.watch(*_watched(model)):
        for number in range(_WARM_UP + job.repeats):
            if number == _WARM_UP:
                timer.clear()
                memory.start()
            with timer.step():
                with timer.stage("read"):
                    frame = Frame(number, str(number), read_frame(files[number % len(files)]))
                    views = pipeline.views(frame)
                list(predictor.push_views(frame, views))
    return _row(job, predictor.device, "stream", "steady", timer, memory, network=views[0].size)


@torch.no_grad()
def _clip_row(job: Job, model: Segmentor, pipeline: TestPipeline, files: Sequence[str]) -> Row:
    """A clip whose frames are all read and encoded for one prediction, as the official test does for every frame."""
    device = next(model.parameters()).device
    timer, memory = StageTimer(device), PeakMemory(device)
    num_clips = getattr(model.decode_head, "num_clips", 1)
    names = [files[i % len(files)] for i in range(num_clips)]
    network = reference_of(model).encode_decode if job.reference else type(model).encode_decode
    with timer.watch(*_watched(model, job.reference)):
        for number in range(1 + job.repeats):
            if number == 1:
                timer.clear()
                memory.start()
            with timer.step():
                with timer.stage("read"):
                    frames = [Frame(i, name, read_frame(name)) for i, name in enumerate(names)]
                    imgs = torch.stack([pipeline.views(frame)[0].inputs["img"] for frame in frames])[None]
                with _autocast(job, device):
                    logits = network(model, imgs.to(device), [dict(video=VIDEO)])[0].float()
                if job.reference:
                    with timer.stage("resize+argmax"):
                        resize_logits(logits, [job.size]).softmax(dim=0).argmax(dim=0).cpu()
                else:
                    predictor_module.label_map(logits, [job.size]).cpu()
    return _row(job, device, f"clip of {num_clips}", "cold", timer, memory, network=imgs.shape[-2:])


def _watched(model: Segmentor, reference: bool = False) -> list[tuple[Any, str, str]]:
    """Which calls belong to which stage."""
    head = model.decode_head
    if reference:
        return [(reference_of(model), name, stage) for name, stage in (("mit", "backbone"), ("forward", "head"))]
    if hasattr(head, "embed"):
        stages = {"embed": "embed", "decode": "decode", "decode_single": "decode"}
    else:
        stages = {"fuse": "embed", "frame_logits": "decode"}
    calls = [(head, method, stage) for method, stage in stages.items()]
    return [(model.backbone, "forward", "backbone"), *calls, (predictor_module, "label_map", "resize+argmax")]


# ---------------------------------------------------------------------- training step


def measure_train(job: Job) -> list[Row]:
    """Forward, backward and optimiser of one update; the first one is a warm-up."""
    _prepare(job)
    cfg = load_config(job.config, job.options)
    device = torch.device(job.device)
    with tempfile.TemporaryDirectory() as folder:
        model = build_segmentor({**cfg.model, "pretrained": None}, cfg.get("train_cfg"), cfg.get("test_cfg"))
        _provide_prototypes(model, Path(folder))
        model = model.to(device).train()
        optimizer = build_optimizer(model, cfg.optimizer)
        batch = _batch(model, job, cfg.data.get("samples_per_gpu", 2), device)
        timer, memory = StageTimer(device), PeakMemory(device)
        memory.start()
        network = reference_of(model).loss if job.reference else type(model).__call__
        for number in range(1 + job.repeats):
            if number == 1:
                timer.clear()
            with timer.step():
                optimizer.zero_grad(set_to_none=True)
                with timer.stage("forward"), _autocast(job, device):
                    losses = network(model, batch)
                    loss = sum(value for name, value in losses.items() if "loss" in name)
                with timer.stage("backward"):
                    loss.backward()
                with timer.stage("optimizer"):
                    optimizer.step()
    shape = tuple(batch["img"].shape)
    return [_row(job, device, f"training step, {shape[0]} clips of {shape[1]}", "none", timer, memory, shape[-2:])]


def _batch(model: Segmentor, job: Job, samples_per_gpu: int, device: torch.device) -> dict[str, Any]:
    clips, frames = job.clips or samples_per_gpu, getattr(model.decode_head, "num_clips", 4)
    generator = torch.Generator().manual_seed(0)
    imgs = torch.randn(clips, frames, 3, *job.size, generator=generator)
    labels = torch.randint(0, model.num_classes, (clips, frames, 1, *job.size), generator=generator)
    labels[..., : job.size[0] // 8, :] = 255
    metas = [dict(video=VIDEO, filename=f"{VIDEO}/{i}.jpg") for i in range(clips)]
    return {"img": imgs.to(device), "gt_semantic_seg": labels.to(device), "img_metas": metas}


# ---------------------------------------------------------------------- a long video


def measure_memory(job: Job, points: int = 10) -> list[Row]:
    """Memory while the test loop (reading ahead, metrics, pickle) runs over a video of `repeats` frames.

    Returns one row per point along the video.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = _inference_model(job, folder)
        files = _write_frames(folder, job.size)
        masks = _write_masks(folder, job.size, model.num_classes)
        paths = ([kind[i % len(kind)] for i in range(job.repeats)] for kind in (files, masks))
        videos = [VideoFiles.of(VIDEO, *paths)]
        classes = [str(c) for c in range(model.num_classes)]
        dataset = VideoDataset(videos, None, (), True, classes)
        dataset.pipeline = _pipeline(model, job.size)
        device = torch.device(job.device)
        probe = _MemoryProbe(device, [max(1, job.repeats * (i + 1) // points) - 1 for i in range(points)])
        writers = [LabelPickleWriter(folder / "res.pkl"), probe]
        settings = stream_settings(model.cfg.data.test, model.test_cfg, model)
        metrics = dataset.metrics(ResultOptions())
        test_dataset(model, dataset, metrics, writers, device, amp=_dtype(job), settings=settings)
    return [
        {"what": f"test loop, after {number + 1} frames", "cache": "steady", **_setting(job, device), "memory": used}
        for number, used in probe.seen.items()
    ]


class _MemoryProbe(ResultWriter):
    """Notes the memory in use after certain frames."""

    def __init__(self, device: torch.device, numbers: Sequence[int]) -> None:
        self.device, self.numbers = device, set(numbers)
        self.seen: dict[int, int] = {}

    def add(self, result: Result) -> None:
        if result.frame.number in self.numbers:
            self.seen[result.frame.number] = used_bytes(self.device)


# ---------------------------------------------------------------------- what they share


def _prepare(job: Job) -> None:
    torch.set_flush_denormal(True)  # denormals of random weights cost time that trained ones do not
    torch.manual_seed(0)
    if job.threads:
        torch.set_num_threads(job.threads)


def _inference_model(job: Job, folder: Path) -> Segmentor:
    _prepare(job)
    model = init_segmentor(job.config, None, job.device, job.options)
    _provide_prototypes(model, folder)
    return model


def _provide_prototypes(model: Segmentor, folder: Path) -> None:
    """Random prototypes for a head that wants a file of them."""
    head = model.decode_head
    if isinstance(getattr(head, "store", None), PrototypeStore):
        write_prototypes(prototype_file(folder, VIDEO), torch.randn(_NUM_PROTOTYPES, head.embed_dim))
        head.save_path, head.store = str(folder), PrototypeStore(folder, head.embed_dim)


def reference_of(model: Segmentor) -> ModuleType:
    """The formulas that `model` is held against in the tests, from ``tests/reference`` of the checkout.

    Raises:
        ConfigError: the package is not used from a checkout, or no file states what this model computes.
    """
    folder = Path(mmseg.__file__).resolve().parent.parent / "tests" / "reference"
    if not (folder / "__init__.py").is_file():
        raise ConfigError(
            f"{folder}: no such folder, so there is no reference to measure against",
            "the package in a checkout of the repository, whose tests hold the formulas",
            "run tools/benchmark.py of a checkout (pip install -e .), or leave out --against-reference",
        )
    if _REFERENCE not in sys.modules:
        spec = importlib.util.spec_from_file_location(_REFERENCE, folder / "__init__.py")
        sys.modules[_REFERENCE] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[_REFERENCE])
    found = sys.modules[_REFERENCE].reference_of(model)
    if found is None:
        name = type(model.decode_head).__name__
        raise ConfigError(
            f"no reference for a {name} in {folder}", "a system with one", "leave out --against-reference"
        )
    return found


def _pipeline(model: Segmentor, size: tuple[int, int]) -> TestPipeline:
    """The config's test pipeline with frames of `size` left at their size (up to the divisor)."""
    steps = [dict(step) for step in model.cfg.data.test.pipeline]
    for step in steps:
        if step["type"] == "MultiScaleFlipAug":
            step.update(img_scale=(size[1], size[0]), img_ratios=None, flip=False)
            return TestPipeline(steps)
    raise ConfigError("data.test.pipeline has no MultiScaleFlipAug", "one around the transforms", "add it")


def _write_frames(folder: Path, size: tuple[int, int], count: int = 4) -> list[str]:
    """Smooth random pictures as JPEG, about as large as photographs."""
    rng = np.random.default_rng(0)
    paths = [str(folder / f"{i:05d}.jpg") for i in range(count)]
    for path in paths:
        coarse = rng.integers(0, 256, (size[0] // 8 + 1, size[1] // 8 + 1, 3), np.uint8)
        cv2.imwrite(path, cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC))
    return paths


def _write_masks(folder: Path, size: tuple[int, int], num_classes: int, count: int = 4) -> list[str]:
    rng = np.random.default_rng(1)
    paths = [str(folder / f"{i:05d}.png") for i in range(count)]
    for path in paths:
        coarse = rng.integers(0, num_classes + 1, (size[0] // 32 + 1, size[1] // 32 + 1), np.uint8)
        cv2.imwrite(path, cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_NEAREST))
    return paths


def _dtype(job: Job) -> torch.dtype | None:
    return getattr(torch, job.amp) if job.amp else None


def _autocast(job: Job, device: torch.device) -> ExitStack | torch.autocast:
    return torch.autocast(device.type, dtype=_dtype(job)) if job.amp else ExitStack()


def _setting(job: Job, device: torch.device) -> Row:
    return {
        "formulation": "reference" if job.reference else "product",
        "size": list(job.size),
        "precision": job.amp or "float32",
        "device": device_name(device),
    }


def _row(
    job: Job,
    device: torch.device,
    what: str,
    cache: str,
    timer: StageTimer,
    memory: PeakMemory,
    network: Sequence[int],
) -> Row:
    seconds = timer.medians()
    return {
        "what": what,
        "cache": cache,
        **_setting(job, device),
        "network_size": list(network),
        "seconds": seconds.pop("total"),
        "stages": seconds,
        "repeats": len(timer.steps),
        "peak_memory": memory.peak(),
        "added_memory": memory.added(),
    }
