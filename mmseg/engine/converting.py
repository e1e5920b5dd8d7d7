"""Files of weights in other forms: of the official code, of this package, safetensors; and what became of every entry.

Where the config is known, the weights are loaded into its model, so that a file of another model is refused, names are
those of the model, and nothing is missing in the new file. Our names are the official ones.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmseg import compat
from mmseg.carried_config import config_of, packed_config
from mmseg.compat import translate
from mmseg.config import load_config, override
from mmseg.engine.publishing import published_meta
from mmseg.errors import CheckpointError, ConfigError, WriteError
from mmseg.evaluation.tables import jsonable, text_table
from mmseg.files import write_bytes
from mmseg.mmengine_names import Config
from mmseg.model_folder import CONFIG, META
from mmseg.models import build_segmentor
from mmseg.version import WRITER, __version__
from mmseg.weights import check_values, load_content, read_checkpoint, strip_prefix, write_weights_file
from mmseg.writing.shared_model import encoded

_PICKLES, _PLAIN = (".pth", ".pt"), ".safetensors"
FORMS = ("ours", "official")
_ADVICE = "nothing was written"


class Entry(NamedTuple):
    """One tensor, from its name and shape in the old file to those in the new one; None: not there."""

    source: str | None
    target: str | None
    old: tuple[int, ...] | None
    new: tuple[int, ...] | None
    note: str = ""


@dataclass
class Conversion:
    """What was done.

    Attributes:
        source, target: the files.
        kind: what the old file is, in words.
        form: what the new one is, in words.
        entries: every tensor of both.
        dropped: what else the old file had and the new one has not, and why.
        notes: what the user has to know.
    """

    source: str
    target: Path
    kind: str
    form: str
    entries: list[Entry] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def table(self, full: bool = False) -> str:
        """The mapping for people; entries that keep name and shape are one line for each part of the model.

        Args:
            full: a line for each of them, too.
        """
        rows = [(e.source or "-", e.target or "-", _shape(e), e.note) for e in self.entries if full or not _same(e)]
        if not full:
            rows = [*self._groups(), *rows]
        return text_table(("from", "to", "shape", ""), rows, left=4)

    def summary(self) -> str:
        """Counts, what was dropped and why, and the notes."""
        both = [e for e in self.entries if e.source and e.target]
        kept = sum(_same(e) for e in both)
        renamed = sum(e.source != e.target for e in both)
        counts = {
            "entries": len(both),
            "same name and shape": kept,
            "renamed": renamed,
            "other shape": sum(e.old != e.new for e in both),
            "dropped": sum(e.target is None for e in self.entries),
            "new": sum(e.source is None for e in self.entries),
        }
        lines = [f"{self.kind} -> {self.form}", ", ".join(f"{name}: {number}" for name, number in counts.items())]
        lines += [f"not in the new file: {name} ({why})" for name, why in self.dropped.items()]
        return "\n".join([*lines, *self.notes])

    def _groups(self) -> Iterator[tuple[str, str, str, str]]:
        parts: dict[str, int] = {}
        for entry in filter(_same, self.entries):
            prefix = ".".join(entry.source.split(".")[:2]) + (".*" if entry.source.count(".") > 1 else "")
            parts[prefix] = parts.get(prefix, 0) + 1
        for prefix, number in parts.items():
            yield prefix, prefix, f"{number} {'entry' if number == 1 else 'entries'}", "same names and shapes"


def convert(
    source: str | Path,
    target: str | Path,
    config: str | Path | Config | None = None,
    options: Mapping[str, Any] | None = None,
    form: str = "ours",
    overwrite: bool = False,
) -> Conversion:
    """Write the weights of a checkpoint in another form.

    Args:
        source: a file of the official code, of mmcv, of ours, safetensors, a shared folder, or ``hf://user/name``.
        target: ``.pth`` or ``.safetensors``.
        config, options: of its model; None takes the config that the checkpoint carries, if there is one.
        form: ``ours``, or ``official``: what the released code of its system loads, which takes ``.pth`` only.
        overwrite: take the place of a file that is there.

    Raises:
        CheckpointError: the source cannot be read, or is of another model than the config's; a target that is named
            like something else.
        ConfigError: ``official`` without any config, or a config that cannot be.
        WriteError: the target is there, or cannot be written; nothing is changed.
    """
    target = Path(target)
    _check_target(target, form, overwrite)
    checkpoint = read_checkpoint(source, as_written=True)
    written, meta = checkpoint["state_dict"], checkpoint["meta"]
    cfg = _config_for(source, config, options, meta)
    done = Conversion(str(source), target, _kind_of(checkpoint), form)
    state = {name: value for name, value in strip_prefix(written).items() if isinstance(value, Tensor)}
    if cfg is not None:
        state, origins = _through_model(cfg, {**checkpoint, "state_dict": state}, source)
        done.entries = _entries(written, origins, state)
        done.notes += _told_types(written, state)
    else:
        check_values(source, state, {})
        done.entries = _entries(written, {name: [name] for name in state}, state)
        done.notes.append("no config was given or carried: names are as they were, and were compared with no model")
    _tell_of_rest(done, checkpoint)
    state = {name: value.detach().contiguous().clone() for name, value in state.items()}
    if form == "official":
        _write_official(done, state, meta, cfg)
    else:
        _write_ours(done, state, meta, cfg)
    return done


# --- reading ----------------------------------------------------------------------------------------------------------


def _check_target(target: Path, form: str, overwrite: bool) -> None:
    if form not in FORMS:
        raise ConfigError(f"form = {form!r}", " or ".join(FORMS), "choose one of them")
    endings = _PICKLES if form == "official" else (*_PICKLES, _PLAIN)
    if target.suffix not in endings:
        raise CheckpointError(
            f"{target} as the name of a file of weights" + (" for the official code" if form == "official" else ""),
            f"a name that ends in {', '.join(endings)}",
            "add the ending; a folder with a config is written by tools/publish_model.py",
        )
    if target.exists() and not overwrite:
        raise WriteError(f"{target}: is there already", "a new file", "choose another name, or add --overwrite")


def _config_for(
    source: str | Path, config: str | Path | Config | None, options: Mapping[str, Any] | None, meta: Mapping[str, Any]
) -> Config | None:
    if config is not None:
        return override(config, options or {}) if isinstance(config, Config) else load_config(config, options)
    if meta.get("writer") == WRITER and CONFIG in meta:
        return config_of(source, options)
    if options:
        raise ConfigError("--options without a config", "a config, whose entries they override", "give --config")
    return None


def _through_model(
    cfg: Config, checkpoint: dict[str, Any], source: str | Path
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """The state dict of the config's model with the weights, and the names in the file that each entry is made of."""
    with torch.device("meta"):  # the file has all entries, but counters of old ones, which start at 0
        model: nn.Module = build_segmentor({**cfg.model, "pretrained": None}, cfg.get("train_cfg"), cfg.get("test_cfg"))
    model.to_empty(device="cpu")
    for value in model.state_dict().values():
        value.zero_()
    state = checkpoint["state_dict"]
    adapted = load_content(model, checkpoint, source, purpose="test")["state_dict"]
    if (
        all(adapted[name] is value for name, value in state.items() if name in adapted)
        and adapted.keys() <= state.keys()
    ):
        return model.state_dict(), {name: [name] for name in adapted}
    return model.state_dict(), _origins(model, state)


def _origins(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """The entries of a file that each of the model's is made of: they are followed, each filled with a number."""
    names = dict(enumerate(state, start=1))  # 0 stands for what is added
    marks = {name: torch.full(state[name].shape, float(number)) for number, name in names.items()}
    adapted = model.adapt_weights(marks, "test")
    return {name: [names[i] for i in map(int, value.unique()) if i in names] for name, value in adapted.items()}


def _kind_of(checkpoint: Mapping[str, Any]) -> str:
    meta = checkpoint["meta"]
    if meta.get("writer") == WRITER:
        return f"weights of this package, version {meta.get('mmseg_version')}"
    if "network" in checkpoint or "it" in checkpoint:
        return "checkpoint of GSFM's training script"
    return "checkpoint of mmcv" if meta else "state dict"


def _entries(
    written: Mapping[str, Any], origins: Mapping[str, Sequence[str]], state: Mapping[str, Tensor]
) -> list[Entry]:
    """How the entries of a file, as `written` and with ``module.`` taken off in `origins`, have become `state`."""
    named = {name.removeprefix("module."): name for name in written}
    entries, used = [], set()
    for name, value in state.items():
        new, sources = tuple(value.shape), [named[origin] for origin in origins.get(name, ())]
        used.update(sources)
        if not sources:
            entries.append(Entry(None, name, None, new, "not in the old file: its initial value"))
        elif len(sources) > 1:
            entries.append(Entry(" + ".join(sources), name, new, new, "joined"))
        else:
            [origin] = sources
            entries.append(Entry(origin, name, tuple(written[origin].shape), new, _note(name, new, origin, written)))
    for name, value in written.items():
        if name not in used:
            tensor = isinstance(value, Tensor)
            why = "the model has no such entry" if tensor else f"a {type(value).__name__}, no tensor"
            entries.append(Entry(name, None, tuple(value.shape) if tensor else None, None, f"dropped: {why}"))
    return entries


def _note(name: str, new: tuple[int, ...], origin: str, written: Mapping[str, Any]) -> str:
    """What was done to an entry that comes of one."""
    old = tuple(written[origin].shape)
    if old != new:
        grown = math.prod(new) > math.prod(old)
        return (
            "a channel of zeros was added"
            if grown
            else "a part of it"
            if math.prod(new) < math.prod(old)
            else "reshaped"
        )
    return "" if origin == name else "module. taken off" if origin == f"module.{name}" else "renamed"


def _told_types(written: Mapping[str, Any], state: Mapping[str, Tensor]) -> list[str]:
    """That numbers are stored in another type than before, which the size of the file shows."""
    old = {value.dtype for value in written.values() if isinstance(value, Tensor) and value.is_floating_point()}
    new = {value.dtype for value in state.values() if value.is_floating_point()}
    if old == new:
        return []
    before, after = (" and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds)) for kinds in (old, new))
    values = "are rounded" if torch.float64 in old - new else "are the same"
    return [f"numbers were {before}, and are {after} as in the config's model: the values {values}"]


def _tell_of_rest(done: Conversion, checkpoint: Mapping[str, Any]) -> None:
    """Note what else the file has than weights and what is known of `meta`."""
    for key in checkpoint:
        if key == "optimizer":
            done.dropped[key] = "a training cannot be resumed from the new file; resume from the old one"
        elif key not in ("meta", "state_dict"):
            done.dropped[key] = "belongs to the training"


# --- writing ----------------------------------------------------------------------------------------------------------


def _write_ours(done: Conversion, state: dict[str, Tensor], meta: Mapping[str, Any], cfg: Config | None) -> None:
    kept = published_meta(meta, with_config=False)
    if cfg is not None:
        kept |= {"writer": WRITER, "mmseg_version": __version__, **packed_config(cfg)}
        if CONFIG not in kept:
            done.notes.append("the config is no plain data, and not in the new file: keep the config file")
        if meta.get("writer") != WRITER:
            kept.pop("iter", None)  # mmcv counts otherwise
    _tell_of_meta(done, meta, kept)
    if done.target.suffix == _PLAIN:
        done.form = "safetensors, with classes and config in its header" if CONFIG in kept else "safetensors"
        write_bytes(done.target, encoded(state, {META: json.dumps(jsonable(kept))} if kept else None), _ADVICE)
    else:
        done.form = "checkpoint of this package" if kept.get("writer") == WRITER else "checkpoint"
        write_weights_file(done.target, {"meta": kept, "state_dict": state}, _ADVICE)


def _write_official(done: Conversion, state: dict[str, Tensor], meta: Mapping[str, Any], cfg: Config | None) -> None:
    """What the released code of the config's system loads by ``torch.load``: no type of this package is in it."""
    if cfg is None:
        raise ConfigError(
            f"{done.source} for the official code, without a config",
            "a config, which says whose code that is",
            "give --config, for example local_configs/cffm/B1/cffm.b1.480x480.vspw2.160k.py",
        )
    weights = OrderedDict(state)
    name = translate("model", dict(cfg.model))["type"]
    if name in compat.BARE_FILES:
        done.form = f"state dict, as the released code of {name} loads it"
        _tell_of_meta(done, meta, {})
        write_weights_file(done.target, weights, _ADVICE)
        return
    kept = {key: jsonable(meta[key]) for key in compat.OFFICIAL_META if meta.get(key) is not None}
    done.form = "dict(meta, state_dict), as mmcv and the released code load it"
    if "CLASSES" not in kept:
        done.notes.append("the old file names no classes: tools/test.py of the released code will ask for CLASSES")
    _tell_of_meta(done, meta, kept)
    write_weights_file(done.target, {"meta": kept, "state_dict": weights}, _ADVICE)


def _tell_of_meta(done: Conversion, meta: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
    left = [key for key in meta if key not in kept]
    if left:
        done.dropped["meta." + ", ".join(left)] = "of the run or of the package that has written it"


def _same(entry: Entry) -> bool:
    return entry.source == entry.target and entry.old == entry.new and not entry.note


def _shape(entry: Entry) -> str:
    shapes = [str(list(shape)) for shape in dict.fromkeys((entry.old, entry.new)) if shape is not None]
    return " -> ".join(shapes)
