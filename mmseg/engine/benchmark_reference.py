"""Finds the formulas of the tests (``tests/reference`` of a checkout), to measure or count them beside a model."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import mmseg
from mmseg.errors import ConfigError
from mmseg.models.base import VideoModel

_REFERENCE = "mmseg_reference"  # the name that tests/reference is loaded under


def reference_of(model: VideoModel) -> ModuleType:
    """The formulas that `model` is held against in the tests, from ``tests/reference`` of the checkout.

    Raises:
        ConfigError: the package is not used from a checkout, or no file states what this model computes.
    """
    folder = Path(mmseg.__file__).resolve().parent.parent / "tests" / "reference"
    if not (folder / "__init__.py").is_file():
        raise ConfigError(
            f"{folder}: no such folder, so there is no reference to measure against",
            "the package in a checkout of the repository, whose tests hold the formulas",
            "run the tool of a checkout (pip install -e .); tools/benchmark.py works without --against-reference",
        )
    if _REFERENCE not in sys.modules:
        spec = importlib.util.spec_from_file_location(_REFERENCE, folder / "__init__.py")
        sys.modules[_REFERENCE] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[_REFERENCE])
    found = sys.modules[_REFERENCE].reference_of(model)
    if found is None:
        name = type(getattr(model, "decode_head", model)).__name__
        raise ConfigError(
            f"no reference for a {name} in {folder}",
            "a system whose formulas are written there",
            "add a file for it; tools/benchmark.py works without --against-reference",
        )
    return found
