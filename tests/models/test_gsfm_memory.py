"""GSFM's memory: official numbers of reading and of the bank, the formula, and a bank that is bounded."""

from __future__ import annotations

import pytest
import torch

from mmseg.models.layers.memory_reading import read_all, read_best
from mmseg.models.networks.gsfm.memory_bank import MemoryBank
from tests.models.gsfm_cases import GSFMCase
from tests.reference import gsfm as reference


def test_memory_reader_has_the_official_numbers():
    case = GSFMCase("memory_reader")
    inputs = case.inputs()
    readout = read_all(inputs["mk"].flatten(2), inputs["mv"][:, None].flatten(3), inputs["qk"].flatten(2))
    readout = readout[:, 0].unflatten(-1, inputs["qk"].shape[-2:])
    case.check("readout", torch.cat([readout, inputs["qv"]], dim=1))


@pytest.mark.parametrize("name", ["memory_bank_top5", "memory_bank_top20"])
def test_memory_bank_has_the_official_numbers(name):
    case = GSFMCase(name)
    inputs, params = case.inputs(), case["params"]
    bank = MemoryBank()
    for number, (key, value) in enumerate(zip(inputs["keys"], inputs["values"])):
        bank.add(key.flatten(1).T, value.flatten(2).flatten(0, 1).T, params["is_temp"][number])
        read = bank.read(inputs["query"][0].flatten(1).T, params["top_k"])  # (P, k * C)
        read = read.T.unflatten(0, value.shape[:2]).unflatten(-1, value.shape[-2:])
        case.check(f"read_{number}", read)


@pytest.mark.parametrize("scale, noise", [(1.0, 0.3), (1.0, 2.0), (10.0, 0.3)])
@pytest.mark.parametrize("top_k", [20, 50])
def test_reading_is_the_formula(top_k, scale, noise):
    """Twelve frames that look much alike. Keys must be the same to the last bit: similarities of large keys are rounded
    by up to 1e-3, which a softmax makes as much of the result, and rounding decides which of two similar positions is
    the last one of the top-k. So ours may be as far from the exact result as the formula is, and no farther."""
    generator = torch.Generator().manual_seed(0)
    base, values = scale * torch.randn(60, 64, generator=generator), torch.randn(720, 32, generator=generator)
    keys = (base + noise * scale * torch.randn(12, 60, 64, generator=generator)).flatten(0, 1)
    queries = base + noise * scale * torch.randn(60, 64, generator=generator)
    read = read_best(keys, values, queries, top_k)
    formula = (values.T @ reference.affinity(keys.T, queries.T, top_k)).T
    exact = (values.T.double() @ reference.affinity(keys.T.double(), queries.T.double(), top_k)).T
    torch.testing.assert_close(read, formula, rtol=1e-5, atol=1e-5)
    assert (read - exact).square().mean() <= 1.5 * (formula - exact).square().mean()
    torch.testing.assert_close(read.double(), exact, rtol=0, atol=1e-3)


def test_top_k_beyond_the_memory_reads_all_of_it():
    generator = torch.Generator().manual_seed(0)
    keys, values, queries = (torch.randn(n, c, generator=generator) for n, c in ((7, 64), (7, 5), (3, 64)))
    expected = read_all(keys.T[None], values.T[None, None], queries.T[None])[0, 0].T
    torch.testing.assert_close(read_best(keys, values, queries, 50), expected)
    far = read_best(keys * 40, values, queries * 40, 5)  # exp() of these similarities overflows
    assert torch.isfinite(far).all()


def test_a_bounded_bank_keeps_the_first_frame_and_the_latest():
    bank = MemoryBank(max_frames=3)
    queries = 20 * torch.eye(8)
    for number in range(6):
        bank.add(20 * torch.eye(8)[number : number + 1], torch.full((1, 2), float(number)))
        assert len(bank) == min(number + 1, 3)
    bank.add(20 * torch.eye(8)[6:7], torch.full((1, 2), 6.0), temporary=True)
    assert len(bank) == 4
    read = bank.read(queries, 1)[:, 0].tolist()
    assert [read[number] for number in (0, 4, 5, 6)] == [0, 4, 5, 6]
    assert not {1.0, 2.0, 3.0} & set(read)
    only = MemoryBank(max_frames=1)
    for number in range(3):
        only.add(torch.ones(1, 8), torch.full((1, 2), float(number)))
    assert only.read(queries, 5)[0, 0] == 0
