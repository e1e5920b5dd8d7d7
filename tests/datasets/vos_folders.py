"""Folders in the official layouts of DAVIS and YouTube-VOS, as the golden cases of GSFM describe them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.golden_cases import fill


def case_palette() -> np.ndarray:
    """(256, 3): entry i is ((37 i) % 256, (37 i + 91) % 256, (37 i + 182) % 256), black for 0."""
    table = np.stack([(37 * np.arange(256) + offset) % 256 for offset in (0, 91, 182)], axis=1).astype(np.uint8)
    table[0] = 0
    return table


def pictures(video: dict[str, Any]) -> np.ndarray:
    """Frames (T, H, W, 3) RGB: a picture of coarse blocks that slides, and grain."""
    name, count, (height, width) = video["name"], video["frames"], video["size"]
    picture = fill.blocks(f"{name}/picture", (3, height + 3 * count, width + 6 * count), 200, 8)
    grain = fill.integers(f"{name}/grain", (count, height, width, 3), 56)
    frames = [picture[:, 3 * t : 3 * t + height, 6 * t : 6 * t + width].permute(1, 2, 0) for t in range(count)]
    return (torch.stack(frames) + grain).to(torch.uint8).numpy()


def label_map(video: dict[str, Any], sliding: bool = False) -> np.ndarray:
    """Object ids (H, W) of a video; of its whole picture, over which windows slide, if `sliding`."""
    height, width = video["size"]
    if sliding:
        height, width = height + 3 * video["frames"], width + 6 * video["frames"]
    index = fill.blocks(f"{video['name']}/labels", (height, width), len(video["ids"]) + 1, video["cell"])
    return np.array([0, *video["ids"]], np.uint8)[index.numpy()]


def write_png(path: Path, array: np.ndarray, palette: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette is not None:
        image.putpalette(palette.tobytes())
    image.save(path, format="PNG")


def write_frames(folder: Path, video: dict[str, Any], names: Sequence[str]) -> None:
    for name, frame in zip(names, pictures(video)):
        write_png(folder / f"{name}.jpg", frame)  # by content a PNG: nothing is lost


def write_davis(root: Path, videos: Sequence[dict[str, Any]], folder: str, split: str) -> Path:
    """DAVIS-2017: the first mask alone. Returns the folder that ``--davis_path`` takes."""
    base = root / "DAVIS" / "2017"
    for video in videos:
        names = [f"{t:05d}" for t in range(video["frames"])]
        write_frames(base / folder / "JPEGImages/480p" / video["name"], video, names)
        write_png(base / folder / "Annotations/480p" / video["name"] / "00000.png", label_map(video), case_palette())
    write_png(base / "trainval/Annotations/480p/blackswan/00000.png", np.zeros((4, 4), np.uint8), case_palette())
    (base / folder / "ImageSets/2017").mkdir(parents=True)
    (base / folder / "ImageSets/2017" / split).write_text("".join(f"{video['name']}\n" for video in videos))
    return base


def write_davis_2016(root: Path, videos: Sequence[dict[str, Any]]) -> Path:
    """DAVIS-2016: masks of 0 and 255 for every frame."""
    base = root / "DAVIS" / "2016"
    for video in videos:
        names = [f"{t:05d}" for t in range(video["frames"])]
        write_frames(base / "JPEGImages/480p" / video["name"], video, names)
        mask = np.where(label_map(video) > 0, np.uint8(255), np.uint8(0))
        for name in names:
            write_png(base / "Annotations/480p" / video["name"] / f"{name}.png", mask)
    (base / "ImageSets").mkdir()
    lists = root / "DAVIS/2017/trainval/ImageSets/2016"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("".join(f"{video['name']}\n" for video in videos))
    return base


def write_youtube(root: Path, videos: Sequence[dict[str, Any]], split: str) -> Path:
    """YouTube-VOS: objects are given where they first appear. Returns the folder that ``--yv_path`` takes."""
    base, meta = root / "YouTube", {}
    for video in videos:
        names = [f"{t * video.get('frame_step', 1):05d}" for t in range(video["frames"])]
        write_frames(base / f"all_frames/{split}_all_frames/JPEGImages" / video["name"], video, names)
        every, objects = label_map(video), {}
        for first, ids in video["first"].items():
            mask = np.where(np.isin(every, ids), every, np.uint8(0))
            write_png(base / split / "Annotations" / video["name"] / f"{names[int(first)]}.png", mask, case_palette())
            for number in ids:
                objects[str(number)] = {"frames": [names[t] for t in video["report"] if t >= int(first)]}
        meta[video["name"]] = {"objects": objects}
    (base / split / "meta.json").write_text(json.dumps({"videos": meta}))
    write_png(base / "valid/Annotations/0a49f5265b/00000.png", np.zeros((4, 4), np.uint8), case_palette())
    return base
