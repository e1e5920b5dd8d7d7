"""Backbones: an image batch (n, 3, H, W) to four feature maps of strides 4, 8, 16, 32."""

from mmseg.models.backbones.mit import MixVisionTransformer

__all__ = ["MixVisionTransformer"]
