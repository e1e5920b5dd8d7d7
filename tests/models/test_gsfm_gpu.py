"""GSFM on a real GPU: ``pytest -m gpu``. Without one the tests are skipped, and say so."""

from __future__ import annotations

import pytest
import torch

from mmseg.structures import View
from tests.golden_cases import fill
from tests.gpu import MARKS, exact_products  # noqa: F401  (a fixture of every test here)
from tests.models.gsfm_cases import GSFMCase, clip_batch, network

pytestmark = MARKS


def probabilities(device: str, precision: torch.dtype | None = None) -> list[torch.Tensor]:
    """Those of a short video with an object that comes late."""
    frames = fill.normal("base", (1, 3, 90, 125)) + 0.5 * fill.normal("noise", (5, 3, 90, 125))
    mask = fill.blocks("labels", (90, 125), 4, 24)
    stream, given = network().to(device).stream(mem_every=2, top_k=20), {0: mask * (mask < 3), 3: 3 * (mask == 3)}
    values = []
    with torch.autocast(device, precision, enabled=precision is not None):
        for t, frame in enumerate(frames):
            inputs = {"img": frame.to(device)}
            if t in given:
                inputs["given"] = given[t].to(device)
            values += [scores.values.float().cpu() for scores in stream.push(View(t, inputs))]
    return values


def test_streams_have_the_numbers_of_the_cpu():
    for one, other in zip(probabilities("cuda"), probabilities("cpu"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_streams_under_autocast_have_most_labels_of_the_cpu(precision):
    exact, rounded = probabilities("cpu"), probabilities("cuda", precision)
    assert all(torch.isfinite(values).all() for values in rounded)
    same = [(a.argmax(0) == b.argmax(0)).float().mean() for a, b in zip(exact, rounded)]
    assert torch.stack(same).mean() > 0.8


def test_losses_have_the_official_numbers():
    case = GSFMCase("train_stage3")
    batch = {name: value.cuda() for name, value in clip_batch(case).items()}
    model = network(mode="train").cuda()
    losses = model(batch, 9000)
    for name in ("loss_1", "loss_2"):
        case.check(f"it9000/{name}", losses[name].cpu())
    (losses["loss_1"] + losses["loss_2"]).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
