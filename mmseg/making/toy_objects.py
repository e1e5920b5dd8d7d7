"""Toy videos of moving objects with flow and masks, in the layout of DAVIS2SEG."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from mmseg.files import write_bytes, write_json
from mmseg.images import write_jpeg
from mmseg.making.flow import FlowNetwork, flow_network
from mmseg.making.flow_frames import with_flow
from mmseg.making.toy_scene import TOY_CLASSES, UNSURE, ToyScene, check_recipe
from mmseg.making.vspw_layout import RECIPE_FILE, new_folder, read_recipe
from mmseg.structures import Frame

_VERSION = 1  # of the pictures: raise it when they change
_THINGS = [label for label, look in enumerate(TOY_CLASSES, start=1) if look.outline is not None]


def generate_toy_objects(
    root: str | Path,
    videos: int = 8,
    val_videos: int = 3,
    frames: int = 12,
    size: tuple[int, int] = (96, 160),
    seed: int = 0,
    overwrite: bool = False,
    flow: str = "dis",
) -> Path:
    """Write the data set; nothing is done if it is there already.

    Objects of several outlines move over moving backgrounds; the masks hold 1 where any of them is.

    Args:
        root: folder to make: ``{frame,flow,mask}/{train,val}/<video>_<frame>.{jpg,jpg,png}``.
        videos, val_videos: of the two splits.
        frames: per video.
        size: (height, width) of the frames.
        seed: the same seed gives the same files.
        overwrite: replace a toy data set made with other settings.
        flow: name of what computes the flow, see :func:`flow_network`.

    Returns:
        `root`.

    Raises:
        ConfigError: a number out of range.
        DataError: `root` is in the way or cannot be written.
    """
    recipe = dict(
        made_by="toy objects", version=_VERSION, videos=videos, val_videos=val_videos, frames=frames,
        size=list(size), seed=seed, flow=flow,
    )  # fmt: skip
    check_recipe(recipe, videos=1, val_videos=1, frames=3, seed=0)
    root, network = Path(root), flow_network(flow)
    if read_recipe(root) == recipe and not overwrite:
        return root
    with new_folder(root, overwrite) as building:
        for part, (split, count) in enumerate([("train", videos), ("val", val_videos)]):
            for number in range(count):
                scene = ToyScene(number, len(TOY_CLASSES), size, np.random.default_rng((seed, part, number)))
                _write_video(building, split, f"toy{number:03d}", scene, frames, network)
        write_json(building / RECIPE_FILE, recipe)
    return root


def _write_video(root: Path, split: str, video: str, scene: ToyScene, number: int, network: FlowNetwork) -> None:
    for frame in with_flow(_rendered(scene, video, number), network):
        write_jpeg(root / "frame" / split / f"{frame.name}.jpg", frame.image)
        write_jpeg(root / "flow" / split / f"{frame.name}.jpg", frame.flow)
        mask = cv2.imencode(".png", frame.truth)[1]
        write_bytes(root / "mask" / split / f"{frame.name}.png", mask.tobytes(), sync=False)


def _rendered(scene: ToyScene, video: str, number: int) -> Iterator[Frame]:
    for t in range(number):
        image, labels = scene.render(t)
        yield Frame(t, f"{video}_{t:05d}", image, truth=_object_mask(labels))


def _object_mask(labels: np.ndarray) -> np.ndarray:
    """1 where an object is, its outline included as far as it touches it; (H, W) uint8."""
    objects = np.isin(labels, _THINGS).astype(np.uint8)
    grown = cv2.dilate(objects, np.ones((3, 3), np.uint8))
    return np.where(labels == UNSURE, grown, objects).astype(np.uint8)
