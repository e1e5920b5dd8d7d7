"""Tables that depend on sizes alone: made once, and of use to whoever comes next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from mmseg.models.cpu.focal import window_groups
from mmseg.models.decode_heads.cffm.focal_geometry import focal_geometry
from mmseg.models.decode_heads.themask.pixel_decoder import token_centres
from mmseg.models.decode_heads.themask.position import code_2d, code_3d
from mmseg.models.layers.deformable_attention import level_sizes
from mmseg.models.layers.size_tables import table as remembered
from mmseg.models.networks.gsfm.spectral import filter_window

CPU = torch.device("cpu")


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from tensors(part)
    elif hasattr(value, "__dict__"):
        yield from tensors(tuple(vars(value).values()))


@pytest.mark.parametrize(
    ("table", "arguments"),
    [
        (focal_geometry, (9, 13, CPU)),
        (window_groups, (9, 13)),
        (code_2d, (9, 13, 8, CPU)),
        (code_3d, (2, 9, 13, 8, CPU)),
        (token_centres, (((9, 13), (5, 7)), CPU)),
        (level_sizes, (((9, 13), (5, 7)), CPU)),
        (filter_window, (9, 13, True, CPU)),
    ],
)
def test_tables_that_inference_has_made_can_be_trained_with(table: Callable, arguments: tuple):
    with torch.inference_mode():
        made = table(*arguments)
    assert table(*arguments) is made
    parts = list(tensors(made))
    assert parts and not any(part.is_inference() for part in parts)


def test_tables_of_the_sizes_used_last_are_kept():
    made = []
    ones = remembered(lambda size: made.append(size) or torch.ones(size))
    first = ones(0)
    for size in range(1, 100):
        ones(size)
        assert ones(0) is first  # used all the time
    assert made == list(range(100))
    ones(99), ones(1)  # of which the latter has made room for others
    assert made == [*range(100), 1]
    ones.cache_clear()
    assert ones(0) is not first


def test_fake_tables_are_for_nobody_else():
    ones = remembered(lambda size: torch.ones(size))
    with FakeTensorMode():
        assert isinstance(ones(3), FakeTensor)
    first = ones(3)
    assert torch.equal(first, torch.ones(3)) and ones(3) is first
