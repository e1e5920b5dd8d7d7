"""Golden cases of GSFM: their tolerances, inputs that are derived from others, and the small clips of tests."""

from __future__ import annotations

import functools
from collections.abc import Callable
from fnmatch import fnmatch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.models import build_segmentor
from tests.golden_cases import Case, Undrawn, fill


class GSFMCase(Case):
    """A case of ``tests/golden/gsfm``: |a - b| <= abs + rel * absmax(expected), masks by the share of other pixels."""

    def __init__(self, name: str) -> None:
        super().__init__("gsfm", name)

    def inputs(self) -> dict[str, Tensor]:
        """Every input tensor; what is derived of them is told in words, and made by the tests."""
        makers = {"normal": fill.normal, "integers": fill.integers, "blocks": fill.blocks}
        return {name: makers[how[0]](*how[1:]) for name, how in self["inputs"].items() if name != "derived"}

    def expected(self, name: str) -> Tensor:
        """The stored numbers of an output, flat if it is stored with a stride."""
        return torch.from_numpy(np.ascontiguousarray(self.arrays[name]))

    def tolerance(self, name: str) -> dict[str, float]:
        own = dict(self["tolerance"])
        for patterns, values in self["tolerance"].items():
            if isinstance(values, dict) and any(fnmatch(name, pattern.strip()) for pattern in patterns.split(",")):
                own = values
        return own

    def check(self, name: str, value: Tensor | np.ndarray | float) -> None:
        """Assert that `value` equals the stored output `name` within the case's tolerance."""
        spec, expected, tolerance = self["outputs"][name], self.expected(name), self.tolerance(name)
        value = torch.as_tensor(value).detach()
        assert list(value.shape) == spec["shape"], f"{name}: shape {list(value.shape)}, expected {spec['shape']}"
        if spec["stored"] != "full":
            value, expected = value.flatten()[:: int(spec["stored"].rsplit(" ", 1)[1])], expected.flatten()
        share = tolerance.get("mask_mismatch_fraction", tolerance.get("mismatch_fraction"))
        if spec["dtype"] == "uint8" and share is not None:
            wrong = (value.long() != expected.long()).float().mean().item()
            assert wrong <= share, f"{self.name}/{name}: {wrong:.4%} of the pixels differ"
            return
        difference = (value.double() - expected.double()).abs().max().item()
        allowed = tolerance.get("abs", 0.0) + tolerance.get("rel", 0.0) * expected.abs().max().item()
        assert difference <= allowed, f"{self.name}/{name}: differs by {difference:.3g}, {allowed:.3g} is allowed"


@functools.cache
def _weights(single_object: bool) -> dict[str, Tensor]:
    """The golden weights; drawing 67 million numbers takes seconds."""
    with torch.device("meta"), Undrawn():
        state = build_segmentor(dict(type="GSFM", single_object=single_object)).state_dict()
    floating = {name for name, value in state.items() if value.is_floating_point()}
    return {
        name: fill.weight(name, tuple(value.shape)) if name in floating else torch.zeros((), dtype=torch.long)
        for name, value in state.items()
    }


def network(
    single_object: bool = False, mode: str = "eval", prepared: Callable[[nn.Module], nn.Module] = lambda model: model,
    **config,
) -> nn.Module:  # fmt: skip
    """The network with the golden weights, after `prepared` has changed it."""
    with torch.device("meta"), Undrawn():
        model = prepared(build_segmentor(dict(type="GSFM", single_object=single_object, **config)))
    weights = _weights(single_object)
    model.load_state_dict({name: weights[name].clone() for name in model.state_dict()}, assign=True)
    return model.train(mode == "train")


def clip_batch(case: GSFMCase) -> dict[str, Tensor]:
    """The batch of a loss or training case; without frames where it has none."""
    inputs, stage = case.inputs(), case["params"]["stage"]
    labels, batch = inputs["labels"], {}  # (B, 3, H, W)
    if "base" in inputs:
        batch["img"] = inputs["base"] + 0.5 * inputs["noise"]
    else:
        batch["img"] = torch.zeros(len(labels), 3, 3, 48, 64)
    if stage == 0:
        soft = F.avg_pool2d((labels == 1).float(), 3, 1, padding=1)
        return {**batch, "gt": soft[:, :, None], "gt_semantic_seg": (soft > 0.5).long()[:, :, None]}
    selector = torch.tensor(case["params"]["selector"], dtype=torch.float32)
    labels = torch.where((selector[:, 1] < 0.5)[:, None, None, None] & (labels == 2), 0, labels)
    return {**batch, "gt_semantic_seg": labels[:, :, None], "selector": selector}
