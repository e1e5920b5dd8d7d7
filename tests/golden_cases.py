"""Reads the cases of ``tests/golden``: builds their inputs and compares what we compute with what they hold."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))

import fill  # noqa: E402  (lies beside the cases)


class Case:
    """One golden case: ``Case('cffm', 'cffm_b1_head')``."""

    def __init__(self, folder: str, name: str) -> None:
        self.name = name
        self.data = json.loads((GOLDEN / folder / f"{name}.json").read_text())
        arrays = GOLDEN / folder / f"{name}.npz"
        self.arrays = dict(np.load(arrays)) if arrays.exists() else {}
        self.config = self.data.get("config")

    def __getitem__(self, key: str):
        return self.data[key]

    def inputs(self) -> dict[str, torch.Tensor]:
        """Every input tensor of the case, made from its recipe."""
        makers = {"normal": fill.normal, "integers": fill.integers, "blocks": fill.blocks}
        return {k: makers[kind](*args) for k, (kind, *args) in self.data["inputs"].items()}

    def check(self, name: str, value: torch.Tensor | np.ndarray | float) -> None:
        """Assert that `value` equals the stored output `name` within the case's tolerance."""
        spec = self.data["outputs"][name]
        value = torch.as_tensor(value).detach()
        if spec["shape"] == [1] and value.ndim == 0:
            value = value[None]
        assert list(value.shape) == spec["shape"], f"{name}: shape {list(value.shape)}, expected {spec['shape']}"
        flat = value.flatten()
        if spec["stored"] != "full":
            flat = flat[:: int(spec["stored"].rsplit(" ", 1)[1])]
        expected = torch.from_numpy(np.ascontiguousarray(self.arrays[name])).flatten()
        assert len(flat) == len(expected), f"{name}: {len(flat)} numbers, expected {len(expected)}"
        tolerance = self.data["tolerance"]
        per_output = {**tolerance.get("abs_by_output", {}), **tolerance.get("per_output", {})}
        own = per_output.get(name, tolerance["abs"])
        absolute = own["abs"] if isinstance(own, dict) else own
        relative = own.get("rel", 0.0) if isinstance(own, dict) else tolerance.get("rel", 0.0)
        torch.testing.assert_close(
            flat.double(), expected.double(), atol=absolute, rtol=relative, msg=lambda m: f"{self.name}/{name}: {m}"
        )


def build_filled(builder, config: dict, mode: str = "eval") -> torch.nn.Module:
    """The module of `config` with the golden weights, in eval mode or in train mode without any dropout."""
    module = builder(config)
    fill.fill(module)
    if mode == "eval":
        return module.eval()
    for part in module.modules():
        if isinstance(part, (torch.nn.Dropout, torch.nn.Dropout2d)):
            part.p = 0.0
        elif type(part).__name__ == "DropPath":
            part.drop_prob = 0.0
    return module.train()
