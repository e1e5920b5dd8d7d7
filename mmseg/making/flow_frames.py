"""Frames that carry the picture of their flow, made while a video runs.

The published flow leads from a frame to the next one, so that each frame has to wait for the one after; the last frame
of a video takes the flow to the one before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import numpy as np

from mmseg.images import check_frame
from mmseg.making.flow import FlowNetwork
from mmseg.making.flow_colours import flow_picture, no_flow
from mmseg.structures import Frame

logger = logging.getLogger("mmseg.making")


class FlowAhead:
    """Takes frames in and gives them back with flow, one frame late; pictures are kept, so nobody may write into them.

    Args:
        network: what computes the flow.
        backward: give each frame the flow to the one before, at once, and the first one a white picture. The networks
            have been trained with forward flow: this changes the results.
    """

    def __init__(self, network: FlowNetwork, backward: bool = False) -> None:
        self.network, self.backward = network, backward
        self.reset()

    def reset(self) -> None:
        """Forget all frames: the next one is the first of a video."""
        self._held: Frame | None = None
        self._before: np.ndarray | None = None  # the picture before that of the held frame, or of the last one
        self._image: np.ndarray | None = None  # that of the held frame, which may lose it

    @property
    def is_waiting(self) -> bool:
        """Whether a frame waits for the next one."""
        return self._held is not None

    def push(self, frame: Frame) -> list[Frame]:
        """Take in the next frame; the frames that are ready: this one (backward), or the one before.

        Raises:
            DataError: it is no frame, or of another size than the one before; it is as if it had not come then.
        """
        check_frame(frame.image)
        image = frame.image
        if self.backward:
            frame.flow = no_flow(image) if self._before is None else self._picture(image, self._before)
            self._before = image
            return [frame]
        ready = self._held
        if ready is not None:  # before anything is changed: a frame that does not fit is not taken in
            ready.flow = self._picture(self._image, image)
        self._before, self._image, self._held = self._image, image, frame
        return [] if ready is None else [ready]

    def finish(self) -> list[Frame]:
        """The last frame, with the flow to the one before; the next frame is then the first of a video."""
        last, image, before = self._held, self._image, self._before
        self.reset()
        if last is None:
            return []
        if before is None:
            logger.warning(
                "a video of one frame has no optical flow: a white picture, which means no motion, stands in"
            )
            last.flow = no_flow(image)
        else:
            last.flow = self._picture(image, before)
        return [last]

    def _picture(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return flow_picture(self.network([first], [second])[0])


def with_flow(frames: Iterable[Frame], network: FlowNetwork, backward: bool = False) -> Iterator[Frame]:
    """The frames of a video, each with the picture of its optical flow; one frame late.

    Args:
        frames: of one video, oldest first.
        network: what computes the flow, see :func:`mmseg.making.flow.flow_network`.
        backward: see :class:`FlowAhead`.

    Raises:
        DataError: frames that are none, or differ in size.
    """
    ahead = FlowAhead(network, backward)
    for frame in frames:
        yield from ahead.push(frame)
    yield from ahead.finish()
