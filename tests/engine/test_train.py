"""The training loop: exact resumption, evaluation, logs, signals, and losses that go wrong."""

import json
import os
import re
import signal

import pytest
import torch
from mmengine.config import Config

from mmseg.engine.checkpoints import NonFiniteError
from mmseg.engine.interrupts import Interrupted
from mmseg.engine.log import close_logging, setup_logging
from mmseg.engine.train import Trainer
from mmseg.errors import CheckpointError, ConfigError
from mmseg.weights import read_checkpoint
from tests.engine.toy import CONFIG, ToyClips, ToySegmentor


def trainer(folder, options=None, evaluate=None, resume_from=None, seed=5, nan=False) -> Trainer:
    folder.mkdir(exist_ok=True)
    cfg = Config.fromstring(CONFIG, ".py")
    cfg.merge_from_dict(options or {})
    torch.manual_seed(seed)
    return Trainer(
        cfg, ToySegmentor(), ToyClips(nan=nan), folder, seed, evaluate, resume_from, {"CLASSES": "rgb"}, log_name="log"
    )


def assert_same_checkpoint(a, b) -> None:
    """Bit for bit: weights, batch statistics and the optimiser's moments."""
    a, b = read_checkpoint(a), read_checkpoint(b)
    assert a["state_dict"].keys() == b["state_dict"].keys()
    for name, value in a["state_dict"].items():
        assert torch.equal(value, b["state_dict"][name]), name
    assert a["optimizer"]["state"].keys() == b["optimizer"]["state"].keys()
    for number, moments in a["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, b["optimizer"]["state"][number][name]), (number, name)
    assert a["optimizer"]["param_groups"] == b["optimizer"]["param_groups"]
    assert {**a["meta"], "time": 0} == {**b["meta"], "time": 0}


def lines(folder, mode="train") -> list[dict]:
    entries = [json.loads(line) for line in (folder / "log.log.json").read_text().splitlines()]
    return [{k: v for k, v in e.items() if "time" not in k} for e in entries if e.get("mode") == mode]


@pytest.mark.parametrize(
    "options",
    [{}, {"data.workers_per_gpu": 2}, {"gradient_accumulation": 2}, {"amp.dtype": "bfloat16"}],
    ids=["no workers", "2 workers", "accumulation", "bfloat16"],
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
    assert (meta["iter"], meta["epoch"], meta["seed"], meta["CLASSES"]) == (7, 2, 5, "rgb")  # 14 clips of 5 videos


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


def test_best_checkpoint_is_kept_over_a_resumption(tmp_path):
    scores = iter([0.3, 0.5, 0.4, float("nan"), 0.6])
    options = {"evaluation": {"interval": 2, "save_best": "mIoU"}}

    def evaluate(model):
        return {"mIoU": next(scores)}

    trainer(tmp_path, options, evaluate).run()
    assert [p.name for p in tmp_path.glob("best*")] == ["best_mIoU_iter_4.pth"]
    best = read_checkpoint(tmp_path / "best_mIoU_iter_4.pth")
    assert best["meta"]["score"] == {"mIoU": 0.5} and best["meta"]["iter"] == 4
    trainer(tmp_path, {**options, "runner.max_iters": 8}, evaluate, tmp_path / "latest.pth").run()
    assert [p.name for p in tmp_path.glob("best*")] == ["best_mIoU_iter_4.pth"]  # 8: undefined
    trainer(tmp_path, {**options, "runner.max_iters": 10}, evaluate, tmp_path / "latest.pth").run()
    assert [p.name for p in tmp_path.glob("best*")] == ["best_mIoU_iter_10.pth"]


def test_logs(tmp_path):
    setup_logging(tmp_path / "log.log")
    try:
        trainer(tmp_path, {"log_config.interval": 4}).run()
    finally:
        close_logging()
    text = (tmp_path / "log.log").read_text()
    pattern = (
        r"Iter \[4/6\] lr: \d\.\d{3}e-\d\d, eta: 0:00:\d\d, time: \d\.\d{3}, data_time: \d\.\d{3}, "
        r"decode\.loss_seg: \d\.\d{4}, decode\.acc_seg: \d+\.\d{4}, loss: \d\.\d{4}\n"
    )
    assert re.search(pattern, text), text
    assert "Iter [6/6]" in text and str(tmp_path / "iter_6.pth") in text
    header = json.loads((tmp_path / "log.log.json").read_text().splitlines()[0])
    assert header["seed"] == 5 and "torch" in header["env"]
    entry = lines(tmp_path)[0]
    assert entry["lr"] == pytest.approx(0.01 * (1 - 3 / 6))
    assert entry["loss"] == entry["decode.loss_seg"]
    assert list((tmp_path / "tf_logs").glob("events*"))


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


def test_missing_max_iters(tmp_path):
    with pytest.raises(ConfigError, match=r"runner\.max_iters"):
        trainer(tmp_path, {"runner.max_iters": None})
