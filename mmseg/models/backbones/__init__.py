"""Backbones: an image batch (n, 3, H, W) to four feature maps of strides 4, 8, 16, 32."""

from mmseg.models.backbones.mit import MixVisionTransformer
from mmseg.models.backbones.swin import SwinTransformer
from mmseg.models.backbones.two_stream import TwoStream
from mmseg.registry import MODELS, register_late

register_late(MODELS, "mmseg.models.backbones.resnet", "ResNet", "ResNetV1c")  # of torchvision

__all__ = ["MixVisionTransformer", "SwinTransformer", "TwoStream"]
