"""Metrics: label maps in, numbers out. NumPy and OpenCV only, no model, no data set.

Every accumulator has ``update(video, frame, pred, target)``, ``end_video(video)``, ``compute() -> dict`` and
``merge(other)``, can be pickled, and gives the same bits however the videos were dealt to processes.
"""

from mmseg.evaluation.base import Evaluator
from mmseg.evaluation.consistency import VideoConsistency
from mmseg.evaluation.semantic import SegmentationMetric, class_scores, mmseg_scores, vspw_scores
from mmseg.evaluation.temporal import TemporalConsistency, warp_labels
from mmseg.evaluation.vspw import VSPWEvaluator

__all__ = [
    "Evaluator",
    "SegmentationMetric",
    "TemporalConsistency",
    "VSPWEvaluator",
    "VideoConsistency",
    "class_scores",
    "mmseg_scores",
    "vspw_scores",
    "warp_labels",
]
