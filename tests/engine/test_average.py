"""The exponential moving average of the weights: its numbers, and where it stands in for the weights."""

import pytest
import torch

from mmseg.engine.average import TRAINED, AveragedWeights
from mmseg.engine.checkpoints import save_checkpoint
from mmseg.errors import CheckpointError
from mmseg.sections import MovingAverage
from mmseg.weights import read_checkpoint
from tests.engine.toy_training import assert_same_checkpoint, trainer

HOOK = {"custom_hooks": [{"type": "EMAHook", "momentum": 0.3, "warm_up": 2}]}
SECTION = {"ema": {"momentum": 0.3, "warm_up": 2}}


@pytest.mark.parametrize(
    ("section", "shares"),
    [
        ({"momentum": 0.5, "warm_up": 1}, [0.5, 0.5, 0.5, 0.5]),
        ({"momentum": 0.5, "warm_up": 4}, [1 / 4, 2 / 5, 0.5, 0.5]),
        ({"momentum": 0.5, "warm_up": 1, "interval": 2}, [0.75, 0, 0.75, 0]),
    ],
)
def test_numbers(section, shares):
    layer = torch.nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(0.0)
    average, expected = AveragedWeights(layer, MovingAverage(**section)), 0.0
    for iteration, share in enumerate(shares):
        layer.weight.data.fill_(iteration + 1.0)
        average.update(iteration)
        expected += share * (iteration + 1 - expected)
        assert average.averages["weight"].item() == pytest.approx(expected)
    with average.applied():
        assert layer.weight.item() == pytest.approx(expected)
    assert layer.weight.item() == 4.0


def test_training_is_not_touched_and_the_average_is_evaluated_and_saved(tmp_path):
    seen = []

    def evaluate(model):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"mIoU": 0.5}

    trainer(tmp_path / "plain").run()
    trainer(tmp_path / "averaged", {**SECTION, "evaluation": {"interval": 6, "save_best": "mIoU"}}, evaluate).run()
    plain, averaged = (read_checkpoint(tmp_path / name / "iter_6.pth") for name in ("plain", "averaged"))
    for name, value in averaged[TRAINED].items():
        assert torch.equal(value, plain["state_dict"][name]), name
        assert torch.equal(value, averaged["state_dict"][name]) == name.startswith("unused")
    best = read_checkpoint(tmp_path / "averaged" / "best_mIoU_iter_6.pth")["state_dict"]
    for weights in (seen[0], best):
        assert all(torch.equal(value, averaged["state_dict"][name]) for name, value in weights.items())
    for name in ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked"):  # statistics are no weights
        assert torch.equal(averaged["state_dict"][name], plain["state_dict"][name])


def test_updates_are_counted_from_0(tmp_path):
    """The share of the first update is 1 / warm_up."""
    options = {"ema": {"momentum": 0.9, "warm_up": 10}, "runner.max_iters": 1, "lr_config.warmup": None}
    run = trainer(tmp_path, options)
    before = run.model.head.weight.detach().clone()
    run.run()
    expected = before + (run.model.head.weight - before) / 10
    torch.testing.assert_close(run.average.averages["head.weight"], expected)


def test_hook_and_section_are_the_same(tmp_path):
    for name, options in (("hook", HOOK), ("section", SECTION)):
        trainer(tmp_path / name, options).run()
    assert_same_checkpoint(tmp_path / "hook" / "iter_6.pth", tmp_path / "section" / "iter_6.pth")


def test_an_average_can_begin_and_end_at_a_resumption(tmp_path, caplog):
    trainer(tmp_path / "plain").run()
    begun = trainer(tmp_path / "begun", SECTION, resume_from=tmp_path / "plain" / "iter_2.pth")
    for name, value in begun.model.named_parameters():
        assert torch.equal(begun.average.averages[name], value)
    trainer(tmp_path / "averaged", SECTION).run()
    trainer(tmp_path / "ended", resume_from=tmp_path / "averaged" / "iter_2.pth").run()
    assert "this run averages none" in caplog.text
    assert_same_checkpoint(tmp_path / "ended" / "iter_6.pth", tmp_path / "plain" / "iter_6.pth")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda weights: "x",
        lambda weights: {name: value for name, value in weights.items() if name != "head.bias"},
        lambda weights: {**weights, "head.bias": torch.zeros(7)},
        lambda weights: {**weights, "head.bias": torch.full((3,), float("nan"))},
    ],
)
def test_trained_weights_that_do_not_fit_are_refused(tmp_path, spoil):
    trainer(tmp_path, SECTION).run()
    state = read_checkpoint(tmp_path / "iter_6.pth")
    save_checkpoint(tmp_path / "spoilt.pth", {**state, TRAINED: spoil(state[TRAINED])})
    with pytest.raises(CheckpointError, match=r"spoilt\.pth"):
        trainer(tmp_path, SECTION, resume_from=tmp_path / "spoilt.pth")
