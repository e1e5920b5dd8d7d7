"""What a training from a config checks and says before its first iteration."""

import json

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmseg.apis.training import compare_classes, report_data, train_segmentor, try_training
from mmseg.config import load_config
from mmseg.datasets import ConcatDataset, RepeatDataset, VSPWDataset
from mmseg.errors import ConfigError, DataError, WriteError
from mmseg.weights import read_checkpoint
from tests.engine.tiny_vspw import CLASSES, make_data
from tests.engine.toy import CONFIG


def vspw(root, **arguments) -> VSPWDataset:
    return VSPWDataset(root, "train", classes=CLASSES, dilation=[-2, -1], **arguments)


def test_amount_and_shares_of_labels_are_told(tmp_path, caplog):
    caplog.set_level("INFO")
    data = vspw(make_data(tmp_path, {"a": 4, "b": 5}, "train"))
    masks = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(tmp_path.glob("data/*/mask/*.png"))]
    pixels = np.concatenate([mask.ravel() for mask in masks])
    labelled = 100 * (pixels > 0).mean()
    box = 100 * (pixels == 2).sum() / (pixels > 0).sum()
    report_data(RepeatDataset(ConcatDataset([data, data]), times=3))
    assert f"data.train: 4 videos, 18 frames; in a sample of masks {labelled:.1f} % of the pixels" in caplog.text
    assert f"floor {100 * (pixels == 1).sum() / (pixels > 0).sum():.1f}, box {box:.1f}, ball" in caplog.text
    assert "WARNING" not in caplog.text


def test_classes_that_never_occur_are_warned_of(tmp_path, caplog):
    data = VSPWDataset(make_data(tmp_path, {"a": 4}, "train"), "train", classes=[*CLASSES, "moose"], dilation=[-1])
    report_data(data)
    assert "1 classes never occur in that sample: moose" in caplog.text


def test_masks_without_labels_are_refused(tmp_path):
    make_data(tmp_path, {"a": 4}, "train")
    for path in tmp_path.glob("data/a/mask/*.png"):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(mask == 2, 255, 0).astype(np.uint8))
    message = r"no labelled pixel in 4 of 4 masks(.|\n)*\[0, 255\]"
    with pytest.raises(DataError, match=message):
        report_data(vspw(tmp_path))
    section = dict(type="VSPWDataset", data_root=str(tmp_path), classes=list(CLASSES), dilation=[-1])
    with pytest.raises(DataError, match=message):
        run(tmp_path / "run", tmp_path, options={"data.train": section})


@pytest.mark.parametrize(
    ("trained", "message"),
    [
        (None, None),
        (5, None),
        (["a", "b", "c"], None),
        (["b", "a", "c"], "wrong classes and have to be learned"),
        (["a", "b", "x"], "starts with weights of those"),
        (["a", "b"], None),  # of another number: the classifier is not loaded, which the loading says
    ],
)
def test_class_names_of_the_weights(trained, message, caplog):
    compare_classes(trained, ["a", "b", "c"], "x.pth", refuse=False)
    assert (message or "") in caplog.text and bool(caplog.text) == bool(message)


def test_a_training_does_not_go_on_with_classes_in_another_order(caplog):
    with pytest.raises(ConfigError, match=r"x\.pth was trained with other classes than data\.train"):
        compare_classes(["b", "a"], ["a", "b"], "x.pth", refuse=True)
    compare_classes(["b", "x"], ["a", "b"], "x.pth", refuse=True)
    assert "other classes" in caplog.text


# --- weights to start from --------------------------------------------------------------------------------------------


def run(folder, tmp_path, **arguments) -> dict:
    """The last checkpoint of a training of two iterations of the toy model."""
    path = tmp_path / "toy.py"
    path.write_text(CONFIG)
    options = {"runner.max_iters": 2, "data.samples_per_gpu": 1, **arguments.pop("options", {})}
    train_segmentor(load_config(path, options), folder, seed=1, validate=False, **arguments)
    return read_checkpoint(folder / "latest.pth")


def test_fine_tuning_is_remembered(tmp_path):
    """The part that is trained is in the checkpoint, and a resumed run trains it without being told."""
    first = run(tmp_path / "first", tmp_path)
    tuned = run(tmp_path / "tuned", tmp_path, finetune_from=str(tmp_path / "first" / "latest.pth"))
    again = run(
        tmp_path / "again",
        tmp_path,
        resume_from=str(tmp_path / "tuned" / "latest.pth"),
        options={"runner.max_iters": 4},
    )
    whole = run(tmp_path / "whole", tmp_path, load_from=str(tmp_path / "first" / "latest.pth"))
    for checkpoint, is_tuned in ((tuned, True), (again, True), (whole, False)):
        assert checkpoint["meta"]["finetune_trains"] == ("head" if is_tuned else None)
        changed = {n for n, v in first["state_dict"].items() if not torch.equal(v, checkpoint["state_dict"][n])}
        changed = {name for name in changed if not name.startswith("norm.") or name in ("norm.weight", "norm.bias")}
        assert changed == {"head.weight", "head.bias"} | (set() if is_tuned else {"conv.weight", "conv.bias", "norm.weight", "norm.bias"})  # fmt: skip # noqa: E501


def test_two_files_of_weights_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"load_from = a\.pth and finetune_from = b\.pth"):
        run(tmp_path / "run", tmp_path, load_from="a.pth", options={"finetune_from": "b.pth"})


def test_weights_beside_a_run_that_goes_on_are_told(tmp_path, capsys):
    run(tmp_path / "first", tmp_path)
    first = str(tmp_path / "first" / "latest.pth")
    asked, configured = {"load_from": "weights.pth"}, {"options": {"load_from": "weights.pth"}}
    for arguments, told in (
        (asked | {"resume_from": first}, True),
        ({"finetune_from": "weights.pth", "resume_from": first}, True),
        (asked | {"auto_resume": True}, False),
        (configured | {"resume_from": first}, False),
    ):
        run(tmp_path / "first", tmp_path, **arguments)
        assert (f"weights.pth has no effect: the training goes on from {first}" in capsys.readouterr().out) == told


def test_the_seed_of_the_resumed_run_is_taken(tmp_path):
    run(tmp_path / "first", tmp_path)
    path = tmp_path / "toy.py"
    cfg = load_config(path, {"runner.max_iters": 3})
    train_segmentor(cfg, tmp_path / "second", validate=False, resume_from=str(tmp_path / "first" / "latest.pth"))
    assert read_checkpoint(tmp_path / "second" / "latest.pth")["meta"]["seed"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data.train.dataset.dilation": [-2, -1]}, r"^data\.train\.dataset: dilation \[-2, -1\] .*num_clips=4"),
        ({"data.val.dilation": [-2, -1]}, r"^data\.val: dilation \[-2, -1\] .*num_clips=4"),
        ({"optimizer.nesterov": True}, "nesterov"),
        ({"evaluation.metric": "foo"}, r"evaluation\.metric = foo"),
        ({"evaluation.save_best": "foo"}, r"evaluation\.save_best"),
        ({"model.type": "FrameSegmentor"}, r"^model\.type"),
        ({"data.train.dataset.pipeline.9.keys": ["img"]}, r"^data\.train: samples without 'gt_semantic_seg'"),
    ],
)
def test_sections_that_do_not_fit_are_told_before_the_first_iteration(tmp_path, options, message):
    root = make_data(tmp_path / "data", {"a": 12}, "train")
    make_data(root, {"b": 12}, "val")
    settings = {"data_root": str(root), "model.decode_head.num_classes": 124, "data.workers_per_gpu": 0}
    cfg = load_config("local_configs/toy/cffm.b0.py", {**settings, **options})
    with pytest.raises(ConfigError, match=message):
        train_segmentor(cfg, tmp_path / "run", seed=0)
    assert not list((tmp_path / "run").glob("*.pth"))


# --- a rehearsal ------------------------------------------------------------------------------------------------------


def small_cffm(tmp_path, **options):
    """CFFM on two training videos and two to validate on, of 20 and of 18 frames."""
    root = make_data(tmp_path / "data", {"a": 12, "b": 12}, "train")
    make_data(root, {"c": 20, "d": 18}, "val")
    given = {"data_root": str(root), "model.decode_head.num_classes": 3, "data.workers_per_gpu": 0}
    given |= {"data.samples_per_gpu": 1, "log_config.interval": 1, "runner.max_iters": 2}
    given |= {f"data.{place}.classes": list(CLASSES) for place in ("train.dataset", "val", "test")}
    return load_config("local_configs/toy/cffm.b0.py", {**given, **options})


def test_a_rehearsal_does_everything_once_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    cfg = small_cffm(tmp_path, **{"evaluation.save_best": "mIoU"})
    scores = try_training(cfg, tmp_path / "run" / "deep", seed=0)
    out = capsys.readouterr().out
    assert 0 <= scores["mIoU"] <= 1
    assert "Iter [1/2]" in out and "Iter [2/2]" not in out and "loss_seg" in out
    assert "1 of 1 videos, 18 of 18 frames" in out  # the shorter one
    assert "all is well" in out and "iter_1.pth" in out and "best mIoU so far" in out
    assert not (tmp_path / "run").exists() and not list((tmp_path / "temporary").glob("mmseg*"))


def test_a_rehearsal_finds_what_would_end_the_training(tmp_path):
    """Of the work folder, too, which it does not touch."""
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file/run: cannot be written, a part of the path is a file"):
        try_training(small_cffm(tmp_path), tmp_path / "file" / "run")
    assert not (tmp_path / "run").exists()
    bare = {"data.val.masks_dir": "labels/{video}"}  # a training would warn, and go on without scores
    with pytest.raises(DataError, match="evaluation of videos without masks"):
        try_training(small_cffm(tmp_path / "b", **bare), tmp_path / "run")


def test_videos_that_are_trained_on_and_scored_are_told(tmp_path, capsys):
    for name, split in (("apart", {}), ("shared", {"data.every.split": None})):
        options = {"runner.max_iters": 1, "data.val.classes": list(CLASSES), **split}
        try_training(small_cffm(tmp_path / name, **options), tmp_path / "run", seed=0)
        told = "4 of 4 videos of data.val are in data.train, too (a)" in capsys.readouterr().out
        assert told == (name == "shared")


def test_sizes_curves_of_classes_and_pictures_in_the_logs(tmp_path, capsys):
    """The JSON log starts with the sizes of model and data; TensorBoard shows every class, and frames with results."""
    cfg = small_cffm(tmp_path, **{"runner.max_iters": 1})
    for name in ("c", "d"):
        for kind in ("origin", "mask"):
            for path in sorted((tmp_path / "data" / "data" / name / kind).iterdir())[2:]:
                path.unlink()
    train_segmentor(cfg, tmp_path / "run", seed=0)
    [log] = (tmp_path / "run").glob("*.log.json")
    header = json.loads(log.read_text().splitlines()[0])
    state = read_checkpoint(tmp_path / "run" / "latest.pth")["state_dict"]
    assert header["train"] == {"videos": 2, "frames": 24} and header["val"] == {"videos": 2, "frames": 4}
    assert 0 < header["model"]["parameters"] <= sum(value.numel() for value in state.values())
    text = capsys.readouterr().out
    assert f"ClipSegmentor of MiTB0 and CFFMHead, {header['model']['parameters'] / 1e6:.3f} M parameters" in text
    assert "3 classes" in text and "data.val: 2 videos, 4 frames" in text
    events = EventAccumulator(str(tmp_path / "run" / "tf_logs")).Reload()
    assert {f"val/IoU.{name}" for name in CLASSES} <= set(events.Tags()["scalars"])
    [picture] = events.Images("val/frames")
    assert picture.step == 1 and picture.width > 900  # frame, prediction and truth
    assert picture.height > 2 * 200  # of two videos
