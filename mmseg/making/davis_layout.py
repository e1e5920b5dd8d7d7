"""Original downloads of DAVIS and YouTube-VOS in the layout that HFAN trains on: flat folders with flow.

::

    <out>/frame/<split>/<video>_<frame>.jpg      as downloaded
    <out>/flow/<split>/<video>_<frame>.jpg       see generate_flow
    <out>/mask/<split>/<video>_<frame>.png       0 background, 1 any object
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mmseg.errors import DataError
from mmseg.files import read_bytes, write_bytes
from mmseg.image_trees import MASKS, PICTURES, Tree, chosen, picture_tree, read_video_list
from mmseg.images import check_same_size, read_frame, read_mask, write_jpeg
from mmseg.making.flow import FlowNetwork
from mmseg.making.flow_files import generate_flow
from mmseg.progress import FrameProgress

SPLITS = ("train", "val")
_LISTS = ("ImageSets/2016", "ImageSets/480p", "ImageSets/2017")
_ROOTS = ("", "trainval", "DAVIS", "train")


def prepare_davis(
    source: str | Path,
    out: str | Path,
    network: FlowNetwork | None,
    splits: Sequence[str] | None = None,
    batch_size: int = 4,
    progress: bool = True,
) -> dict[str, int]:
    """Write frames, binary masks and flow of a download; what is there already is left.

    Args:
        source: a DAVIS download (``JPEGImages/480p``, ``Annotations/480p``, ``ImageSets``), of which the lists of 2016
            are taken if there are any; or YouTube-VOS (``train/JPEGImages``, ``train/Annotations``), all of whose
            videos become the split train.
        out: DAVIS2SEG or YouTube2SEG.
        network: what computes the flow; None leaves it out.
        splits: of :data:`SPLITS`; None: those that the download has lists for.
        batch_size, progress: see :func:`generate_flow`.

    Returns:
        Frames of each split.

    Raises:
        DataError: the download is incomplete, or a file in it damaged.
        WriteError: files cannot be written.
    """
    root = _root(Path(source))
    images = picture_tree(root / "JPEGImages", PICTURES, ["480p"])
    masks = picture_tree(root / "Annotations", MASKS, ["480p"])
    counts = {}
    for split, names in _videos(root, masks, splits).items():
        frames = chosen(images, names, root / "JPEGImages")
        _check_masks(frames, chosen(masks, names, root / "Annotations"))
        counts[split] = _copy(frames, masks, Path(out), split, progress)
        if network is not None:
            generate_flow(Path(out, "frame", split), Path(out, "flow", split), network, batch_size, progress)
    return counts


def _root(source: Path) -> Path:
    """The folder that holds JPEGImages and Annotations."""
    for part in _ROOTS:
        if (source / part / "JPEGImages").is_dir() and (source / part / "Annotations").is_dir():
            return source / part
    raise DataError(
        f"{source}: no JPEGImages and Annotations",
        "the folder of an original download: DAVIS (JPEGImages, Annotations, ImageSets) or YouTube-VOS (train/...)",
        "give the folder into which the archive was extracted",
    )


def _videos(root: Path, masks: Tree, splits: Sequence[str] | None) -> dict[str, list[str]]:
    """Split -> names of its videos."""
    folder = next((root / part for part in _LISTS if (root / part).is_dir()), None)
    if folder is None:  # YouTube-VOS
        lists = {"train": list(masks)}
    else:
        lists = {
            split: read_video_list(folder / f"{split}.txt") for split in SPLITS if (folder / f"{split}.txt").exists()
        }
    missing = [split for split in splits or () if split not in lists]
    if missing or not lists:
        raise DataError(
            f"{folder or root}: no list of the videos of {', '.join(missing) or 'train and val'}",
            f"{' or '.join(lists) or 'train.txt and val.txt'}",
            "leave --splits out, or take the complete download",
        )
    return {split: names for split, names in lists.items() if splits is None or split in splits}


def _check_masks(frames: Tree, masks: Tree) -> None:
    bare = [f"{video}/{stem}" for video, own in frames.items() for stem in own if stem not in masks[video]]
    if bare:
        raise DataError(
            f"{len(bare)} frames without mask: {', '.join(bare[:5])}",
            "a mask for every frame",
            "extract the masks again; videos with one given mask only (test-dev) cannot be trained on",
        )


def _copy(frames: Tree, masks: Tree, out: Path, split: str, progress: bool) -> int:
    total = sum(map(len, frames.values()))
    bar = FrameProgress(total, total, progress)
    try:
        for video, own in frames.items():
            for stem, path in own.items():
                name = f"{video}_{_number(stem, path)}"
                target, mask = out / "frame" / split / f"{name}.jpg", out / "mask" / split / f"{name}.png"
                if not (target.exists() and mask.exists()):
                    _copy_one(path, masks[video][stem], target, mask)
                bar.advance()
    finally:
        bar.close()
    return total


def _number(stem: str, path: Path) -> str:
    """A frame's number in five digits, which its result is filed by."""
    if not stem.isdecimal():
        raise DataError(f"{path}: not named by its number", "names like 00012.jpg", "rename the frames")
    return f"{int(stem):05d}"


def _copy_one(frame: Path, labels: Path, target: Path, mask: Path) -> None:
    image, objects = read_frame(frame), read_mask(labels)
    check_same_size(image, objects, labels)
    write_bytes(mask, cv2.imencode(".png", (objects > 0).astype(np.uint8))[1].tobytes(), sync=False)
    if frame.suffix.lower() in (".jpg", ".jpeg"):
        write_bytes(target, read_bytes(frame), sync=False)
    else:
        write_jpeg(target, image)
