"""The train pipeline of VSPW clips (CFFM's ``*_clips`` transforms), operation by operation on whole frames.

It takes the settings and the draws, in their order, from the product's transforms, and nothing else of the product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

Clip = tuple[list[np.ndarray], list[np.ndarray]]


def clip(frames: Sequence[str], masks: Sequence[str], pipeline: Sequence[Any], rng: np.random.Generator) -> dict:
    """``img`` (T, 3, H, W) float32 and ``gt_semantic_seg`` (T, 1, H, W) int64 of a clip, the target last.

    Args:
        frames, masks: paths.
        pipeline: transforms LoadFrames, LoadLabels, Resize, RandomCrop, RandomFlip, PhotoMetricDistortion, Normalize,
            Pad, PackClip, of which the settings are taken.
    """
    resize, crop, flip, distortion, normalize, pad = pipeline[2:8]
    images = [cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) for path in frames]
    labels = [reduced(np.array(Image.open(path)).astype(np.uint8)) for path in masks]
    images, labels = resized(images, labels, resize, rng)
    images, labels = cropped(images, labels, crop, rng)
    if rng.random() < flip.prob:
        images, labels = [np.flip(image, 1) for image in images], [np.flip(label, 1) for label in labels]
    images = [distorted(np.ascontiguousarray(image), distortion, rng) for image in images]
    images = [normalized(image, normalize) for image in images]
    images = [padded(image, pad.size, pad.pad_val) for image in images]
    labels = [padded(np.ascontiguousarray(label), pad.size, pad.seg_pad_val) for label in labels]
    img = np.stack([np.ascontiguousarray(image.transpose(2, 0, 1)) for image in images])
    truth = np.stack([label[None].astype(np.int64) for label in labels])
    return {"img": torch.from_numpy(img), "gt_semantic_seg": torch.from_numpy(truth)}


def collate(clips: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """A batch of clips."""
    return {key: torch.stack([clip[key] for clip in clips]) for key in clips[0]}


def reduced(mask: np.ndarray) -> np.ndarray:
    """0 becomes 255, all others one less, 254 becomes 255, in uint8."""
    mask[mask == 0] = 255
    mask = mask - 1
    mask[mask == 254] = 255
    return mask


def resized(images: list, labels: list, resize: Any, rng: np.random.Generator) -> Clip:
    """Fitted into the scale times a ratio: frames bilinearly, labels by the nearest neighbour."""
    low, high = resize.ratio_range
    ratio = rng.random() * (high - low) + low
    scale = [int(side * ratio) for side in resize.img_scale]
    height, width = images[0].shape[:2]
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    size = (int(width * factor + 0.5), int(height * factor + 0.5))
    return (
        [cv2.resize(image, size, interpolation=cv2.INTER_LINEAR) for image in images],
        [cv2.resize(label, size, interpolation=cv2.INTER_NEAREST) for label in labels],
    )


def cropped(images: list, labels: list, crop: Any, rng: np.random.Generator) -> Clip:
    """A window in which no class of the last frame has too large a share, if ten draws find one."""
    height, width = images[0].shape[:2]

    def draw() -> tuple[slice, slice]:
        corner = [int(rng.integers(max(side - own, 0) + 1)) for side, own in zip((height, width), crop.crop_size)]
        return tuple(slice(start, start + own) for start, own in zip(corner, crop.crop_size))

    box = draw()
    for _ in range(10):
        values, counts = np.unique(labels[-1][box], return_counts=True)
        counts = counts[values != crop.ignore_index]
        if len(counts) > 1 and counts.max() / counts.sum() < crop.cat_max_ratio:
            break
        box = draw()
    return [image[box] for image in images], [label[box] for label in labels]


def distorted(image: np.ndarray, distortion: Any, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation, hue, each with probability 1/2; contrast before or after the colours."""
    if rng.integers(2):
        image = converted(image, beta=rng.uniform(-distortion.brightness_delta, distortion.brightness_delta))
    contrast_first = rng.integers(2)
    if contrast_first and rng.integers(2):
        image = converted(image, alpha=rng.uniform(*distortion.contrast_range))
    if rng.integers(2):
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[..., 1] = converted(hsv[..., 1], alpha=rng.uniform(*distortion.saturation_range))
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if rng.integers(2):
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        turned = hsv[..., 0].astype(int) + rng.integers(-distortion.hue_delta, distortion.hue_delta)
        hsv[..., 0] = turned % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if not contrast_first and rng.integers(2):
        image = converted(image, alpha=rng.uniform(*distortion.contrast_range))
    return image


def converted(image: np.ndarray, alpha: float = 1.0, beta: float = 0.0) -> np.ndarray:
    """``image * alpha + beta`` in float32, clipped, truncated."""
    changed = image.astype(np.float32) * np.float32(alpha) + np.float32(beta)
    return np.clip(changed, 0, 255).astype(np.uint8)


def normalized(image: np.ndarray, normalize: Any) -> np.ndarray:
    """RGB, minus mean, times the double-precision reciprocal of the deviation, in float32."""
    image = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_BGR2RGB)
    return cv2.multiply(cv2.subtract(image, normalize.mean[None]), 1 / normalize.std[None])


def padded(array: np.ndarray, size: Sequence[int], value: float) -> np.ndarray:
    """Enlarged at the bottom and on the right."""
    out = np.full((*size, *array.shape[2:]), value, array.dtype)
    out[: array.shape[0], : array.shape[1]] = array
    return out
