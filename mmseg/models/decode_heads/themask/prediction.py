"""What a query decoder predicts after each of its layers: classes and masks of its queries."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Prediction:
    """Q queries, each a class and a mask, of B clips of T frames; maps have stride 4.

    Attributes:
        logits: (B, Q, K + 1) class logits of the clips' queries; the last class is "no object".
        masks: (B, Q, T, h, w) mask logits of the clips' queries.
        frame_logits: (B * T, Q, K + 1) class logits of the frames' queries, item-major (``b * T + t``), or None.
        frame_masks: (B * T, Q, 1, h, w) mask logits of the frames' queries, or None.
    """

    logits: Tensor
    masks: Tensor
    frame_logits: Tensor | None = None
    frame_masks: Tensor | None = None
