"""Metrics: label maps in, numbers out. NumPy and OpenCV only, no model, no data set.

Every accumulator has ``update(video, frame, pred, target)``, ``end_video(video)``, ``compute() -> dict`` and
``merge(other)``, can be pickled, and gives the same bits however the videos were dealt to processes.
"""

from mmseg.evaluation.base import Evaluator
from mmseg.evaluation.consistency import VideoConsistency
from mmseg.evaluation.davis import (
    DAVIS16Evaluator,
    DAVIS17Evaluator,
    DAVIS17UnsupervisedEvaluator,
    PooledFramesEvaluator,
    VOSBenchmarkEvaluator,
)
from mmseg.evaluation.frame_scores import FrameScores
from mmseg.evaluation.frame_statistics import frame_statistics
from mmseg.evaluation.object_scores import boundary_measure, region_similarity
from mmseg.evaluation.saliency import saliency_scores
from mmseg.evaluation.semantic import SegmentationMetric, class_scores, mmseg_scores, vspw_scores
from mmseg.evaluation.temporal import TemporalConsistency, warp_labels
from mmseg.evaluation.video_saliency import VideoSaliencyEvaluator
from mmseg.evaluation.vspw import VSPWEvaluator
from mmseg.evaluation.youtube import YouTubeVOSEvaluator

__all__ = [
    "DAVIS16Evaluator",
    "DAVIS17Evaluator",
    "DAVIS17UnsupervisedEvaluator",
    "Evaluator",
    "FrameScores",
    "PooledFramesEvaluator",
    "SegmentationMetric",
    "TemporalConsistency",
    "VOSBenchmarkEvaluator",
    "VSPWEvaluator",
    "VideoConsistency",
    "VideoSaliencyEvaluator",
    "YouTubeVOSEvaluator",
    "boundary_measure",
    "class_scores",
    "frame_statistics",
    "mmseg_scores",
    "region_similarity",
    "saliency_scores",
    "vspw_scores",
    "warp_labels",
]
