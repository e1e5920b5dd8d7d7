"""ImageNet weights of torchvision for the encoders of GSFM."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import nn

from mmseg.errors import CheckpointError
from mmseg.models.backbones.pretrained import backbone_weights, find_pretrained
from mmseg.weights import check_values, differences, read_weights_file

logger = logging.getLogger("mmseg.models")

# encoder -> (names in torchvision's files -> names here)
ENCODERS: dict[str, Mapping[str, str]] = {"key_encoder": {"layer1.": "res2."}, "value_encoder": {}}


def load_imagenet(encoder: nn.Module, path: str, names: Mapping[str, str]) -> None:
    """Load the file of a torchvision ResNet into an encoder; if there is none, warn and go on.

    Biases of convolutions, which the files do not have, stay 0; so do what they have beyond the third stage and the
    channels of masks (GSFM specification, section 1.8).

    Raises:
        CheckpointError: the file is damaged, or of another network.
    """
    found = find_pretrained(path)
    if found is None:
        logger.warning(
            "%s: no such file, here or in pretrained/; the %s starts from random weights. To start from ImageNet "
            "weights put torchvision's file of that name there",
            path,
            type(encoder).__name__,
        )
        return
    own = encoder.state_dict()
    state = {}
    for name, value in backbone_weights(read_weights_file(found), str(found)).items():
        old = next((prefix for prefix in names if name.startswith(prefix)), "")
        name = names.get(old, "") + name.removeprefix(old)
        if name in own:
            state[name] = value
    first = state.get("conv1.weight")
    if first is not None and first.ndim == 4 and first.shape[1] == 3:
        state["conv1.weight"] = torch.cat([first, own["conv1.weight"][:, 3:]], dim=1)
    check_values(found, state, own)
    given = {name: own[name] for name in own if name.startswith("fuser.") or name.endswith("num_batches_tracked")}
    given |= {
        name: own[name] for name in own if name.endswith(".bias") and name not in state and _is_conv(encoder, name)
    }
    difference = differences(encoder, {**given, **state})
    if difference:
        raise CheckpointError(
            f"{found} does not fit the {type(encoder).__name__}: {difference}",
            "torchvision's weights of a ResNet-50 for the key encoder, of a ResNet-18 for the value encoder",
            "check model.pretrained",
        )
    encoder.load_state_dict({**given, **state})
    logger.info("weights of the %s: %s", type(encoder).__name__, found)


def _is_conv(encoder: nn.Module, name: str) -> bool:
    return isinstance(encoder.get_submodule(name.rpartition(".")[0]), nn.Conv2d)
