"""YouTube-VOS: J and F of seen and unseen categories, estimated on data whose masks are at hand."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from mmseg.errors import DataError
from mmseg.evaluation.object_evaluator import ObjectEvaluator, ObjectVideo, mean
from mmseg.evaluation.object_scores import Scores, label_scores
from mmseg.registry import METRICS

logger = logging.getLogger("mmseg.evaluation")

ObjectInfo = tuple[str, Sequence[int] | None]
"""Category of an object and the numbers of the frames in which it is annotated, the first of which gives it (-1: one
that is not fed); None: all that are fed."""


@METRICS.register_module()
class YouTubeVOSEvaluator(ObjectEvaluator):
    """The mean of J and F of seen and of unseen categories, each over its objects.

    Xu et al., arXiv:1809.03327. The server's program is not public; this is what is known of it, and an estimate: an
    object counts in its annotated frames after the one in which it is given.

    Args:
        objects: video -> id -> category and annotated frames, as ``meta.json`` has them.
        seen: the categories of the training set.
        video_order: see :class:`ObjectEvaluator`.

    Raises:
        DataError: an id that no mask of 8 bits can have, or that of the background.
    """

    protocol_name = "YouTube-VOS, an estimate"
    equals = "no toolkit: the server's program is not public (annotated frames after the one that gives the object)"
    inner = False

    def __init__(
        self,
        objects: Mapping[str, Mapping[int, ObjectInfo]],
        seen: Collection[str],
        video_order: Sequence[str] | None = None,
    ) -> None:
        super().__init__(video_order)
        self.objects = {v: {int(k): tuple(info) for k, info in own.items()} for v, own in objects.items()}
        wrong = [(video, number) for video, own in self.objects.items() for number in own if not 0 < number < 256]
        if wrong:
            raise DataError(
                f"meta.json: object {wrong[0][1]} of video {wrong[0][0]!r}",
                "ids from 1 to 255: masks have 8 bits, and 0 is background",
                "renumber the objects, in the masks too",
            )
        self.seen = frozenset(seen)

    def _begin(self, state: dict, target: np.ndarray) -> None:
        name = state["name"]
        if name not in self.objects:
            raise DataError(
                f"video {name!r} is not in meta.json", "the categories of its objects", "take the meta.json of the set"
            )
        state["ids"] = tuple(sorted(self.objects[name]))
        state["given"] = {}  # id -> frame in which it is first shown
        state["shown"] = np.zeros(256, bool)  # ids that the truth shows in any frame

    def _score(self, state: dict, frame: int, pred: np.ndarray, target: np.ndarray) -> Scores:
        state["shown"] |= np.bincount(target.reshape(-1), minlength=256) > 0
        scores = np.full((2, len(state["ids"])), np.nan)
        counted = [k for k, number in enumerate(state["ids"]) if self._counts_now(state, number, frame, target)]
        scores[:, counted] = label_scores(pred, target, [state["ids"][k] for k in counted], self._masks)
        return scores

    def _counts_now(self, state: dict, number: int, frame: int, target: np.ndarray) -> bool:
        _, frames = self.objects[state["name"]][number]
        if frames is not None:
            return frame in frames and frame > min(frames)
        if number not in state["given"] and (target == number).any():
            state["given"][number] = frame
        return frame > state["given"].get(number, frame)

    def _close(self, state: dict, frames: list[int], rows: list) -> ObjectVideo:
        """Also tells where masks and ``meta.json`` speak about other objects."""
        shown = set(np.flatnonzero(state["shown"]).tolist()) - {0}
        if unknown := sorted(shown - set(state["ids"])):
            logger.warning("video %r: objects %s are not in meta.json and do not count", state["name"], unknown)
        if unseen := sorted(set(state["ids"]) - shown):
            logger.warning(
                "video %r: objects %s of meta.json are in none of the true masks; where it names frames of them, a "
                "prediction without them scores 1",
                *(state["name"], unseen),
            )
        return super()._close(state, frames, rows)

    def compute(self) -> dict[str, object]:
        """``overall``, ``J_seen``, ``F_seen``, ``J_unseen``, ``F_unseen``, and what all evaluators of objects give.

        Means over objects; one that is annotated in no frame after the one that gives it does not count.
        """
        found = super().compute()
        groups: dict[str, list[float]] = {name: [] for name in self.score_names[1:]}
        for video, scores in self.videos.items():
            for number in scores.ids:
                category, _ = self.objects[video][number]
                row = found["per_object"][self.object_name(video, number)]
                row["category"], row["seen"] = category, category in self.seen
                for measure in "JF":
                    groups[f"{measure}_{'seen' if row['seen'] else 'unseen'}"].append(row[measure]["mean"])
        parts = {name: mean(values) for name, values in groups.items()}
        return {"overall": sum(parts.values()) / len(parts), **parts, **found}

    @property
    def score_names(self) -> list[str]:
        return ["overall", "J_seen", "F_seen", "J_unseen", "F_unseen"]

    def why_undefined(self, name: str) -> str:
        return "no object of these categories is annotated after the frame that gives it"

    def _settings(self) -> tuple[object, ...]:
        return (self.inner, self.objects, self.seen)
