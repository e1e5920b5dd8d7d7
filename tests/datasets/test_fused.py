"""Transforms done together: the numbers of the same transforms one after the other, and of the literal pipeline."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
import torch

from mmseg.datasets import VSPWDataset, build_train_loader
from mmseg.datasets.batches import batch_of, new_tensor
from mmseg.datasets.transforms import Compose, RandomCrop, Resize
from mmseg.datasets.transforms.fused import PackedColours, ResizedCrop, fused, grid_of, nearest_sources, resized_window
from mmseg.datasets.transforms.geometry import resize_image, resize_labels
from tests.datasets.vspw_folder import NORM, TRAIN, write_vspw
from tests.reference import clip_pipeline as reference

SIZES = [(48, 85), (48, 86), (85, 48), (64, 64), (31, 47)]


def sizes_of(height: int, width: int) -> list[tuple[int, int]]:
    """Half, equal and double, and everything in between that a resize may treat in its own way."""
    factors = [0.5, 0.77, 0.999, 1.0, 1.01, 1.25, 1.5, 1.999, 2.0]
    keep = [(int(height * f + 0.5), int(width * f + 0.5)) for f in factors]
    return [*keep, (height, width + 1), (height + 1, width), (height, 2 * width)]


@pytest.mark.parametrize("shape", SIZES)
def test_a_window_of_a_resized_image_needs_no_whole_resize(shape):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    for size, crop in itertools.product(sizes_of(*shape), [(20, 20), (32, 9), (200, 200)]):
        whole = resize_image(image, size)
        for _ in range(6):
            corner = [int(rng.integers(max(side - own, 0) + 1)) for side, own in zip(size, crop)]
            (top, left), (height, width) = corner, crop
            window = resized_window(image, size, corner, crop)
            np.testing.assert_array_equal(window, whole[top : top + height, left : left + width])


def test_nearest_sources_are_those_of_the_resize():
    labels = np.random.default_rng(0).integers(0, 256, (48, 85), np.uint8)
    for size in sizes_of(48, 85):
        rows, columns = nearest_sources(48, size[0]), nearest_sources(85, size[1])
        np.testing.assert_array_equal(labels[np.ix_(rows, columns)], resize_labels(labels, size))


@pytest.mark.parametrize("count", [1, 30, 70])
def test_a_grid_of_labels(count):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 256, (48, 85), np.uint8)[:, 3:80]
    rows, columns = (np.sort(rng.integers(0, side, count)) for side in labels.shape)
    np.testing.assert_array_equal(grid_of(labels, rows, columns), labels[np.ix_(rows, columns)])


def test_only_a_part_of_the_source_is_resized(monkeypatch):
    seen, resize = [], cv2.resize

    def watched(image, *args, **kwargs):
        seen.append(image.shape)
        return resize(image, *args, **kwargs)

    monkeypatch.setattr(cv2, "resize", watched)
    resized_window(np.zeros((48, 85, 3), np.uint8), (96, 170), (0, 0), (48, 48))
    assert seen == [(26, 26, 3)]


def clip(shape=(40, 71), frames=3, **extra):
    rng = np.random.default_rng(5)
    images = [cv2.blur(rng.integers(0, 256, (*shape, 3), np.uint8), (3, 3)) for _ in range(frames)]
    labels = [cv2.resize(rng.integers(0, 4, (4, 4), np.uint8), shape[::-1], interpolation=0) for _ in range(frames)]
    return dict(img=images, gt=labels, meta={}, **extra)


def assert_same(found, expected):
    assert list(found) == list(expected)
    for key, value in expected.items():
        if key == "meta":
            assert {k: str(v) for k, v in found[key].items()} == {k: str(v) for k, v in value.items()}
        elif key == "rng":
            assert found[key].bit_generator.state == value.bit_generator.state
        elif isinstance(value, torch.Tensor):
            assert torch.equal(found[key], value) and found[key].dtype == value.dtype
        elif key == "steps":
            assert found[key] == value
        else:
            for one, other in zip(found[key], value):
                np.testing.assert_array_equal(one, other)


FLOW = [cv2.blur(np.random.default_rng(i).integers(0, 256, (40, 71, 3), np.uint8), (3, 3)) for i in range(3)]
PIPELINES = {
    "VSPW": TRAIN[2:9],
    "no distortion": [step for step in TRAIN[2:9] if step["type"] != "PhotoMetricDistortion"],
    "no padding": [step for step in TRAIN[2:9] if step["type"] != "Pad"],
    "BGR, other margins": [
        *TRAIN[2:6],
        dict(type="Normalize", **{**NORM, "to_rgb": False}),
        dict(type="Pad", size_divisor=16, pad_val=2.5, seg_pad_val=7),
        dict(type="PackClip"),
    ],
    "padding that is not done": [*TRAIN[2:7], dict(type="Pad", size=(8, 8)), dict(type="PackClip")],
    "stretched": [dict(type="Resize", img_scale=(60, 60), keep_ratio=False), *TRAIN[3:9]],
}


@pytest.mark.parametrize("extra", [{}, dict(flow=FLOW)], ids=["frames", "flow"])
@pytest.mark.parametrize("name", PIPELINES)
def test_together_as_one_after_the_other(name, extra):
    pipeline = Compose(PIPELINES[name])
    assert {ResizedCrop, PackedColours} <= {type(step) for step in fused(pipeline.transforms)}
    for seed in range(12):
        expected = clip(rng=np.random.default_rng(seed), **extra)
        for transform in pipeline.transforms:
            expected = transform(expected)
        found = pipeline(clip(rng=np.random.default_rng(seed), **extra))
        assert_same(dict(sorted(found.items())), dict(sorted(expected.items())))


def test_what_cannot_be_done_together_is_not():
    class OwnCrop(RandomCrop):
        """A user's."""

    own = [Resize((60, 40)), OwnCrop((32, 32))]
    assert fused(own) == own
    divided = [Resize((60, 40), size_divisor=32), RandomCrop((32, 32))]
    assert fused(divided) == divided
    floats = clip(rng=np.random.default_rng(0))
    floats["img"] = [image.astype(np.float32) for image in floats["img"]]
    out = Compose([step for step in TRAIN[2:9] if step["type"] != "PhotoMetricDistortion"])(floats)
    assert out["img"].shape == (3, 3, 32, 32)


@pytest.mark.parametrize("channels", [(), (1,), (4,)], ids=["no channels", "one", "four"])
def test_frames_and_labels_of_a_users_loader(channels):
    """Grey or transparent frames, and labels of the target alone, are no other than one after the other."""
    pipeline = Compose([step for step in TRAIN[2:9] if step["type"] in ("Normalize", "Pad", "PackClip")])
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20, 31, *channels), np.uint8) for _ in range(3)]
    labels = [rng.integers(0, 4, (20, 31), np.uint8)]
    expected = dict(img=images, gt=labels, meta={})
    for transform in pipeline.transforms:
        expected = transform(expected)
    found = pipeline(dict(img=images, gt=labels, meta={}))
    assert torch.equal(found["img"], expected["img"])
    assert torch.equal(found["gt_semantic_seg"], expected["gt_semantic_seg"])


def test_a_list_of_transforms_may_be_changed():
    pipeline = Compose(TRAIN[2:9])
    pipeline.transforms.append(lambda results: {**results, "seen": True})
    assert pipeline(clip(rng=np.random.default_rng(0)))["seen"]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_those_of_the_literal_pipeline(tmp_path, workers):
    root = write_vspw(tmp_path, train=dict(a=10, b=12, c=11), size=(40, 71))
    dataset = VSPWDataset(root, "train", TRAIN)
    with build_train_loader(dataset, 2, workers, seed=3) as loader:
        batches = [next(loader) for _ in range(8)]
    with build_train_loader(dataset, 2, 0, seed=3) as loader:
        keys = list(itertools.islice(loader._keys, 8))
    for batch, samples in zip(batches, keys):
        clips = []
        for index, seed in samples:
            rng, video = np.random.default_rng(seed), dataset.videos[index]
            numbers = dataset.draw_clip(len(video.frames), rng, video.labelled)
            paths = ([files[i] for i in numbers] for files in (video.frames, video.labels))
            clips.append(reference.clip(*paths, dataset.pipeline.transforms, rng))
        for key, value in reference.collate(clips).items():
            assert torch.equal(batch[key], value) and batch[key].dtype == value.dtype


def test_samples_are_written_where_the_batch_has_them():
    with batch_of(2) as batch:
        values = []
        for number in range(2):
            batch.next_sample()
            values.append((new_tensor((3, 2), torch.float32).fill_(number), new_tensor((1,), torch.int64)))
        images, counts = map(batch.joined, zip(*values))
        assert images.data_ptr() == values[0][0].data_ptr() and images.tolist() == [[[0, 0]] * 3, [[1, 1]] * 3]
        assert counts.shape == (2, 1)
        other = [torch.zeros(3, 2), values[1][0]]  # one that a transform has made anew
        assert torch.equal(batch.joined(other), torch.stack(other))
        batch.next_sample()
        assert new_tensor((3, 2), torch.float32).shape == (3, 2)  # one sample too many gets memory of its own
    assert new_tensor((4,), torch.int64).shape == (4,)
