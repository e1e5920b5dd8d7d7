"""The scores that decide: the best checkpoint, and early stopping."""

import pytest
import torch

from mmseg.engine.monitor import Patience, find_score, undefined
from mmseg.errors import ConfigError
from mmseg.sections import EarlyStopping
from mmseg.weights import read_checkpoint
from tests.engine.toy_training import lines, trainer

SCORES = ("mIoU", "VC8", "IoU.car")


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


@pytest.mark.parametrize(("name", "found"), [("auto", "mIoU"), ("VC8", "VC8"), ("IoU.car", "IoU.car")])
def test_names_of_scores(name, found):
    assert find_score(name, SCORES, "evaluation.save_best") == found


@pytest.mark.parametrize("place", ["evaluation.save_best", "early_stopping.monitor"])
def test_a_name_that_is_no_score_is_refused_before_the_first_iteration(tmp_path, place):
    with pytest.raises(ConfigError, match=rf"{place} = 'mIou' is no score(.|\n)*did you mean 'mIoU'"):
        trainer(tmp_path, {place: "mIou"}, evaluate=lambda model: {"mIoU": 0.5}, score_names=SCORES)


def test_scores_without_validation_are_told(tmp_path, caplog):
    trainer(tmp_path, {"evaluation.save_best": "auto"}).run()
    assert "evaluation.save_best has no effect" in caplog.text and not list(tmp_path.glob("best*"))


def test_best_by_the_first_score_and_by_that_of_a_class(tmp_path):
    for name, file in (("auto", "best_mIoU_iter_3.pth"), ("IoU.car/van [1]", "best_IoU.car_van__1__iter_6.pth")):
        scores = iter([{"mIoU": 0.5, "IoU.car/van [1]": 0.1}, {"mIoU": 0.4, "IoU.car/van [1]": 0.2}])
        folder = tmp_path / name[:4]
        trainer(folder, {"evaluation.save_best": name}, evaluate=lambda model, scores=scores: next(scores)).run()
        assert [p.name for p in folder.glob("best*")] == [file]
    run = trainer(folder, resume_from=folder / "latest.pth").checkpoints
    assert run._best_before("IoU.car/van [1]") == (0.2, folder / file)


def test_best_checkpoints_of_other_programs_are_left_alone(tmp_path):
    options = {"evaluation.save_best": "mIoU"}
    trainer(tmp_path, options, evaluate=lambda model: {"mIoU": 0.5}).run()
    [best] = tmp_path.glob("best*")
    content = read_checkpoint(best)
    for number, meta in enumerate(({}, {"score": None}, {"score": {"mIoU": "0.9"}})):
        torch.save({**content, "meta": meta}, tmp_path / f"best_mIoU_iter_{number}.pth")
    assert trainer(tmp_path, options, resume_from=tmp_path / "latest.pth").checkpoints._best_before("mIoU") == (
        0.5,
        best,
    )


def test_a_score_that_is_better_when_lower(tmp_path):
    scores = iter([0.3, 0.1, 0.2, -0.1, 0.5])
    options = {"evaluation": {"interval": 2, "save_best": "J-Decay"}}

    def evaluate(model):
        return {"J-Decay": next(scores)}

    trainer(tmp_path, options, evaluate).run()
    assert [p.name for p in tmp_path.glob("best*")] == ["best_J-Decay_iter_4.pth"]
    trainer(tmp_path, {**options, "runner.max_iters": 10}, evaluate, tmp_path / "latest.pth").run()
    assert [p.name for p in tmp_path.glob("best*")] == ["best_J-Decay_iter_8.pth"]
    patience = Patience(EarlyStopping(monitor="J-Decay", patience=2))
    assert [patience.exhausted({"J-Decay": value}) for value in (0.3, 0.1, 0.2, 0.4)] == [False, False, False, True]
    assert patience.best == 0.1


def test_an_undefined_score_says_why_and_what_is_defined(tmp_path, caplog):
    trainer(
        tmp_path,
        {"evaluation.save_best": "mIoU"},
        evaluate=lambda model: {"mIoU": float("nan"), "mmseg/mIoU": 0.25},
        score_names=("mIoU", "mmseg/mIoU"),
        why_undefined=lambda name: f"{name} counts long videos",
    ).run()
    expected = "mIoU is undefined on this validation data (mIoU counts long videos); defined are mmseg/mIoU (0.2500)"
    assert expected in caplog.text and not list(tmp_path.glob("best*"))
    assert "all other scores" in undefined("a", {"a": float("nan")})


def stopping(monitor: str = "mIoU", patience: int = 2, **keys) -> Patience:
    return Patience(EarlyStopping(monitor=monitor, patience=patience, **keys))


@pytest.mark.parametrize(
    ("keys", "values", "ends_after"),
    [
        ({}, [0.1, 0.2, 0.2, 0.3, 0.1, 0.3], 6),
        ({"min_delta": 0.05}, [0.1, 0.14, 0.15, 0.9], 3),
        ({"min_delta": 0.05}, [0.1, 0.14, 0.16, 0.2, 0.2], 5),
        ({"rule": "less"}, [0.5, 0.4, 0.3, 0.35, 0.3], 5),
        ({}, [float("nan"), float("nan"), 0.5], 2),
        ({"patience": 1}, [0.1, 0.1], 2),
        ({}, [0.1, 0.2, 0.3, 0.4], None),
        ({"monitor": "auto"}, [0.3, 0.2, 0.1], 3),
    ],
)
def test_patience(keys, values, ends_after):
    patience = stopping(**keys)
    ends = [number for number, value in enumerate(values, 1) if patience.exhausted({"mIoU": value, "VC8": 1.0})]
    assert (ends[0] if ends else None) == ends_after


def test_a_training_that_gets_no_better_is_ended_and_saved(tmp_path, caplog):
    caplog.set_level("INFO")
    scores = iter([0.5, 0.4, 0.45, 0.6])
    options = {"early_stopping": {"patience": 2}, "evaluation.interval": 1, "checkpoint_config.interval": 100}
    last = trainer(tmp_path, options, lambda model: {"mIoU": next(scores)}, score_names=["mIoU"]).run()
    assert last == {"mIoU": 0.45}
    assert [entry["iter"] for entry in lines(tmp_path, "val")] == [1, 2, 3]
    assert [p.name for p in tmp_path.glob("iter*")] == ["iter_3.pth"]
    assert "early stopping after iteration 3: 2 evaluations without a better mIoU than 0.5" in caplog.text


def test_a_resumed_training_ends_where_an_uninterrupted_one_does(tmp_path):
    """The count of an evaluation is in the checkpoint of the same iteration, which was written before it."""
    values = [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
    options = {
        "custom_hooks": [{"type": "EarlyStoppingHook", "monitor": "mIoU", "patience": 3}],
        "evaluation.interval": 1,
        "checkpoint_config.interval": 1,
    }
    for start in (0, 1, 2, 3):
        folder, left = tmp_path / str(start), iter(values[start:])
        before = tmp_path / "0" / f"iter_{start}.pth" if start else None
        trainer(folder, options, lambda model, left=left: {"mIoU": next(left)}, before).run()
        assert lines(folder, "val")[-1]["iter"] == 4
    assert read_checkpoint(tmp_path / "0" / "iter_2.pth")["meta"]["early_stopping"] == {"best": 0.5, "waited": 1}


def test_a_training_that_had_ended_early_is_not_trained_further(tmp_path):
    options = {"early_stopping": {"patience": 1}, "evaluation.interval": 1}
    trainer(tmp_path, options, lambda model: {"mIoU": 0.5}).run()
    assert read_checkpoint(tmp_path / "latest.pth")["meta"]["iter"] == 2
    trainer(tmp_path, options, lambda model: {"mIoU": 0.9}, tmp_path / "latest.pth").run()
    assert read_checkpoint(tmp_path / "latest.pth")["meta"]["iter"] == 2


@pytest.mark.parametrize(("interval", "told"), [(1, False), (2, True), (100, True), (None, True)])
def test_patience_that_outlasts_the_training_is_told(tmp_path, caplog, interval, told):
    options = {"early_stopping": {"patience": 4}, "evaluation.interval": interval}  # 5 evaluations before the sixth
    trainer(tmp_path, options, evaluate=lambda model: {"mIoU": 0.5}, score_names=["mIoU"])
    assert ("can hardly end this training" in caplog.text) == told


def test_state_of_other_files_starts_from_anew():
    for state in (None, 5, {"best": "x", "waited": -1}, {"best": float("nan")}):
        patience = stopping()
        patience.load_state_dict(state)
        assert (patience.best, patience.waited) == (None, 0)


def test_one_section_twice_is_refused(tmp_path):
    hooks = [{"type": "EarlyStoppingHook"}]
    with pytest.raises(ConfigError, match="early_stopping is given 2 times"):
        trainer(tmp_path, {"custom_hooks": hooks, "early_stopping": {"patience": 3}})
