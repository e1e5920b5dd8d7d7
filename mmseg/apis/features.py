"""``--save features``: pictures of what happens to the features of a frame inside of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmseg import distributed
from mmseg.datasets.transforms import TestPipeline
from mmseg.errors import ConfigError
from mmseg.files import make_folder
from mmseg.images import write_jpeg
from mmseg.models.base import VideoModel
from mmseg.structures import Frame, Result, Video
from mmseg.visualization import overlay
from mmseg.visualization.heat_maps import heat_map_sheet
from mmseg.writing.base import ResultWriter, inside, tell_of_leftovers

_QUALITY = 90  # of JPEG


class FeatureWriter(ResultWriter):
    """``<folder>/<video>/<frame>.jpg``: frame, flow and mask, and heat maps of every stage.

    Each frame passes the network once more, as a whole.

    Args:
        folder: where the pictures go.
        model: has a method ``feature_maps``; in eval mode when frames come.
        pipeline: gives the network input of a frame; the first view is taken.
        table: (256, 3) uint8 RGB colours of the labels.

    Raises:
        ConfigError: the model has no features to show.
    """

    def __init__(self, folder: str | Path, model: VideoModel, pipeline: TestPipeline, table: np.ndarray) -> None:
        if not hasattr(model, "feature_maps"):
            raise ConfigError(
                f"--save features with a {type(model).__name__}",
                "a model that shows what its stages do: HFAN",
                "leave out --save",
            )
        self.folder, self.model, self.pipeline, self.table = Path(folder), model, pipeline, table

    def start(self, videos: Sequence[Video], owners: Sequence[int]) -> None:
        self._names = {video.name for video in videos}

    def finish(self) -> None:
        if distributed.is_main():
            pictures = [path.parent.relative_to(self.folder).as_posix() for path in self.folder.rglob("*.jpg")]
            tell_of_leftovers(self.folder, set(pictures) - self._names)

    def begin_video(self, video: Video) -> None:
        make_folder(inside(self.folder, video.name))

    def add(self, result: Result) -> None:
        if result.labels is not None:
            self.write(inside(self.folder, result.video.name), result)

    def write(self, folder: Path, result: Result) -> None:
        """Write the picture of one result, while its frame is at hand."""
        sheet = self._sheet(result.frame, result.labels)
        write_jpeg(inside(folder, result.frame.name, ".jpg"), sheet, _QUALITY)

    def _sheet(self, frame: Frame, labels: np.ndarray) -> np.ndarray:
        weight = next(self.model.parameters())
        img = self.pipeline.views(frame)[0].inputs["img"].to(weight.device, weight.dtype)
        stages = [
            {name: maps.float().cpu().numpy() for name, maps in stage.items()} for stage in self.model.feature_maps(img)
        ]
        pictures = {"frame": frame.image, "flow": frame.flow, "mask": overlay(frame.image, labels, self.table)}
        return heat_map_sheet({name: x for name, x in pictures.items() if x is not None}, stages)
