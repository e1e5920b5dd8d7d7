"""Decode heads: four feature maps to class logits, one file per system."""

from mmseg.models.decode_heads.base import FusionHead
from mmseg.models.decode_heads.cffm import CFFMHead
from mmseg.models.decode_heads.cffm_plus import CFFMPlusHead
from mmseg.models.decode_heads.cffm_prototype import CFFMPrototypeHead
from mmseg.models.decode_heads.clip_head import ClipHead
from mmseg.models.decode_heads.mrcfa import MRCFAHead
from mmseg.models.decode_heads.segformer import SegFormerHead

__all__ = [
    "CFFMHead",
    "CFFMPlusHead",
    "CFFMPrototypeHead",
    "ClipHead",
    "FusionHead",
    "MRCFAHead",
    "SegFormerHead",
]
