"""GSFM's training: official numbers of losses and steps, and the formulas."""

from __future__ import annotations

import pytest
import torch

from mmseg.errors import ConfigError, DataError
from mmseg.models.layers.aggregation import aggregate
from mmseg.models.losses.bootstrapped import BootstrappedCrossEntropy
from mmseg.models.losses.boundary_loss import boundary_loss, boundary_target
from mmseg.models.networks.gsfm.clip_losses import Clip, ClipLoss, Segmented
from tests.models.gsfm_cases import GSFMCase, clip_batch, network
from tests.reference import gsfm as reference

WARMING = {0: dict(start_warm=3000, end_warm=10000), 3: dict(start_warm=3000, end_warm=15000)}


@pytest.mark.parametrize("name", ["loss_stage0", "loss_stage3"])
def test_losses_have_the_official_numbers(name):
    case = GSFMCase(name)
    inputs, batch, stage = case.inputs(), clip_batch(case), case["params"]["stage"]
    batch["img"] = torch.zeros(*batch["gt_semantic_seg"].shape[:2], 3, 48, 64)
    clip = Clip.of(batch, 1 if stage == 0 else 2)
    selector = clip.selector[:, :, None, None]
    predicted = []
    for t in (0, 1):
        logits, soft = aggregate(inputs["mask_logits"][:, t].sigmoid() * selector, dim=1)
        predicted.append(Segmented(logits, soft[:, 1:], inputs["boundary_logits"][:, t] * selector))
    target = boundary_target(clip.masks[:, 1, 0])
    case.check("boundary_target_frame1", target[:, None])
    one = boundary_loss(predicted[0].boundaries[:1, 0], clip.masks[:1, 1, 0])  # of the first clip
    assert one.item() == pytest.approx((case.expected("bce_frame1") + case.expected("dice_frame1")).item(), rel=1e-4)
    losses = ClipLoss(WARMING[stage], 0.05)
    for iteration in case["params"]["iterations"]:
        got = losses(predicted, clip, iteration)
        got["total_loss"] = got["loss_1"] + got["loss_2"]
        for key, value in got.items():
            case.check(f"it{iteration}/{key}", value)


@pytest.mark.parametrize("name", ["train_stage0", "train_stage3"])
def test_training_steps_have_the_official_numbers(name):
    case = GSFMCase(name)
    params, batch = case["params"], clip_batch(case)
    model = network(params["stage"] == 0, "train", bootstrap=WARMING[params["stage"]])
    optimizer = torch.optim.Adam(model.parameters(), lr=params["lr"], weight_decay=1e-7)

    def check(place: str, iteration: int) -> torch.Tensor:
        losses = model(batch, iteration)
        losses["total_loss"] = losses["loss_1"] + losses["loss_2"]
        for key, value in losses.items():
            if f"{place}/{key}" in case["outputs"]:
                case.check(f"{place}/{key}", value)
        return losses["total_loss"]

    with torch.no_grad():
        for iteration in params["iterations"]:
            check(f"it{iteration}", iteration)
    before = {name: model.get_parameter(name).detach().clone() for name in params["parameters"]}
    check("step1", params["grad_iteration"]).backward()
    statistics = model.key_encoder.bn1.running_mean.clone()
    optimizer.step()
    for name, old in before.items():
        parameter = model.get_parameter(name)
        case.check(f"grad/{name}", parameter.grad.norm())
        case.check(f"delta/{name}", (parameter.detach() - old).norm())
    check("step2", params["grad_iteration"] + 1)
    assert torch.equal(model.key_encoder.bn1.running_mean, statistics)


@pytest.mark.parametrize("name", ["train_stage0", "train_stage3"])
@torch.no_grad()
def test_losses_are_the_formulas(name):
    """The reference, which knows no batches, has the official numbers, and so has the product."""
    case = GSFMCase(name)
    stage, batch = case["params"]["stage"], clip_batch(case)
    model = network(stage == 0, "train", bootstrap=WARMING[stage])
    iteration = case["params"]["grad_iteration"]
    for key, value in reference.loss(model, batch, iteration).items():
        case.check(f"it{iteration}/{key}", value)


def test_sizes_that_16_does_not_divide_cannot_be_trained():
    model = network(mode="train")
    batch = {"img": torch.zeros(1, 3, 3, 40, 64), "gt_semantic_seg": torch.zeros(1, 3, 1, 40, 64, dtype=torch.long)}
    with pytest.raises(DataError, match="multiples of 16"):
        model(batch)


@pytest.mark.parametrize("norm_eval", [True, False])
def test_statistics_of_batch_norm_change_only_where_that_is_wanted(norm_eval):
    model = network(mode="train", norm_eval=norm_eval)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    batch = {"img": torch.rand(1, 3, 3, 32, 32), "gt_semantic_seg": torch.zeros(1, 3, 1, 32, 32, dtype=torch.long)}
    batch["gt_semantic_seg"][..., 8:24] = 1
    model(batch)
    changed = {name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])}
    assert changed == (set() if norm_eval else set(before))
    assert model.synchronised_norms == (() if norm_eval else ("",))


def test_the_share_of_the_pixels_falls_as_published():
    loss = BootstrappedCrossEntropy()
    assert [loss.share(it) for it in (0, 3000, 9000, 15000, 10**6)] == pytest.approx([1, 1, 0.575, 0.15, 0.15])
    with pytest.raises(ConfigError, match="start_warm=5, end_warm=5"):
        BootstrappedCrossEntropy(5, 5)
