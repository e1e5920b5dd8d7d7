"""GSFM as graphs: parts without any choice, and the numbers of the policy around them.

- ``embed``: a frame to its key and features.
- ``read``: a key, and what objects have in memory of any number of frames, to what the frame reads.
- ``decode``: that of all objects, and features of the frame, to probabilities of background and objects.
- ``remember``: a frame with the masks of its objects to its entry of the memory.

Objects are an axis of any length. Those that came on one frame share the frames that they have in memory, so that they
are read together; all of them are decoded and remembered together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmseg.models.exportable import ExportParts, Formula, Part
from mmseg.models.layers.aggregation import MARGIN, aggregate
from mmseg.models.layers.memory_reading import read_best_of_any
from mmseg.models.layers.padding import centred_margins, pad
from mmseg.models.networks.gsfm.tracking import DIVISOR, LARGEST_ID, positions
from mmseg.structures import Size

if TYPE_CHECKING:
    from mmseg.models.networks.gsfm.network import GSFM


@torch.no_grad()
def exported_parts(model: GSFM, size: Size, settings: Mapping[str, Any]) -> ExportParts:
    """The parts of a model for frames of one size, and the policy of a stream with all its settings."""
    folded, margins = model.folded(), centred_margins(*size, DIVISOR)

    def embed(img: Tensor) -> tuple[Tensor, ...]:
        keys = model.encode_key(pad(img, margins), folded["key_encoder"])
        return positions(keys.key[0]), keys.query, keys.f16, keys.f8, keys.f4

    def read(key: Tensor, memory_keys: Tensor, memory_values: Tensor) -> Tensor:
        found = read_best_of_any(memory_keys, memory_values.flatten(2), key, settings["top_k"])
        return found.unflatten(1, memory_values.shape[2:]).permute(1, 2, 0).unflatten(2, shape)  # (k, D, h, w)

    def decode(readout: Tensor, query: Tensor, f8: Tensor, f4: Tensor) -> Tensor:
        logits = model.decoder(readout[None], query, f8, f4, boundaries=False).masks[0]
        return aggregate(logits.sigmoid())[1]

    def remember(img: Tensor, f16: Tensor, masks: Tensor) -> Tensor:
        values = folded["value_encoder"](pad(img, margins), f16, masks[None])[0]  # (k, D, h, w)
        return values.flatten(2).permute(2, 0, 1)

    img = torch.zeros(1, 3, *size)
    made = dict(zip(("key", "query", "f16", "f8", "f4"), embed(img)))
    shape = made["f16"].shape[-2:]
    masks = pad(torch.zeros(2, *size), margins)
    entry = {"memory_keys": made["key"], "memory_values": remember(img, made["f16"], masks)}
    memory = {name: torch.stack([value, value]) for name, value in entry.items()}  # (T, P, C) and (T, P, k, D)
    features = {name: made[name] for name in ("query", "f8", "f4")}
    parts = {
        "embed": Part(Formula(model, embed), {"img": img}, tuple(made)),
        "read": Part(
            Formula(model, read),
            {"key": made["key"], **memory},
            ("readout",),
            {"memory_keys": {0: "frames"}, "memory_values": {0: "frames", 2: "objects"}},
        ),
        "decode": Part(
            Formula(model, decode),
            {"readout": read(made["key"], **memory), **features},
            ("probabilities",),
            {"readout": {0: "objects"}},
        ),
        "remember": Part(
            Formula(model, remember),
            {"img": img, "f16": made["f16"], "masks": masks},
            ("memory_values",),
            {"masks": {0: "objects"}},
        ),
    }
    policy = {"kind": "objects", **settings, "margins": list(margins), "largest_id": LARGEST_ID, "clamp": MARGIN}
    return ExportParts(parts, policy)
