"""Masks of whole data sets from masks that are given, as the published evaluation scripts of GSFM make them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mmseg.apis.inference import init_segmentor
from mmseg.datasets import build_dataset
from mmseg.datasets.given_masks import ObjectVideoDataset
from mmseg.engine.ahead import at
from mmseg.engine.predict import stream_settings
from mmseg.engine.predictor import VideoPredictor
from mmseg.engine.test import eval_mode
from mmseg.mmengine_names import Config
from mmseg.progress import FrameProgress
from mmseg.structures import Result
from mmseg.writing.base import ResultWriter


@dataclass
class Speed:
    """Time of the network and of what makes label maps of its results; files are neither read nor written in it."""

    seconds: float = 0.0
    frames: int = 0

    def lines(self) -> str:
        """As the published scripts tell it."""
        rate = self.frames / self.seconds if self.seconds else 0.0
        return f"Total processing time: {self.seconds}\nTotal processed frames: {self.frames}\nFPS: {rate}"


def propagate(
    cfg: Config,
    checkpoint: str | Path,
    output: str | Path,
    device: torch.device,
    amp: torch.dtype | None = None,
    progress: bool = True,
) -> Speed:
    """Write the PNGs of ``cfg.data.test`` to `output`, ``<video>/<frame>.png`` or as its server wants them.

    Args:
        cfg: a config of a model that follows objects.
        checkpoint: its weights.
        output: folder.
        device: where the model goes.
        amp: type to compute in under autocast.
        progress: show a progress bar.

    Raises:
        SegError: bad input; nothing is written of a run that it ends.
    """
    dataset: ObjectVideoDataset = build_dataset(cfg.data.test, where="data.test", test_mode=True)
    model = init_segmentor(cfg, checkpoint, device)
    settings = stream_settings(cfg.data.test, model.test_cfg, model)
    writer = dataset.png_writer(Path(output) / dataset.inside_submission)
    speed, bar = Speed(), FrameProgress(len(dataset), len(dataset), progress)
    try:
        writer.start(dataset.videos, [0] * len(dataset.videos))
        with eval_mode(model, device):
            for video in dataset.videos:
                writer.begin_video(video)
                predictor = VideoPredictor(model, dataset.pipeline, settings, video=video, amp=amp)
                with at(f"video {video.name!r}", ", "):
                    _propagate_video(dataset, predictor, writer, speed, bar)
                writer.end_video()
        writer.finish()
    except BaseException:
        writer.abort()
        raise
    finally:
        bar.close()
    return speed


def _propagate_video(
    dataset: ObjectVideoDataset, predictor: VideoPredictor, writer: ResultWriter, speed: Speed, bar: FrameProgress
) -> None:
    for frame in dataset.frames(predictor.video.index):
        views = dataset.pipeline.views(frame)
        begin = _now(predictor.device)
        results: Sequence[Result] = list(predictor.push_views(frame, views))
        speed.seconds += _now(predictor.device) - begin
        speed.frames += 1
        for result in results:
            writer.add(result)
        bar.advance()
    list(predictor.finish())


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
