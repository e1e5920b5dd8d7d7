"""A backbone for a frame and the picture of its optical flow: one network looks at both (HFAN, section 3.1)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmseg.errors import DataError
from mmseg.models.builder import build_backbone
from mmseg.models.cpu.pieces import pictures_one_by_one
from mmseg.registry import MODELS
from mmseg.values import Text

CHANNELS = 6  # three of the frame, three of the flow picture


class TwoStream(nn.Module):
    """Splits (B, 6, H, W) into frames and flow pictures and runs one backbone with shared weights on both.

    Args:
        backbone: from images (n, 3, H, W) to four maps.

    Attributes:
        out_channels: channels of the four maps.
        mixes_samples: whether the backbone has batch norms, which see both streams as one batch in training.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.mixes_samples = any(isinstance(module, _BatchNorm) for module in self.backbone.modules())

    @property
    def out_channels(self) -> tuple[int, ...]:
        return tuple(self.backbone.out_channels)

    @property
    def with_cp(self) -> bool:
        """Whether activations are recomputed in backward."""
        return self.backbone.with_cp

    @with_cp.setter
    def with_cp(self, value: bool) -> None:
        self.backbone.with_cp = value

    def forward(self, x: Tensor, stream: int | None = None) -> list[Tensor]:
        """Maps [(2B, C_s, h_s, w_s)] of `x` (B, 6, H, W), all frames first, then all flows.

        Args:
            stream: 0 or 1 gives the B maps of the frames or of the flows alone.

        Raises:
            DataError: `x` has other than 6 channels.
        """
        if x.shape[1] != CHANNELS:
            raise DataError(
                f"an input of {x.shape[1]} channels",
                "6 channels: a frame and the picture of its optical flow",
                "give both, as step(frame, flow=flow), or one img (6, H, W)",
            )
        if stream is None:
            # (B, 6, H, W) -> (2B, 3, H, W)
            return pictures_one_by_one(self.backbone, x.unflatten(1, (2, 3)).transpose(0, 1).flatten(0, 1))
        return pictures_one_by_one(self.backbone, x[:, 3 * stream : 3 * stream + 3])


@MODELS.register_module("TwoStream")
def two_stream(ori_type: Text, backbone_method: str | None = None, **kwargs: Any) -> TwoStream:
    """The :class:`TwoStream` of a config.

    Args:
        ori_type: type of the backbone that looks at both.
        backbone_method: of published configs, without effect.
        kwargs: keys of that backbone.
    """
    return TwoStream(build_backbone(dict(type=ori_type, **kwargs)))
