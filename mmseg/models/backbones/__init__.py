"""Backbones: an image batch (n, 3, H, W) to four feature maps of strides 4, 8, 16, 32."""

from mmseg.models.backbones.mit import MixVisionTransformer
from mmseg.models.backbones.resnet import ResNet, ResNetV1c
from mmseg.models.backbones.swin import SwinTransformer
from mmseg.models.backbones.two_stream import TwoStream

__all__ = ["MixVisionTransformer", "ResNet", "ResNetV1c", "SwinTransformer", "TwoStream"]
