"""Finds the formulas of the tests (``tests/reference`` of a checkout), to measure or count them beside the product."""

from __future__ import annotations

import importlib
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
    found = _references().reference_of(model)
    if found is None:
        name = type(getattr(model, "decode_head", model)).__name__
        raise ConfigError(
            f"no reference for a {name} in {_folder()}",
            "a system whose formulas are written there",
            "add a file for it; tools/benchmark.py works without --against-reference",
        )
    return found


def reference_pipeline() -> ModuleType:
    """The literal train pipeline of clips, from ``tests/reference``. Raises ConfigError without a checkout."""
    return importlib.import_module(f"{_references().__name__}.clip_pipeline")


def _folder() -> Path:
    return Path(mmseg.__file__).resolve().parent.parent / "tests" / "reference"


def _references() -> ModuleType:
    """``tests/reference`` as a package."""
    folder = _folder()
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
    return sys.modules[_REFERENCE]
