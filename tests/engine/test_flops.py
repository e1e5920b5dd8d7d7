"""Operations and parameters are those of the formulas, counted without computing anything."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmseg.engine.benchmark_reference import reference_of
from mmseg.engine.flops import count_operations, count_parameters
from tests.contract.systems import SYSTEMS, System
from tests.engine.tiny_vspw import write_config

BY_NAME = {system.name: system for system in SYSTEMS}


@pytest.mark.parametrize("name", ["CFFM", "MRCFA", "THE-Mask"])
def test_shapes_alone_cost_what_values_cost(name):
    """The product on a CPU would count a twelfth of it; parts of the formula that are left out would show, too."""
    system: System = BY_NAME[name]
    model = system.model()
    frames = torch.randn(1, system.clip, system.channels, *system.size)
    with FlopCounterMode(display=False) as real:
        reference_of(model).encode_decode(model, frames)
    count = count_operations(model, system.size)
    total = sum(count.parts.values())
    assert total == real.get_total_flops() / 2
    assert count.parts.get("other", 0) < total / 50
    assert count.streamed["backbone"] == count.parts["backbone"] / system.clip


def test_a_frame_with_objects():
    model = BY_NAME["GSFM"].official_model().eval()
    assert sum(count_parameters(model).values()) == sum(p.numel() for p in model.parameters())
    parts = count_operations(model, (32, 48), objects=3, memory_frames=5).parts
    positions = 2 * 3
    assert parts["memory reading"] == positions * 5 * positions * (64 + 3 * 512)
    assert set(parts) == {"key encoder", "memory reading", "decoder", "value encoder"}


def test_the_tool(tmp_path, call):
    """Numbers of the per-frame baseline as one reckons them by hand."""
    config = write_config(tmp_path / "config.py", tmp_path, clip=False)
    output = call("get_flops.py", config, "--shape", 64, 96, "--json", tmp_path / "numbers.json")
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    tokens, dim = 16 * 24, 256
    levels = sum(c * dim * tokens // 4**s for s, c in enumerate((32, 64, 160, 256)))
    assert numbers["macs"]["fused feature"] == levels + 4 * dim * dim * tokens
    assert numbers["macs"]["prediction of each frame"] == dim * 3 * tokens
    assert numbers["parameters"]["backbone"] == 3_319_392  # of MiT-B0 without classifier
    assert "frames of 64x96" in output and f"{sum(numbers['parameters'].values()) / 1e6:.3f}" in output
    assert "--shape" in call("get_flops.py", config, "--shape", 1, 2, 3, status=2)
