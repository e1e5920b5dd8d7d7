"""Prototype files: reading, writing, caching; and making them."""

from __future__ import annotations

import copy
import os
import pickle
import stat
from pathlib import Path

import pytest
import torch

from mmseg.clips import prototype_clip
from mmseg.datasets.base import WholeVideo
from mmseg.datasets.vspw import VSPWDataset
from mmseg.engine.checkpoints import save_checkpoint
from mmseg.engine.prototypes import generate_prototypes
from mmseg.errors import CheckpointError, ConfigError, DataError, WriteError
from mmseg.models import build_segmentor
from mmseg.models.decode_heads.cffm.kmeans import kmeans
from mmseg.models.decode_heads.cffm.prototype_files import (
    PrototypeStore,
    prototype_file,
    read_centers,
    read_prototypes,
    video_seed,
    write_prototypes,
)
from tests.engine.tiny_vspw import CLASSES, make_data
from tests.golden_cases import Case, build_filled, fill
from tests.reference import segformer

CPU = torch.device("cpu")
PIPELINE = [
    dict(type="LoadFrames"),
    dict(
        type="MultiScaleFlipAug",
        img_scale=(96, 64),
        flip=False,
        transforms=[
            dict(type="Resize", keep_ratio=True, size_divisor=32),
            dict(type="Normalize", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
            dict(type="ImageToTensor", keys=["img"]),
            dict(type="Collect", keys=["img"]),
        ],
    ),
]


def prototype_config(**head) -> dict:
    config = copy.deepcopy(Case("cffm", "proto_b1").config)
    config["backbone"] = dict(type="mit_b0", style="pytorch")
    config["decode_head"].update(in_channels=[32, 64, 160, 256], num_classes=9, n_clusters=7, **head)
    return config


def make_dataset(root: Path, lengths: dict[str, int]) -> VSPWDataset:
    """Videos of these numbers of frames; the network sees 64x96."""
    return VSPWDataset(make_data(root, lengths), "val", PIPELINE, test_mode=True, num_classes=3, classes=CLASSES)


# ---------------------------------------------------------------------- the official numbers


def test_clustering_has_the_official_numbers():
    case = Case("cffm", "proto_b1")
    model = build_filled(build_segmentor, case.config)
    img = case.inputs()["img"]
    kind, *args = case["init_index"]
    with torch.no_grad():
        feats = model.backbone(img.flatten(0, 1))
        rows = model.decode_head.cluster_input(feats)
        case.check("cluster_input", rows)
        labels, centers = kmeans(rows, case["n_clusters"], init=getattr(fill, kind)(*args))
        case.check("labels", labels)
        case.check("centers", centers[None])
        case.check("logits", model.decode_head(feats, 1, 10))


def test_weights_are_those_of_cffm_and_training_is_refused():
    case = Case("cffm", "proto_b1")
    model = build_segmentor(case.config)
    official = Case("cffm", "state_dicts")["expected"]["heads"]["cffm_b1"]["head"]
    assert {k: list(v.shape) for k, v in model.decode_head.state_dict().items()} == official
    model = build_segmentor(prototype_config()).train()
    with pytest.raises(ConfigError, match="training with the prototype head"):
        model.loss({"img": torch.randn(1, 4, 3, 64, 64), "gt_semantic_seg": torch.zeros(1, 4, 1, 64, 64).long()})


def test_the_head_predicts_the_last_frame_alone():
    model = build_filled(build_segmentor, prototype_config())
    clip = torch.randn(1, 4, 3, 64, 96)
    expected = model.encode_decode(clip[:, -1:])
    torch.testing.assert_close(model.encode_decode(clip), expected, atol=1e-5, rtol=1e-5)
    of_the_baseline = segformer.encode_decode(model, clip)
    torch.testing.assert_close(model.encode_decode(clip), of_the_baseline, atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------------- files


def test_file_has_the_released_layout(tmp_path):
    centers = torch.randn(100, 256)
    path = prototype_file(tmp_path, "12_xyz")
    write_prototypes(path, centers)
    assert path == tmp_path / "12_xyz" / "centers.pt"
    content = torch.load(path, weights_only=True)
    assert content.shape == (1, 100, 256) and content.dtype == torch.float32
    assert torch.equal(read_prototypes(tmp_path, "12_xyz", 256)[0], centers)
    assert os.listdir(path.parent) == ["centers.pt"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_only_the_rows_themselves_are_written(tmp_path):
    path = prototype_file(tmp_path, "v")
    write_prototypes(path, torch.randn(5000, 256)[:10])
    assert path.stat().st_size < 20_000


def test_an_old_file_survives_a_failed_write(tmp_path):
    path = prototype_file(tmp_path, "v")
    write_prototypes(path, torch.ones(3, 4))
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(WriteError, match="cannot be written"):
        write_prototypes(prototype_file(blocked, "v"), torch.ones(3, 4))
    assert torch.equal(read_centers(path, 4), torch.ones(3, 4))


class Malicious:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda complete: b"", "cannot be read"),
        (lambda complete: complete[:5000], "cannot be read"),
        (lambda complete: pickle.dumps(Malicious(), protocol=2), "refused to read"),
        (torch.zeros(1, 100, 128), r"\[1, 100, 128\]"),
        (torch.zeros(2, 100, 256), r"\[2, 100, 256\]"),
        (torch.full((1, 4, 256), float("nan")), "not finite"),
        (torch.zeros(1, 0, 256), r"\[1, 0, 256\]"),
        ({"centers": torch.zeros(1, 4, 256)}, "dict"),
    ],
)
def test_bad_files_are_refused(tmp_path, content, message):
    path = prototype_file(tmp_path, "v")
    write_prototypes(path, torch.randn(100, 256))
    if callable(content):
        path.write_bytes(content(path.read_bytes()))
    else:
        torch.save(content, path)
    with pytest.raises(DataError, match=message) as error:
        PrototypeStore(tmp_path, 256).get("v", CPU)
    assert str(path) in str(error.value) and "gene_prototype.py" in str(error.value)


def test_store_reads_a_file_once(tmp_path):
    write_prototypes(prototype_file(tmp_path, "v"), torch.ones(3, 4))
    store = PrototypeStore(tmp_path, 4)
    first = store.get("v", CPU)
    prototype_file(tmp_path, "v").unlink()
    assert store.get("v", CPU) is first
    with pytest.raises(DataError, match="no prototypes"):
        PrototypeStore(tmp_path, 4).get("v", CPU)


def test_numbered_files_are_joined_and_sampled(tmp_path):
    folder = tmp_path / "v"
    folder.mkdir()
    rows = torch.arange(40.0).view(20, 2)
    torch.save(rows[None, :10], folder / "0.pt")
    torch.save(rows[None, 10:], folder / "1.pt")
    store = PrototypeStore(tmp_path, 2)
    first = store.get("v", CPU)
    assert first.shape == (16, 2) and (first[1:, 0] > first[:-1, 0]).all()
    assert torch.equal(first, PrototypeStore(tmp_path, 2).get("v", CPU))  # always the same in testing
    torch.manual_seed(0)
    draws = {tuple(store.get("v", CPU, training=True)[:, 0].tolist()) for _ in range(8)}
    assert len(draws) > 1
    write_prototypes(prototype_file(tmp_path, "v"), rows[:3])
    assert torch.equal(PrototypeStore(tmp_path, 2).get("v", CPU), rows[:3])


# ---------------------------------------------------------------------- making them


def test_generated_files(tmp_path):
    model = build_filled(build_segmentor, prototype_config(save_path=str(tmp_path)))
    dataset = make_dataset(tmp_path / "data", {"a": 25, "b": 10})
    written = generate_prototypes(model, dataset, progress=False)
    assert written == [prototype_file(tmp_path, "a"), prototype_file(tmp_path, "b")]
    frames = torch.stack([WholeVideo(dataset, 0).network_input(t) for t in prototype_clip(25)])
    assert frames.shape == (10, 3, 64, 96)
    with torch.no_grad():
        rows = model.decode_head.cluster_input(model.backbone(frames))
    expected = kmeans(rows, 7, seed=video_seed("a"))[1]
    torch.testing.assert_close(read_centers(written[0], 256), expected, atol=1e-4, rtol=1e-4)


def test_second_run_makes_only_what_is_missing(tmp_path, caplog):
    model = build_filled(build_segmentor, prototype_config(save_path=str(tmp_path)))
    dataset = make_dataset(tmp_path / "data", {"a": 12, "b": 12, "c": 12})
    files = generate_prototypes(model, dataset, progress=False)
    before = [file.read_bytes() for file in files]
    times = [file.stat().st_mtime_ns for file in files]
    files[1].write_bytes(before[1][:1000])
    (files[2].parent / ".centers.pt.0123abcd.writing").write_bytes(b"left by a kill")
    files[2].unlink()
    assert generate_prototypes(model, dataset, progress=False) == files[1:]
    assert [file.read_bytes() for file in files] == before
    assert files[0].stat().st_mtime_ns == times[0]
    assert os.listdir(files[2].parent) == ["centers.pt"]
    caplog.clear()
    assert generate_prototypes(model, dataset, progress=False) == []
    assert any("3 videos keep the prototypes" in message and "--overwrite" in message for message in caplog.messages)
    assert generate_prototypes(model, dataset, overwrite=True, progress=False) == files
    assert [file.read_bytes() for file in files] == before


def test_short_videos(tmp_path):
    dataset = make_dataset(tmp_path / "data", {"long": 12, "short": 9})
    model = build_filled(build_segmentor, prototype_config(save_path=str(tmp_path / "centers")))
    with pytest.raises(DataError, match="'short' has 9 frames"):
        generate_prototypes(model, dataset, progress=False)
    assert not (tmp_path / "centers").exists()
    config = prototype_config(save_path=str(tmp_path / "centers"), short_videos="repeat")
    files = generate_prototypes(build_filled(build_segmentor, config), dataset, progress=False)
    assert [file.parent.name for file in files] == ["long", "short"]


@pytest.mark.parametrize("system", ["cffmpp_b1_seg", "mrcfa"])
def test_checkpoints_of_other_models_are_refused(tmp_path, system):
    model = build_filled(build_segmentor, prototype_config(save_path=str(tmp_path / "centers")))
    own = model.state_dict()
    save_checkpoint(tmp_path / "own.pth", dict(state_dict=own))
    other = {**own, "decode_head.linear_pred3.bias": torch.zeros(9)}
    if system == "mrcfa":
        other = {k: v for k, v in own.items() if "decoder_focal" not in k}
    save_checkpoint(tmp_path / "other.pth", dict(state_dict=other))
    dataset = make_dataset(tmp_path / "data", {"a": 10})
    name = "linear_pred3.bias" if system != "mrcfa" else "decoder_focal.blocks.0.pool_layers.0.weight"
    with pytest.raises(CheckpointError, match=name):
        generate_prototypes(model, dataset, tmp_path / "other.pth", progress=False)
    assert not (tmp_path / "centers").exists()
    assert generate_prototypes(model, dataset, tmp_path / "own.pth", progress=False)


def test_other_heads_make_no_prototypes(tmp_path):
    model = build_filled(build_segmentor, Case("cffm", "cffm_b0_seg_1frame").config)
    with pytest.raises(ConfigError, match="CFFMHead"):
        generate_prototypes(model, make_dataset(tmp_path, {"a": 10}), progress=False)
