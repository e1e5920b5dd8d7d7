"""Which frames form a clip, from files on disk to the lists of the official code."""

import numpy as np
import pytest

from mmseg.clips import inference_clip, prototype_clip
from mmseg.datasets import VSPWDataset
from mmseg.errors import DataError
from tests.golden_cases import Case

CASE = Case("cffm", "clip_indices")
EXPECTED, DILATION = CASE["expected"], CASE.config["dilation"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The data set of the case; nothing opens the files."""
    root = tmp_path_factory.mktemp("clips")
    splits = {}
    for video in CASE["inputs"]["videos"]:
        splits.setdefault(video["split"], []).append(video["name"])
        for folder, suffix in (("origin", "jpg"), ("mask", "png")):
            (root / "data" / video["name"] / folder).mkdir(parents=True)
            for t in range(video["frames"]):
                (root / "data" / video["name"] / folder / f"{t:08d}.{suffix}").touch()
    for split, names in splits.items():
        (root / f"{split}.txt").write_text("\n".join(names))  # no newline after the last one
    return root


def as_tuples(items):
    return [(name, tuple(clip)) for name, clip in items]


def test_items_of_testing(root):
    dataset = VSPWDataset(root, "val", dilation=DILATION, test_mode=True)
    items = [(v.name, inference_clip(t, DILATION)) for v in dataset.videos for t in range(v.num_frames)]
    assert as_tuples(items) == as_tuples(EXPECTED["test"])
    assert len(dataset) == len(EXPECTED["test"])


def test_items_of_prototype_generation(root):
    dataset = VSPWDataset(root, "train_val_generate_prototype", dilation=[], test_mode=True)
    items = [(video.name, prototype_clip(video.num_frames)) for video in dataset.videos]
    assert as_tuples(items) == as_tuples(EXPECTED["prototype"])


def test_clips_drawn_in_training(root):
    dataset = VSPWDataset(root, "train", dilation=DILATION, short_videos="drop")
    rng = np.random.default_rng(0)
    for name, clips in EXPECTED["train"].items():
        if clips is None or not clips.get("forward"):
            assert name not in [video.name for video in dataset.videos]
            continue
        [video] = [video for video in dataset.videos if video.name == name]
        drawn = [tuple(dataset.draw_clip(len(video.frames), rng)) for _ in range(2000)]
        wanted = [tuple(clip) for way in ("forward", "reversed") for clip in clips[way]]
        assert set(drawn) == set(wanted)
        counts = np.array([drawn.count(clip) for clip in wanted])
        assert np.abs(counts / 2000 - 1 / len(wanted)).max() < 0.035  # each equally often


def test_short_videos_of_training_are_named(root):
    with pytest.raises(DataError) as error:
        VSPWDataset(root, "train", dilation=DILATION)
    assert "t_nine (9 frames)" in str(error.value)
    assert "at least 10 frames" in str(error.value)
    assert "short_videos='drop'" in str(error.value)


def test_dilation_zero_gives_two_copies_of_the_target(root):
    dataset = VSPWDataset(root, "train", dilation=[0])
    rng = np.random.default_rng(0)
    clips = {tuple(dataset.draw_clip(9, rng)) for _ in range(300)}
    assert clips == {(t, t) for t in range(9)}
