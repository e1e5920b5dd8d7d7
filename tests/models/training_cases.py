"""Compares training steps with the official numbers; shared by the tests of all systems."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mmseg.engine.lr import Schedule
from mmseg.engine.optim import build_optimizer
from mmseg.models import build_segmentor
from tests.golden_cases import Case, build_filled


def train_batch(case: Case) -> dict[str, torch.Tensor]:
    """Images and labels of a case, 255 where its `ign` input is 0."""
    inputs = case.inputs()
    labels = inputs["gt"]
    labels[inputs["ign"] == 0] = 255
    return {"img": inputs["img"], "gt_semantic_seg": labels}


def check_training(case: Case, loss: Callable | None = None, **context) -> None:
    """Losses, gradients and batch statistics of one training step, by the model or by ``loss(model, batch)``."""
    model = build_filled(build_segmentor, case.config, mode="train")
    losses = (loss or type(model).loss)(model, {**train_batch(case), **context})
    case.check("log/decode.loss_seg", losses["decode.loss_seg"])
    case.check("log/decode.acc_seg", losses["decode.acc_seg"])
    losses["decode.loss_seg"].backward()
    grads = {n: p.grad for n, p in model.named_parameters()}
    noise = case["facts"].get("noise_grad", [])  # zero in exact arithmetic, rounding noise in any implementation
    for parameter in case["grad_names"]:
        if parameter not in noise:
            case.check(f"grad/{parameter}", grads[parameter].norm())
    case.check("grad/total", torch.stack([g.norm() for g in grads.values() if g is not None]).norm())
    assert [n for n, g in grads.items() if g is None] == case["facts"]["none_grad"]
    assert all(grads[name].norm() < 1e-4 for name in noise)
    zero = [n for n, g in grads.items() if g is not None and not g.any()]
    assert set(zero) - set(noise) == set(case["facts"].get("zero_grad", []))
    bn = model.decode_head.linear_fuse.bn
    case.check("bn/running_mean", bn.running_mean)
    case.check("bn/running_var", bn.running_var)


def check_steps(case: Case) -> None:
    """Losses and parameter changes of several updates of the shipped schedule."""
    model = build_filled(build_segmentor, case.config, mode="train")
    batch = train_batch(case)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, case["optimizer"])
    schedule = Schedule(optimizer, case["lr_config"], case["max_iters"])
    losses = []
    for number in range(case["steps"]):
        schedule.step(case["start_iter"] + number)
        optimizer.zero_grad()
        loss = model.loss(batch)["decode.loss_seg"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    case.check("losses", torch.tensor(losses))
    for name, parameter in model.named_parameters():
        if f"delta/{name}" in case["outputs"]:
            case.check(f"delta/{name}", (parameter.detach() - before[name]).norm())
