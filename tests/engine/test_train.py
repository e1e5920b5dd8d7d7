"""The training loop: exact resumption, evaluation, signals, and losses that go wrong."""

import os
import signal

import pytest
import torch

from mmseg.engine.checkpoints import NonFiniteError
from mmseg.engine.interrupts import Interrupted
from mmseg.errors import CheckpointError, ConfigError
from mmseg.weights import read_checkpoint
from tests.engine.toy_training import assert_same_checkpoint, lines, trainer


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"data.workers_per_gpu": 2},
        {"gradient_accumulation": 2},
        {"amp.dtype": "bfloat16"},
        {"ema": {"momentum": 0.3}, "data.workers_per_gpu": 2, "gradient_accumulation": 2},
        {"compile": {"backend": "eager"}, "channels_last": True},
    ],
    ids=["no workers", "2 workers", "accumulation", "bfloat16", "average, 2 workers, accumulation", "compiled"],
)
def test_resumed_run_equals_an_uninterrupted_one(tmp_path, options):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    trainer(whole, options).run()
    torch.rand(7)  # whatever has happened to the generators before
    trainer(resumed, options, resume_from=whole / "iter_2.pth").run()
    assert_same_checkpoint(whole / "iter_6.pth", resumed / "iter_6.pth")
    assert lines(whole)[1:] == lines(resumed)


def test_number_of_workers_changes_nothing(tmp_path):
    for workers in (0, 2):
        trainer(tmp_path / str(workers), {"data.workers_per_gpu": workers}).run()
    assert_same_checkpoint(tmp_path / "0" / "iter_6.pth", tmp_path / "2" / "iter_6.pth")


def test_seed_decides(tmp_path):
    for name, seed in (("a", 5), ("b", 6)):
        trainer(tmp_path / name, seed=seed).run()
    a, b = (read_checkpoint(tmp_path / name / "iter_6.pth")["state_dict"]["head.weight"] for name in "ab")
    assert not torch.equal(a, b)


def test_checkpoints_of_a_run(tmp_path):
    trainer(tmp_path, {"checkpoint_config.max_keep_ckpts": 2, "runner.max_iters": 7}).run()
    assert sorted(p.name for p in tmp_path.glob("*.pth")) == ["iter_6.pth", "iter_7.pth", "latest.pth"]
    meta = read_checkpoint(tmp_path / "latest.pth")["meta"]
    assert (meta["iter"], meta["epoch"], meta["seed"], meta["CLASSES"]) == (7, 2, 5, list("rgb"))  # 14 clips, 5 videos


def test_evaluation_leaves_no_trace_in_the_training(tmp_path):
    calls = []

    def evaluate(model):
        model.eval()
        calls.append(torch.rand(3))  # uses up random numbers
        return {"mIoU": 0.5}

    trainer(tmp_path / "with", evaluate=evaluate).run()
    trainer(tmp_path / "without").run()
    assert len(calls) == 2  # after 3 and 6 iterations
    assert_same_checkpoint(tmp_path / "with" / "iter_6.pth", tmp_path / "without" / "iter_6.pth")


@pytest.mark.parametrize("interval", [100, 6, 5])
def test_evaluation_at_the_end_happens_once(tmp_path, interval):
    calls = []
    scores = trainer(
        tmp_path, {"evaluation.interval": interval}, evaluate=lambda model: calls.append(1) or {"mIoU": 0.25}
    ).run()
    assert scores == {"mIoU": 0.25} and len(calls) == (2 if interval == 5 else 1)
    assert lines(tmp_path, "val")[-1] == {"mode": "val", "iter": 6, "mIoU": 0.25}


def test_loss_goes_down(tmp_path):
    trainer(tmp_path, {"runner.max_iters": 60, "log_config.interval": 20, "checkpoint_config.interval": 60}).run()
    losses = [entry["loss"] for entry in lines(tmp_path)]
    assert losses[-1] < 0.7 * losses[0]


def test_loss_that_is_not_a_number(tmp_path):
    with pytest.raises(
        NonFiniteError, match=r"iteration 1: decode\.loss_seg, loss is not finite .*decode\.loss_seg: nan"
    ):
        trainer(tmp_path, {"checkpoint_config.interval": 1}, nan=True).run()
    assert not list(tmp_path.glob("*.pth"))


def test_infinite_loss(tmp_path):
    run = trainer(tmp_path, {"checkpoint_config.interval": 1})

    def overflow(module, args, losses):
        return {**losses, "decode.loss_seg": losses["decode.loss_seg"] * (float("inf") if args[1] == 2 else 1)}

    run.model.register_forward_hook(overflow)
    with pytest.raises(NonFiniteError, match=r"iteration 3: decode\.loss_seg, loss is not finite .*inf"):
        run.run()
    assert sorted(p.name for p in tmp_path.glob("iter*")) == ["iter_1.pth", "iter_2.pth"]


def test_losses_that_are_read_late_are_checked_before_anything_is_saved(tmp_path):
    """As on a GPU, where the numbers stay until a line of the log is due."""
    late = trainer(tmp_path, {"log_config.interval": 100, "checkpoint_config.interval": 4})
    late.reads_at_once = False

    def spoil(module, args, losses):
        return {**losses, "decode.loss_seg": losses["decode.loss_seg"] * (float("nan") if args[1] == 1 else 1)}

    late.model.register_forward_hook(spoil)
    with pytest.raises(NonFiniteError, match="iteration 2: "):
        late.run()
    assert not list(tmp_path.glob("*.pth"))


def test_numbers_that_are_read_late_are_the_same(tmp_path):
    options = {"log_config.interval": 4, "checkpoint_config.interval": 3}
    late = trainer(tmp_path / "late", options)
    late.reads_at_once = False
    late.run()
    trainer(tmp_path / "at once", options).run()
    assert lines(tmp_path / "late") == lines(tmp_path / "at once")


def test_weights_that_are_not_numbers_are_not_saved(tmp_path):
    broken = trainer(tmp_path)
    broken.model.unused.weight.data[0, 0] = float("inf")
    with pytest.raises(NonFiniteError, match=r"unused\.weight"):
        broken.run()
    assert not list(tmp_path.glob("*.pth"))


def test_signal_finishes_the_iteration_and_saves(tmp_path):
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    run = trainer(stopped)
    handler = signal.getsignal(signal.SIGTERM)
    count = []

    def interrupt(module, args):
        count.append(1)
        if len(count) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    run.model.register_forward_pre_hook(interrupt)
    with pytest.raises(Interrupted) as ended:
        run.run()
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is handler
    assert os.readlink(stopped / "latest.pth") == "iter_3.pth"
    trainer(whole).run()
    trainer(stopped, resume_from=stopped / "latest.pth").run()
    assert_same_checkpoint(whole / "iter_6.pth", stopped / "iter_6.pth")


def test_signal_in_the_last_iteration_ends_as_in_any_other(tmp_path):
    run = trainer(tmp_path)

    def interrupt(module, args):
        if args[1] == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    run.model.register_forward_pre_hook(interrupt)
    with pytest.raises(Interrupted) as ended:
        run.run()
    assert ended.value.code == 143 and os.readlink(tmp_path / "latest.pth") == "iter_6.pth"


def test_signal_during_evaluation_saves_at_once(tmp_path):
    def evaluate(model):
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("went on")

    with pytest.raises(Interrupted) as ended:
        trainer(tmp_path, evaluate=evaluate).run()
    assert ended.value.code == 130
    assert os.readlink(tmp_path / "latest.pth") == "iter_3.pth"


def test_error_during_evaluation_loses_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        trainer(tmp_path, evaluate=lambda model: {"mIoU": 1 / 0}).run()
    assert os.readlink(tmp_path / "latest.pth") == "iter_3.pth"


def test_resuming_what_cannot_be_resumed(tmp_path):
    trainer(tmp_path, {"evaluation.save_best": "mIoU"}, evaluate=lambda model: {"mIoU": 0.5}).run()
    with pytest.raises(CheckpointError, match="no optimiser state"):
        trainer(tmp_path, resume_from=tmp_path / "best_mIoU_iter_3.pth")
    state = read_checkpoint(tmp_path / "latest.pth")
    del state["state_dict"]["norm.weight"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match=r"missing in the file: norm\.weight"):
        trainer(tmp_path, resume_from=tmp_path / "part.pth")


def test_changed_conditions_are_reported_on_resumption(tmp_path, caplog):
    trainer(tmp_path).run()
    trainer(tmp_path, {"data.samples_per_gpu": 3}, resume_from=tmp_path / "iter_2.pth")
    assert "samples_per_gpu was 2 and is 3 now" in caplog.text


@pytest.mark.parametrize("options", [{"compile": {"backend": "eager"}}, {"channels_last": True}])
def test_speed_options_keep_names_and_results(tmp_path, options):
    for name, extra in (("plain", {}), ("fast", options)):
        trainer(tmp_path / name, {"runner.max_iters": 2, "optimizer.type": "SGD", **extra}).run()
    plain, fast = (read_checkpoint(tmp_path / name / "iter_2.pth")["state_dict"] for name in ("plain", "fast"))
    assert list(plain) == list(fast)
    for name, value in plain.items():
        torch.testing.assert_close(fast[name], value, atol=1e-4, rtol=1e-4)


def test_samples_are_told_how_far_the_training_is(tmp_path):
    """By their position alone: a resumed run sees the same."""
    whole = trainer(tmp_path / "whole", {"gradient_accumulation": 2})
    whole.run()
    seen = whole.dataset.seen
    assert [p.iteration for p in seen] == [i for i in range(6) for _ in range(4)]
    assert [p.epoch for p in seen] == [position // 5 for position in range(24)]
    assert {(p.max_iters, p.epochs) for p in seen} == {(6, 5)}
    resumed = trainer(tmp_path / "resumed", {"gradient_accumulation": 2}, resume_from=tmp_path / "whole" / "iter_2.pth")
    resumed.run()
    assert resumed.dataset.seen == seen[8:]


def test_fine_tuning_trains_a_part(tmp_path):
    first = trainer(tmp_path / "first", {"model": None}, finetune_trains="head")
    before = {name: value.clone() for name, value in first.model.named_parameters()}
    first.run()
    after = read_checkpoint(tmp_path / "first" / "iter_6.pth")
    changed = {name for name, value in before.items() if not torch.equal(value, after["state_dict"][name])}
    assert changed == {"head.weight", "head.bias"}
    assert after["meta"]["finetune_trains"] == "head"
    assert after["optimizer"]["state"].keys() == {i for g in after["optimizer"]["param_groups"] for i, name in zip(g["params"], g["names"]) if name in changed}  # fmt: skip # noqa: E501
    with pytest.raises(ConfigError, match="'neck' in their names, and there are none"):
        trainer(tmp_path / "none", finetune_trains="neck")


def test_fine_tuning_without_its_part_is_reported_on_resumption(tmp_path, caplog):
    trainer(tmp_path, finetune_trains="head").run()
    trainer(tmp_path, resume_from=tmp_path / "iter_2.pth")
    assert "finetune_trains was head and is None now" in caplog.text


def test_missing_max_iters(tmp_path):
    with pytest.raises(ConfigError, match=r"runner\.max_iters"):
        trainer(tmp_path, {"runner.max_iters": None})


def test_rules_and_schedules_without_effect_are_told_by_a_training(tmp_path, caplog):
    options = {
        "optimizer.paramwise_cfg.custom_keys.haed": {"lr_mult": 2.0},
        "lr_config.warmup": "linear",
        "lr_config.warmup_iters": 1000,
    }
    trainer(tmp_path / "run", options)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("custom_keys.haed has no effect" in text for text in told)
    assert any("warmup_iters = 1000" in text for text in told)
