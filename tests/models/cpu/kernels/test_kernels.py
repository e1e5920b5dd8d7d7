"""Kernels in C++: how they are compiled and kept, and attention by them."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch.autograd import forward_ad
from torch.nn import functional as F

from mmseg.errors import ConfigError
from mmseg.models.backbones.mit import Block, MixFFN
from mmseg.models.cpu.attention import attend
from mmseg.models.cpu.focal import grouped_attention
from mmseg.models.cpu.kernels import library as libraries
from mmseg.models.cpu.kernels.attention import takes
from mmseg.models.cpu.kernels.library import cache_folder, kernels_for
from mmseg.models.cpu.tokens import add_resized, gelu
from mmseg.models.layers.linear import Linear
from mmseg.models.layers.norms import LayerNorm
from mmseg.models.layers.resize import add_resized as add_resized_by_any
from tests.models.cpu.test_cpu_layers import operations
from tests.tools.processes import ROOT

COMPILER = next(filter(None, map(shutil.which, libraries._COMPILERS)), None)
pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")


@pytest.fixture
def compiler(tmp_path, monkeypatch) -> Path:
    """A compiler in the place of the user's, that writes down when it compiles; nothing is in the cache or loaded."""
    script, calls = tmp_path / "compiler", tmp_path / "calls"
    script.write_text(f'#!/bin/sh\ncase "$*" in *-shared*) echo call >> {calls};; esac\nexec {COMPILER} "$@" -O0\n')
    script.chmod(stat.S_IRWXU)
    calls.touch()
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(libraries.SWITCH, raising=False)
    monkeypatch.setattr(libraries, "_loaded", {})
    return calls


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def forget() -> None:
    libraries._loaded.clear()


def attended() -> bool:
    """Whether the kernels are there and compute attention."""
    q = torch.randn(1, 2, 5, 8)
    with torch.no_grad():
        torch.testing.assert_close(attend(q, q, q), F.scaled_dot_product_attention(q, q, q))
        return kernels_for(q) is not None


def test_kernels_are_compiled_once_and_kept(compiler, caplog):
    caplog.set_level(logging.INFO)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: attended(), range(4)))
    assert compiler.read_text().count("call") == 1 and "once" in caplog.text
    forget()
    assert attended() and compiler.read_text().count("call") == 1
    [kept] = cache_folder().iterdir()
    code = kept.read_bytes()
    kept.unlink()  # this process still uses it
    kept.write_bytes(code[:-1000])  # of which the system would load what is there
    program = "from mmseg.models.cpu.kernels.library import library; assert library()"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
    assert compiler.read_text().count("call") == 2 and list(cache_folder().iterdir()) == [kept]
    assert kept.stat().st_size > len(code) - 1000


def test_kernels_that_cannot_be_loaded_are_told_of(compiler, caplog):
    """As in a folder that is mounted without the right to start programs."""
    assert attended()
    [kept] = cache_folder().iterdir()
    code = b"no program"
    kept.unlink()  # this process still uses it
    kept.write_bytes(code + hashlib.sha256(code).digest())
    forget()
    assert attended() and compiler.read_text().count("call") == 2
    assert "XDG_CACHE_HOME" in caplog.text and str(kept) in caplog.text
    forget()
    caplog.clear()
    assert attended() and not caplog.text


def test_the_cache_keeps_what_was_used_last(compiler):
    cache_folder().mkdir(parents=True)
    for age in range(20):
        old = cache_folder() / f"kernels-{age:020}.so"
        old.touch()
        os.utime(old, (1e9 - age, 1e9 - age))
    other = cache_folder() / "notes.txt"
    other.touch()
    assert attended()
    kernels = sorted(path.name for path in cache_folder().glob("kernels-*.so"))
    assert len(kernels) == 8 and kernels[:7] == [f"kernels-{age:020}.so" for age in range(7)] and other.exists()
    used = cache_folder() / kernels[-1]
    os.utime(used, (1e8, 1e8))
    forget()
    assert attended() and used.stat().st_mtime > 1e9


def test_kernels_without_a_place_to_keep_them(compiler, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert attended()


def test_places_that_are_none(monkeypatch, tmp_path):
    """A relative one is another in every folder, and without a home "~" is a name like any other."""
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache/mmseg"
    monkeypatch.setenv("HOME", "here")
    assert cache_folder() is None


@pytest.mark.parametrize("command", ["false", "no-such-compiler", "/", "'wrong", "sh -c 'echo wrong >&2; exit 3'"])
def test_a_compiler_that_fails_is_told_of(compiler, monkeypatch, caplog, command):
    monkeypatch.setenv("CXX", command)
    assert not attended()
    [record] = caplog.records
    assert command.split()[0] in record.getMessage() and libraries.SWITCH in record.getMessage()
    assert ("wrong" in record.getMessage()) == ("wrong" in command)
    assert not attended() and len(caplog.records) == 1


def test_without_a_compiler_nothing_is_said(compiler, monkeypatch, caplog):
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", os.devnull)
    assert not attended() and not caplog.records


def test_an_old_processor_goes_without(compiler, monkeypatch, caplog):
    script = Path(os.environ["CXX"])
    script.write_text(script.read_text().replace('"$@"', "$(echo $* | sed s/-march=native//)"))
    assert not attended() and not compiler.read_text() and not caplog.records


def test_the_switch(compiler, monkeypatch):
    monkeypatch.setenv(libraries.SWITCH, "off")
    assert not attended() and not compiler.read_text()
    monkeypatch.setenv(libraries.SWITCH, "")
    assert attended()
    monkeypatch.setenv(libraries.SWITCH, "no")
    with pytest.raises(ConfigError, match=r"MMSEG_KERNELS='no'\n.*on"):
        attended()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "n, heads, length, keys, dim",
    [(1, 1, 300, 405, 64), (2, 3, 29, 33, 32), (1, 2, 7, 16, 20), (2, 1, 1, 1, 2), (1, 1, 14, 65, 70)],
)
def test_attention_equals_the_formula(n, heads, length, keys, dim, dtype, threads):
    torch.manual_seed(0)
    q = 3 * torch.randn(n, length, heads, dim, dtype=torch.float64).transpose(1, 2)
    k, v = torch.randn(n, keys, 2, heads, dim, dtype=torch.float64).permute(2, 0, 3, 1, 4)
    with torch.no_grad():
        taken = takes(q.to(dtype), dim)
    if not taken:
        pytest.skip("MMSEG_KERNELS=off, or the processor has no AVX2 or no instructions for bfloat16")
    if dtype == torch.bfloat16:
        q, k, v = (x.bfloat16().double() for x in (q, k, v))
    logits = q @ k.transpose(-2, -1) * dim**-0.5
    with on_threads(threads), torch.no_grad():
        found = attend(q.to(dtype), k.to(dtype), v.to(dtype))
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found.double(), logits.softmax(-1) @ v, rtol=tolerance, atol=tolerance)


def test_attention_that_does_not_fit_the_kernels_is_that_of_operators():
    q, k, v = torch.randn(2, 2, 5, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 4)
    with torch.no_grad():
        for keys, values in ((k[:1], k[:1]), (k, v), (k[:, :, :0], k[:, :, :0])):
            torch.testing.assert_close(attend(q, keys, values), F.scaled_dot_product_attention(q, keys, values))
        with pytest.raises(RuntimeError, match="dtype"):
            attend(q, k.double(), k.double())


@pytest.mark.parametrize(
    "work",
    [
        lambda x: Linear(8, 4)(x),
        lambda x: LayerNorm(8)(x),
        lambda x: gelu(x),
        lambda x: MixFFN(8, 32)(x[:, 0], 5, 2),
    ],
    ids=["linear", "norm", "gelu", "perceptron"],
)
def test_forward_mode_keeps_its_derivatives_without_a_graph(work):
    with torch.no_grad(), forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.randn(2, 1, 10, 8), torch.randn(2, 1, 10, 8))
        assert forward_ad.unpack_dual(work(dual)).tangent is not None


def test_tensors_of_other_kinds_are_for_operators():
    q, x, meta = torch.randn(1, 2, 5, 8), torch.randn(1, 64, 8), torch.randn(1, 2, 5, 8, device="meta")
    mlp = MixFFN(8, 32)
    mlp.dwconv.to("meta")
    with torch.no_grad():
        with pytest.raises(RuntimeError, match="device"):
            attend(q, meta, meta)
        assert not any("depthwise_gelu" in name for name in operations(lambda: mlp(x, 8, 8)))
        query, table, bias = torch.randn(1, 1, 49, 8), torch.randn(1, 289, 16), torch.randn(2, 49, 289)
        found, expected = (grouped_attention(query, table, own, 0.5, (7, 7)) for own in (bias.double(), bias))
        torch.testing.assert_close(found, expected)


def test_maps_that_do_not_fit_the_kernels_are_for_operators():
    maps = torch.randn(1, 4, 4, 8).permute(0, 3, 1, 2)
    with torch.no_grad():
        with pytest.raises(RuntimeError, match="multiply"):
            MixFFN(8, 32)(torch.randn(1, 64, 8), 8, 7)
        assert not add_resized(maps, [maps[:, :, :0]])
        assert add_resized_by_any(maps, []) is maps


def test_blocks_under_vmap():
    x, block = torch.randn(3, 1, 64, 32), Block(32, 1, 2, 0.0).eval()
    with torch.no_grad():
        found = torch.func.vmap(lambda sample: block(sample, 8, 8))(x)
        torch.testing.assert_close(found, torch.stack([block(sample, 8, 8) for sample in x]))


def test_attention_to_what_is_no_number():
    q, k, v = torch.randn(3, 1, 1, 40, 32)
    q[0, 0, 3, 5], v[0, 0, 7, 9], k[0, 0, 0] = float("nan"), float("inf"), 1e4 * q[0, 0, 6]
    with torch.no_grad():
        found, expected = attend(q, k, v), F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(found.isnan(), expected.isnan())
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-4, atol=1e-5)
