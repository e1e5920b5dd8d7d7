"""The protocols of DAVIS: 2016, 2017 semi-supervised and unsupervised, vos-benchmark, and HFAN's during training.

J, F and their averages as the public toolkits give them; where those stop without a word, or count in 8 bits, an error
or the right number.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from mmseg.errors import DataError
from mmseg.evaluation.frame_statistics import RECALL_THRESHOLD
from mmseg.evaluation.histogram import joint_counts
from mmseg.evaluation.object_evaluator import ObjectEvaluator, ObjectVideo, mean
from mmseg.evaluation.object_scores import VOID, Scores, foreground_scores, label_scores, proposal_scores
from mmseg.registry import METRICS

logger = logging.getLogger("mmseg.evaluation")

MAX_PROPOSALS = 20
_MOST_VALUES = 64  # a mask of more different values is a soft map
_FEWEST_LEVELS = 4  # of soft edges
_SMALL_AREA = 1 / 500  # of the frame: what a level of grey covers


@METRICS.register_module()
class DAVIS16Evaluator(ObjectEvaluator):
    """DAVIS-2016, semi- and unsupervised: one object, of everything that is not 0; mean over sequences.

    Perazzi et al., CVPR 2016. Long-Videos is judged by the same formulas over its annotated frames.

    Args:
        video_order: see :class:`ObjectEvaluator`.
        all_frames: count the first and the last frame, too.
        ignore_index: a value of the truth that is taken out of both masks; None, as published: there is none.
    """

    protocol_name = "DAVIS-2016"
    equals = "the DAVIS-2016 toolkit (Matlab and Python) and PyDavis16EvalToolbox"

    def __init__(
        self, video_order: Sequence[str] | None = None, all_frames: bool = False, ignore_index: int | None = None
    ) -> None:
        super().__init__(video_order)
        self.inner, self.ignore_index = not all_frames, ignore_index
        self._told: set[str] = set()

    def object_name(self, video: str, number: int) -> str:
        return video

    def _begin(self, state: dict, target: np.ndarray) -> None:
        state["ids"] = (1,)
        self._tell_of_soft("truth", state, 0, target)

    def _tell_of_soft(self, what: str, state: dict, frame: int, labels: np.ndarray) -> None:
        """Warn, once of predictions and once of truth, of a mask whose edges are levels of grey."""
        if what not in self._told and (levels := soft_levels(labels)):
            self._told.add(what)
            logger.warning(
                "%s of frame %d of video %r: %d values, most of them on few pixels, and all that are not 0 count as "
                "object. Masks that were resized, or stored with loss (JPEG), have such edges: store (mask > 127)",
                *(what, frame, state["name"], levels),
            )

    def _score(self, state: dict, frame: int, pred: np.ndarray, target: np.ndarray) -> Scores:
        check_binary(state["name"], frame, pred)
        self._tell_of_soft("prediction", state, frame, pred)
        if self.ignore_index is not None:
            pred, target = (np.where(target == self.ignore_index, np.uint8(0), x) for x in (pred, target))
        j, f = foreground_scores(pred, target, self._masks)
        return np.array([j]), np.array([f])

    def _settings(self) -> tuple[object, ...]:
        return (*super()._settings(), self.ignore_index)


def check_binary(video: str, frame: int, pred: np.ndarray) -> None:
    """Raise DataError for a soft map: every value that is not 0 would count as object."""
    if pred.max() > _MOST_VALUES and ((pred != pred.max()) & (pred != 0)).any():
        values = np.count_nonzero(np.bincount(pred.reshape(-1), minlength=256))
        if values > _MOST_VALUES:
            raise DataError(
                f"prediction of frame {frame} of video {video!r}: {values} different values",
                "a mask of 0 and 255, or of object ids: everything that is not 0 counts as object",
                "threshold soft maps before (they can be scored as they are by --protocol vsod)",
            )


def soft_levels(labels: np.ndarray) -> int:
    """How many values other than 0 are in a mask (H, W) uint8 whose edges seem to be soft; 0 if these look like ids.

    Soft edges have many levels of grey, far apart and on few pixels each; ids are mostly 1, 2, 3, or cover more.
    """
    largest = int(labels.max(initial=0))
    if largest <= 2 * _FEWEST_LEVELS or not ((labels != largest) & (labels != 0)).any():
        return 0
    counts = np.bincount(labels.reshape(-1), minlength=256)[1:]
    areas = counts[counts > 0]
    ids = len(areas) < _FEWEST_LEVELS or largest <= 2 * len(areas) < 2 * _MOST_VALUES
    return 0 if ids or np.median(areas) > labels.size * _SMALL_AREA else len(areas)


@METRICS.register_module()
class DAVIS17Evaluator(ObjectEvaluator):
    """DAVIS-2017, semi-supervised: ids are given in the first frame; mean over all objects of all videos.

    Pont-Tuset et al., arXiv:1704.00675. The objects are 1..K, K being the largest id of the first mask; 255 in the
    truth is background.
    """

    protocol_name = "DAVIS-2017, semi-supervised"
    equals = "the davis2017-evaluation toolkit (semi-supervised)"

    def _begin(self, state: dict, target: np.ndarray) -> None:
        _begin_with_first_mask(state, target)
        state["excess"] = None

    def _score(self, state: dict, frame: int, pred: np.ndarray, target: np.ndarray) -> Scores:
        if state["excess"]:  # the frame before was not the last
            raise state["excess"]
        state["largest"] = max(state["largest"], largest_id(target))
        number, objects = int(pred.max()), len(state["ids"])
        if number > objects:
            late = "; for objects that come later, take vos-benchmark" if number <= state["largest"] else ""
            state["excess"] = DataError(
                f"prediction of frame {frame} of video {state['name']!r}: id {number}",
                f"0..{objects}, the ids of the first mask of the video",
                "store ids as given in the first mask, and background as 0 (not 255)" + late
                if objects
                else "the first mask is empty, or has no ids but 255, which is void here: for masks of 0 and 255, take "
                "davis16" + late,
            )
        return label_scores(pred, target, state["ids"], self._masks)

    def _close(self, state: dict, frames: list[int], rows: list) -> ObjectVideo:
        _tell_of_late_objects(state, ". --protocol vos-benchmark scores objects that come later, too")
        return super()._close(state, frames, rows)


def _begin_with_first_mask(state: dict, target: np.ndarray) -> None:
    """The objects of a video are those of its first mask: 1..K, K being the largest id."""
    state["largest"] = largest_id(target)
    state["ids"] = tuple(range(1, state["largest"] + 1))


def _tell_of_late_objects(state: dict, advice: str = "") -> None:
    """Objects that come later are not scored, by the toolkit neither: other data sets than DAVIS have them."""
    if state["largest"] > len(state["ids"]):
        logger.warning(
            "video %r: ids up to %d in the truth, but only those of the first mask (%s) are scored, as by the "
            "toolkit%s",
            *(state["name"], state["largest"], f"1 to {len(state['ids'])}" if state["ids"] else "none", advice),
        )


def largest_id(labels: np.ndarray) -> int:
    """The largest id in labels (H, W), void aside."""
    largest = int(labels.max())
    return largest if largest != VOID else int(np.where(labels == VOID, 0, labels).max())


@METRICS.register_module()
class DAVIS17UnsupervisedEvaluator(ObjectEvaluator):
    """DAVIS-2017, unsupervised: up to 20 proposals a video, matched with its objects one to one; all frames count.

    Caelles et al., arXiv:1905.00737. Pixels of label 255 in the truth are taken out of both masks. The matching is the
    best for the mean of J and F; results are told by object, not by proposal as the toolkit's table does.
    """

    protocol_name = "DAVIS-2017, unsupervised"
    equals = "the davis2017-evaluation toolkit (unsupervised)"
    inner = False

    def _begin(self, state: dict, target: np.ndarray) -> None:
        _begin_with_first_mask(state, target)
        state["proposals"] = 0

    def _score(self, state: dict, frame: int, pred: np.ndarray, target: np.ndarray) -> tuple[dict[int, Scores], Scores]:
        number = int(pred.max())
        if number > MAX_PROPOSALS:
            raise DataError(
                f"prediction of frame {frame} of video {state['name']!r}: proposal {number}",
                f"at most {MAX_PROPOSALS} proposals, numbered from 1",
                "keep the best ones, and store background as 0 (not 255)",
            )
        state["proposals"] = max(state["proposals"], number)
        state["largest"] = max(state["largest"], largest_id(target))
        return proposal_scores(pred, target, len(state["ids"]), self._masks)

    def _row_score(self, row: object) -> float:
        return float("nan")  # proposals are matched when the video is complete

    def _close(self, state: dict, frames: list[int], rows: list) -> ObjectVideo:
        _tell_of_late_objects(state)
        ids = state["ids"]
        number = max(state["proposals"], len(ids))
        # (frames, measures, proposals, objects)
        scores = np.array([[found.get(p + 1, absent) for p in range(number)] for found, absent in rows])
        scores = scores.reshape(len(rows), number, 2, len(ids)).transpose(2, 1, 3, 0)
        from scipy.optimize import linear_sum_assignment  # only now: its import takes a while

        best = linear_sum_assignment(-(scores[0].mean(axis=-1) + scores[1].mean(axis=-1)) / 2)
        proposal_of = {int(k): int(p) for p, k in zip(*best)}
        rows_of = [proposal_of[k] for k in range(len(ids))]
        region, boundary = (scores[m, rows_of, range(len(ids))] for m in range(2))
        matches = {k + 1: p + 1 if p < state["proposals"] else 0 for k, p in proposal_of.items()}
        return ObjectVideo(frames, ids, region, boundary, matches)


@METRICS.register_module()
class VOSBenchmarkEvaluator(ObjectEvaluator):
    """As vos-benchmark: every id but 0 is an object, from the first frame on in which truth or prediction shows it.

    Ids that only the prediction has do not count. 255 is an id like any other.

    Args:
        video_order: see :class:`ObjectEvaluator`.
        all_frames: count the first and the last frame, too.
    """

    protocol_name = "vos-benchmark"
    equals = "the package vos-benchmark (which gives percent)"

    def __init__(self, video_order: Sequence[str] | None = None, all_frames: bool = False) -> None:
        super().__init__(video_order)
        self.inner = not all_frames

    def _begin(self, state: dict, target: np.ndarray) -> None:
        state["seen"] = set()

    def _score(self, state: dict, frame: int, pred: np.ndarray, target: np.ndarray) -> tuple[set[int], dict]:
        codes, _ = joint_counts(target, pred)
        shown = set(np.unique(codes >> 8).tolist()) - {0}
        state["seen"] |= shown | set(np.unique(codes & 255).tolist()) - {0}
        ids = sorted(state["seen"])
        j, f = label_scores(pred, target, ids, self._masks)
        return shown, dict(zip(ids, zip(j, f)))

    def _row_score(self, row: object) -> float:
        return float("nan")  # an id that only the prediction has may still turn out to be an object

    def _close(self, state: dict, frames: list[int], rows: list) -> ObjectVideo:
        ids = tuple(sorted(set().union(*(shown for shown, _ in rows))))
        scores = np.full((2, len(ids), len(rows)), np.nan)
        for t, (_, found) in enumerate(rows):
            for k, number in enumerate(ids):
                if number in found:
                    scores[:, k, t] = found[number]
        return ObjectVideo(frames, ids, *scores)

    def check_plausible(self) -> None:
        """Also tells of masks of 0 and 255, whose object no prediction calls 255."""
        super().check_plausible()
        videos = self.videos.values()
        if all(set(video.ids) <= {VOID} and not np.nansum(video.region) for video in videos):
            logger.warning(
                "%d is the only object in the truth, and no prediction has it: everything scores 0. Masks of 0 and "
                "255 are DAVIS-2016's: take --protocol davis16",
                VOID,
            )


@METRICS.register_module()
class PooledFramesEvaluator(DAVIS16Evaluator):
    """HFAN's evaluation during training (metric VOS): JM, JO, FM, FO over the frames of all videos in one list.

    Long videos weigh more here, and the first and last frames count: these are not the numbers of the papers. JO and
    FO, the shares above 0.5, leave the very first and the very last frame of the whole list out.
    """

    protocol_name = "all frames pooled, as HFAN during training"
    equals = "JM, JO, FM, FO of HFAN's training log (not the DAVIS-2016 numbers of its paper)"

    def __init__(self, video_order: Sequence[str] | None = None, ignore_index: int | None = None) -> None:
        super().__init__(video_order, True, ignore_index)

    def compute(self) -> dict[str, object]:
        """``JM, JO, FM, FO`` as fractions, and what the DAVIS-2016 evaluator gives over all frames."""
        found = super().compute()
        videos = self.videos.values()
        pooled = {}
        for measure, lists in (("J", [v.region[0] for v in videos]), ("F", [v.boundary[0] for v in videos])):
            values = np.concatenate(lists or [np.empty(0)])
            pooled[f"{measure}M"] = mean(values)
            pooled[f"{measure}O"] = mean(values[1:-1] > RECALL_THRESHOLD)
        return {**pooled, **found}

    def mmseg_evaluate(self) -> dict[str, float]:
        """What the published ``dataset.evaluate`` returns: round(100 x, 2) / 100."""
        return {name: float(np.round(100 * value, 2)) / 100 for name, value in self.scores().items()}

    @property
    def score_names(self) -> list[str]:
        return ["JM", "JO", "FM", "FO"]

    def why_undefined(self, name: str) -> str:
        return "there are fewer than three frames"
