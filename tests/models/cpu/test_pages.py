"""Memory of large tensors is used again once it stays with the process."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import resource, torch
from mmseg.models.cpu.pages import keep_pages
def faults():
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(10, 2**20)  # 40 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start
before, known = faults(), keep_pages()
faults()
print(int(known), before, faults())
"""


def test_freed_memory_is_used_again():
    """In a process of its own: it stays so for the whole process."""
    result = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    known, before, after = map(int, result.stdout.split())
    if known:
        # pages of 4 KiB, of five tensors; a small thing in the middle may make one of them ask for new ones
        assert before > 10_000 and after < before / 4, (before, after)
    else:
        print("this C library does not know how to keep pages")
