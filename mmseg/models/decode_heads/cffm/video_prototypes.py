"""Prototypes of a video without a prototype file: from the whole video, or from what a live stream has seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from mmseg.clips import prototype_clip
from mmseg.models.decode_heads.cffm.kmeans import kmeans
from mmseg.models.decode_heads.cffm.prototype_files import video_seed

NUM_FRAMES = 10  # from which the prototypes of a video are made


class WholeVideo(Protocol):
    """A video that is at hand from its first to its last frame."""

    name: str
    num_frames: int

    def network_input(self, frame: int) -> Tensor:
        """The frame (3, h, w), normalised."""
        ...


def whole_video_prototypes(video: WholeVideo, tokens: Callable[[Tensor], Tensor], n_clusters: int) -> Tensor:
    """The prototypes (n, C) that the generated file of this video would hold.

    Args:
        video: of fewer than ten frames, all are used.
        tokens: from frames (n, 3, h, w) to the rows that are clustered (rows, C).
    """
    short = video.num_frames < NUM_FRAMES
    frames = range(video.num_frames) if short else prototype_clip(video.num_frames, NUM_FRAMES)
    rows = torch.cat([tokens(video.network_input(frame)[None]) for frame in frames])
    return kmeans(rows, min(n_clusters, len(rows)), seed=video_seed(video.name))[1]


class LivePrototypes:
    """Prototypes of what a live stream has shown so far, made anew after frames 1, 2, 4, 8, ...

    A bounded random sample of feature rows is kept, to which every frame has contributed about the same number.

    Args:
        n_clusters: number of prototypes; fewer if the first frame has fewer rows.
        seed: of the sample and the clustering.
        max_rows: size of the sample.
    """

    def __init__(self, n_clusters: int, seed: int, max_rows: int = 8192) -> None:
        self.n_clusters, self.seed, self.max_rows = n_clusters, seed, max_rows
        self._generator = torch.Generator().manual_seed(seed)
        self._rows: Tensor | None = None
        self._centers: Tensor | None = None
        self._frames = 0

    def observe(self, rows: Tensor) -> None:
        """Take notice of the next frame's feature rows (n, C)."""
        self._frames += 1
        new = self._draw(rows, self.max_rows // self._frames)
        if self._rows is None:
            self._rows = new
        else:
            self._rows = torch.cat([self._draw(self._rows, self.max_rows - len(new)), new])
        if self._frames & (self._frames - 1) == 0:
            self._centers = None  # clustered when a prediction asks for it

    def centers(self) -> Tensor:
        """The present prototypes (n, C)."""
        if self._centers is None:
            count = min(self.n_clusters, len(self._rows))
            self._centers = kmeans(self._rows, count, seed=self.seed)[1]
        return self._centers

    def _draw(self, rows: Tensor, count: int) -> Tensor:
        """At most `count` random rows, as a copy."""
        chosen = torch.randperm(len(rows), generator=self._generator)[: max(count, 1)]
        return rows[chosen.to(rows.device)]
