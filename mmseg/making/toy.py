"""A small, deterministic, multi-class video data set in the VSPW layout, to try everything without a download."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmseg.errors import ConfigError
from mmseg.making.toy_scene import TOY_CLASSES, ToyScene, check_recipe
from mmseg.making.vspw_layout import VSPWWriter, new_folder, read_recipe

_VERSION = 1  # of the pictures: raise it when they change


def generate_toy_dataset(
    root: str | Path,
    videos: int = 24,
    val_videos: int = 6,
    test_videos: int = 2,
    frames: int = 24,
    size: tuple[int, int] = (96, 160),
    num_classes: int = len(TOY_CLASSES),
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write the data set; nothing is done if it is there already.

    Videos of the three splits are independent draws. Each has two backgrounds, up to four objects that hide each other,
    a blob that is no class (raw label 0), and outlines marked 255.

    Args:
        root: folder to make.
        videos: in train.txt.
        val_videos: in val.txt.
        test_videos: in test.txt.
        frames: per video; more than 16 are needed for VC16.
        size: (height, width) of the frames.
        num_classes: 3 to 8.
        seed: the same seed gives the same files.
        overwrite: replace a toy data set made with other settings.

    Returns:
        `root`.

    Raises:
        ConfigError: a number out of range.
        DataError: `root` is in the way or cannot be written.
    """
    recipe = dict(
        made_by="toy data set", version=_VERSION, videos=videos, val_videos=val_videos, test_videos=test_videos,
        frames=frames, size=list(size), num_classes=num_classes, seed=seed,
    )  # fmt: skip
    check_recipe(recipe, videos=1, val_videos=1, test_videos=0, frames=1, num_classes=3, seed=0)
    if num_classes > len(TOY_CLASSES):
        raise ConfigError(f"num_classes={num_classes}", f"at most {len(TOY_CLASSES)}", "lower it")
    root = Path(root)
    if read_recipe(root) == recipe and not overwrite:
        return root
    with new_folder(root, overwrite) as building:
        writer = VSPWWriter(building)
        for part, (split, count) in enumerate([("train", videos), ("val", val_videos), ("test", test_videos)]):
            for number in range(count):
                scene = ToyScene(number, num_classes, size, np.random.default_rng((seed, part, number)))
                _write_video(writer, split, f"{split}_{number:03d}", scene, frames)
        writer.finish([look.name for look in TOY_CLASSES[:num_classes]], recipe)
    return root


def _write_video(writer: VSPWWriter, split: str, name: str, scene: ToyScene, frames: int) -> None:
    writer.add_video(split, name)
    for t in range(frames):
        frame, mask = scene.render(t)
        writer.write_frame(name, f"{t:08d}", frame)
        writer.write_mask(name, f"{t:08d}", mask)
