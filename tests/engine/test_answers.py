"""What a result carries beside its labels: values at frame size, under their ids, and true."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmseg.datasets.transforms import TestPipeline
from mmseg.engine.answers import undo
from mmseg.engine.predict import predict
from mmseg.engine.predictor import VideoPredictor
from mmseg.errors import ConfigError
from mmseg.models.stream import Stream
from mmseg.structures import Frame, Scores
from tests.engine.test_predict import PADDED, PIPELINE, TRANSFORMS, Objects, Threshold, frames, picture

EVERYTHING = ("scores", "logits", "probabilities", "confidence")
SAME_SIZE = TestPipeline([dict(type="MultiScaleFlipAug", img_ratios=[1.0], flip=True, transforms=TRANSFORMS)])


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(0))
    return powers / powers.sum(0)


@pytest.mark.parametrize("pipeline", [PIPELINE, PADDED], ids=["resized", "padded"])
def test_logits_and_what_follows_from_them(pipeline):
    plain = list(predict(Threshold().eval(), frames(3, size=(20, 27)), pipeline))
    full = list(predict(Threshold().eval(), frames(3, size=(20, 27)), pipeline, returns=EVERYTHING))
    for without, result in zip(plain, full, strict=True):
        assert all(getattr(without, name) is None for name in EVERYTHING)
        np.testing.assert_array_equal(result.labels, without.labels)
        assert result.logits.shape == (2, 20, 27) and result.logits.dtype == np.float32
        np.testing.assert_array_equal(result.scores, result.logits)
        np.testing.assert_array_equal(result.logits.argmax(0), result.labels)
        np.testing.assert_allclose(result.probabilities, softmax(result.logits), atol=1e-6)
        np.testing.assert_array_equal(result.confidence, result.probabilities.max(0))


def test_only_what_was_asked_for():
    [result] = predict(Threshold().eval(), frames(1), PIPELINE, returns=("labels", "confidence"))
    assert result.confidence.shape == (24, 32) and result.probabilities is None and result.logits is None


def test_probabilities_are_no_logits():
    model = Threshold("probabilities").eval()
    model.score_kind = "probabilities"
    [result] = predict(model, frames(1), PADDED, returns=("scores", "probabilities"))
    np.testing.assert_array_equal(result.scores, result.probabilities)
    assert result.probabilities.min() >= 0 and result.probabilities.max() <= 1
    with pytest.raises(ConfigError, match=r"(?s)logits of a Threshold, which answers with probabil.*'probabilities'"):
        VideoPredictor(model, PIPELINE, returns=("logits",))


def test_scores_are_no_confidence():
    model = Threshold("scores").eval()
    model.score_kind = "scores"
    for name in ("probabilities", "confidence", "logits"):
        with pytest.raises(ConfigError, match=f"(?s){name} of a Threshold.*'scores'"):
            VideoPredictor(model, PIPELINE, returns=("labels", name))
    [result] = predict(model, frames(1), PIPELINE, returns=("scores",))
    np.testing.assert_array_equal(result.scores.argmax(0), result.labels)
    model.score_kind = "logits"  # a model that says so, and is not
    with pytest.raises(ConfigError, match="confidence of a Threshold"):
        list(predict(model, frames(1), PIPELINE, returns=("confidence",)))


def test_names_that_nobody_knows():
    with pytest.raises(ConfigError, match=r"(?s)'probability'.*did you mean 'probabilities'"):
        VideoPredictor(Threshold().eval(), PIPELINE, returns=("probability",))


def test_with_augmentation_probabilities_are_averaged():
    model, views = Threshold().eval(), PIPELINE.augmented()
    with pytest.raises(ConfigError, match="logits of a Threshold, which sees each frame in 12 views"):
        list(predict(model, frames(1), views, returns=("logits",)))
    with pytest.raises(ConfigError, match="sees each frame in 2 views"):
        VideoPredictor(model, SAME_SIZE, returns=("logits",))
    [result] = predict(model, frames(1), views, returns=("scores", "probabilities", "confidence"))
    per_view = []
    for view in views.views(next(frames(1))):
        blue = view.inputs["img"][0] - 127.0
        per_view.append(undo(torch.stack([torch.zeros_like(blue), blue]), view.size, view.steps, (24, 32)).softmax(0))
    np.testing.assert_allclose(result.probabilities, torch.stack(per_view).mean(0), atol=1e-6)
    np.testing.assert_array_equal(result.scores, result.probabilities)
    np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)


def test_rows_are_named_by_ids_and_there_is_nothing_before_the_first_mask():
    model = Objects().eval()
    model.score_kind = "probabilities"
    mask = np.zeros((24, 32), np.int64)
    mask[2:20, 4:12], mask[5:9, 20:31] = 200, 7
    given = [Frame(t, str(t), picture(t), given=mask if t == 1 else None) for t in range(3)]
    before, *after = predict(model, given, PIPELINE, returns=("probabilities", "confidence"))
    assert before.labels is None and before.probabilities is None and before.confidence is None
    for result in after:
        assert result.ids == (0, 7, 200) and result.probabilities.shape == (3, 24, 32)
        np.testing.assert_array_equal(result.probabilities[2] > 0.5, mask == 200)
        np.testing.assert_array_equal(np.array(result.ids)[result.probabilities.argmax(0)], result.labels)


class Remembering(Objects):
    """Answers every frame with the very tensor that it remembers."""

    score_kind = "probabilities"

    def stream(self, video=None) -> Stream:
        return RememberingStream(self)


class RememberingStream(Stream):
    memory = None

    def _take(self, view):
        if self.memory is None:
            self.memory = torch.stack([torch.full(view.size, 0.75), torch.full(view.size, 0.25)])
        return [Scores(view.number, self.memory, "probabilities")]


@pytest.mark.parametrize("pipeline", [PADDED, SAME_SIZE], ids=["one view", "two views"])
def test_nobody_writes_into_what_a_stream_remembers(pipeline):
    """Neither what averages views nor who gets the result."""
    predictor = VideoPredictor(Remembering().eval(), pipeline, returns=("scores",))
    for t in range(3):
        [result] = predictor.push(Frame(t, str(t), picture(t, (16, 32))))
        assert (result.scores[0] == 0.75).all() and (result.scores[1] == 0.25).all()
        result.scores[:] = -1
