"""One tester for every system: what the house promises of a model, asked of each of them. A new system joins by one
entry in :mod:`tests.contract.systems`. What does not depend on the number of layers is asked in
``test_every_stream.py``."""

from __future__ import annotations

import pytest
import torch

from mmseg.engine.optim import build_optimizer
from mmseg.errors import ConfigError
from mmseg.models import build_segmentor
from mmseg.models.layers.resize import resize
from tests.contract.systems import SYSTEMS, System
from tests.golden_cases import Case

pytestmark = pytest.mark.parametrize("system", SYSTEMS, ids=[system.name for system in SYSTEMS])
TARGETS = (0, 1, 3, 8, 9, 13)  # start, the table of early references, middle and end of a video


def test_state_dict_has_the_official_names_shapes_and_order(system: System):
    case = Case(*system.official)
    state = system.official_model().state_dict()
    for entries, floating in (("state", True), ("state_int", False)):
        own = {name: list(value.shape) for name, value in state.items() if value.is_floating_point() == floating}
        assert own == case[entries] and list(own) == list(case[entries])


def test_training_step(system: System):
    """Scalars of the same names whatever the batch holds, no total among them, and a gradient for every weight."""
    model = system.model("train")
    losses = model(system.batch(), 3)
    assert all(value.ndim == 0 and torch.isfinite(value) for value in losses.values())
    nothing = system.batch()
    nothing["gt_semantic_seg"] = torch.full_like(nothing["gt_semantic_seg"], system.void)
    assert model.loss(nothing).keys() == losses.keys()
    terms = [value for name, value in losses.items() if "loss" in name]
    assert terms
    sum(terms).backward()
    without = {name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    assert {name for name in without if not any(part in name for part in system.unused)} == set()


def test_loss_falls_on_one_batch(system: System):
    torch.manual_seed(0)
    model, batch = build_segmentor(system.config()), system.batch()
    optimizer = build_optimizer(model, dict(type="AdamW", lr=system.lr, weight_decay=0.0))
    seen = []
    for iteration in range(system.steps):
        optimizer.zero_grad()
        loss = sum(value for name, value in model.loss(batch, iteration).items() if "loss" in name)
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.9 * seen[0], seen


def test_stream_equals_whole_clips(system: System):
    model, frames = system.model(), system.video(system.frames)
    stream = system.stream(model)
    if stream.answers_at_once:
        got = [stream.step(**system.view(t, frame).inputs) for t, frame in enumerate(frames)]
        for t in {*TARGETS, system.frames - 1} & {*range(system.frames)}:
            torch.testing.assert_close(got[t], system.whole_clip(model, frames, t), rtol=1e-4, atol=1e-4)
    else:
        with pytest.raises(ConfigError, match=r"push\(\) and finish\(\)"):
            stream.step(frames[0])
        for t, values in system.answers(stream, frames).items():
            values = resize(values[None], system.size)[0]
            torch.testing.assert_close(values, system.whole_clip(model, frames, t), rtol=1e-4, atol=1e-4)
