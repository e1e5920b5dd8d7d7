"""Speed and memory of streaming inference, of a training step, and of a long video; what ``tools/benchmark.py`` prints.

Every job runs in a process of its own, so that none inherits the memory of another; of two rows of one job the second
finds what the first has kept. Pictures, labels and
weights are random; the only time that depends on them is that of the label map on a CPU, for which random weights are
the worst case (:mod:`mmseg.models.cpu.label_map`): it is measured for a few possible winners, too.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmseg.config import load_config, require
from mmseg.datasets.base import VideoDataset, VideoFiles
from mmseg.datasets.transforms import TestPipeline
from mmseg.engine import answers
from mmseg.engine.benchmark_data import (
    VIDEO,
    FramesWithFlow,
    MemoryProbe,
    frame_pipeline,
    provide_prototypes,
    read,
    training_batch,
    write_frames,
    write_masks,
)
from mmseg.engine.benchmark_job import Job, Row, autocast_of, dtype_of, row_of, setting
from mmseg.engine.benchmark_objects import Load, follows_objects, run_reference, run_stream, training_clips
from mmseg.engine.benchmark_reference import reference_of
from mmseg.engine.measure import PeakMemory, StageTimer
from mmseg.engine.optim import build_optimizer
from mmseg.engine.predict import stream_settings
from mmseg.engine.predictor import VideoPredictor
from mmseg.engine.test import test_dataset
from mmseg.errors import ConfigError
from mmseg.mmengine_names import Config
from mmseg.models import build_segmentor
from mmseg.models.base import Segmentor, VideoModel
from mmseg.models.cpu.label_map import resize_logits
from mmseg.models.cpu.pages import keep_pages_on_cpu
from mmseg.models.layers.compiling import require_compiler
from mmseg.models.stream import Stream
from mmseg.structures import View
from mmseg.writing.base import ResultOptions
from mmseg.writing.label_pickle import LabelPickleWriter

_WARM_UP_ON_A_GPU = 10  # frames, while which it chooses its kernels


# ---------------------------------------------------------------------- streaming inference


def measure_stream(job: Job) -> list[Row]:
    """Time per frame of a stream with warm caches (steady), and of a clip from scratch (cold).

    Where a block of frames, or all frames of a clip, are predicted together, it is shared by them. The reference knows
    only clips: where these predict their last frame, it encodes a whole clip for every frame.
    """
    return _measure_stream(job, steady=not job.reference, cold=True)


def measure_steady(job: Job) -> list[Row]:
    """Time per frame of a stream with warm caches alone."""
    return _measure_stream(job, steady=True, cold=False)


def _measure_stream(job: Job, steady: bool, cold: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        model = inference_model(job, Path(folder))
        if follows_objects(model):
            return [_objects_row(job, model)]
        pipeline = frame_pipeline(model, job.size)
        files = write_frames(Path(folder), job.size)
        rows = [_steady_row(job, model, pipeline, files)] if steady else []
        return [*rows, _clip_row(job, model, pipeline, files)] if cold else rows


def _objects_row(job: Job, model: VideoModel) -> Row:
    device, load = torch.device(job.device), Load(job.size, job.objects, job.memory_frames)
    timer, memory = StageTimer(device, job.cpu_time), PeakMemory(device)
    settings = stream_settings({}, model.test_cfg, model)
    if job.reference:
        formulas, top_k = reference_of(model), settings["top_k"]
        run_reference(model, formulas, load, top_k, autocast_of(job, device), timer, memory, job.repeats)
    else:
        run_stream(model, load, settings, autocast_of(job, device), timer, memory, job.repeats)
    what = f"frame, {job.objects} objects, {job.memory_frames} frames in memory"
    return row_of(job, device, what, "steady", timer, memory, network=[-(-side // 16) * 16 for side in job.size])


def frames_of_warm_up(stream: Stream, device: torch.device) -> int:
    """How many frames a stream takes in until every reference of the next one is there."""
    return max(1 - min(getattr(stream, "dilation", ()), default=0), 2 if device.type == "cpu" else _WARM_UP_ON_A_GPU)


def _steady_row(job: Job, model: Segmentor, pipeline: TestPipeline, files: Sequence[str]) -> Row:
    settings = stream_settings(model.cfg.data.test, model.test_cfg, model)
    predictor = VideoPredictor(model, pipeline, settings, source=VIDEO, amp=dtype_of(job))
    timer, memory = StageTimer(predictor.device, job.cpu_time), PeakMemory(predictor.device)
    stream = model.stream(VIDEO, **settings)
    block = stream.block_length
    warm_up, measured = (math.ceil(n / block) for n in (frames_of_warm_up(stream, predictor.device), job.repeats))
    numbers = itertools.count()
    predictor.begin()
    memory.start()  # before the warm-up, of which pages stay, see mmseg/models/cpu/pages.py
    with timer.watch(*_watched(predictor.network)):
        for step in range(warm_up + measured):
            if step == warm_up:
                timer.clear()
            with timer.step():
                for number in itertools.islice(numbers, block):
                    with timer.stage("read"):
                        frame = read(model, number, files[number % len(files)])
                        views = pipeline.views(frame)
                    list(predictor.push_views(frame, views))
    what = "stream" if block == 1 else f"stream, blocks of {block}"
    row = row_of(job, predictor.device, what, "steady", timer, memory, views[0].size, block)
    row["label_map_few_classes"] = _few_classes_seconds(job, model, views)
    return row


@torch.no_grad()
def _few_classes_seconds(job: Job, model: Segmentor, views: Sequence[View], classes: int = 16) -> float:
    """Seconds of the label map where `classes` can win, as with a trained network; with random weights all can."""
    shape = (model.num_classes, views[0].size[0] // 4, views[0].size[1] // 4)
    logits = torch.randn(shape, device=next(model.parameters()).device)
    logits[classes:] -= 100.0
    timer = StageTimer(logits.device, job.cpu_time)
    for _ in range(4):
        with timer.step():
            answers.label_map(logits, [views[0].size, job.size]).cpu()
    return timer.medians()["total"]


@torch.no_grad()
def _clip_row(job: Job, model: Segmentor, pipeline: TestPipeline, files: Sequence[str]) -> Row:
    """A clip whose frames are all read and encoded for one prediction, as the official tests do."""
    device = next(model.parameters()).device
    timer, memory = StageTimer(device, job.cpu_time), PeakMemory(device)
    settings = stream_settings(model.cfg.data.test, model.test_cfg, model)
    own = getattr(model.decode_head, "num_clips", 1)
    num_clips = settings.get("test_size", 1) if "test_size" in model.stream_settings else own
    names = [files[i % len(files)] for i in range(num_clips)]
    network = reference_of(model).encode_decode if job.reference else type(model).encode_decode
    memory.start()
    with timer.watch(*_watched(model, job.reference)):
        for number in range(1 + job.repeats):
            if number == 1:
                timer.clear()
            with timer.step():
                with timer.stage("read"):
                    frames = [read(model, i, name) for i, name in enumerate(names)]
                    imgs = torch.stack([pipeline.views(frame)[0].inputs["img"] for frame in frames])[None]
                with autocast_of(job, device):
                    scores = network(model, imgs.to(device), [dict(video=VIDEO)])[0].float()
                scores = scores.view(-1, *scores.shape[-3:])  # of the last frame, or of all frames of the clip
                for of_frame in scores:
                    if job.reference:
                        with timer.stage("resize+argmax"):
                            resize_logits(of_frame, [job.size]).softmax(dim=0).argmax(dim=0).cpu()
                    else:
                        answers.label_map(of_frame, [job.size]).cpu()
    return row_of(job, device, f"clip of {num_clips}", "cold", timer, memory, imgs.shape[-2:], len(scores))


def _watched(model: Segmentor, reference: bool = False) -> list[tuple[Any, str, str]]:
    """Which calls belong to which stage."""
    head = model.decode_head
    if reference:
        return [(reference_of(model), name, stage) for name, stage in (("mit", "backbone"), ("forward", "head"))]
    if hasattr(head, "embed"):
        stages = {"embed": "embed", "decode": "decode", "decode_single": "decode"}
    else:
        stages = {"fuse": "embed", "frame_logits": "decode"}
    calls = [(head, method, stage) for method, stage in stages.items() if hasattr(head, method)]
    return [(model.backbone, "forward", "backbone"), *calls, (answers, "label_map", "resize+argmax")]


# ---------------------------------------------------------------------- training step


def measure_train(job: Job) -> list[Row]:
    """Forward, backward and optimiser of one update; the first one is a warm-up."""
    _prepare(job)
    cfg = load_config(job.config, job.options)
    require(cfg, "model", "data")
    device = torch.device(job.device)
    with tempfile.TemporaryDirectory() as folder:
        model = _built(cfg, Path(folder)).to(device).train()
        if job.compile:
            require_compiler(device)
            model.compile_parts()
        optimizer = build_optimizer(model, cfg.optimizer)
        batch = (training_clips if follows_objects(model) else training_batch)(
            model, job.clips or cfg.data.get("samples_per_gpu", 2), job.size, device
        )
        timer, memory = StageTimer(device, job.cpu_time), PeakMemory(device)
        if not job.reference:
            keep_pages_on_cpu(device)  # as a training does
        memory.start()
        network = reference_of(model).loss if job.reference else type(model).__call__
        for number in range(1 + job.repeats):
            if number == 1:
                timer.clear()
            with timer.step():
                optimizer.zero_grad(set_to_none=True)
                with timer.stage("forward"), autocast_of(job, device):
                    losses = network(model, batch)
                    loss = sum(value for name, value in losses.items() if "loss" in name)
                with timer.stage("backward"):
                    loss.backward()
                with timer.stage("optimizer"):
                    optimizer.step()
    shape = tuple(batch["img"].shape)
    return [row_of(job, device, f"training step, {shape[0]} clips of {shape[1]}", "none", timer, memory, shape[-2:])]


# ---------------------------------------------------------------------- a long video


def measure_memory(job: Job, points: int = 10) -> list[Row]:
    """Memory while the test loop (reading ahead, metrics, pickle) runs over a video of `repeats` frames.

    Returns one row per point along the video.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = inference_model(job, folder)
        if follows_objects(model):
            what = f"--mode memory for {job.config}, which follows objects"
            raise ConfigError(what, "a model of classes", "its documentation says what a frame in memory takes")
        files = write_frames(folder, job.size)
        masks = write_masks(folder, job.size, model.num_classes)
        paths = ([kind[i % len(kind)] for i in range(job.repeats)] for kind in (files, masks))
        videos = [VideoFiles.of(VIDEO, *paths)]
        classes = [str(c) for c in range(model.num_classes)]
        kind = FramesWithFlow if model.takes_flow else VideoDataset
        dataset = kind(videos, None, (), True, classes)
        dataset.pipeline = frame_pipeline(model, job.size)
        device = torch.device(job.device)
        probe = MemoryProbe(device, [max(1, job.repeats * (i + 1) // points) - 1 for i in range(points)])
        writers = [LabelPickleWriter(folder / "res.pkl"), probe]
        settings = stream_settings(model.cfg.data.test, model.test_cfg, model)
        metrics = dataset.metrics(ResultOptions())
        test_dataset(model, dataset, metrics, writers, device, amp=dtype_of(job), settings=settings)
    return [
        {"what": f"test loop, after {number + 1} frames", "cache": "steady", **setting(job, device), "memory": used}
        for number, used in probe.seen.items()
    ]


# ---------------------------------------------------------------------- what they share


def _prepare(job: Job) -> None:
    torch.set_flush_denormal(True)  # denormals of random weights cost time that trained ones do not
    torch.manual_seed(0)
    if job.threads:
        torch.set_num_threads(job.threads)


def inference_model(job: Job, folder: Path) -> VideoModel:
    """The model of a job with random weights, in eval mode on its device."""
    _prepare(job)
    cfg = load_config(job.config, job.options)
    require(cfg, "model", "data.test.pipeline")
    model = _built(cfg, folder)
    model.cfg = cfg
    if job.compile:
        require_compiler(job.device)
        (model.compile_parts if follows_objects(model) else model.backbone.compile)()
    return model.to(job.device).eval()


def _built(cfg: Config, folder: Path) -> VideoModel:
    """The model of a config with random weights."""
    model = build_segmentor({**cfg.model, "pretrained": None}, cfg.get("train_cfg"), cfg.get("test_cfg"))
    provide_prototypes(model, folder)
    return model
