"""Several frames of a video as one batch: the results of one at a time, in order, whatever goes wrong in between."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
import torch

from mmseg.engine.predict import predict
from mmseg.engine.predictor import VideoPredictor
from mmseg.engine.together import together
from mmseg.errors import ConfigError, DataError
from mmseg.models import build_segmentor
from mmseg.structures import Frame
from tests.contract.systems import SIZE, small
from tests.engine.test_ahead import IN_PARTS, PIPELINE, SMALL, STEPS, TestPipeline, frames
from tests.golden_cases import build_filled

SHORT = {"dilation": (-3, -2, -1)}  # so that some frames have references and others have none


def settings_of(system, model) -> dict:
    return {**system.settings(), **(SHORT if "dilation" in model.stream_settings else {})}


def both(model, count: int, size=SMALL, pipeline=PIPELINE, **options) -> tuple[list, list]:
    """Results one at a time, and of several together."""
    options = {"returns": ("scores",), "source": "some video", **options}
    given = [frames(count, size, model.takes_flow) for _ in range(2)]
    return list(predict(model, given[0], pipeline, ahead=False, **options)), list(
        together(VideoPredictor(model, pipeline, **options), given[1])
    )


def check_alike(one: list, several: list, rtol: float = 1e-4) -> None:
    assert [result.frame.number for result in one] == [result.frame.number for result in several]
    for a, b in zip(one, several, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, rtol=rtol, atol=rtol * abs(a.scores).max())
        assert (a.labels == b.labels).mean() > 0.999


@pytest.mark.parametrize("system", IN_PARTS, ids=[system.name for system in IN_PARTS])
def test_scores_are_those_of_one_at_a_time(system):
    model = system.model()
    one, several = both(model, 11, SIZE, settings=settings_of(system, model))
    assert len(one) == 10
    check_alike(one, several)


def test_the_network_sees_eight_frames_at_once(monkeypatch):
    model = next(system for system in IN_PARTS if system.name == "CFFM").model()
    embedded, decoded = [], []
    embed, decode = model.decode_head.embed, model.decode_head.decode
    monkeypatch.setattr(
        model.decode_head, "embed", lambda feats, *a: embedded.append(len(feats[0])) or embed(feats, *a)
    )
    monkeypatch.setattr(
        model.decode_head, "decode", lambda target, *a, **k: decoded.append(len(target.half)) or decode(target, *a, **k)
    )
    list(together(VideoPredictor(model, PIPELINE, SHORT), frames(19)))
    assert embedded == [8, 8, 3]
    assert decoded == [5, 8, 3]  # the first three frames have no references, and one of them is not wanted


def test_prototypes_of_a_live_stream_are_those_of_its_frame():
    """Each frame has prototypes of its own, however many frames are decoded with it."""
    model = build_filled(build_segmentor, small(("cffm", "cffmpp_b1_seg"), prototypes="auto", n_clusters=5))
    check_alike(*both(model, 7, settings=SHORT))


def test_averaged_views_and_windows():
    model = next(system for system in IN_PARTS if system.name == "SegFormer").model()
    views = TestPipeline(
        [dict(type="MultiScaleFlipAug", img_scale=SMALL[::-1], flip=True, transforms=[dict(type="RandomFlip"), *STEPS])]
    )
    check_alike(*both(model, 4, pipeline=views))
    model.windows = ((32, 32), (16, 16))
    check_alike(*both(model, 4))


def test_results_of_frames_before_a_bad_one_come_first():
    model = next(system for system in IN_PARTS if system.name == "CFFM").model()
    given = [*frames(5), Frame(5, "large", np.zeros((48, 64, 3), np.uint8)), *list(frames(9))[6:]]
    seen = []
    with pytest.raises(DataError, match=r"frame 5 \(large\)"):
        for result in together(VideoPredictor(model, PIPELINE), given):
            seen.append(result.frame.number)
    assert seen == [0, 1, 3, 4]


def test_what_cannot_be_decoded_is_told_in_its_turn():
    """MRCFA takes frames of this size for as long as they have no references."""
    model = next(system for system in IN_PARTS if system.name == "MRCFA").model()
    seen = []
    with pytest.raises(DataError, match=r"^frame 3 \(003\): MRCFA cannot use images of about 32 x 48"):
        for result in together(VideoPredictor(model, PIPELINE, SHORT), frames(12)):
            seen.append(result.frame.number)
    assert seen == [0, 1]


def test_a_source_that_breaks_off_gives_what_came_before():
    model = next(system for system in IN_PARTS if system.name == "SegFormer").model()

    def broken():
        yield from frames(4)
        raise OSError("the cable was pulled")

    seen = []
    with pytest.raises(RuntimeError, match="frame 4: the cable was pulled"):
        for result in together(VideoPredictor(model, PIPELINE), broken()):
            seen.append(result.frame.number)
    assert seen == [0, 1, 3]


def test_no_graph_is_kept_of_what_a_model_prepares(monkeypatch):
    model = next(system for system in IN_PARTS if system.name == "SegFormer").model()
    monkeypatch.setattr(model, "prepare", lambda view: torch.is_grad_enabled())
    predictor = VideoPredictor(model, PIPELINE)
    [frame] = frames(1)
    [alone], [[several]] = predictor.prepare(frame), predictor.prepare_together([predictor.views(frame)])
    assert alone[1] is False and several[1] is False


def test_what_does_not_fit_in_memory_is_computed_alone(monkeypatch):
    model = next(system for system in IN_PARTS if system.name == "CFFM").model()
    one, _ = both(model, 7, settings=SHORT)
    for name in ("embed", "decode"):
        original = getattr(model.decode_head, name)

        def small_memory(first, *rest, original=original):
            if len(first[0]) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return original(first, *rest)

        monkeypatch.setattr(model.decode_head, name, small_memory)
    several = list(together(VideoPredictor(model, PIPELINE, SHORT, returns=("scores",)), frames(7)))
    check_alike(one, several)


def test_weights_that_change_are_noticed_and_closing_ends_the_threads():
    model = next(system for system in IN_PARTS if system.name == "SegFormer").model()
    with closing(together(VideoPredictor(model, PIPELINE), frames(60))) as results:
        next(results)
        model.load_state_dict(model.state_dict())
        with pytest.raises(ConfigError, match="have changed"):
            list(results)
