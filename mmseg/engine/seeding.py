"""Random numbers that are a function of (seed, iteration, rank), so that resuming needs no generator states; and how
exactly a GPU computes."""

from __future__ import annotations

import os
import random

import numpy as np
import torch


def draw_seed() -> int:
    """A seed for a run that was given none."""
    return int.from_bytes(os.urandom(4), "little") >> 1


def seed_all(seed: int) -> None:
    """Seed the generators of Python, numpy and torch (CPU and GPUs)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_iteration(seed: int, iteration: int, rank: int) -> None:
    """Seed everything that a model draws in one iteration (dropout, drop path, sampled points)."""
    seed_all(int(np.random.SeedSequence((seed, iteration, rank)).generate_state(1)[0]))


def set_determinism(deterministic: bool, cudnn_benchmark: bool) -> None:
    """Choose between the fastest and the reproducible GPU algorithms.

    Operations without a reproducible GPU version (the gradient of bilinear resizing is one) run all the same, with a
    warning from torch.
    """
    torch.backends.cudnn.benchmark = cudnn_benchmark and not deterministic
    torch.backends.cudnn.deterministic = deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic, warn_only=True)


def set_matmul_precision(precision: str | None) -> None:
    """Choose how exactly a GPU multiplies float32 matrices, and with it how it convolves.

    Args:
        precision: 'highest' computes in float32; 'high' and 'medium' may take TF32 and bfloat16, several times faster
            on cards that have them. None is 'highest'.
    """
    torch.set_float32_matmul_precision(precision or "highest")
    torch.backends.cudnn.allow_tf32 = precision in ("high", "medium")
