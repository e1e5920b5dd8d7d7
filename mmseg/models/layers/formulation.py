"""Switches between the fast formulation of a layer and its plain twin.

Every optimised path whose result equals a direct transcription of its paper keeps that transcription beside
it. The twin is as slow and as large as the formula says; it is the oracle of the tests and the baseline of
``tools/benchmark.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# A module global and not a context variable: recomputation in backward runs in autograd's own threads,
# which must see the same value, and torch.compile can guard on it.
_plain = False


def is_plain() -> bool:
    """Whether the plain formulation is asked for."""
    return _plain


@contextmanager
def plain_formulation() -> Iterator[None]:
    """Inside, every layer computes its formula literally; forward and backward belong inside together."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before
