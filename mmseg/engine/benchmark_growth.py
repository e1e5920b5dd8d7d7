"""How the cost of a stream grows: with the frame, the classes, the clip, objects, memory and processes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmseg.config import load_config, require
from mmseg.engine.benchmark import frames_of_warm_up, inference_model, measure_steady
from mmseg.engine.benchmark_data import VIDEO, frame_pipeline, read, write_frames
from mmseg.engine.benchmark_job import Job, Row, dtype_of, row_of
from mmseg.engine.benchmark_objects import config_follows_objects
from mmseg.engine.measure import PeakMemory, StageTimer, in_own_process
from mmseg.engine.predict import stream_settings
from mmseg.engine.predictor import VideoPredictor
from mmseg.errors import ConfigError, DataError

HEIGHT = "frame height"
HEIGHTS = (240, 360, 480, 720, 1080)
_ASPECT = 16 / 9
LOGITS = "classes, network alone"
_NUM_CLASSES = "model.decode_head.num_classes"
_CLASSES = (8, 32, 124, 255)  # a label map is uint8, and 255 means "ignored"
_LOGITS = (*_CLASSES, 512)
_CLIPS = (3, 4, 6, 8)
_TEST_SIZES = (1, 2, 4)
_OBJECTS = (1, 2, 4, 8)
_MEMORY_FRAMES = (1, 4, 8, 16)
_MOST_ON_A_GPU = 4  # processes


@dataclass(frozen=True)
class Point:
    """One measurement of a curve.

    Attributes:
        axis: what grows, in words.
        value: how much of it there is.
        job: what is measured.
        processes: that measure it at the same time, a video each.
        measure: gives the one row of a job.
    """

    axis: str
    value: int
    job: Job
    processes: int = 1
    measure: Callable[[Job], list[Row]] = measure_steady


def growth_points(job: Job, heights: Sequence[int] = HEIGHTS) -> list[Point]:
    """What is to be measured of a config; on each axis the other values are those of `job` and of the config.

    Frames of `heights` are 16:9.

    Raises:
        ConfigError: the config cannot be read, or has no model.
    """
    cfg = load_config(job.config, job.options)
    require(cfg, "model", "data.test")
    points = [Point(HEIGHT, height, replace(job, size=(height, int(height * _ASPECT) // 2 * 2))) for height in heights]
    if config_follows_objects(cfg):
        points += [Point("objects", n, replace(job, objects=n)) for n in _OBJECTS]
        points += [Point("frames in memory", n, replace(job, memory_frames=n)) for n in _MEMORY_FRAMES]
    else:
        points += [_changed("classes", n, job, {_NUM_CLASSES: n}) for n in _CLASSES]
        points += [Point(LOGITS, n, job, measure=partial(measure_network, num_classes=n)) for n in _LOGITS]
        points += _clip_points(job, cfg.data.test)
    return points + [Point("processes", n, job, n) for n in _process_counts(job.device)]


def _clip_points(job: Job, test: Mapping[str, Any]) -> Iterator[Point]:
    """Longer clips, where frames look at others: three frames apart, as published."""
    if "test_size" in test:
        for length in _TEST_SIZES:
            yield _changed("clip length", length, job, {"data.test.test_size": length})
    elif test.get("dilation"):
        for length in _CLIPS:
            dilation = list(range(-3 * (length - 1), 0, 3))
            keys = {"model.decode_head.num_clips": length, "data.test.dilation": dilation}
            yield _changed("clip length", length, job, keys)


def _changed(axis: str, value: int, job: Job, keys: Mapping[str, Any]) -> Point:
    return Point(axis, value, replace(job, options={**job.options, **keys}))


def _process_counts(device: str) -> list[int]:
    """1, 2, 4 ... as many as there are processors; not as many on a GPU."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts, most = [1], available if device == "cpu" else min(available, _MOST_ON_A_GPU)
    while 2 * counts[-1] <= most:
        counts.append(2 * counts[-1])
    return counts


def measure_point(point: Point) -> Row:
    """The row of a steady stream, with ``axis``, ``value`` and ``processes``.

    Of several processes at once, ``seconds`` are those per frame of all of them together, ``peak_memory`` is the sum.

    Raises:
        ConfigError: the model does not take this value, or CPU time of several processes is asked for.
        DataError: a process was killed, or the memory of the GPU does not suffice.
    """
    if point.processes > 1 and point.job.cpu_time:
        raise ConfigError(
            "CPU time, which does not tell how processes share the processors", "time that passes", "measure that"
        )
    rows = in_own_process(point.measure, *[point.job] * point.processes)
    together = {
        "seconds": 1 / sum(1 / row["seconds"] for row in rows),
        "peak_memory": sum(row["peak_memory"] for row in rows),
        "added_memory": sum(row["added_memory"] for row in rows),
    }
    return {**rows[0], **together, "axis": point.axis, "value": point.value, "processes": point.processes}


@torch.no_grad()
def measure_network(job: Job, num_classes: int) -> list[Row]:
    """Time per frame of a warm stream from its input to logits that are not resized; no label map has to hold them.

    Raises:
        ConfigError: the classifiers of the model are no 1x1 convolutions, which can be replaced.
    """
    with tempfile.TemporaryDirectory() as folder:
        most = {**job.options, _NUM_CLASSES: _CLASSES[-1]}
        model = inference_model(replace(job, options=most), Path(folder))
        replace_classifiers(model.decode_head, num_classes)
        pipeline, files = frame_pipeline(model, job.size), write_frames(Path(folder), job.size)
        views = [pipeline.views(read(model, number, file))[0] for number, file in enumerate(files)]
        predictor = VideoPredictor(model, pipeline, amp=dtype_of(job))
        predictor.begin()
        timer, memory = StageTimer(predictor.device, job.cpu_time), PeakMemory(predictor.device)
        stream = predictor.network.stream(VIDEO, **stream_settings(model.cfg.data.test, model.test_cfg, model))
        warm_up = frames_of_warm_up(stream, predictor.device)
        memory.start()
        for number in range(warm_up + job.repeats):
            if number == warm_up:
                timer.clear()
            with timer.step(), predictor.precision():
                [scores] = stream.push(predictor.on_device(views[number % len(views)]))
    what = f"network, {len(scores.values)} classes"
    return [row_of(job, predictor.device, what, "steady", timer, memory, views[0].size)]


def replace_classifiers(head: nn.Module, num_classes: int) -> None:
    """Let a head have random classifiers of any number of classes, where constructors take what label maps hold.

    Raises:
        ConfigError: no 1x1 convolutions alone have as many results as it has classes.
    """
    layers = [(parent, *child) for parent in head.modules() for child in parent.named_children()]
    found = [layer for layer in layers if getattr(layer[2], "out_channels", None) == head.num_classes]
    if not found or any(getattr(layer, "kernel_size", None) != (1, 1) for *_, layer in found):
        raise ConfigError(
            f"the network alone of a {type(head).__name__}",
            "classifiers that are 1x1 convolutions",
            "measure another config",
        )
    for parent, name, layer in found:
        setattr(parent, name, nn.Conv2d(layer.in_channels, num_classes, 1).to(layer.weight))
    head.num_classes = num_classes


def growth_rows(
    job: Job, heights: Sequence[int], refused: list[str], passed_over: Collection[str] = ()
) -> Iterator[Row]:
    """Rows of all points of a config, one after the other; values that the model does not take, or for
    which memory does not suffice, go to `refused`. Axes in `passed_over` are not measured.

    Raises:
        ConfigError: the config itself cannot be measured.
    """
    points = [point for point in growth_points(job, heights) if point.axis not in passed_over]
    own = measure_point(Point("", 0, job))  # lies on several axes
    for point in points:
        try:
            row = own if point == Point(point.axis, point.value, job) else measure_point(point)
        except (ConfigError, DataError) as error:
            refused.append(f"{Path(job.config).stem}, {point.axis} {point.value}: {error.found}")
            continue
        yield {**row, "config": job.config, "axis": point.axis, "value": point.value}
