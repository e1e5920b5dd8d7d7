"""Pictures of the optical flow of stored frames, one file for each frame, under the same name."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmseg.errors import ConfigError, DataError
from mmseg.files import make_folder, read_json, write_json
from mmseg.folder_lock import FolderLock
from mmseg.image_trees import Tree, picture_tree
from mmseg.images import FRAMES, read_frame, write_jpeg
from mmseg.making.flow import FlowNetwork
from mmseg.making.flow_colours import flow_picture, no_flow
from mmseg.progress import FrameProgress

logger = logging.getLogger("mmseg.making")

RECIPE = "flow.json"  # how the pictures of a folder were made


@dataclasses.dataclass(frozen=True)
class _Pair:
    """A picture to be made: from one frame to another; None: there is no other."""

    first: Path
    second: Path | None
    out: Path


def generate_flow(
    frames: str | Path, out: str | Path, network: FlowNetwork, batch_size: int = 4, progress: bool = True
) -> int:
    """Write a flow picture for every frame; those that are there already are left.

    The picture of a frame shows the flow to the next frame of its video, that of the last one the flow to the frame
    before; colours and file format are those of the published data (:func:`flow_picture`, JPEG of quality 95).

    Args:
        frames: ``<video>/<frame>.jpg``, or ``<video>_<number>.jpg`` in one folder; or other pictures.
        out: gets the same names, ``.jpg``.
        network: what computes the flow.
        batch_size: pairs that are computed at once.
        progress: show a bar.

    Returns:
        How many pictures were made.

    Raises:
        DataError: frames cannot be read or differ in size within a video.
        ConfigError: `out` holds pictures that were made in another way.
        WriteError: they cannot be written.
    """
    root, out = Path(frames), Path(out)
    tree = picture_tree(root, FRAMES)
    make_folder(out)
    with FolderLock(out, "a computation of optical flow"):
        _check_recipe(out, network)
        pairs = [pair for pair in _pairs(tree, root, out) if not pair.out.exists()]
        bar = FrameProgress(len(pairs), len(pairs), progress)
        try:
            for batch in _batches(pairs, batch_size):
                for pair, picture in zip(batch, _pictures(batch, network)):
                    write_jpeg(pair.out, picture)
                    bar.advance()
        finally:
            bar.close()
    return len(pairs)


def _pairs(tree: Tree, root: Path, out: Path) -> Iterator[_Pair]:
    for name, frames in tree.items():
        paths = list(frames.values())
        if len(paths) == 1:
            logger.warning("video %s has one frame and no optical flow: a white picture stands in", name)
        for number, path in enumerate(paths):
            if number + 1 < len(paths):
                second = paths[number + 1]
            else:
                second = paths[number - 1] if len(paths) > 1 else None
            yield _Pair(path, second, (out / path.relative_to(root)).with_suffix(".jpg"))


def _batches(pairs: list[_Pair], size: int) -> Iterator[list[_Pair]]:
    """Pairs of one video, at most `size` at once; videos may differ in size."""
    batch: list[_Pair] = []
    for pair in pairs:
        if batch and (len(batch) == size or _video(pair) != _video(batch[-1]) or pair.second is None):
            yield batch
            batch = []
        batch.append(pair)
    if batch:
        yield batch


def _video(pair: _Pair) -> str:
    """What the frames of one video share: the folder, or the name up to the number."""
    return str(pair.first.parent / pair.first.stem.rpartition("_")[0])


def _pictures(batch: list[_Pair], network: FlowNetwork) -> list[np.ndarray]:
    images: dict[Path, np.ndarray] = {}
    for path in (path for pair in batch for path in (pair.first, pair.second) if path is not None):
        if path not in images:
            images[path] = read_frame(path)
    if batch[0].second is None:
        return [no_flow(images[batch[0].first])]
    try:
        flow = network([images[p.first] for p in batch], [images[p.second] for p in batch])
    except DataError as error:
        where = f"{batch[0].first} to {batch[-1].second}"
        raise DataError(f"{where}: {error.found}", error.expected, error.action) from error
    return [flow_picture(field) for field in flow]


def _check_recipe(out: Path, network: FlowNetwork) -> None:
    """Say how the pictures of `out` are made, or see to it that they were made like this."""
    recipe: dict[str, Any] = {"flow": network.name, "updates": getattr(network, "updates", None)}
    path = out / RECIPE
    if not path.exists():
        if any(file.suffix == ".jpg" for file in _some_files(out)):
            raise ConfigError(
                f"{out} holds pictures, and nothing tells how they were made",
                "a new or empty folder",
                "choose another --out",
            )
        write_json(path, recipe)
    elif (found := read_json(path)) != recipe:
        raise ConfigError(
            f"{out} holds flow that was made with {found}",
            f"one way for all pictures of a folder, not also {recipe}",
            "choose another --out, or remove the folder",
        )


def _some_files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent) / name for name in names)
