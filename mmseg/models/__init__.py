"""Networks: backbones, decode heads, losses and the segmentors that join them."""

from mmseg.models import backbones, decode_heads, losses, networks, segmentors
from mmseg.models.builder import build_backbone, build_head, build_segmentor

__all__ = [
    "backbones",
    "build_backbone",
    "build_head",
    "build_segmentor",
    "decode_heads",
    "losses",
    "networks",
    "segmentors",
]
