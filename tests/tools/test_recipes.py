"""The published recipes from training to scores, at toy size, with the shell commands of the README."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from mmseg.weights import read_checkpoint
from tests.tools.processes import DIST, ROOT, finish

TEST = [str(ROOT / "tools" / "dist_test.sh")]
TOY = ROOT / "local_configs" / "toy"
FROZEN = ("backbone.", "decode_head.linear_", "decode_head.decoder_focal.")


@pytest.fixture
def data(tmp_path) -> pathlib.Path:
    """Three training videos, one for validation and one for testing, 20 frames of 64x96 each, three classes."""
    root = tmp_path / "toy"
    numbers = "--videos 3 --val-videos 1 --test-videos 1 --frames 20 --size 64 96 --classes 3".split()
    subprocess.run([sys.executable, str(ROOT / "tools" / "make_toy_dataset.py"), str(root), *numbers], check=True)
    return root


def options(data: pathlib.Path, *more: str) -> list[str]:
    roots = [f"{entry}.data_root={data}" for entry in ("data.train.dataset", "data.val", "data.test")]
    scales = [f"data.{entry}.pipeline.1.img_scale=(96,64)" for entry in ("val", "test")]
    return ["--options", *roots, *scales, "data.samples_per_gpu=1", "model.decode_head.num_classes=3", *more]


def scores(path: pathlib.Path) -> dict:
    report = json.loads(path.read_text())
    assert all(0 <= report[name] <= 1 for name in ("mIoU", "FWIoU", "VC8", "VC16"))
    assert report["counts"]["frames"] == 20
    return report


@pytest.mark.slow
def test_cffm_plus(tmp_path, data):
    finish(
        [*DIST, TOY / "cffm.b0.py", 0, "--work-dir", "cffm", "--seed", 0, *options(data, "runner.max_iters=2")],
        tmp_path,
    )
    cffm = tmp_path / "cffm" / "latest.pth"
    refused = finish(
        [*DIST, TOY / "cffm_fine_w_proto.b0.py", 0, "--load-from", cffm, *options(data)], tmp_path, status=2
    )
    assert "gene_prototype" in refused and "Traceback" not in refused

    generate = [*TEST, TOY / "cffm_gene_prototype.b0.py", cffm, 2, "--out", "proto/res.pkl", "--eval", "None"]
    finish([*generate, *options(data)], tmp_path)
    files = sorted((tmp_path / "cluster_centers").glob("*/centers.pt"))
    assert [f.parent.name for f in files] == ["test_000", "train_000", "train_001", "train_002", "val_000"]
    centers = torch.load(files[0], weights_only=True)
    assert centers.shape == (1, 100, 256) and centers.dtype == torch.float32
    times = [f.stat().st_mtime_ns for f in files]
    finish([*generate, *options(data)], tmp_path)
    assert [f.stat().st_mtime_ns for f in files] == times

    tune = [*DIST, TOY / "cffm_fine_w_proto.b0.py", 0, "--load-from", cffm, "--work-dir", "plus", "--seed", 0]
    finish([*tune, *options(data, "runner.max_iters=2")], tmp_path)
    before, after = (read_checkpoint(tmp_path / d / "latest.pth")["state_dict"] for d in ("cffm", "plus"))
    frozen = [name for name in before if name.startswith(FROZEN)]
    assert frozen and all(torch.equal(before[name], after[name]) for name in frozen)
    finish(
        [*TEST, TOY / "cffm_fine_w_proto.b0.py", "plus/latest.pth", 0, "--out", "plus/res.pkl", *options(data)],
        tmp_path,
    )
    scores(tmp_path / "plus" / "res.json")


@pytest.mark.slow
def test_mrcfa(tmp_path, data):
    train = [*DIST, TOY / "mrcfa.b0.py", 0, "--work-dir", "mrcfa", "--seed", 0]
    finish([*train, *options(data, "runner.max_iters=2")], tmp_path)
    test = [*TEST, TOY / "mrcfa.b0.py", "mrcfa/latest.pth"]
    one, two = "one/res.pkl", "two/res.pkl"
    finish([*test, 0, "--out", one, *options(data)], tmp_path)
    finish([*test, 2, "--out", two, *options(data)], tmp_path)
    assert scores(tmp_path / "one" / "res.json")["mIoU"] == scores(tmp_path / "two" / "res.json")["mIoU"]
    maps = np.load(tmp_path / one, allow_pickle=True)
    assert len(maps) == 20 and maps[0].shape == (64, 96) and maps[0].dtype == np.uint8
    assert (tmp_path / one).read_bytes() == (tmp_path / two).read_bytes()
