"""THE-Mask from the first stage to scores, at toy size, with the published commands."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from mmseg.config import load_config
from mmseg.engine.checkpoints import save_checkpoint
from mmseg.making.toy import generate_toy_dataset
from mmseg.models import build_segmentor
from mmseg.weights import read_checkpoint
from mmseg.writing.label_pickle import read_label_pickle
from tests.tools.processes import ROOT, finish_two

TOY = ROOT / "local_configs" / "toy"
FRAMES = 13  # a block of 12 and one that is left


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> pathlib.Path:
    """A folder with toy videos of 13 frames of 64x96, three classes."""
    root = tmp_path_factory.mktemp("themask")
    generate_toy_dataset(root / "toy", 3, 2, 1, FRAMES, (64, 96), 3)
    return root


def options(work: pathlib.Path, *more: str) -> list[str]:
    scales = [f"data.{entry}.pipeline.1.img_scale=(96,64)" for entry in ("val", "test")]
    classes = [f"model.decode_head.{place}num_classes=3" for place in ("", "transformer_decoder_cfg.")]
    small = ["data.samples_per_gpu=1", "data.workers_per_gpu=0", "model.decode_head.loss_cfg.train_num_points=128"]
    return ["--options", f"data_root={work / 'toy'}", *scales, *classes, *small, *more]


def losses(folder: pathlib.Path) -> list[dict]:
    (log,) = folder.glob("*.log.json")
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    return [entry for entry in entries if entry.get("mode") == "train"]


@pytest.mark.slow
def test_the_published_chain(work, call, monkeypatch):
    """One frame, then two by --finetune-from in two processes, then clips of several lengths in one and two."""
    monkeypatch.chdir(work)
    first = ["train.py", TOY / "themask_1f.b0.py", "--work-dir", "first", "--seed", 0, "--no-validate", "--gpus", 0]
    call(*first, *options(work, "runner.max_iters=1", "log_config.interval=1"))
    checkpoint = "first/latest.pth"
    (entry,) = losses(work / "first")
    assert {"decode.loss_ce", "decode.loss_mask_2", "decode.loss_dice_0"} < entry.keys()
    assert "decode.r0_loss_mask" not in entry

    published = "model.decode_head.transformer_decoder_cfg.num_frames=2 data.train.dataset.dilation=[-3]".split()
    published += ["runner.max_iters=2", "checkpoint_config.interval=1", "log_config.interval=1"]
    second = [TOY / "themask_video.b0.py", "--work-dir", "second", "--seed", 0, "--no-validate"]
    output = finish_two("train.py", work, *second, *options(work, *published), "--finetune-from", checkpoint)
    assert "entries are mapped" in output and "fine-tuning" in output
    before, after = (read_checkpoint(work / name / "latest.pth") for name in ("first", "second"))
    assert after["meta"]["finetune_trains"] == "predictor"
    changed = {
        name
        for name, value in after["state_dict"].items()
        if name in before["state_dict"] and not np.array_equal(value, before["state_dict"][name])
    }
    assert changed and all("predictor" in name for name in changed)
    (entry, _) = losses(work / "second")
    assert {"decode.r1_loss_dice_unmatched_2_aux", "decode.r0_loss_mask", "decode.loss_ce_aux"} < entry.keys()

    test, found = [TOY / "themask_video.b0.py", "second/latest.pth"], {}
    for size in (1, 2, 4):
        out = f"size{size}/res.pkl"
        arguments = ["--out", out, *options(work, f"data.test.test_size={size}")]
        if size == 2:
            finish_two("test.py", work, *test, *arguments)
        else:
            call("test.py", *test, *arguments)
        report = json.loads((work / out).with_suffix(".json").read_text())
        assert report["run"]["test_size"] == size and report["counts"]["frames"] == 2 * FRAMES
        found[size] = np.stack(list(read_label_pickle(work / out)))
    assert all(maps.shape == (2 * FRAMES, 64, 96) for maps in found.values())
    assert not np.array_equal(found[1], found[2]) and not np.array_equal(found[2], found[4])

    folder = [*test, "--out", "sub", "--format-only", "--seed", 0, "--finetune-from", "x"]
    call("test.py", *folder, *options(work, "data.test.test_size=2"))
    assert sorted(path.name for path in (work / "sub").iterdir()) == ["gts", "miou.txt", "result_submissionval"]
    lines = (work / "sub" / "miou.txt").read_text().splitlines()
    names = [line.split(":")[0] for line in lines]
    assert len(names) == 2 * FRAMES and all((work / "toy" / "data" / f"{n.split('/')[0]}").is_dir() for n in names)
    for number, name in enumerate(names):
        png = pathlib.Path(name).with_suffix(".png")
        picture = Image.open(work / "sub" / "result_submissionval" / png)
        assert picture.mode == "P" and np.array_equal(np.asarray(picture), found[2][number])  # one process as two
        assert np.asarray(Image.open(work / "sub" / "gts" / png)).shape == (64, 96)


def test_wrong_turns_are_told(work, call, monkeypatch):
    monkeypatch.chdir(work)
    frame, video = TOY / "themask_1f.b0.py", TOY / "themask_video.b0.py"
    small = {f"model.decode_head.{place}num_classes": 3 for place in ("", "transformer_decoder_cfg.")}
    weights = build_segmentor(load_config(frame, small).model).state_dict()
    save_checkpoint("one.pth", {"meta": {}, "state_dict": weights})
    train = ["train.py", video, "--work-dir", "wrong"]
    for command in (
        [*train, "--load-from", "one.pth", *options(work)],
        ["test.py", video, "one.pth", *options(work)],
    ):
        output = call(*command, status=2)
        assert "--finetune-from" in output and "one.pth" in output
    output = call(*train, *options(work, "data.train.dataset.dilation=[-9,-6,-3]"), status=2)
    assert "data.train.dataset.dilation = [-9, -6, -3]" in output and "num_frames = 2" in output
    test = ["test.py", frame, "one.pth", "--out", "wrong.pkl"]
    output = call(*test, *options(work, "data.test.test_size=32"), status=2)
    assert "test_size=32" in output and "1, 2, 4" in output and not (work / "wrong.pkl").exists()
    cffm = ["test.py", TOY / "cffm.b0.py", "none", "--out", "wrong.pkl", "--options", f"data_root={work / 'toy'}"]
    cffm += ["data.test.type=VSPWClipDataset", "data.test.test_size=2", "model.decode_head.num_classes=3"]
    assert "test_size=2" in call(*cffm, status=2) and not (work / "wrong.pkl").exists()
