"""THE-Mask from the first stage to scores, at toy size, with the published commands."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mmseg.weights import read_checkpoint
from mmseg.writing.label_pickle import read_label_pickle
from tests.tools.processes import DIST, ROOT, finish

TEST = [str(ROOT / "tools" / "dist_test.sh")]
TOY = ROOT / "local_configs" / "toy"
FRAMES = 20


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> pathlib.Path:
    """A folder with toy videos of 20 frames of 64x96, three classes."""
    root = tmp_path_factory.mktemp("themask")
    numbers = f"--videos 3 --val-videos 2 --test-videos 1 --frames {FRAMES} --size 64 96 --classes 3".split()
    subprocess.run(
        [sys.executable, str(ROOT / "tools" / "make_toy_dataset.py"), str(root / "toy"), *numbers], check=True
    )
    return root


def options(work: pathlib.Path, *more: str) -> list[str]:
    scales = [f"data.{entry}.pipeline.1.img_scale=(96,64)" for entry in ("val", "test")]
    classes = [f"model.decode_head.{place}num_classes=3" for place in ("", "transformer_decoder_cfg.")]
    small = ["data.samples_per_gpu=1", "model.decode_head.loss_cfg.train_num_points=128"]
    return ["--options", f"data_root={work / 'toy'}", *scales, *classes, *small, *more]


def losses(folder: pathlib.Path) -> list[dict]:
    (log,) = folder.glob("*.log.json")
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    return [entry for entry in entries if entry.get("mode") == "train"]


@pytest.mark.slow
def test_the_published_chain(work):
    """One frame, then two by --finetune-from in two processes, then clips of every length in one and two."""
    first = [*DIST, TOY / "themask_1f.b0.py", 2, "--work-dir", "first", "--seed", 0]
    finish([*first, *options(work, "runner.max_iters=2", "log_config.interval=1")], work)
    checkpoint = "first/latest.pth"
    (entry, _) = losses(work / "first")
    assert {"decode.loss_ce", "decode.loss_mask_2", "decode.loss_dice_0"} < entry.keys()
    assert "decode.r0_loss_mask" not in entry

    published = "model.decode_head.transformer_decoder_cfg.num_frames=2 data.train.dataset.dilation=[-3]".split()
    published += ["runner.max_iters=2", "checkpoint_config.interval=1", "log_config.interval=1"]
    second = [*DIST, TOY / "themask_video.b0.py", 2, "--work-dir", "second", "--seed", 0]
    output = finish([*second, *options(work, *published), "--finetune-from", checkpoint], work)
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

    test, found = [*TEST, TOY / "themask_video.b0.py", "second/latest.pth"], {}
    for size, processes in ((1, 0), (2, 2), (4, 0)):
        out = f"size{size}/res.pkl"
        finish([*test, processes, "--out", out, *options(work, f"data.test.test_size={size}")], work)
        report = json.loads((work / out).with_suffix(".json").read_text())
        assert report["run"]["test_size"] == size and report["counts"]["frames"] == 2 * FRAMES
        found[size] = np.stack(list(read_label_pickle(work / out)))
    assert all(maps.shape == (2 * FRAMES, 64, 96) for maps in found.values())
    assert not np.array_equal(found[1], found[2]) and not np.array_equal(found[2], found[4])

    folder = [*test, 0, "--out", "sub", "--format-only", "--seed", 0, "--finetune-from", "x"]
    finish([*folder, *options(work, "data.test.test_size=2")], work)
    assert sorted(path.name for path in (work / "sub").iterdir()) == ["gts", "miou.txt", "result_submissionval"]
    lines = (work / "sub" / "miou.txt").read_text().splitlines()
    names = [line.split(":")[0] for line in lines]
    assert len(names) == 2 * FRAMES and all((work / "toy" / "data" / f"{n.split('/')[0]}").is_dir() for n in names)
    for number, name in enumerate(names):
        png = pathlib.Path(name).with_suffix(".png")
        picture = Image.open(work / "sub" / "result_submissionval" / png)
        assert picture.mode == "P" and np.array_equal(np.asarray(picture), found[2][number])  # one process as two
        assert np.asarray(Image.open(work / "sub" / "gts" / png)).shape == (64, 96)


@pytest.mark.slow
def test_wrong_turns_are_told(work):
    first = [*DIST, TOY / "themask_1f.b0.py", 0, "--work-dir", "one", "--seed", 0]
    finish([*first, *options(work, "runner.max_iters=1")], work)
    video = [*DIST, TOY / "themask_video.b0.py", 0, "--work-dir", "wrong"]
    for command in (
        [*video, "--load-from", "one/latest.pth", *options(work)],
        [*TEST, TOY / "themask_video.b0.py", "one/latest.pth", 0, *options(work)],
    ):
        output = finish(command, work, status=2)
        assert "--finetune-from" in output and "one/latest.pth" in output and "Traceback" not in output
    output = finish([*video, *options(work, "data.train.dataset.dilation=[-9,-6,-3]")], work, status=2)
    assert "data.train.dataset.dilation = [-9, -6, -3]" in output and "num_frames = 2" in output
    test = [*TEST, TOY / "themask_1f.b0.py", "one/latest.pth", 0, "--out", "wrong.pkl"]
    output = finish([*test, *options(work, "data.test.test_size=32")], work, status=2)
    assert "test_size=32" in output and "1, 2, 4" in output and not (work / "wrong.pkl").exists()
    output = finish([*TEST, TOY / "cffm.b0.py", "none", 0, "--out", "wrong.pkl", "--options",
                     f"data_root={work / 'toy'}", "data.test.type=VSPWClipDataset", "data.test.test_size=2",
                     "model.decode_head.num_classes=3"], work, status=2)  # fmt: skip
    assert "test_size=2" in output and not (work / "wrong.pkl").exists()
