"""Toy videos of objects with ids, in the layouts of DAVIS and YouTube-VOS, and still images of one object."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmseg.files import write_json, write_text
from mmseg.images import write_jpeg
from mmseg.making.toy_scene import TOY_CLASSES, Mover, check_recipe, paint
from mmseg.making.vspw_layout import RECIPE_FILE, new_folder, read_recipe
from mmseg.visualization import davis_palette
from mmseg.writing.label_png import write_label_png

_VERSION = 1  # of the pictures: raise it when they change
_GROUNDS = [look for look in TOY_CLASSES if look.outline is None]
_THINGS = [look for look in TOY_CLASSES if look.outline is not None]
_OBJECTS = 3  # the last of them enters late


def generate_toy_given(
    root: str | Path,
    videos: int = 8,
    val_videos: int = 3,
    images: int = 12,
    frames: int = 12,
    size: tuple[int, int] = (96, 160),
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write the data set; nothing is done if it is there already.

    Three objects move over a background; object 3 enters after a third of the video. The validation videos are there
    twice: under ``DAVIS`` with all masks, and under ``YouTube`` with the masks that give the objects, each where it
    first appears, and the frames that have to be predicted in meta.json.

    Args:
        root: folder to make: ``DAVIS/2017/trainval``, ``YouTube/valid`` with ``YouTube/all_frames``, ``static``.
        videos, val_videos: of the two splits.
        images: stills with one object.
        frames: per video, at least 6.
        size: (height, width).
        seed: the same seed gives the same files.
        overwrite: replace a toy data set made with other settings.

    Returns:
        `root`.

    Raises:
        ConfigError: a number out of range.
        DataError: `root` is in the way or cannot be written.
    """
    recipe = dict(
        made_by="toy given masks", version=_VERSION, videos=videos, val_videos=val_videos, images=images,
        frames=frames, size=list(size), seed=seed,
    )  # fmt: skip
    check_recipe(recipe, videos=1, val_videos=1, images=1, frames=6, seed=0)
    root = Path(root)
    if read_recipe(root) == recipe and not overwrite:
        return root
    with new_folder(root, overwrite) as building:
        davis, meta = building / "DAVIS/2017/trainval", {}
        for part, (split, count) in enumerate([("train", videos), ("val", val_videos)]):
            names = [f"{split}_{number:03d}" for number in range(count)]
            for number, name in enumerate(names):
                scene = _Scene(number, _OBJECTS, size, np.random.default_rng((seed, part, number)))
                clip = [scene.render(t, late=frames // 3) for t in range(frames)]
                _write_davis(davis, name, clip)
                if split == "val":
                    meta[name] = {"objects": _write_youtube(building / "YouTube", name, clip)}
            write_text(davis / f"ImageSets/2017/{split}.txt", "".join(f"{name}\n" for name in names))
        write_json(building / "YouTube/valid/meta.json", {"videos": meta})
        for number in range(images):
            scene = _Scene(number, 1, size, np.random.default_rng((seed, 2, number)))
            image, ids = scene.render(0, late=0)
            write_jpeg(building / f"static/{number:03d}.jpg", image)
            _write_png(building / f"static/{number:03d}.png", np.where(ids > 0, np.uint8(255), np.uint8(0)))
        write_json(building / RECIPE_FILE, recipe)
    return root


class _Scene:
    """A background and objects with ids 1, 2, ... as a function of time; the last of several enters late."""

    def __init__(self, number: int, objects: int, size: tuple[int, int], rng: np.random.Generator) -> None:
        self._ground = paint(_GROUNDS[number % len(_GROUNDS)], size, rng)
        looks = [_THINGS[(number + k) % len(_THINGS)] for k in range(objects)]
        self._movers = [Mover(look, k, rng) for k, look in enumerate(looks, start=1)]

    def render(self, t: int, late: int) -> tuple[np.ndarray, np.ndarray]:
        """Frame t (H, W, 3) BGR and its ids (H, W), both uint8."""
        frame, ids = self._ground.copy(), np.zeros(self._ground.shape[:2], np.uint8)
        for mover in self._movers:
            if mover.label < _OBJECTS or t >= late:
                mover.draw(frame, ids, t)
        return frame, ids


def _write_davis(root: Path, name: str, clip: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for t, (frame, ids) in enumerate(clip):
        write_jpeg(root / "JPEGImages/480p" / name / f"{t:05d}.jpg", frame)
        _write_png(root / "Annotations/480p" / name / f"{t:05d}.png", ids)


def _write_youtube(root: Path, name: str, clip: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, dict]:
    """Frames, given masks, and what meta.json says of the objects: every second frame is to be predicted."""
    objects: dict[str, dict] = {}
    for t, (frame, ids) in enumerate(clip):
        write_jpeg(root / "all_frames/valid_all_frames/JPEGImages" / name / f"{t:05d}.jpg", frame)
        new = [int(number) for number in np.unique(ids) if number and str(number) not in objects]
        if new:
            _write_png(
                root / "valid/Annotations" / name / f"{t:05d}.png", np.where(np.isin(ids, new), ids, np.uint8(0))
            )
        for number in new:
            due = sorted({t, *range(t + t % 2, len(clip), 2)})
            objects[str(number)] = {"category": "toy", "frames": [f"{frame:05d}" for frame in due]}
    return objects


def _write_png(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_label_png(path, ids, davis_palette().tobytes())
