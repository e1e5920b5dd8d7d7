import numpy as np
import pytest

from mmseg.evaluation import bits, histogram


def dense(codes, counts):
    return np.bincount(codes, weights=counts, minlength=65536).astype(np.int64)


def expected(target, pred):
    return np.bincount(target.astype(np.int64).ravel() * 256 + pred.ravel(), minlength=65536)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (37, 1), (48, 85)])
@pytest.mark.parametrize("cell", [1, 3, 16])
def test_joint_counts_equal_a_plain_count_on_noise_and_on_areas(shape, cell):
    rng = np.random.default_rng(0)
    target, pred = (
        np.kron(rng.integers(0, 256, shape), np.ones((cell, cell))).astype(np.uint8)[: shape[0], : shape[1]].copy()
        for _ in range(2)
    )
    assert np.array_equal(dense(*histogram.joint_counts(target, pred)), expected(target, pred))


@pytest.mark.parametrize("noisy", [False, True])
def test_counts_stay_exact_on_frames_beyond_what_float32_holds(noisy):
    shape = (4097, 4096)  # more than 2**24 pixels
    target, pred = np.full(shape, 7, np.uint8), np.full(shape, 3, np.uint8)
    if noisy:  # too many runs to count them one by one
        pred[:, ::5] = 4
    counts = dense(*histogram.joint_counts(target, pred))
    fives = len(range(0, 4096, 5)) * 4097 if noisy else 0
    assert (counts[7 * 256 + 4], counts[7 * 256 + 3]) == (fives, 4097 * 4096 - fives)
    assert counts.sum() == target.size


@pytest.mark.parametrize("size", [1, 7, 8, 63, 64, 65, 1000])
def test_packed_bits_are_counted(size):
    mask = np.random.default_rng(size).random(size) < 0.4
    assert bits.count(bits.pack(mask)) == mask.sum()


def test_the_count_without_numpy_2_is_the_same(monkeypatch):
    words = np.random.default_rng(1).integers(0, 2**63, 999, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    count = sum(bin(w).count("1") for w in words.tolist())
    assert bits.count(words) == count
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert bits.count(words) == count


def test_sliding_intersection_equals_the_intersection_of_the_last_sets():
    rng = np.random.default_rng(2)
    lengths = (1, 2, 3, 5, 7, 8, 15, 16)
    sets = [
        rng.integers(0, 2**63, 20, dtype=np.uint64) | rng.integers(0, 2**63, 20, dtype=np.uint64) for _ in range(40)
    ]
    sliding = bits.SlidingIntersection(lengths)
    for t, words in enumerate(sets):
        found = sliding.push(words)
        assert set(found) == {n for n in lengths if n <= t + 1}
        for n, intersection in found.items():
            assert np.array_equal(intersection, np.bitwise_and.reduce(sets[t + 1 - n : t + 1]))
