"""k-means: official numbers and the rules that a package may do otherwise."""

from __future__ import annotations

import pytest
import torch

from mmseg.errors import DataError
from mmseg.models.decode_heads.cffm.kmeans import kmeans
from tests.golden_cases import Case


@pytest.mark.parametrize("chunk", [8192, 37])
def test_official_numbers(chunk):
    case = Case("cffm", "kmeans_fixed")
    inputs = case.inputs()
    x = inputs["blob"][inputs["which"]] + 0.3 * inputs["x"]
    labels, centroids = kmeans(x, 8, init=inputs["init"], max_iter=case["max_iter"], chunk_rows=chunk)
    case.check("labels", labels)
    case.check("centroids", centroids)
    case.check("centroids_after_1", kmeans(x, 8, init=inputs["init"], max_iter=1)[1])


def test_empty_clusters_become_zero():
    x = torch.randn(50, 4) + 5
    init = torch.cat([x[:2], torch.full((1, 4), -100.0)])
    _, centroids = kmeans(x, 3, init=init)
    assert not centroids[2].any() and centroids[:2].abs().sum() > 0


def test_labels_belong_to_the_centroids_before_the_last_update():
    x = torch.randn(200, 3)
    first = kmeans(x, 5, init=torch.arange(5), max_iter=1)[1]
    labels, centroids = kmeans(x, 5, init=torch.arange(5), max_iter=2)
    assert torch.equal(labels, torch.cdist(x, first).argmin(1))
    means = torch.stack([x[labels == k].mean(0) for k in range(5)])
    torch.testing.assert_close(centroids, means)


def test_ties_go_to_the_lowest_cluster():
    labels, centroids = kmeans(torch.ones(6, 2), 3, init=torch.ones(3, 2))
    assert labels.tolist() == [0] * 6
    assert torch.equal(centroids, torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]))


def test_seed_decides_and_rows_are_distinct():
    x = torch.randn(300, 4)
    x[:250] = x[0]  # most rows are the same
    a, b, c = (kmeans(x, 10, seed=seed, max_iter=0)[1] for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert len(torch.unique(a, dim=0)) == 10


def test_too_few_rows():
    with pytest.raises(DataError, match="4 clusters of 3 rows"):
        kmeans(torch.randn(3, 2), 4)
    with pytest.raises(DataError, match="not finite"):
        kmeans(torch.full((9, 2), float("nan")), 4)
