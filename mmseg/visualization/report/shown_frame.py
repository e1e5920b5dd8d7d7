"""What a report shows of a frame: small pictures of image, truth and prediction, which stand in the file themselves."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mmseg.visualization.contact_sheet import shrink
from mmseg.visualization.painting import overlay

WIDTH = 420
_QUALITY = 75  # of WebP
_GREY = 128  # where there is no image


@dataclass(frozen=True)
class ShownFrame:
    """A frame at the size at which it is shown: half a megabyte, until it is known whether it is to be shown.

    Attributes:
        name: of its file.
        image: (h, w, 3) uint8 BGR.
        truth, prediction: (h, w) uint8 labels, or grey maps.
        has_image: whether the image is more than a grey one.
    """

    name: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    has_image: bool

    @classmethod
    def of(cls, name: str, image: np.ndarray | None, truth: np.ndarray, prediction: np.ndarray) -> ShownFrame:
        """One at full size, made small; `image` is None if there is none."""
        ground = np.full((*truth.shape, 3), _GREY, np.uint8) if image is None else image
        small, (small_truth, small_prediction) = shrink(ground, (truth, prediction), WIDTH)
        return cls(name, small, small_truth, small_prediction, image is not None)

    def embedded(self, table: np.ndarray | None) -> dict[str, Any]:
        """``name``, the labels ``present``, and ``image`` (if there is one), ``truth`` and ``prediction`` as data URIs.

        Args:
            table: (256, 3) RGB colours of the labels; None: truth and prediction are grey maps, shown as they are.
        """
        maps = {"truth": self.truth, "prediction": self.prediction}
        present = set().union(*(np.unique(labels).tolist() for labels in maps.values()))
        shown = {"image": _data_uri(self.image)} if self.has_image else {}
        for name, labels in maps.items():
            shown[name] = _data_uri(labels if table is None else overlay(self.image, labels, table))
        return {"name": self.name, "present": sorted(present), **shown}


def _data_uri(picture: np.ndarray) -> str:
    encoded = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])[1].tobytes()
    return "data:image/webp;base64," + base64.b64encode(encoded).decode()
