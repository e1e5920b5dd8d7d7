"""One picture of what happens inside of a model: heat maps of its features, stage by stage, beside frame and mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TITLE = 18  # pixels above every picture
_FLOOR = 1e-12


def heat(strength: np.ndarray) -> np.ndarray:
    """Strengths (H, W) of 0 to 1 as colours (H, W, 3) uint8 BGR: purple, red, bright yellow.

    They get brighter and brighter, and so have an order with colour blindness and in print, too.
    """
    steps = np.rint(255 * (0.25 + 0.75 * strength)).astype(np.uint8)
    return cv2.applyColorMap(steps, cv2.COLORMAP_INFERNO).reshape(*strength.shape, 3)


def heat_map(feature: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """How strong a feature (C, h, w) is at every position, as colours: (H, W, 3) uint8 BGR, see :func:`heat`.

    Args:
        feature: its mean absolute value over the channels is shown, stretched to the range of colours.
        size: (H, W) of the picture.
    """
    strength = np.abs(feature.astype(np.float32)).mean(axis=0)
    strength -= strength.min()
    strength /= max(float(strength.max()), _FLOOR)
    return heat(cv2.resize(strength, size[::-1], interpolation=cv2.INTER_LINEAR))


def heat_map_sheet(
    pictures: Mapping[str, np.ndarray], stages: Sequence[Mapping[str, np.ndarray]], width: int = 240
) -> np.ndarray:
    """Pictures in the first row, then a row of heat maps for every stage.

    Args:
        pictures: title -> (H, W, 3) uint8 BGR, all of one size.
        stages: for every stage, title -> feature (C, h, w).
        width: of a picture in the sheet.

    Returns:
        (height, width, 3) uint8 BGR.
    """
    first = next(iter(pictures.values()))
    size = max(1, round(first.shape[0] * width / first.shape[1])), width
    rows = [[(name, cv2.resize(x, size[::-1], interpolation=cv2.INTER_AREA)) for name, x in pictures.items()]]
    for number, stage in enumerate(stages, start=1):
        rows.append([(f"stage {number}: {name}", heat_map(x, size)) for name, x in stage.items()])
    columns = max(map(len, rows))
    sheet = np.full(((size[0] + _TITLE) * len(rows), width * columns, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, (title, picture) in enumerate(row):
            top, left = i * (size[0] + _TITLE), j * width
            cv2.putText(sheet, title, (left + 3, top + 13), _FONT, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
            sheet[top + _TITLE : top + _TITLE + size[0], left : left + width] = picture
    return sheet
