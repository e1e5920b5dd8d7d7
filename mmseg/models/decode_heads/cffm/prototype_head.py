"""The head with which CFFM's weights make the prototypes of CFFM++."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from mmseg.errors import ConfigError
from mmseg.models.decode_heads.cffm.head import CFFMHead, FoldedCFFM, TargetState
from mmseg.registry import MODELS
from mmseg.values import Channels, NumClasses, PositiveInt


@MODELS.register_module()
class CFFMPrototypeHead(CFFMHead):
    """CFFM's weights, made to cluster a video instead of segmenting it (:mod:`mmseg.engine.prototypes`).

    Args:
        in_channels, channels, num_classes, kwargs: see :class:`~mmseg.models.decode_heads.cffm.head.CFFMHead`.
        save_path: folder of the files ``<video>/centers.pt``.
        n_clusters: number of prototypes per video.
        max_iter: iterations of k-means.
        short_videos: what to do with videos of fewer than ten frames: ``'error'``, or ``'repeat'`` to take frame 0 ten
            times as the released code does.

    Raises:
        ConfigError: a value that cannot work.
    """

    generates_prototypes = True

    def __init__(
        self,
        in_channels: Channels,
        channels: PositiveInt,
        num_classes: NumClasses,
        save_path: str = "./cluster_centers/",
        n_clusters: PositiveInt = 100,
        max_iter: PositiveInt = 10,
        short_videos: Literal["error", "repeat"] = "error",
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, channels, num_classes, **kwargs)
        self.save_path, self.n_clusters, self.max_iter = save_path, n_clusters, max_iter
        self.short_videos = short_videos

    def decode(self, target: TargetState, references: list[Tensor], folded: FoldedCFFM, **context: Any) -> Tensor:
        """A (B, K, h, w)."""
        return self.decode_single(target, folded)

    def train_logits(self, *args: Any, **kwargs: Any) -> Any:
        """Raises ConfigError: there is nothing to train."""
        raise ConfigError(
            "training with the prototype head", "its use with tools/test.py", "train with the CFFM config instead"
        )
