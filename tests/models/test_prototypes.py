"""Prototype files: reading, writing, caching; and making them."""

from __future__ import annotations

import copy
import os
import pickle
import stat
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmseg.apis.prototypes import generate_prototypes
from mmseg.clips import prototype_clip
from mmseg.engine.checkpoint import save_checkpoint
from mmseg.errors import CheckpointError, ConfigError, DataError
from mmseg.models import build_segmentor
from mmseg.models.layers.formulation import plain_formulation
from mmseg.models.layers.kmeans import kmeans
from mmseg.models.prototypes import (
    PrototypeStore,
    prototype_file,
    read_centers,
    read_prototypes,
    video_seed,
    write_prototypes,
)
from tests.golden_cases import Case, build_filled, fill

CPU = torch.device("cpu")


def prototype_config(**head) -> dict:
    config = copy.deepcopy(Case("cffm", "proto_b1").config)
    config["backbone"] = dict(type="mit_b0", style="pytorch")
    config["decode_head"].update(in_channels=[32, 64, 160, 256], num_classes=9, n_clusters=7, **head)
    return config


class RandomVideos:
    """What :func:`generate_prototypes` asks of a data set in test mode, with frames made from numbers."""

    def __init__(self, lengths: dict[str, int]) -> None:
        self.videos = [SimpleNamespace(name=name, frames=[f"{t}.jpg" for t in range(n)]) for name, n in lengths.items()]
        self.pipeline = self

    def load_frame(self, index: int, t: int) -> np.ndarray:
        rng = np.random.default_rng((video_seed(self.videos[index].name), t))
        return rng.standard_normal((3, 64, 96)).astype(np.float32)

    def views(self, frame: np.ndarray) -> list:
        return [SimpleNamespace(img=torch.from_numpy(frame), flip=False)]


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
        with plain_formulation():
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
    with torch.no_grad(), plain_formulation():
        torch.testing.assert_close(model.encode_decode(clip), expected, atol=1e-4, rtol=1e-4)


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
    with pytest.raises(DataError, match="cannot be written"):
        write_prototypes(prototype_file(blocked, "v"), torch.ones(3, 4))
    assert torch.equal(read_centers(path, 4), torch.ones(3, 4))


class Malicious:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        ("truncated", "cannot be read"),
        ("code", "refused to read"),
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
    if content == "truncated" if isinstance(content, str) else False:
        path.write_bytes(path.read_bytes()[:5000])
    elif isinstance(content, str):
        path.write_bytes(pickle.dumps(Malicious()))
    elif isinstance(content, bytes):
        path.write_bytes(content)
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
    dataset = RandomVideos({"a": 25, "b": 10})
    written = generate_prototypes(model, dataset, progress=False)
    assert written == [prototype_file(tmp_path, "a"), prototype_file(tmp_path, "b")]
    frames = torch.stack([torch.from_numpy(dataset.load_frame(0, t)) for t in prototype_clip(25)])
    with torch.no_grad():
        rows = model.decode_head.cluster_input(model.backbone(frames))
    expected = kmeans(rows, 7, seed=video_seed("a"))[1]
    torch.testing.assert_close(read_centers(written[0], 256), expected, atol=1e-4, rtol=1e-4)


def test_second_run_makes_only_what_is_missing(tmp_path):
    model = build_filled(build_segmentor, prototype_config(save_path=str(tmp_path)))
    dataset = RandomVideos({"a": 12, "b": 12, "c": 12})
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
    assert generate_prototypes(model, dataset, progress=False) == []
    assert generate_prototypes(model, dataset, overwrite=True, progress=False) == files
    assert [file.read_bytes() for file in files] == before


def test_short_videos(tmp_path):
    dataset = RandomVideos({"long": 12, "short": 9})
    model = build_filled(build_segmentor, prototype_config(save_path=str(tmp_path / "centers")))
    with pytest.raises(DataError, match="'short' has 9 frames"):
        generate_prototypes(model, dataset, progress=False)
    assert not list(tmp_path.iterdir())
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
    dataset = RandomVideos({"a": 10})
    name = "linear_pred3.bias" if system != "mrcfa" else "decoder_focal.blocks.0.pool_layers.0.weight"
    with pytest.raises(CheckpointError, match=name):
        generate_prototypes(model, dataset, tmp_path / "other.pth", progress=False)
    assert not (tmp_path / "centers").exists()
    assert generate_prototypes(model, dataset, tmp_path / "own.pth", progress=False)


def test_other_heads_make_no_prototypes():
    model = build_filled(build_segmentor, Case("cffm", "cffm_b0_seg_1frame").config)
    with pytest.raises(ConfigError, match="CFFMHead"):
        generate_prototypes(model, RandomVideos({"a": 10}), progress=False)
