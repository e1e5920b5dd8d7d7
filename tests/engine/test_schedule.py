"""The learning rate, against the official numbers and by hand."""

import math

import pytest
import torch

from mmseg.engine.lr import Schedule
from mmseg.errors import ConfigError
from tests.golden_cases import Case

POLY = {"policy": "poly", "power": 1.0, "min_lr": 0.0, "by_epoch": False}


def schedule(lr_config: dict, max_iters: int = 100, rates: tuple[float, ...] = (0.1,)) -> Schedule:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return Schedule(torch.optim.SGD(groups, lr=0.1), lr_config, max_iters)


@pytest.mark.parametrize(
    ("folder", "name"), [("cffm", "lr_schedule"), ("hfan", "lr_schedule_160k"), ("hfan", "lr_schedule_refine")]
)
def test_official_learning_rates(folder, name):
    case = Case(folder, name)
    lr_config = case.config.get("lr_config") or {k: v for k, v in case.config.items() if k != "max_iters"}
    official = schedule(lr_config, case.config["max_iters"])
    for iteration, *expected in case["expected"]:
        rates = [official.rate(base, iteration) for base in case["inputs"]["bases"]]
        assert rates == pytest.approx(expected, rel=1e-9, abs=0)


def test_schedule_sets_every_group_and_needs_no_history():
    poly = schedule(POLY, 10, rates=(0.1, 0.5))
    for iteration, expected in ((7, [0.03, 0.15]), (5, [0.05, 0.25]), (0, [0.1, 0.5])):
        poly.step(iteration)
        assert [group["lr"] for group in poly.optimizer.param_groups] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("lr_config", "iteration", "expected"),
    [
        ({"policy": "fixed"}, 3999, 1.0),
        ({"policy": "poly", "power": 0.9, "min_lr": 0.2}, 50, 0.8 * 0.5**0.9 + 0.2),
        ({"policy": "step", "step": [10, 20], "gamma": 0.5}, 9, 1.0),
        ({"policy": "step", "step": [10, 20], "gamma": 0.5}, 10, 0.5),
        ({"policy": "step", "step": (10, 20), "gamma": 0.5}, 20, 0.25),
        ({"policy": "step", "step": 10}, 25, 0.01),
        ({"policy": "step", "step": 10, "min_lr": 0.05}, 25, 0.05),
        ({"policy": "cosine"}, 0, 1.0),
        ({"policy": "cosine"}, 50, 0.5),
        ({"policy": "cosine"}, 100, 0.0),
        ({"policy": "CosineAnnealing", "min_lr": 0.2}, 25, 0.2 + 0.4 * (1 + math.cos(math.pi / 4))),
        ({"policy": "CosineAnnealing", "min_lr_ratio": 0.1}, 100, 0.1),
        ({"policy": "CosineAnnealing", "min_lr": None, "min_lr_ratio": 0.1}, 50, 0.55),
        ({"policy": "cosine", "warmup": "linear", "warmup_iters": 100, "warmup_ratio": 0.5}, 50, 0.5 * 0.75),
        ({"policy": "fixed", "warmup": "constant", "warmup_iters": 5, "warmup_ratio": 0.1}, 4, 0.1),
        ({"policy": "fixed", "warmup": "exp", "warmup_iters": 4, "warmup_ratio": 0.01}, 2, 0.1),
        ({"policy": "fixed", "warmup": "linear", "warmup_iters": 4, "warmup_ratio": 0.2}, 2, 0.6),
        ({"policy": "fixed", "warmup": "linear", "warmup_iters": 4, "warmup_ratio": 0.2}, 4, 1.0),
        ({"policy": "fixed", "warmup": "linear", "warmup_iters": 0}, 0, 1.0),
    ],
)
def test_policies(lr_config, iteration, expected):
    assert schedule(lr_config).rate(1.0, iteration) == pytest.approx(expected, abs=1e-12)


def test_min_lr_ratio_is_of_each_group():
    rates = [schedule({"policy": "cosine", "min_lr_ratio": 0.1}).rate(base, 100) for base in (1.0, 10.0)]
    assert rates == pytest.approx([0.1, 1.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": "pooly"}, "did you mean 'poly'"),
        ({"policy": None}, "policy = None"),
        ({"warmup_itres": 5}, "unknown key 'warmup_itres'"),
        ({"by_epoch": True}, "by_epoch"),
        ({"warmup_by_epoch": True}, "warmup_by_epoch"),
        ({"warmup": "liner"}, "'linear'"),
        ({"policy": "step", "step": 3}, "unknown key 'power'"),
        ({"policy": "step", "power": None}, "unknown key 'power'"),
        ({"power": "x"}, r"lr_config\.power = 'x'"),
        ({"warmup_ratio": -3}, r"lr_config\.warmup_ratio = -3"),
        ({"warmup_iters": 1.5}, r"lr_config\.warmup_iters = 1\.5"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        schedule({**POLY, **change})


def test_step_without_steps_and_two_minima():
    with pytest.raises(ConfigError, match=r"lr_config\.step is missing"):
        schedule({"policy": "step"})
    with pytest.raises(ConfigError, match=r"lr_config = .*min_lr_ratio"):
        schedule({"policy": "cosine", "min_lr": 0.1, "min_lr_ratio": 0.1})


@pytest.mark.parametrize(
    ("lr_config", "max_iters", "told"),
    [
        ({**POLY, "warmup": "linear", "warmup_iters": 1500}, 1000, "warmup_iters = 1500, but runner.max_iters = 1000"),
        ({**POLY, "warmup": "linear", "warmup_iters": 1500}, 1501, None),
        ({**POLY, "warmup_iters": 1500}, 1000, None),  # no warm-up at all
        ({"policy": "step", "step": [60, 80]}, 50, "step = [60, 80] has no effect"),
        ({"policy": "step", "step": 50}, 50, "step = 50 has no effect"),
        ({"policy": "step", "step": [40, 80]}, 50, None),
    ],
)
def test_changes_that_a_short_run_never_reaches_are_told(lr_config, max_iters, told, caplog):
    schedule(lr_config, max_iters).tell_of_late_changes()
    assert [told in record.getMessage() for record in caplog.records] == ([True] if told else [])
