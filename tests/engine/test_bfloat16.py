"""Predictions in bfloat16 on a CPU: weights are cast once, activations stay as they are, labels are nearly the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg.engine.predictor import VideoPredictor
from mmseg.errors import ConfigError
from tests.contract.systems import SYSTEMS
from tests.engine.test_ahead import PIPELINE, frames

SMALL = (32, 32)


class Casts(TorchDispatchMode):
    """Counts values that go from one type to another."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and out.dtype != args[0].dtype:
            self.values += out.numel()
        return out


@pytest.fixture(scope="module")
def model():
    return SYSTEMS[0].model()


def test_weights_are_cast_once_and_labels_agree(model):
    given = list(frames(2, SMALL))
    exact, cast_once = (VideoPredictor(model, PIPELINE, amp=amp, returns=("scores",)) for amp in (None, torch.bfloat16))
    expected = [result for frame in given for result in exact.push(frame)]
    with Casts() as first:
        found = list(cast_once.push(given[0]))
    with Casts() as second:
        found += cast_once.push(given[1])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), Casts() as mixed:
        model.frame_scores(torch.randn(1, 3, *SMALL), model.folded())
    weights = sum(weight.numel() for weight in model.backbone.parameters())
    assert first.values > weights and mixed.values > weights > 20 * second.values
    assert cast_once.network is model.in_bfloat16() and next(model.parameters()).dtype == torch.float32
    for a, b in zip(expected, found, strict=True):
        error = np.abs(a.scores - b.scores).mean() / a.scores.std()
        assert 1e-4 < error < 0.05 and (a.labels == b.labels).mean() > 0.95


def test_other_weights_are_cast_anew_and_told_in_the_middle_of_a_video(model):
    before = model.in_bfloat16()
    predictor = VideoPredictor(model, PIPELINE, amp=torch.bfloat16)
    first, second = frames(2, SMALL)
    list(predictor.push(first))
    model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()})
    with pytest.raises(ConfigError, match="weights"):
        list(predictor.push(second))
    predictor.reset()
    list(predictor.push(first))
    assert predictor.network is model.in_bfloat16() is not before


def test_what_cannot_be_cast_runs_under_autocast():
    compiled, double = SYSTEMS[0].model(), SYSTEMS[0].model().double()
    compiled.backbone._compiled_call_impl = compiled.backbone._call_impl  # what compile() sets, without its imports
    for other in (compiled, double):
        predictor = VideoPredictor(other, PIPELINE, amp=torch.bfloat16)
        predictor.begin()
        assert predictor.network is other and predictor.precision()._enabled
