"""Memory of large tensors is used again once it stays with the process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mmseg.models.cpu.pages import keep_pages

_PROGRAM = """
import resource, torch
from mmseg.models.base import VideoModel
from mmseg.models.cpu.pages import keep_pages
from mmseg.models.stream import Stream
class Model(VideoModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
def faults():
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(10, 2**20)  # 40 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start
before = faults()
Stream(Model().eval())
asked = keep_pages.cache_info().currsize
known = keep_pages()
faults()
print(asked, int(known), before, faults())
"""


def test_freed_memory_is_used_again():
    """As soon as there is a stream. In a process of its own: it stays so for the whole process."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    result = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, env=plain)
    asked, known, before, after = map(int, result.stdout.split())
    assert asked, "the stream has not asked for it"
    if known:
        # pages of 4 KiB, of five tensors; a small thing in the middle may make one of them ask for new ones
        assert before > 10_000 and after < before / 4, (before, after)
    else:
        print("this C library does not know how to keep pages")


@pytest.mark.parametrize("variable", ["MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_thresholds_of_the_user_are_left_alone(variable, monkeypatch):
    monkeypatch.setenv(variable, "glibc.malloc.mmap_max=65536" if variable == "GLIBC_TUNABLES" else "65536")
    assert not keep_pages.__wrapped__()  # without what it remembers of this process
