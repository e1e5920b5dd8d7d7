"""Official names in our house: the one place that knows how the released code called things.

Official config files run unmodified because :func:`mmseg.registry.build` translates every config dict
here before it looks its type up. Each entry gives our type name and the keys that change with it.
"""

from __future__ import annotations

from typing import Any

# registry name -> official type name -> (our type name, keys to add unless given, keys without effect)
_TYPES: dict[str, dict[str, tuple[str, dict[str, Any], tuple[str, ...]]]] = {
    "model": {
        "EncoderDecoder": ("FrameSegmentor", {}, ()),
        "EncoderDecoder_clips": ("ClipSegmentor", {}, ()),
        "CFFMHead_clips_resize1_8": ("CFFMHead", {}, ()),
        "CFFMHead_clips_resize1_8_gene_prototype": ("CFFMPrototypeHead", {}, ()),
        "CFFMHead_clips_resize1_8_finetune_w_prototype3": ("CFFMPlusHead", {}, ()),
        "SegFormerHead_clips2_resize_1_8_hypercorrelation2_topk_ensemble4": ("MRCFAHead", {}, ()),
        # named by MRCFA's baseline config and never released: the per-frame branch with batch norm
        "SegFormerHead_clips2_resize_1_8": ("SegFormerHead", {"fuse_norm": "BN"}, ("num_clips", "hypercorre")),
    },
    "dataset": {
        "VSPWDataset2": ("VSPWDataset", {}, ()),
    },
    "transform": {
        "LoadImageFromFile": ("LoadFrames", {}, ("to_float32", "color_type", "imdecode_backend")),
        "LoadAnnotations": ("LoadLabels", {}, ("imdecode_backend",)),
        "RandomCrop_clips": ("RandomCrop", {}, ()),
        "RandomFlip_clips": ("RandomFlip", {}, ()),
        "PhotoMetricDistortion_clips": ("PhotoMetricDistortion", {}, ()),
        "Normalize_clips": ("Normalize", {}, ()),
        "Pad_clips": ("Pad", {}, ()),
        "AlignedResize": ("Resize", {"size_divisor": 32}, ("process_clips",)),
        "AlignedResize_clips": ("Resize", {"size_divisor": 32}, ("process_clips",)),
        "Resize": ("Resize", {}, ("process_clips",)),
        "DefaultFormatBundle_clips": ("PackClip", {}, ()),
        "DefaultFormatBundle": ("PackClip", {}, ()),
        "ImageToTensor_clips": ("ImageToTensor", {}, ()),
    },
}


def translate(registry: str, cfg: dict[str, Any]) -> dict[str, Any]:
    """`cfg` with an official type name and its keys replaced by ours; any other dict comes back as it is."""
    entry = _TYPES.get(registry, {}).get(cfg["type"]) if isinstance(cfg["type"], str) else None
    if entry is None:
        return cfg
    name, added, ignored = entry
    return {**added, **{k: v for k, v in cfg.items() if k not in ignored}, "type": name}


def official_names(registry: str) -> list[str]:
    """The official type names that :func:`translate` accepts for a registry."""
    return list(_TYPES.get(registry, {}))
