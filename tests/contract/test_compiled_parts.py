"""What of each system is compiled in training, is compiled once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmseg.models.backbones.mit import MixVisionTransformer
from mmseg.registry import MODELS
from tests.contract.systems import SYSTEMS, System

IN_OTHERS = ("SegFormer", "THE-Mask, one frame")  # CFFM and THE-Mask compile the same parts and more


@MODELS.register_module(force=True)
class ShallowMiT(MixVisionTransformer):
    """MiT-B0 with one block per stage, which is enough of what is compiled."""

    embed_dims, depths = (32, 64, 160, 256), (1, 1, 1, 1)


def shallow(system: System) -> System:
    """The same system with the smallest encoder, if it has one of several sizes."""
    config = system.config()
    if "backbone" in config:
        config["backbone"]["ori_type" if "ori_type" in config["backbone"] else "type"] = "ShallowMiT"
    return replace(system, config=lambda: config)


@pytest.mark.parametrize(
    "system", [pytest.param(system, id=system.name) for system in SYSTEMS if system.name not in IN_OTHERS]
)
def test_compiled_parts_are_compiled_once(system: System):
    """Names of videos and the iteration change with every batch, and neither enters what is compiled."""
    system = shallow(system)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model, batch = system.model("train"), system.batch()
    names = list(model.state_dict())
    expected = {name: value.item() for name, value in model.loss(batch, 0).items()}
    model.compile_parts(backend="eager")
    graphs = []
    for iteration in (0, 1):
        batch["img_metas"] = [{"video": f"video {iteration} {i}"} for i in range(len(batch["img_metas"]))]
        losses = model(batch, iteration)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] >= 2  # backbone and head
    assert list(model.state_dict()) == names
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(expected, rel=1e-4)
