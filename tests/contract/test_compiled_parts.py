"""What of each system is compiled in training, is compiled once."""

from __future__ import annotations

import pytest
import torch

from tests.contract.shallow import shallow
from tests.contract.systems import SYSTEMS, System

IN_OTHERS = ("SegFormer", "THE-Mask, one frame")  # CFFM and THE-Mask compile the same parts and more


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
    found = {name: value.item() for name, value in losses.items()}
    for name, value in expected.items():  # of an accuracy in percent rounding may turn a few pixels
        assert found[name] == (pytest.approx(value, abs=0.1) if "acc" in name else pytest.approx(value, rel=1e-4)), name
    assert found.keys() == expected.keys()
