"""What VideoStream gives back beside label maps, what it holds on to, and where it may run."""

from __future__ import annotations

import gc
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from mmseg.apis import VideoStream, init_segmentor
from mmseg.errors import ConfigError
from tests.engine.test_predict import TRANSFORMS, Objects, Threshold, picture, truth
from tests.engine.tiny_vspw import make_data, write_config

TEST = dict(pipeline=[dict(type="MultiScaleFlipAug", img_scale=(32, 24), transforms=TRANSFORMS)])


@pytest.fixture(scope="module")
def cffm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cffm")
    make_data(folder / "data", {"a": 2})
    torch.manual_seed(0)
    return init_segmentor(write_config(folder / "cffm.py", folder / "data"))


def threshold(**settings) -> Threshold:
    model = Threshold().eval()
    model.cfg = {"data": {"test": {**TEST, **settings}}}
    return model


def frame(t: int) -> np.ndarray:
    return np.random.default_rng(t).integers(0, 256, (45, 70, 3), dtype=np.uint8)


def labels_of(model, count: int, seed: int = 0) -> list[np.ndarray]:
    with VideoStream(model) as video:
        return [video.step(frame(seed + t)) for t in range(count)]


def test_what_is_asked_for_comes_with_the_labels(cffm):
    plain = labels_of(cffm, 2)
    video = VideoStream(cffm, returns=("labels", "logits", "probabilities", "confidence"))
    for t in range(2):
        result = video.step(frame(t))
        assert np.array_equal(result.labels, plain[t]) and result.frame.number == t and result.ids is None
        assert result.logits.shape == result.probabilities.shape == (cffm.num_classes, 45, 70)
        assert np.array_equal(result.logits.argmax(0), result.labels) and result.scores is None
        np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)
        assert np.array_equal(result.confidence, result.probabilities.max(0))
    averaged = VideoStream(cffm, aug_test=True, returns=["probabilities"]).step(frame(0))
    assert np.array_equal(averaged.probabilities.argmax(0), averaged.labels)
    with pytest.raises(ConfigError, match=r"(?s)'colours'.*labels, scores"):
        VideoStream(cffm, returns=("colours",))
    with pytest.raises(ConfigError, match="which sees each frame in 12 views"):
        VideoStream(cffm, aug_test=True, returns=("logits",))
    with pytest.raises(ConfigError, match="returns = 'labels'"):
        VideoStream(cffm, returns="labels")


def test_objects_have_rows_of_their_ids_and_nothing_before_the_first_mask():
    model = Objects().eval()
    model.score_kind, model.cfg = "probabilities", {"data": {"test": TEST}}
    video = VideoStream(model, returns=("probabilities",))
    before = video.step(picture(0))
    assert not before.labels.any() and before.probabilities is None and before.ids is None
    mask = np.zeros((24, 32), np.uint8)
    mask[3:9, 2:12] = 40
    result = video.step(picture(1), mask=mask)
    assert result.ids == (0, 40) and np.array_equal(result.probabilities[1] > 0.5, mask == 40)


def test_late_results_carry_it_too(caplog):
    with VideoStream(threshold(), returns=("probabilities",), block=2) as video:
        assert video.push(picture(0)) == []
        answers = [*video.push(picture(1)), *video.push(picture(2)), *video.finish()]
        assert [number for number, _ in answers] == [0, 1, 2]
        for number, result in answers:
            assert np.array_equal(result.labels, truth(number)) and result.probabilities.shape == (2, 24, 32)
    assert not caplog.records


def test_leaving_the_block_forgets_the_video_and_tells_what_is_lost(caplog):
    video = VideoStream(threshold(), block=2)
    with caplog.at_level(logging.WARNING), video:
        video.push(picture(0))
    assert "results of 1 frame(s) were not asked for" in caplog.text and "finish()" in caplog.text
    with video:  # the same stream, the next video
        video.push(picture(3))
        assert [number for number, _ in video.push(picture(4))] == [0, 1]
    caplog.clear()
    with pytest.raises(ZeroDivisionError), video:
        video.push(picture(0))
        raise ZeroDivisionError
    assert not caplog.records  # the error tells more


def test_no_graph_is_kept_alive(cffm):
    """With weights that want gradients, and gradients switched on, nothing that lives on has a history."""
    assert all(parameter.requires_grad for parameter in cffm.parameters()) and torch.is_grad_enabled()
    video = VideoStream(cffm, returns=("logits", "probabilities"))
    results = [video.step(frame(t)) for t in range(2)]
    gc.collect()
    with_history = [o for o in gc.get_objects() if type(o) is torch.Tensor and o.grad_fn is not None]
    assert not with_history and results[1].logits.any()


def test_threads_with_streams_of_their_own(cffm):
    """Several streams share one model; each has the results that it has alone."""
    expected = [labels_of(cffm, 3, seed) for seed in (0, 100, 200)]
    together = threading.Barrier(3)

    def run(seed: int) -> list[np.ndarray]:
        together.wait()
        return labels_of(cffm, 3, seed)

    with ThreadPoolExecutor(3) as pool:
        for alone, got in zip(expected, pool.map(run, (0, 100, 200)), strict=True):
            assert np.array_equal(alone, got)


def test_a_model_that_is_moved_begins_anew():
    """CPUs have one place but several types, which are the same to a stream: its memory is of the old one."""
    model = threshold()
    video, other = VideoStream(model), VideoStream(model)
    for stream in (video, other):
        stream.step(picture(0))
    assert video.to("cpu", torch.float64) is video and next(model.parameters()).dtype is torch.float64
    assert video.step(picture(1)).any()  # the first frame of a video
    with pytest.raises(ConfigError, match=r"(?s)middle of a video.*reset\(\)"):
        other.step(picture(1))
    other.reset()
    assert np.array_equal(other.step(picture(1)), truth(1))
    exact = VideoStream(model, returns=("logits",)).step(picture(2))
    assert exact.logits.dtype == np.float64
    for place, message in (
        ("gpu", "device 'gpu'"),
        (torch.device("meta"), "device 'meta'"),
        ("cuda:99", "GPUs found"),
        (3, "device = 3"),
    ):
        with pytest.raises(ConfigError, match=message):
            video.to(place)
    with pytest.raises(ConfigError, match=r"dtype = torch\.int8"):
        video.to(dtype=torch.int8)


def test_what_computes_flow_is_moved_along(tmp_path):
    from tests.datasets.vos_folder import vos_config, write_vos

    write_vos(tmp_path / "data", {"bear": 2})
    video = VideoStream(init_segmentor(vos_config(tmp_path / "hfan.py", tmp_path / "data")), flow="farneback")
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    assert video.push(image) == []
    video.to("cpu")
    assert video.push(image) == [] and [number for number, _ in video.finish()] == [0]
