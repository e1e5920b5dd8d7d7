"""A video of a data set, seen as what a model may ask of a video that is at hand from start to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from mmseg.datasets.base import VideoDataset


class WholeVideo:
    """Any frame of a video as the network sees it (see ``ClipHead.stream_context``).

    Args:
        dataset: in test mode.
        index: of the video in ``dataset.videos``.
    """

    def __init__(self, dataset: VideoDataset, index: int) -> None:
        self.dataset, self.index = dataset, index
        self.name = dataset.videos[index].name
        self.num_frames = len(dataset.videos[index].frames)

    def network_input(self, frame: int) -> Tensor:
        """Frame number `frame` after the test pipeline, (3, h, w), at the first scale and not mirrored.

        Raises:
            DataError: the frame cannot be read.
        """
        views = self.dataset.pipeline.views(self.dataset.load_frame(self.index, frame))
        return next(view.img for view in views if not view.flip)
