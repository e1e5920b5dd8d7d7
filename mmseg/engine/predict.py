"""The one prediction loop: frames of a video go in, label maps come out; for data sets, files, generators, cameras.

A model answers for a frame at once, some frames later, or not at all (:mod:`mmseg.models.stream`); results come in
frame order, and what waits for one is kept without its picture.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import torch

from mmseg.datasets.transforms import TestPipeline
from mmseg.engine.ahead import made_ahead, side_by_side, works_side_by_side
from mmseg.engine.answers import Returned
from mmseg.engine.predictor import VideoPredictor
from mmseg.engine.together import together, works_together
from mmseg.errors import ConfigError
from mmseg.models.base import VideoModel
from mmseg.structures import Frame, Result, Video

_AHEAD = 4  # frames whose views are made in advance


def predict(
    model: VideoModel,
    frames: Iterable[Frame],
    pipeline: TestPipeline,
    settings: Mapping[str, Any] | None = None,
    *,
    video: Video | None = None,
    source: Any = None,
    amp: torch.dtype | None = None,
    returns: Collection[Returned] = (),
    ahead: bool = True,
) -> Iterator[Result]:
    """One result for every wanted frame, in frame order.

    Memory does not grow with the length of the video, except where a model says that it keeps something per frame.

    Args:
        model: in eval mode.
        frames: of one video, oldest first.
        pipeline: gives the views of a frame; with several of them (augmentation) probabilities are averaged.
        settings: of the model's stream, see :func:`stream_settings`.
        video: what the results are said to belong to.
        source: name of the video, or all of it, for models that keep something per video.
        amp: type to compute in under autocast, e.g. ``torch.bfloat16``; None computes in the type of the weights.
            bfloat16 is, for models that keep their precision so, the type of all weights and activations instead.
        returns: what the results carry beside the labels: "scores", "logits", "probabilities", "confidence"; see
            :class:`Result`.
        ahead: a few frames are taken in before the result of the first of them is handed out; on a GPU they are
            computed together. False, for frames that come as time goes by: what is known is handed out before the next
            frame is asked for.

    Raises:
        ConfigError: `returns` holds what this model cannot give.
        SegError: bad input; the message names the frame.
    """
    predictor = VideoPredictor(model, pipeline, settings, video=video, source=source, amp=amp, returns=returns)
    several = side_by_side if works_side_by_side(predictor) else together if works_together(predictor) else None
    if ahead and several is not None:
        with closing(several(predictor, frames)) as results:
            yield from results
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="views")
    try:
        with closing(made_ahead(frames, predictor.views, pool, _AHEAD if ahead else 0)) as items:
            for frame, views in items:
                yield from predictor.push_views(frame, views)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    yield from predictor.finish()


def stream_settings(
    data: Mapping[str, Any] | None, test_cfg: Mapping[str, Any] | None, model: VideoModel
) -> dict[str, Any]:
    """The settings of the model's streams: the one reader of what a config says about them.

    Args:
        data: ``data.test`` or ``data.val``: its keys that the model's streams take (`dilation`, `test_size`, ...).
        test_cfg: ``test_cfg`` of the model, the same.
        model: a model of single frames takes `dilation` as said and needless.

    Raises:
        ConfigError: the two disagree, or a setting does not fit the model.
    """
    settings: dict[str, Any] = {}
    for place, section in (("data.test", data), ("test_cfg", test_cfg)):
        for name in model.stream_settings:
            value = (section or {}).get(name)
            if value is None:
                continue
            value = tuple(value) if isinstance(value, list) else value
            if settings.setdefault(name, value) != value:
                raise ConfigError(
                    f"{place}.{name} = {value!r}, but data.test says {settings[name]!r}", "one value", "drop one"
                )
    clips = (data or {}).get("test_size", 1)  # 1 is what all models do
    model.check_settings(settings if clips == 1 else {"test_size": clips, **settings})
    return settings
