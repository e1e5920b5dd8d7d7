"""Decode heads: four feature maps to class logits, one file per system."""

from mmseg.models.decode_heads.base import FusionHead
from mmseg.models.decode_heads.cffm.head import CFFMHead
from mmseg.models.decode_heads.cffm.plus_head import CFFMPlusHead
from mmseg.models.decode_heads.cffm.prototype_head import CFFMPrototypeHead
from mmseg.models.decode_heads.clip_head import ClipHead
from mmseg.models.decode_heads.hfan.head import HFANHead
from mmseg.models.decode_heads.mrcfa.head import MRCFAHead
from mmseg.models.decode_heads.segformer import SegFormerHead
from mmseg.models.decode_heads.themask.head import THEMaskFrameHead, THEMaskVideoHead

__all__ = [
    "CFFMHead",
    "CFFMPlusHead",
    "CFFMPrototypeHead",
    "ClipHead",
    "FusionHead",
    "HFANHead",
    "MRCFAHead",
    "SegFormerHead",
    "THEMaskFrameHead",
    "THEMaskVideoHead",
]
