"""Boundaries, dilations and their counts in words of bits against the toolkits' maps and the literal formulas."""

from __future__ import annotations

import numpy as np
import pytest

from mmseg.evaluation.boundary import PackedMask, boundary_counts, boundary_map, tolerance
from mmseg.evaluation.object_scores import proposal_scores
from tests.golden_cases import Case
from tests.reference import davis as literal

MAPS = Case("metrics", "boundary_maps")


def test_maps_of_tiny_masks():
    for name in MAPS["outputs"]:
        mask = MAPS.arrays[f"gt/{name.removeprefix('map/')}"][0]
        np.testing.assert_array_equal(boundary_map(mask), MAPS.arrays[name], err_msg=name)
    for height, width, radius in MAPS["expected"]["radius"]:
        assert tolerance(height, width) == radius
    assert tolerance(480, 854, 3) == 3


@pytest.mark.parametrize("radius", [1, 2, 5, 8, 20, 63, 64, 100])
def test_a_pixel_grows_to_a_disk(radius):
    size = 2 * radius + 5
    mask = np.zeros((size, size), bool)
    mask[0, 0] = True  # its boundary is itself
    packed = PackedMask(mask, radius)
    y, x = np.mgrid[:size, :size]
    np.testing.assert_array_equal(packed.unpack(packed.near, mask.shape), y * y + x * x <= radius * radius)
    if str(radius) in MAPS["expected"]["disk_pixels"]:
        middle = np.zeros_like(mask)
        middle[radius + 2 :, radius + 2 :] = True
        middle[radius + 3 :, :] = middle[:, radius + 3 :] = False
        packed = PackedMask(middle, radius)  # four boundary pixels: the disk and its copies one pixel up and left
        near = packed.unpack(packed.near, middle.shape)
        y, x = y - radius - 2, x - radius - 2
        disks = [(y + a) ** 2 + (x + b) ** 2 <= radius * radius for a in (0, 1) for b in (0, 1)]
        np.testing.assert_array_equal(near, np.any(disks, axis=0))
        assert np.count_nonzero(disks[0]) == MAPS["expected"]["disk_pixels"][str(radius)]


def blobs(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A mask of blocks, that may be cut off on any side, so that it often ends at a border or at a word's end."""
    height, width = size
    cell, density = rng.integers(1, 12), rng.choice([0.002, 0.05, 0.5, 0.95])
    mask = (rng.random((height // cell + 1, width // cell + 1)) < density).repeat(cell, 0).repeat(cell, 1)
    mask = np.ascontiguousarray(mask[:height, :width])
    for side in range(4):
        if rng.random() < 0.3:
            place = rng.integers(0, max(size) + 1)
            mask[(slice(place), slice(place, None))[side % 2] if side < 2 else slice(None), :] &= side >= 2
            if side >= 2:
                mask[:, (slice(place), slice(place, None))[side % 2]] = False
    return mask


@pytest.mark.parametrize("seed", range(60))
def test_counts_of_random_masks(seed):
    rng = np.random.default_rng(seed)
    size = tuple(int(n) for n in rng.integers(1, (20, 150)[seed % 2] + 2, 2))
    pred, target = blobs(rng, size), blobs(rng, size)
    expected = literal.counts(pred, target)
    found = boundary_counts(pred, target)
    assert found == (expected if expected[0] and expected[2] else (expected[0], 0, expected[2], 0))


@pytest.mark.parametrize("seed", range(4))
def test_pairs_of_proposals_and_objects(seed):
    rng = np.random.default_rng(seed)
    pred, target = (rng.integers(0, 4, (9, 11)).repeat(9, 0).repeat(8, 1).astype(np.uint8) for _ in range(2))
    target[20:40, 30:60] = 255
    found, absent = proposal_scores(pred, target, 4)  # id 4 occurs nowhere
    void = target == 255
    for p in (1, 2, 3, 7):
        for g in range(1, 5):
            j = literal.region_similarity(target == g, pred == p, void)
            f = literal.boundary_measure(pred == p, target == g, void)
            scores = found.get(p, absent)
            assert (scores[0][g - 1], scores[1][g - 1]) == (j, f)
