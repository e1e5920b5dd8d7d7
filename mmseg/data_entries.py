"""Entries of ``data`` that reach everything they concern: the data sets, their pipelines and the model.

::

    data = dict(
        num_classes=5,  # of the data sets and of the heads of the model
        img_scale=(640, 360),  # (width, height) that frames are resized to, before the random factor of the training
        crop_size=(352, 352),  # (height, width) of training clips, and of the sliding windows of a test
        every=dict(unlabelled="keep", ignored_values=[11]),  # arguments of all data sets of train, val and test
    )

They win over what the sections say, and lose to ``--options`` that name one place (``data.val.split=...``). A config
that was read has them no more: their values stand in their places.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter

from mmseg import values
from mmseg.errors import ConfigError

logger = logging.getLogger("mmseg.config")

SECTIONS = ("train", "val", "test")


class Entries(values.Section):
    """The entries, with their types."""

    num_classes: values.NumClasses | None = None
    img_scale: values.Size | None = None
    crop_size: values.Size | None = None
    every: dict[str, Any] | None = None


def spread(config: Any, options: Mapping[str, Any], takes: Callable[[Any, str], bool]) -> None:
    """Put the entries of ``config['data']`` into their places, and remove them.

    Args:
        config: is changed.
        options: dotted keys that the user has given values by themselves.
        takes: whether the data set of a type has an argument of this name.

    Raises:
        ConfigError: an entry of a wrong type, or that has no place.
    """
    data = config.get("data")
    if not isinstance(data, Mapping):
        return
    given = {name: data.pop(name) for name in Entries.model_fields if name in data}
    entries = values.parse({name: _plain(value) for name, value in given.items()}, TypeAdapter(Entries), "data")
    sets = [found for name in SECTIONS for found in data_sets(data.get(name), f"data.{name}")]
    places: dict[str, list[tuple[str, Any, str]]] = {name: [] for name in given}
    if entries.num_classes is not None:
        places["num_classes"] += [(f"{place}.num_classes", node, "num_classes") for place, node in sets
                                  if takes(node.get("type"), "num_classes")]  # fmt: skip
        places["num_classes"] += list(_keys(config.get("model"), ("num_classes",), "model"))
    for name, keys in (("img_scale", ("img_scale",)), ("crop_size", ("crop_size", "size"))):
        if getattr(entries, name) is not None:
            for place, node in sets:
                places[name] += _keys(node.get("pipeline"), keys, f"{place}.pipeline")
    if entries.crop_size is not None:
        for place, windows in _windows(config):
            _scale_stride(place, windows, entries.crop_size, options)
            places["crop_size"].append((f"{place}.crop_size", windows, "crop_size"))
    for name, found in places.items():
        if given[name] is not None and name != "every":
            value = getattr(entries, name)
            _set(name, value if name == "num_classes" else tuple(value), found, options)
    for place, node in sets:
        for key, value in (entries.every or {}).items():
            if not _is_given(f"{place}.{key}", options):
                node[key] = value


def tell_of_windows(config: Any) -> None:
    """Warn of sliding windows of another size than the crops that a network is trained on."""
    train = (config.get("data") or {}).get("train")
    crops = [
        tuple(node[key])
        for place, dataset in data_sets(train, "data.train")
        for _, node, key in _keys(dataset.get("pipeline"), ("crop_size",), f"{place}.pipeline")
        if _is_pair(node[key])
    ]
    for place, windows in _windows(config):
        size = windows.get("crop_size")
        if crops and _is_pair(size) and tuple(size) not in crops:
            logger.warning(
                "%s.crop_size = %s, but training clips are cropped to %s; data.crop_size=(height, width) sets both",
                *(place, tuple(size), crops[0]),
            )


def tell_of_other_inputs(config: Any) -> None:
    """Warn of frames that are scored with other numbers, or references at other distances, than a network learns from.

    That is one ``Normalize`` for training and another one for a test, or a ``dilation`` that was changed in one place.
    """
    data = config.get("data") or {}
    sets = {name: list(data_sets(data.get(name), f"data.{name}")) for name in SECTIONS}
    for told in (_normalisations, _dilation):
        trained = [(place, what) for place, dataset in sets["train"] for what in told(dataset)]
        for place, what in [
            (place, what) for name in SECTIONS[1:] for place, node in sets[name] for what in told(node)
        ]:
            if trained and what not in [other for _, other in trained]:
                logger.warning(
                    "%s has %s, but %s has %s: the network is tested on other inputs than it is trained on",
                    *(place, what, *trained[0]),
                )


def _normalisations(node: Any) -> Iterator[str]:
    """What the transforms called ``Normalize...`` below `node` do."""
    if isinstance(node, Mapping):
        if str(node.get("type", "")).startswith("Normalize"):
            rest = {"to_rgb": True, **{key: _as_floats(value) for key, value in _plain(node).items() if key != "type"}}
            yield "Normalize(" + ", ".join(f"{key}={rest[key]}" for key in sorted(rest)) + ")"
        for entry in node.values():
            yield from _normalisations(entry)
    elif isinstance(node, list | tuple):
        for entry in node:
            yield from _normalisations(entry)


def _as_floats(value: Any) -> Any:
    """Numbers of a list as floats: 128 and 128.0 are one mean."""
    is_numbers = isinstance(value, list) and all(isinstance(entry, int | float) for entry in value)
    return [float(entry) for entry in value] if is_numbers else value


def _dilation(dataset: Mapping[str, Any]) -> list[str]:
    """Where its references are; empty for blocks of THE-Mask, whose frames are as far apart as `test_size` says."""
    return [f"dilation={_plain(dataset['dilation'])}"] if dataset.get("dilation") else []


def _windows(config: Any) -> Iterator[tuple[str, Any]]:
    """The ``test_cfg`` of a model that looks at frames through sliding windows, in the model or beside it."""
    model = config.get("model")
    inside = model.get("test_cfg") if isinstance(model, Mapping) else None
    for place, found in (("model.test_cfg", inside), ("test_cfg", config.get("test_cfg"))):
        if isinstance(found, Mapping) and found.get("mode") == "slide":
            yield place, found


def _scale_stride(place: str, windows: Any, size: Any, options: Mapping[str, Any]) -> None:
    """Windows of a new size overlap by the same share of it."""
    before, stride = windows.get("crop_size"), windows.get("stride")
    is_given = any(_is_given(f"{place}.{key}", options) for key in ("crop_size", "stride"))
    if _is_pair(before) and _is_pair(stride) and not is_given:
        windows["stride"] = tuple(max(1, round(step * new / old)) for step, new, old in zip(stride, size, before))


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(type(side) is int and side > 0 for side in value)


def data_sets(entry: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The data sets of an entry of ``data``, each with its dotted path: itself, or those in lists and wrappers."""
    if isinstance(entry, list | tuple):
        for number, part in enumerate(entry):
            yield from data_sets(part, f"{place}.{number}")
    elif isinstance(entry, Mapping):
        inner = [key for key in ("dataset", "datasets") if key in entry]
        for key in inner:
            yield from data_sets(entry[key], f"{place}.{key}")
        if not inner:
            yield place, entry


def _set(name: str, value: Any, places: list[tuple[str, Any, str]], options: Mapping[str, Any]) -> None:
    if not places:
        raise ConfigError(
            f"data.{name} = {values.shown(value)}: nothing in this config has a {name}",
            "an entry that the data sets, their pipelines or the model can take",
            f"remove data.{name}; a data set with arguments of its own for it is set by data.train...",
        )
    for place, node, key in places:
        if not _is_given(place, options):
            node[key] = value


def _keys(node: Any, keys: tuple[str, ...], place: str) -> Iterator[tuple[str, Any, str]]:
    """Where the keys stand below `node`: dotted path, dict and key. ``size`` is a key of ``Pad`` alone."""
    if isinstance(node, Mapping):
        for key, entry in node.items():
            is_other = key == "size" and not str(node.get("type", "")).startswith("Pad")
            if key in keys and not is_other and entry is not None:
                yield f"{place}.{key}", node, key
            yield from _keys(entry, keys, f"{place}.{key}")
    elif isinstance(node, list | tuple):
        for number, entry in enumerate(node):
            yield from _keys(entry, keys, f"{place}.{number}")


def _is_given(place: str, options: Mapping[str, Any]) -> bool:
    return any(option == place or place.startswith(f"{option}.") for option in options)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
