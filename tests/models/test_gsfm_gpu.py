"""GSFM on a real GPU: ``pytest -m gpu``. Without one the tests are skipped, and say so."""

from __future__ import annotations

from tests.gpu import MARKS, exact_products  # noqa: F401  (a fixture of every test here)
from tests.models.gsfm_cases import GSFMCase, clip_batch, network

pytestmark = MARKS


def test_losses_have_the_official_numbers():
    case = GSFMCase("train_stage3")
    batch = {name: value.cuda() for name, value in clip_batch(case).items()}
    model = network(mode="train").cuda()
    losses = model(batch, 9000)
    for name in ("loss_1", "loss_2"):
        case.check(f"it9000/{name}", losses[name].cpu())
    (losses["loss_1"] + losses["loss_2"]).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
