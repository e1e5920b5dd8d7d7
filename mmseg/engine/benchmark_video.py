"""A whole video file, decoding included: how many label maps a second come out, one frame at a time and several."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import torch

from mmseg.datasets.video_reader import open_video
from mmseg.engine.benchmark import inference_model
from mmseg.engine.benchmark_data import VIDEO, frame_pipeline
from mmseg.engine.benchmark_job import Job, Row, dtype_of, setting
from mmseg.engine.benchmark_objects import follows_objects
from mmseg.engine.measure import PeakMemory
from mmseg.engine.predict import predict, stream_settings
from mmseg.errors import ConfigError, WriteError
from mmseg.models.base import VideoModel
from mmseg.structures import Frame, Size

_AROUND = 24  # results before those that count, until references, kernels and memory are there; and after them
_SMALLEST = 16  # pixels


def measure_video(job: Job) -> list[Row]:
    """Time per frame of `repeats` frames in the middle of a video file.

    One row for frames as they come, as a camera's, and one for frames that are taken in ahead, as a file's are. Label
    maps are handed out and forgotten: what writes them has a speed of its own.

    Raises:
        ConfigError: a model that needs more than frames, or a size that a video cannot have.
        WriteError: OpenCV cannot write a video here.
    """
    with tempfile.TemporaryDirectory() as name:
        model = inference_model(job, Path(name))
        if follows_objects(model) or model.takes_flow:
            raise ConfigError(
                f"--mode video for {job.config}, which looks at {'flow' if model.takes_flow else 'masks'}, too",
                "a model of frames alone",
                "use --mode stream",
            )
        path = write_video(Path(name, "moving.mp4"), job.size, _AROUND + job.repeats + _AROUND)
        return [_row(job, model, path, ahead) for ahead in (False, True)]


def write_video(path: Path, size: Size, count: int) -> Path:
    """A picture that moves, of height and width `size`, as a file of `count` frames.

    Raises:
        ConfigError: an odd side, which the file would not have, or a tiny one.
        WriteError: OpenCV cannot write a video here.
    """
    height, width = size
    if height % 2 or width % 2 or min(size) < _SMALLEST:
        raise ConfigError(
            f"a video of {height}x{width} pixels",
            f"even sides of at least {_SMALLEST}",
            f"use --size {max(height // 2 * 2, _SMALLEST)} {max(width // 2 * 2, _SMALLEST)}",
        )
    noise = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    picture = cv2.resize(noise, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 24, (width, height))
    for t in range(count):
        y, x = t % height, 2 * t % width
        writer.write(np.ascontiguousarray(picture[y : y + height, x : x + width]))
    writer.release()
    if not path.exists():
        raise WriteError(f"{path}: OpenCV has no encoder for mp4v", "a video of OpenCV", "install opencv-python")
    return path


def _row(job: Job, model: VideoModel, path: Path, ahead: bool) -> Row:
    device = torch.device(job.device)
    settings, memory = stream_settings(model.cfg.data.test, model.test_cfg, model), PeakMemory(device)
    pipeline = frame_pipeline(model, job.size)
    memory.start()
    results = predict(model, _frames(path), pipeline, settings, source=VIDEO, amp=dtype_of(job), ahead=ahead)
    with closing(results):  # in the middle of the video: as much is under way in the end as it was at the start
        for number, _ in enumerate(results, start=1):
            if number == _AROUND:
                start = time.perf_counter()
            if number == _AROUND + job.repeats:
                break
        seconds = (time.perf_counter() - start) / job.repeats
    return {
        "what": f"video, {'frames ahead' if ahead else 'frame by frame'}",
        "cache": "steady",
        **setting(job, device),
        "network_size": list(pipeline.views(next(_frames(path)))[0].size),
        "seconds": seconds,
        "repeats": job.repeats,
        "peak_memory": memory.peak(),
        "added_memory": memory.added(),
    }


def _frames(path: Path) -> Iterator[Frame]:
    for number, picture in open_video(path).pictures():
        yield Frame(number, f"{number:06d}", picture)
