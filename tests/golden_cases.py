"""Reads the cases of ``tests/golden``: builds their inputs and compares what we compute with what they hold."""

from __future__ import annotations

import functools
import json
import sys
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))

import fill  # noqa: E402  (lies beside the cases)

fill.weight = functools.lru_cache(maxsize=2048)(fill.weight)  # a function of name and shape; drawing takes long


class Case:
    """One golden case: ``Case('cffm', 'cffm_b1_head')``."""

    def __init__(self, folder: str, name: str) -> None:
        self.name = name
        self.data = json.loads((GOLDEN / folder / f"{name}.json").read_text())
        self._file = GOLDEN / folder / f"{name}.npz"
        self.config = self.data.get("config")

    def __getitem__(self, key: str):
        return self.data[key]

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The stored outputs."""
        return dict(np.load(self._file)) if self._file.exists() else {}

    def inputs(self) -> dict[str, torch.Tensor]:
        """Every input tensor of the case, made from its recipe."""
        makers = {
            "normal": fill.normal,
            "integers": fill.integers,
            "blocks": fill.blocks,
            "normal*": lambda name, shape, seed, scale: scale * fill.normal(name, shape, seed),
            "smooth": _smooth,
            "table": _table,
            "uniform": _uniform,
        }
        return {k: makers[kind](*args) for k, (kind, *args) in self.data["inputs"].items()}

    def check(self, name: str, value: torch.Tensor | np.ndarray | float, relative: float | None = None) -> None:
        """Assert that `value` equals the stored output `name` within the case's tolerance, or within `relative`."""
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
        atol, rtol = self._tolerance(name, spec) if relative is None else (0.0, relative)
        torch.testing.assert_close(
            flat.double(), expected.double(), atol=atol, rtol=rtol, msg=lambda m: f"{self.name}/{name}: {m}"
        )

    def _tolerance(self, name: str, spec: dict) -> tuple[float, float]:
        """Absolute and relative tolerance of an output."""
        tolerance = self.data["tolerance"]
        if any(rule == "equal" and fnmatch(name, pattern) for pattern, rule in tolerance.items()):
            return 0.0, 0.0
        if "rel_to_absmax" in tolerance:
            return tolerance["rel_to_absmax"] * spec["absmax"], 0.0
        per_output = {**tolerance.get("abs_by_output", {}), **tolerance.get("per_output", {})}
        own = per_output.get(name, tolerance["abs"])
        if isinstance(own, dict):
            return own["abs"], own.get("rel", 0.0)
        return own, tolerance.get("rel", 0.0)


def _smooth(name: str, shape: list[int], seed: int, coarse: list[int], scale: float) -> torch.Tensor:
    maps = fill.normal(name, [*shape[:-2], *coarse], seed).reshape(1, -1, *coarse)
    return scale * F.interpolate(maps, size=shape[-2:], mode="bilinear", align_corners=False).reshape(shape)


def _table(name: str, shape: list[int], seed: int, cell: int, table: list[int]) -> torch.Tensor:
    return torch.tensor(table)[fill.blocks(name, shape, len(table), cell, seed)]


def _uniform(name: str, shape: list[int], seed: int, low: float, high: float) -> torch.Tensor:
    return low + (high - low) * fill.integers(name, shape, 2**24, seed).float() / 2**24


@functools.lru_cache(maxsize=8)
def points(shape: tuple[int, ...]) -> torch.Tensor:
    """Where the golden cases of THE-Mask sample: a function of the shape alone."""
    return fill.integers("rand/" + "x".join(map(str, shape)), shape, 2**24).float() / 2**24


@torch.no_grad()
def fill_queries(module: torch.nn.Module) -> None:
    """The weights of THE-Mask's query decoders: those of :func:`fill.fill`, with queries that differ."""
    fill.fill(module)
    for name, parameter in module.named_parameters():
        if name.endswith(("query_feat.weight", "query_embed.weight")):
            parameter *= 32


@torch.no_grad()
def fill_themask(model: torch.nn.Module) -> None:
    """The weights of whole models of THE-Mask, whose losses keep the weights of their classes."""
    weights = model.decode_head.criterion.empty_weight.clone()
    fill_queries(model)
    model.decode_head.criterion.empty_weight.copy_(weights)


class Undrawn(TorchFunctionMode):
    """The first weights of modules that are made in here are zeros, which takes a third of the time of drawing them;
    for those who overwrite them all."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.Tensor.uniform_, torch.Tensor.normal_):
            return args[0].zero_()
        return func(*args, **(kwargs or {}))


def build_filled(builder, config: dict, mode: str = "eval", filler=fill.fill) -> torch.nn.Module:
    """The module of `config` with the golden weights, in eval mode or in train mode without any dropout."""
    with Undrawn():
        module = builder(config)
    filler(module)
    if mode == "eval":
        return module.eval()
    for part in module.modules():
        if isinstance(part, (torch.nn.Dropout, torch.nn.Dropout2d)):
            part.p = 0.0
        elif isinstance(part, torch.nn.MultiheadAttention):
            part.dropout = 0.0
        elif type(part).__name__ == "DropPath":
            part.drop_prob = 0.0
    return module.train()
