"""The scores that decide which checkpoint is the best one, and what averages weights or ends a training early."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmseg import sections
from mmseg.errors import ConfigError, nearest
from mmseg.sections import EarlyStopping

logger = logging.getLogger("mmseg.engine")

AUTO = "auto"
_LISTED = 12
_LOWER = ("-Decay",)  # ends of the names of scores that are better when lower


def is_better(name: str, value: float, than: float, rule: str | None = None, margin: float = 0.0) -> bool:
    """Whether a score beats another one by more than `margin`.

    Args:
        name: of the score, which tells what is better unless `rule` does.
        value, than: its values.
        rule: 'greater', 'less' or None.
        margin: not negative.
    """
    less = is_better_when_lower(name) if rule is None else rule == "less"
    return (than - value if less else value - than) > margin


def is_better_when_lower(name: str) -> bool:
    """Whether the name of a score says so."""
    return name.endswith(_LOWER)


def find_score(name: str, known: Sequence[str], place: str) -> str:
    """The score that a config means, found out before the first iteration.

    Args:
        name: of a score; 'auto' is the first one.
        known: names of all scores of the validation data, the most important one first.
        place: dotted path of `name` in the config.

    Raises:
        ConfigError: there is no such score.
    """
    if name == AUTO and known:
        return known[0]
    if name not in known:
        listed = ", ".join(known[:_LISTED]) + (", ..." if len(known) > _LISTED else "")
        raise ConfigError(
            f"{place} = {name!r} is no score of data.val",
            f"'auto' or one of {listed}" if known else "validation data with scores",
            nearest(name, known) if known else f"remove {place}, or set data.val and leave --no-validate away",
        )
    return name


def undefined(name: str, scores: Mapping[str, float], reason: str = "") -> str:
    """In words: that a score has no value, why, and which ones have."""
    defined = [f"{other} ({value:.4f})" for other, value in scores.items() if math.isfinite(value)]
    text = f"{name} is undefined on this validation data" + (f" ({reason})" if reason else "")
    if not defined:
        return f"{text}, as are all other scores"
    return f"{text}; defined are {', '.join(defined[:_LISTED])}{', ...' if len(defined) > _LISTED else ''}"


class Patience:
    """Counts the evaluations since the last one that was better.

    Args:
        section: see :class:`mmseg.sections.EarlyStopping`; its `monitor` is the name of a score or 'auto'.
    """

    def __init__(self, section: EarlyStopping) -> None:
        self.section = section
        self.score = section.monitor  # its name; 'auto' until the first evaluation
        self.best: float | None = None
        self.waited = 0

    def exhausted(self, scores: Mapping[str, float]) -> bool:
        """Take in the scores of an evaluation; True if the training is to end. An undefined score is no better."""
        section = self.section
        self.score = find_score(self.score, list(scores), "early_stopping.monitor")
        value = scores[self.score]
        better = math.isfinite(value) and (
            self.best is None or is_better(self.score, value, self.best, section.rule, section.min_delta)
        )
        self.best, self.waited = (value, 0) if better else (self.best, self.waited + 1)
        return self.is_exhausted

    @property
    def is_exhausted(self) -> bool:
        """Whether as many evaluations as allowed have been no better."""
        return self.waited >= self.section.patience

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed run ends where an uninterrupted one would."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Any) -> None:
        """Go on counting. Anything else than what :meth:`state_dict` gives (another run's file) starts from anew."""
        best, waited = (state.get("best"), state.get("waited")) if isinstance(state, Mapping) else (None, 0)
        self.best = best if isinstance(best, float) and math.isfinite(best) else None
        self.waited = waited if isinstance(waited, int) and waited >= 0 else 0


def averaging_and_stopping(
    cfg: Mapping[str, Any],
) -> tuple[sections.MovingAverage | None, sections.EarlyStopping | None]:
    """The sections ``ema`` and ``early_stopping``, which may also be written as ``custom_hooks``.

    Raises:
        ConfigError: one of them is there twice.
    """
    found = []
    for name, kind in (("ema", sections.MovingAverage), ("early_stopping", sections.EarlyStopping)):
        hooks = sections.read("custom_hooks", cfg.get("custom_hooks")) or ()
        given = [sections.read(name, cfg.get(name)), *(hook for hook in hooks if isinstance(hook, kind))]
        given = [section for section in given if section is not None]
        if len(given) > 1:
            raise ConfigError(f"{name} is given {len(given)} times", "once", f"keep {name} or one of custom_hooks")
        if given and isinstance(given[0], sections.EMAHook | sections.EarlyStoppingHook):
            logger.warning("custom_hooks: %s is read as %s=dict(...), see docs/training.md", given[0].type, name)
        found.append(given[0] if given else None)
    return found[0], found[1]
