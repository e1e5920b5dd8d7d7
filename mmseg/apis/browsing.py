"""What a data set gives to a training, or to a test, as pictures; ``tools/browse_dataset.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mmseg.config import require, with_data_sets_of_method
from mmseg.datasets import VideoDataset, Wrapper, build_dataset
from mmseg.datasets.sampler import PositionSampler
from mmseg.engine.step import accumulation_steps
from mmseg.errors import ConfigError, nearest
from mmseg.mmengine_names import Config
from mmseg.structures import Progress
from mmseg.visualization.clip_sheet import Clip

_FRAMES = 4  # of a video that is tested


def browse(
    cfg: Config,
    section: Literal["train", "val", "test"] = "train",
    count: int = 6,
    seed: int = 0,
    start: int = 0,
    videos: Sequence[str] | None = None,
) -> tuple[VideoDataset | Wrapper, list[Clip]]:
    """The data set of a section and some clips of it.

    Of ``data.train`` these are the very samples, augmented, that a training with this seed sees; of the others frames
    as they are read, with the masks that they are scored by, or else those that are shown to the model.

    Args:
        cfg: a loaded config.
        section: of ``data``.
        count: number of clips.
        seed: of the training.
        start: position of the first clip in the order of the training.
        videos: names of those that are shown; None takes clips of all.

    Raises:
        ConfigError: the section is missing or cannot work, or there is no such video.
        DataError: the data cannot be used.
    """
    require(cfg, f"data.{section}")
    cfg = with_data_sets_of_method(cfg)
    place = f"data.{section}"
    if section == "train":
        dataset = build_dataset(cfg.data.train, where=place)
        return dataset, _training_clips(cfg, dataset, count, seed, start, videos)
    dataset = build_dataset(cfg.data[section], where=place, test_mode=True)
    return dataset, _videos(dataset, count, videos)


def _training_clips(
    cfg: Config, dataset: Any, count: int, seed: int, start: int, videos: Sequence[str] | None
) -> list[Clip]:
    parts = getattr(dataset, "parts", [dataset])
    if videos is not None:
        _check_names(videos, [video.name for part in parts for video in part.videos])
    order, batch = PositionSampler(len(dataset), seed), cfg.data.get("samples_per_gpu", 1) * accumulation_steps(cfg)
    iterations = cfg.get("runner", {}).get("max_iters", 1)
    clips: list[Clip] = []
    for position in range(start, start + (count if videos is None else 20 * len(dataset))):
        index, key = order[position]
        progress = Progress.at(position, len(dataset), batch, max(iterations, position // batch + 1))
        sample = dataset.clip(index, np.random.default_rng(key), progress)
        if videos is None or sample["img_metas"].get("video") in videos:
            clips.append(clip_of(sample, parts[0], position))
        if len(clips) == count:
            break
    return clips


def clip_of(sample: Mapping[str, Any], dataset: Any, position: int) -> Clip:
    """A training sample as pictures.

    Args:
        sample: ``img`` (T, 3 or 6, H, W), ``gt_semantic_seg`` (T, 1, H, W) and ``img_metas``.
        dataset: says how its pictures are normalised if the sample does not.
        position: of the sample in the order of the training.
    """
    meta = sample["img_metas"]
    norm = meta.get("img_norm_cfg") or getattr(dataset, "img_norm_cfg", None)
    kinds = [[_picture(x, norm) for x in kind] for kind in sample["img"].split(3, dim=1)]
    numbers = meta.get("clip") or meta.get("frames") or ([meta["frame"]] if "frame" in meta else [])
    frames = f", frame{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}" if numbers else ""
    labels = sample.get("gt_semantic_seg")
    maps = [None] * len(kinds[0]) if labels is None else list(labels[:, 0].numpy().astype(np.uint8))
    return Clip(f"sample {position}: {meta.get('video', '')}{frames}", kinds[0], maps, *kinds[1:2])


def _picture(x: Tensor, norm: Mapping[str, Any] | None) -> np.ndarray:
    """A normalised frame (3, H, W) -> (H, W, 3) uint8 BGR; stretched to the range if nobody says how it was made."""
    pixels = x.permute(1, 2, 0)
    if norm is None:
        low, high = pixels.min(), pixels.max()
        pixels = 255 * (pixels - low) / (high - low).clamp(min=1e-6)
    else:
        mean, std = (torch.as_tensor(np.asarray(norm[name], np.float32)) for name in ("mean", "std"))
        pixels = pixels * std + mean
        pixels = pixels.flip(-1) if norm.get("to_rgb", True) else pixels
    return np.ascontiguousarray(pixels.round().clamp(0, 255).byte().numpy())


def _videos(dataset: VideoDataset, count: int, names: Sequence[str] | None) -> list[Clip]:
    """Frames of videos spread over a data set in test mode."""
    if names is not None:
        _check_names(names, [video.name for video in dataset.videos])
        chosen = [index for index, video in enumerate(dataset.videos) if video.name in names][:count]
    else:
        chosen = _spread(len(dataset.videos), count)
    clips = []
    for index in chosen:
        video = dataset.videos[index]
        candidates = video.truths or range(video.num_frames)
        numbers = [candidates[i] for i in _spread(len(candidates), _FRAMES)]
        frames = [dataset.frame(index, number) for number in numbers]
        labels = [frame.given if frame.truth is None else frame.truth for frame in frames]
        flows = [frame.flow for frame in frames if frame.flow is not None]
        title = f"{video.name}, {video.num_frames} frames: {', '.join(frame.name for frame in frames)}"
        clips.append(Clip(title, [frame.image for frame in frames], labels, flows))
    return clips


def _spread(length: int, count: int) -> list[int]:
    """At most `count` numbers from the first to the last of `length`."""
    count = min(length, count)
    return [round(i * (length - 1) / max(1, count - 1)) for i in range(count)]


def _check_names(names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(
                f"--videos {name}: no such video", "names of videos of the data set", nearest(name, known)
            )
