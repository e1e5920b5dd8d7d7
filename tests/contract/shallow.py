"""The systems with one layer of each kind: what they are made of, where its number costs time and shows nothing."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from mmseg.models.backbones.mit import MixVisionTransformer
from mmseg.registry import MODELS
from tests.contract.systems import System


@MODELS.register_module(force=True)
class ShallowMiT(MixVisionTransformer):
    """MiT-B0 with one block per stage."""

    embed_dims, depths = (32, 64, 160, 256), (1, 1, 1, 1)


def shallow(system: System) -> System:
    """The same system with as few layers as it can have."""
    config = system.config()
    if "backbone" not in config:
        return replace(system, prepared=with_single_blocks)
    config["backbone"]["ori_type" if "ori_type" in config["backbone"] else "type"] = "ShallowMiT"
    head = config["decode_head"]
    if "depths" in head.get("decoder_params", {}):
        head["decoder_params"]["depths"] = 1
    if "pixel_decoder_cfg" in head:
        head["pixel_decoder_cfg"]["transformer_enc_layers"] = 1
        head["transformer_decoder_cfg"]["dec_layers"] = 1
        head["loss_cfg"]["dec_layers"] = 2
    return replace(system, config=lambda: config)


def with_single_blocks(model: nn.Module) -> nn.Module:
    """A GSFM with one block per stage of its encoders."""
    for encoder, stages in ((model.key_encoder, ("res2", "layer2", "layer3")), (model.value_encoder, ("layer3",))):
        for stage in stages:
            setattr(encoder, stage, getattr(encoder, stage)[:1])
    return model
