"""Objects of YouTube-VOS: what ``meta.json`` says of them, held against the masks that are there."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmseg.errors import DataError
from mmseg.files import read_json
from mmseg.image_trees import read_lines
from mmseg.images import natural_key

logger = logging.getLogger("mmseg.evaluation")

_MAX_META_BYTES = 2**28


def youtube_objects(
    path: Path, masks: Mapping[str, Sequence[str]]
) -> dict[str, dict[int, tuple[str, list[int] | None]]]:
    """Objects of ``meta.json``: video -> id -> category, and in which of the frames with a truth they are annotated.

    Warns of named frames that have no mask.

    Args:
        path: the file.
        masks: video -> stems of its masks, in order.

    Raises:
        DataError: the file is none of YouTube-VOS, or none of the frames of an object has a mask.
    """
    meta, missing = read_json(path, limit=_MAX_META_BYTES), set()
    try:
        videos = meta["videos"]
        objects = {
            name: {
                int(number): (
                    str(info["category"]),
                    _positions(info.get("frames"), stems, f"{path}: object {number} of video {name!r}"),
                )
                for number, info in videos[name]["objects"].items()
            }
            for name, stems in masks.items()
            if name in videos
        }
        for name in objects:
            for info in videos[name]["objects"].values():
                missing |= {(name, frame) for frame in info.get("frames") or () if frame not in masks[name]}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: not as expected ({error!r})",
            '{"videos": {<video>: {"objects": {<id>: {"category": ..., "frames": [...]}}}}}',
            "take the meta.json of YouTube-VOS",
        ) from error
    if missing:
        logger.warning(
            "%s: %d frames in which it has objects are without mask and do not count, the first is %r of video %r",
            *(path, len(missing), *reversed(min(missing))),
        )
    return objects


def _positions(names: Sequence[str] | None, stems: Sequence[str], where: str) -> list[int] | None:
    """Positions of the named frames among those with a truth; None if one at most is named: that which is given.

    The first one gives the object. Where it has no mask, -1 stands in its place.

    Raises:
        DataError: none of them has a truth; the message begins with `where`.
    """
    if not names:
        return None
    found = [stems.index(name) for name in names if name in stems]
    if not found:
        raise DataError(
            f"{where} has frames {names[0]!r} to {names[-1]!r}, and none of them has a mask",
            f"names of masks, from {stems[0]!r} to {stems[-1]!r}",
            "take masks and meta.json of one set; names must be equal, '00005' for 00005.png",
        )
    if len(names) == 1:
        return None
    return found if min(names, key=natural_key) in stems else [-1, *found]


def seen_categories(path: Path) -> set[str]:
    """Categories of the training set: of its ``meta.json``, or one name a line of a text file.

    Raises:
        DataError: it cannot be read, or is neither.
    """
    if path.suffix != ".json":
        return set(read_lines(path, "categories"))
    content = read_json(path, limit=_MAX_META_BYTES)
    try:
        if isinstance(content, list):
            return set(map(str, content))
        return {str(info["category"]) for video in content["videos"].values() for info in video["objects"].values()}
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not as expected ({error!r})",
            "the meta.json of the training set, or a list of categories",
            "take the meta.json of YouTube-VOS, or write one category a line into a text file",
        ) from error
