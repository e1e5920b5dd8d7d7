"""The learning rate, against the official numbers and by hand."""

import pytest
import torch

from mmseg.engine.lr import Schedule, learning_rate
from mmseg.errors import ConfigError
from tests.golden_cases import Case

POLY = {"policy": "poly", "power": 1.0, "min_lr": 0.0, "by_epoch": False}


def test_official_learning_rates():
    case = Case("cffm", "lr_schedule")
    lr_config = {key: value for key, value in case.config.items() if key != "max_iters"}
    for iteration, *expected in case["expected"]:
        rates = [
            learning_rate(base, iteration, lr_config, case.config["max_iters"]) for base in case["inputs"]["bases"]
        ]
        assert rates == pytest.approx(expected, rel=1e-9, abs=0)


def test_schedule_sets_every_group_and_needs_no_history():
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.AdamW([{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 0.5}], lr=0.1)
    schedule = Schedule(optimizer, POLY, max_iters=10)
    for iteration, expected in ((7, [0.03, 0.15]), (5, [0.05, 0.25]), (0, [0.1, 0.5])):
        schedule.step(iteration)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("lr_config", "iteration", "expected"),
    [
        ({"policy": "fixed"}, 3999, 1.0),
        ({"policy": "poly", "power": 0.9, "min_lr": 0.2}, 50, 0.8 * 0.5**0.9 + 0.2),
        ({"policy": "step", "step": [10, 20], "gamma": 0.5}, 9, 1.0),
        ({"policy": "step", "step": [10, 20], "gamma": 0.5}, 10, 0.5),
        ({"policy": "step", "step": 10}, 25, 0.01),
        ({"policy": "fixed", "warmup": "constant", "warmup_iters": 5, "warmup_ratio": 0.1}, 4, 0.1),
        ({"policy": "fixed", "warmup": "exp", "warmup_iters": 4, "warmup_ratio": 0.01}, 2, 0.1),
        ({"policy": "fixed", "warmup": "linear", "warmup_iters": 4, "warmup_ratio": 0.2}, 2, 0.6),
        ({"policy": "fixed", "warmup": "linear", "warmup_iters": 0}, 0, 1.0),
    ],
)
def test_policies(lr_config, iteration, expected):
    assert learning_rate(1.0, iteration, lr_config, 100) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": "pooly"}, "did you mean 'poly'"),
        ({"warmup_itres": 5}, "did you mean 'warmup_iters'"),
        ({"by_epoch": True}, "by_epoch"),
        ({"warmup": "liner"}, "did you mean 'linear'"),
        ({"policy": "step", "power": 1}, "unknown key 'power'"),
    ],
)
def test_mistakes_are_named(change, message):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ConfigError, match=message):
        Schedule(optimizer, {**POLY, **change}, 10)
