"""Clips as a network is trained on them: every frame, its optical flow and its labels, as a sheet or as a page."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mmseg.visualization.contact_sheet import MARGIN, most_frequent, titled_row
from mmseg.visualization.legend import legend_strip
from mmseg.visualization.painting import OPACITY, overlay
from mmseg.visualization.palette import IGNORE_INDEX

_STRIPE = 8  # pixels from one stripe over ignored pixels to the next


@dataclass
class Clip:
    """Some frames of a video, oldest first.

    Attributes:
        title: which they are.
        frames: (H, W, 3) uint8 BGR.
        labels: (H, W) uint8 of each frame, or None.
        flows: (H, W, 3) uint8 BGR of each frame, or none at all.
    """

    title: str
    frames: Sequence[np.ndarray]
    labels: Sequence[np.ndarray | None]
    flows: Sequence[np.ndarray] = ()


def painted(frame: np.ndarray, labels: np.ndarray, table: np.ndarray, opacity: float = OPACITY) -> np.ndarray:
    """An overlay in which ignored pixels have stripes."""
    mixed = overlay(frame, labels, table, opacity)
    rows, columns = np.ogrid[: labels.shape[0], : labels.shape[1]]
    striped = (labels == IGNORE_INDEX) & ((rows + columns) % _STRIPE < 2)
    mixed[striped] = mixed[striped] // 4
    return mixed


def clip_picture(clip: Clip, table: np.ndarray, width: int = 240) -> np.ndarray:
    """A clip as a picture: a column for every frame, with frame, flow and labels below each other.

    Of a clip of a single frame they are beside each other.

    Args:
        clip: what to show.
        table: (256, 3) RGB colours of the labels.
        width: of a column.
    """
    height = max(1, round(clip.frames[0].shape[0] * width / clip.frames[0].shape[1]))
    rows = [clip.frames, *([clip.flows] if clip.flows else [])]
    if any(labels is not None for labels in clip.labels):
        pairs = zip(clip.frames, clip.labels)
        rows.append([frame if labels is None else painted(frame, labels, table) for frame, labels in pairs])
    if len(clip.frames) == 1:
        rows = [[picture for row in rows for picture in row]]
    sheet_width, parts = len(rows[0]) * (width + MARGIN) + MARGIN, []
    for number, pictures in enumerate(rows):
        small = [cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) for picture in pictures]
        row = titled_row(clip.title if number == 0 else "", small, width, sheet_width)
        parts.append(row if number == 0 else row[-height - MARGIN :])
    return np.concatenate(parts)


def clip_sheet(
    clips: Sequence[Clip], table: np.ndarray, class_names: Sequence[str] | None = None, width: int = 240
) -> np.ndarray:
    """All clips below each other, and a legend of the classes in them: (H, W, 3) uint8 BGR.

    Args:
        clips: what to show.
        table: (256, 3) RGB colours of the labels.
        class_names: names in label order; None: labels are numbers of objects.
        width: of a frame.
    """
    pictures = [clip_picture(clip, table, width) for clip in clips]
    full = max(picture.shape[1] for picture in pictures)
    pictures.append(legend_of(clips, table, class_names, full))
    sides = [((0, 0), (0, full - picture.shape[1]), (0, 0)) for picture in pictures]
    return np.concatenate([np.pad(p, side, constant_values=255) for p, side in zip(pictures, sides)])


def legend_of(clips: Sequence[Clip], table: np.ndarray, class_names: Sequence[str] | None, width: int) -> np.ndarray:
    """Patches and names of the labels that are painted in the clips, the most frequent first."""
    counts = np.zeros(256, np.int64)
    for labels in (labels for clip in clips for labels in clip.labels if labels is not None):
        counts += np.bincount(labels.ravel(), minlength=256)
    return legend_strip(most_frequent(counts, table, class_names), class_names, table, width)


def clip_page(
    title: str,
    clips: Sequence[Clip],
    table: np.ndarray,
    class_names: Sequence[str] | None = None,
    width: int = 240,
) -> str:
    """The same as one HTML file with its pictures in it; see :func:`clip_sheet` for the arguments."""
    figures = [(clip.title, clip_picture(clip, table, width)) for clip in clips]
    full = max(picture.shape[1] for _, picture in figures)
    figures.insert(0, ("classes", legend_of(clips, table, class_names, full)))
    body = "\n".join(f'<p><img alt="{html.escape(name)}" src="{_embedded(picture)}"></p>' for name, picture in figures)
    style = "body{font-family:sans-serif;background:#fff;color:#222;margin:1.5em}img{max-width:100%}"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{style}</style></head>\n<body><h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def _embedded(picture: np.ndarray) -> str:
    encoded = cv2.imencode(".png", picture)[1].tobytes()
    return "data:image/png;base64," + base64.b64encode(encoded).decode()
