"""The published recipes from training to scores, at toy size, with steps in two processes."""

import json
import pathlib

import numpy as np
import pytest
import torch

from mmseg.weights import read_checkpoint
from tests.tools.processes import ROOT, finish_two

TOY = ROOT / "local_configs" / "toy"
FROZEN = ("backbone.", "decode_head.linear_", "decode_head.decoder_focal.")


@pytest.fixture
def data(tmp_path, call, monkeypatch) -> pathlib.Path:
    """Three training videos, one for validation and one for testing, 17 frames of 64x96 each, three classes."""
    root = tmp_path / "toy"
    numbers = "--videos 3 --val-videos 1 --test-videos 1 --frames 17 --size 64 96 --classes 3".split()
    call("make_toy_dataset.py", root, *numbers)
    monkeypatch.chdir(tmp_path)
    return root


def options(data: pathlib.Path, *more: str) -> list[str]:
    roots = [f"{entry}.data_root={data}" for entry in ("data.train.dataset", "data.val", "data.test")]
    scales = [f"data.{entry}.pipeline.1.img_scale=(96,64)" for entry in ("val", "test")]
    return ["--options", *roots, *scales, "data.samples_per_gpu=1", "model.decode_head.num_classes=3", *more]


def scores(path: pathlib.Path) -> dict:
    report = json.loads(path.read_text())
    assert all(0 <= report[name] <= 1 for name in ("mIoU", "FWIoU", "VC8", "VC16"))
    assert report["counts"]["frames"] == 17
    return report


@pytest.mark.slow
def test_cffm_plus(tmp_path, data, call):
    call("train.py", TOY / "cffm.b0.py", "--work-dir=cffm", "--seed=0", *options(data, "runner.max_iters=1"))
    cffm = tmp_path / "cffm" / "latest.pth"
    refused = call("train.py", TOY / "cffm_fine_w_proto.b0.py", "--load-from", cffm, *options(data), status=2)
    assert "gene_prototype" in refused

    generate = [TOY / "cffm_gene_prototype.b0.py", cffm, "--out=proto/res.pkl", "--eval=None", *options(data)]
    finish_two("test.py", tmp_path, *generate)
    files = sorted((tmp_path / "cluster_centers").glob("*/centers.pt"))
    assert [f.parent.name for f in files] == ["test_000", "train_000", "train_001", "train_002", "val_000"]
    centers = torch.load(files[0], weights_only=True)
    assert centers.shape == (1, 100, 256) and centers.dtype == torch.float32
    times = [f.stat().st_mtime_ns for f in files]
    call("test.py", *generate)
    assert [f.stat().st_mtime_ns for f in files] == times

    tune = [TOY / "cffm_fine_w_proto.b0.py", "--load-from", cffm, "--work-dir=plus", "--seed=0"]
    call("train.py", *tune, *options(data, "runner.max_iters=1"))
    before, after = (read_checkpoint(tmp_path / d / "latest.pth")["state_dict"] for d in ("cffm", "plus"))
    frozen = [name for name in before if name.startswith(FROZEN)]
    assert frozen and all(torch.equal(before[name], after[name]) for name in frozen)
    call("test.py", TOY / "cffm_fine_w_proto.b0.py", "plus/latest.pth", "--out=plus/res.pkl", *options(data))
    scores(tmp_path / "plus" / "res.json")


@pytest.mark.slow
def test_mrcfa(tmp_path, data, call):
    call("train.py", TOY / "mrcfa.b0.py", "--work-dir=mrcfa", "--seed=0", *options(data, "runner.max_iters=1"))
    test = [TOY / "mrcfa.b0.py", "mrcfa/latest.pth"]
    one, two = "one/res.pkl", "two/res.pkl"
    call("test.py", *test, "--out", one, *options(data))
    finish_two("test.py", tmp_path, *test, "--out", two, *options(data))
    assert scores(tmp_path / "one" / "res.json")["mIoU"] == scores(tmp_path / "two" / "res.json")["mIoU"]
    maps = np.load(tmp_path / one, allow_pickle=True)
    assert len(maps) == 17 and maps[0].shape == (64, 96) and maps[0].dtype == np.uint8
    assert (tmp_path / one).read_bytes() == (tmp_path / two).read_bytes()
