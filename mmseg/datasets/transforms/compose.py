"""A list of transforms as one, in which neighbours that can save each other work are done together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmseg.datasets.transforms.fused import fused
from mmseg.errors import ConfigError
from mmseg.registry import TRANSFORMS, absolute, build
from mmseg.values import shown


class Compose:
    """Applies transforms one after the other.

    Args:
        transforms: config dicts (official type names are accepted) or callables.
        where: dotted path of the list in the config file, for error messages.

    Raises:
        ConfigError: not a list, or an entry that cannot be built.
    """

    def __init__(self, transforms: Sequence[Any], where: str = "pipeline") -> None:
        where = absolute(where)
        if isinstance(transforms, Mapping | str) or not isinstance(transforms, Sequence):
            raise ConfigError(
                f"{where} = {shown(transforms)}", "a list of transforms", "write pipeline=[dict(type=...), ...]"
            )
        self.transforms = [t if callable(t) else build(TRANSFORMS, t, f"{where}.{i}") for i, t in enumerate(transforms)]
        for number, transform in enumerate(self.transforms):
            if not callable(transform):
                raise ConfigError(f"{where}.{number} is {shown(transform)}", "a transform", "give it another type")

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        for transform in fused(self.transforms):  # now, as the list may have been changed
            results = transform(results)
        return results
