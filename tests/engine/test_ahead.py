"""Frames side by side on a CPU: the results of one thread bit for bit, in order, with few frames in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import pytest
import torch

from mmseg.datasets.transforms import TestPipeline
from mmseg.engine import predict as engine
from mmseg.errors import ConfigError, DataError
from mmseg.models import build_segmentor
from mmseg.structures import Frame
from tests.contract.systems import SIZE, SYSTEMS, small
from tests.golden_cases import build_filled

STEPS = [
    dict(type="Normalize", mean=[100, 110, 120], std=[60, 60, 60], to_rgb=True),
    dict(type="ImageToTensor", keys=["img"]),
    dict(type="Collect", keys=["img"]),
]
PIPELINE = TestPipeline(STEPS)
SMALL = (32, 48)  # which CFFM takes, and not all others
IN_PARTS = [system for system in SYSTEMS if system.name in ("SegFormer", "CFFM", "CFFM++", "MRCFA", "HFAN")]


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def frames(count: int, size=SMALL, flow: bool = False) -> Iterator[Frame]:
    generator = np.random.default_rng(0)
    for t in range(count):
        image, moved = generator.integers(0, 256, (2, *size, 3), np.uint8)
        yield Frame(t, f"{t:03d}", image, flow=moved if flow else None, wanted=t != 2)


def results(model, given, count: int, **options) -> list:
    with threads(count):
        return list(engine.predict(model, given, PIPELINE, returns=("scores",), **options))


@pytest.fixture(scope="module")
def cffm():
    return next(system for system in SYSTEMS if system.name == "CFFM").model()


@pytest.mark.parametrize("system", IN_PARTS, ids=[system.name for system in IN_PARTS])
def test_scores_are_those_of_one_thread(system):
    model = system.model()
    assert model.in_parts
    settings = {**system.settings(), **({"dilation": (-3, -2, -1)} if "dilation" in model.stream_settings else {})}
    given = [list(frames(5, SIZE, model.takes_flow)) for _ in range(2)]
    one, two = (results(model, given[i], i + 1, settings=settings, source="some video") for i in range(2))
    assert [result.frame.number for result in two] == [0, 1, 3, 4]
    for a, b in zip(one, two, strict=True):
        assert a.frame.number == b.frame.number
        np.testing.assert_array_equal(a.scores, b.scores)
        np.testing.assert_array_equal(a.labels, b.labels)


def test_prototypes_of_a_live_stream_are_those_of_its_frame():
    """Later frames, which are encoded already, have no influence."""
    config = small(("cffm", "cffmpp_b1_seg"), prototypes="auto", n_clusters=5)
    model = build_filled(build_segmentor, config)
    one, two = (results(model, frames(5), i + 1, settings={"dilation": (-3, -2, -1)}) for i in range(2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)  # the prototypes are made with all cores


def test_averaged_views_and_autocast(cffm):
    views = TestPipeline(
        [dict(type="MultiScaleFlipAug", img_scale=SMALL[::-1], flip=True, transforms=[dict(type="RandomFlip"), *STEPS])]
    )
    found = []
    for count in (1, 2):
        with threads(count):
            found.append(list(engine.predict(cffm, frames(2), views, amp=torch.bfloat16, returns=("scores",))))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a.scores, b.scores)


def test_few_frames_are_taken_in_advance_and_closing_ends_the_threads(cffm):
    taken = []

    def given():
        try:
            for frame in frames(50):
                taken.append(frame.number)
                yield frame
        finally:
            taken.append("closed")

    with threads(2):
        with closing(engine.predict(cffm, given(), PIPELINE)) as answers:
            assert [next(answers).frame.number for _ in range(3)] == [0, 1, 3]
            assert max(taken) <= 3 + 6
            assert any(thread.name.startswith("frames") for thread in threading.enumerate())
        assert taken[-1] == "closed"
        assert not any(thread.name.startswith("frames") for thread in threading.enumerate())
        assert torch.get_num_threads() == 2
        seen = []
        other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert seen == [2]


def test_predictions_in_threads_of_their_own_share_the_cores_alike(cffm):
    found = []

    def predicted():
        labels = [result.labels for result in engine.predict(cffm, frames(2), PIPELINE)]
        found.append((torch.get_num_threads(), labels))

    with threads(2):
        predicted()
        others = [threading.Thread(target=predicted) for _ in range(3)]
        for other in others:
            other.start()
        for other in others:
            other.join()
    assert [count for count, _ in found] == [2] * 4
    for _, labels in found:
        np.testing.assert_array_equal(labels, found[0][1])


def test_frames_that_come_as_time_goes_by_wait_for_no_others(cffm):
    seen = []

    def given():
        for frame in frames(3):
            assert seen == list(range(frame.number))
            yield frame

    with threads(2):
        for result in engine.predict(cffm, given(), PIPELINE, ahead=False):
            seen.append(result.frame.number)
    assert seen == [0, 1]


def test_errors_come_after_the_results_of_the_frames_before(cffm):
    def broken():
        yield from frames(5)
        raise DataError("the file ends here", "a whole file", "copy it again")

    odd = [*frames(4), Frame(4, "four", next(frames(1, (48, 96))).image), *frames(3)]
    tiny = [*frames(4), Frame(4, "four", np.zeros((8, 8, 3), np.uint8))]  # which the backbone refuses, in a thread
    for given, message in ((broken(), "frame 5: the file"), (odd, "four.*96x48 pixels"), (tiny, "four")):
        seen = []
        with threads(2), pytest.raises(DataError, match=message):
            for result in engine.predict(cffm, given, PIPELINE):
                seen.append(result.frame.number)
        assert seen == ([0, 1, 3, 4] if given is not odd and given is not tiny else [0, 1, 3])
    assert not any(thread.name.startswith("frames") for thread in threading.enumerate())


def test_weights_that_change_in_the_middle_are_told(cffm):
    with threads(2), closing(engine.predict(cffm, frames(9), PIPELINE)) as answers:
        next(answers)
        cffm.double()
        try:
            with pytest.raises((ConfigError, DataError), match="weights"):
                list(answers)
        finally:
            cffm.float()
