"""What the page lets people choose from: config files and checkpoints of this machine, found when the page is opened.

The page sends back names out of these lists. Config files are Python and run when they are read, so that nothing else
may be named, let alone sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmseg.carried_config import config_of
from mmseg.compat import translate
from mmseg.config import load_config, override, require
from mmseg.errors import CheckpointError, ConfigError
from mmseg.images import natural_key
from mmseg.mmengine_names import Config
from mmseg.registry import MODELS, class_of, takes

INSIDE = "inside"  # the config that a checkpoint carries
UNTRAINED = "none"  # no checkpoint
_SUFFIXES = (".pth", ".pt", ".safetensors")


class Choices:
    """Config files and checkpoints.

    Args:
        configs, checkpoints: files, and folders that are searched with all that is in them. A checkpoint that is
            called ``latest`` is left out where it is a link to another one.
    """

    def __init__(self, configs: Sequence[str | Path], checkpoints: Sequence[str | Path]) -> None:
        self._configs, self._checkpoints = [Path(path) for path in configs], [Path(path) for path in checkpoints]

    def configs(self) -> dict[str, Path]:
        """Name -> config file."""
        return _found(self._configs, (".py",))

    def checkpoints(self) -> dict[str, Path]:
        """Name -> checkpoint."""
        return _found(self._checkpoints, _SUFFIXES)

    def config(self, config: str, checkpoint: str) -> Config:
        """The config that is meant by two names, for videos that nobody has seen before.

        Raises:
            SegError: there is none, it cannot be read, or it has no test pipeline.
        """
        path = self.checkpoint(checkpoint)
        if config == INSIDE and path is None:
            raise ConfigError(
                "no system, and no checkpoint that could name one", "one of the two", "choose a system, or a checkpoint"
            )
        cfg = _inside(path) if config == INSIDE else load_config(_chosen(self.configs(), config, "config"))
        require(cfg, "model.type")
        if not ((cfg.get("data") or {}).get("test") or {}).get("pipeline"):
            raise ConfigError(
                f"{config} has no data.test.pipeline: it is for a training alone",
                "a config that can be tested",
                "choose another config of this system",
            )
        head = cfg.model.get("decode_head") or {}
        made = class_of(MODELS, head)
        if getattr(made, "generates_prototypes", False):
            raise ConfigError(
                f"{config} makes prototypes of known videos, and labels none",
                "a config that labels videos",
                "choose another config of this system",
            )
        if made is not None and takes(made, "prototypes"):
            cfg = override(cfg, {"model.decode_head.prototypes": "auto"})  # CFFM++: a new video has no file of them
        return cfg

    def checkpoint(self, checkpoint: str) -> Path | None:
        """The file that is meant by a name. Raises ConfigError if there is none."""
        return None if checkpoint == UNTRAINED else _chosen(self.checkpoints(), checkpoint, "checkpoint")

    def describe(self, config: str, checkpoint: str) -> dict[str, Any]:
        """What the page has to ask for beside a video: objects to follow, and what computes flow."""
        cfg = self.config(config, checkpoint)
        name = translate("model", dict(cfg.model))["type"]
        model = class_of(MODELS, cfg.model)
        if model is None:
            raise ConfigError(f"model.type = {name!r}", "a model of this package", "choose another config")
        head = cfg.model.get("decode_head") or {}
        objects = "given" in (getattr(model, "view_inputs", None) or ())
        return {
            "model": str(head.get("type", name)).removesuffix("Head"),
            "classes": None if objects else head.get("num_classes"),
            "objects": objects,
            "flow": bool(getattr(model, "takes_flow", False)),
        }


def _inside(checkpoint: Path) -> Config:
    """The config that a checkpoint carries; an error says what to do on the page, and not where the file lies."""
    try:
        return config_of(checkpoint)
    except CheckpointError as error:
        found = error.found.replace(f"{checkpoint.parent}/", "")
        action = "choose the config that it was trained with, or another checkpoint"
        raise CheckpointError(found, error.expected, action) from error


def _found(places: Sequence[Path], suffixes: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for place in places:
        files = [place] if place.is_file() else [path for suffix in suffixes for path in place.rglob(f"*{suffix}")]
        for path in sorted(files, key=lambda path: natural_key(str(path))):
            relative = path.relative_to(place) if path != place else Path(path.name)
            hidden = any(part.startswith(("_", ".")) for part in relative.parts)
            if path.is_file() and not hidden and not (path.stem == "latest" and path.is_symlink()):
                found.setdefault(str(relative if len(places) == 1 or path == place else path), path)
    return found


def _chosen(known: dict[str, Path], name: str, what: str) -> Path:
    if name not in known:
        raise ConfigError(
            f"{what} {name!r}", f"one of the {len(known)} in the list", "load the page again and choose another one"
        )
    return known[name]
