"""The methods as their papers state them: the oracle of the tests and the baseline of the benchmark.

Each file computes one system with the weights of the product's modules and nothing else of the product: torch
functions, one formula after the other, as slow and as large as the formulas say. Each offers

- ``encode_decode(model, imgs, img_metas=None, **context)``: logits (B, K, H, W) of the last frames, as the model gives;
- ``loss(model, batch, iteration=0)``: the losses of a batch, for the published loss (cross entropy over all pixels);
- ``forward(head, feats, ...)``: what the official head returns for the maps of the backbone.
"""

import importlib
from types import ModuleType
from typing import Any

_FILES = {
    "SegFormerHead": "segformer",
    "CFFMHead": "cffm",
    "CFFMPlusHead": "cffm_plus",
    "MRCFAHead": "mrcfa",
    "THEMaskFrameHead": "themask",
    "THEMaskVideoHead": "themask",
    "HFANHead": "hfan",
    "GSFM": "gsfm",
}


def reference_of(model: Any) -> ModuleType | None:
    """The file that states what `model` computes, by the type of its head, or of the whole; None if there is none."""
    name = _FILES.get(type(getattr(model, "decode_head", model)).__name__)
    return importlib.import_module(f"{__name__}.{name}") if name else None
