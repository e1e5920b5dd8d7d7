"""The prediction loop with models that answer in every way there is: at once, in blocks, at the end, and about objects.

The models here compute something that can be told by hand; the loop, the pipeline and the streams are the real ones.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mmseg.datasets.transforms import TestPipeline
from mmseg.engine.ahead import at
from mmseg.engine.answers import undo
from mmseg.engine.predict import predict, stream_settings
from mmseg.engine.predictor import VideoPredictor
from mmseg.errors import ConfigError, DataError
from mmseg.models.base import VideoModel
from mmseg.models.stream import Stream
from mmseg.structures import Flipped, Frame, Padded, Resized, Scores, Video
from tests.contract.systems import SYSTEMS

TRANSFORMS = [
    dict(type="Resize", keep_ratio=True, size_divisor=8),
    dict(type="RandomFlip"),
    dict(type="Normalize", mean=[0, 0, 0], std=[1, 1, 1], to_rgb=False),
    dict(type="ImageToTensor", keys=["img"]),
    dict(type="Collect", keys=["img"]),
]
PIPELINE = TestPipeline([dict(type="MultiScaleFlipAug", img_scale=(32, 24), flip=False, transforms=TRANSFORMS)])
PADDED = TestPipeline([dict(type="Pad", size_divisor=16), *TRANSFORMS[2:]])


class Threshold(VideoModel):
    """Class 1 where the blue channel is above 127; answers for blocks of frames, the last block at the end."""

    stream_settings = ("block",)

    def __init__(self, kind: str = "logits") -> None:
        super().__init__()
        self.kind, self.scale = kind, nn.Parameter(torch.ones(1))

    def stream(self, video=None, block: int = 1) -> Stream:
        self.check_settings({"block": block})
        return BlockStream(self, block)


class BlockStream(Stream):
    def __init__(self, model: Threshold, block: int) -> None:
        self.block, self.answers_at_once = block, block == 1
        super().__init__(model)

    def reset(self) -> None:
        super().reset()
        self.open: list[tuple[int, torch.Tensor]] = []

    def _take(self, view):
        if view.wanted:
            self.open.append((view.number, view.inputs["img"][0] - 127.0))
        if self.count % self.block < self.block - 1:
            return []
        return self._answer() if self.block > 1 else list(self._answer())

    def _rest(self):
        return self._answer()

    def _answer(self):
        while self.open:
            number, blue = self.open.pop(0)
            values = torch.stack([torch.zeros_like(blue), blue]) * self.model.scale
            yield Scores(number, values.sigmoid() if self.model.kind == "probabilities" else values, self.model.kind)


class Objects(VideoModel):
    """Follows the masks that it is given, and has nothing to say before the first."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def stream(self, video=None) -> Stream:
        return ObjectStream(self)


class ObjectStream(Stream):
    def reset(self) -> None:
        super().reset()
        self.known: dict[int, torch.Tensor] = {}

    @property
    def ids(self):
        return tuple(self.known)

    def remove(self, ids) -> None:
        for number in ids:
            del self.known[number]

    def _take(self, view):
        for number in view.inputs.get("objects", ()):
            self.known[number] = (view.inputs["given"] == number).float()
        if not view.wanted:
            return []
        if not self.known:
            return [Scores(view.number, None)]
        rows = torch.stack([torch.full_like(next(iter(self.known.values())), 0.5), *self.known.values()])
        return [Scores(view.number, rows, "probabilities", (0, *self.known))]


def picture(t: int, size=(24, 32)) -> np.ndarray:
    """A bright bar that moves to the right."""
    image = np.zeros((*size, 3), np.uint8)
    image[:, 2 * t : 2 * t + 6] = 255
    return image


def frames(count: int, wanted=lambda t: True, size=(24, 32), **keys):
    for t in range(count):
        yield Frame(t, f"{t:03d}", picture(t, size), wanted=wanted(t), reload=lambda t=t: picture(t, size), **keys)


def truth(t: int) -> np.ndarray:
    return (picture(t)[..., 0] > 127).astype(np.uint8)


@pytest.mark.parametrize("block", [1, 3, 4, 100])
@pytest.mark.parametrize("wanted", [lambda t: True, lambda t: t % 3 == 1], ids=["all", "some"])
def test_every_wanted_frame_gets_one_result_in_order(block, wanted):
    video = Video(3, "bars", 10)
    results = list(predict(Threshold().eval(), frames(10, wanted), PIPELINE, {"block": block}, video=video))
    assert [r.frame.number for r in results] == [t for t in range(10) if wanted(t)]
    for result in results:
        assert result.video is video and result.labels.dtype == np.uint8 and result.ids is None
        np.testing.assert_array_equal(result.labels, truth(result.frame.number))
        np.testing.assert_array_equal(result.frame.picture(), picture(result.frame.number))


def test_a_frame_that_waits_keeps_no_picture_and_others_are_never_held():
    predictor = VideoPredictor(Threshold().eval(), PIPELINE, {"block": 50})
    given = list(frames(40, wanted=lambda t: t < 5))
    for frame in given:
        assert list(predictor.push(frame)) == []
    assert len(predictor._waiting) == 5 and all(frame.image is None for frame in given[:5])
    assert [r.frame.number for r in predictor.finish()] == [0, 1, 2, 3, 4]


def test_a_picture_that_cannot_be_read_again_is_kept_for_the_writers():
    late = [Frame(t, str(t), picture(t)) for t in range(4)]
    results = list(predict(Threshold().eval(), late, PIPELINE, {"block": 3}))
    assert all(np.array_equal(r.frame.picture(), picture(r.frame.number)) for r in results)
    predictor = VideoPredictor(Threshold().eval(), PIPELINE, {"block": 3}, keep_images=False)
    assert list(predictor.push(late[0])) == [] and late[0].image is None


def test_results_not_taken_are_an_error_at_the_next_push():
    predictor = VideoPredictor(Threshold().eval(), PIPELINE, {"block": 2})
    first, second, third = frames(3)
    assert list(predictor.push(first)) == []
    next(predictor.push(second))
    with pytest.raises(ConfigError, match="were taken"):
        list(predictor.push(third))


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_views_are_averaged_as_their_kind_says(kind):
    model = Threshold(kind).eval()
    views = PIPELINE.augmented()
    got = [r.labels for r in predict(model, frames(4), views)]
    for t, labels in enumerate(got):
        mean = 0
        for view in views.views(next(f for f in frames(4) if f.number == t)):
            blue = view.inputs["img"][0] - 127.0
            values = undo(torch.stack([torch.zeros_like(blue), blue]), view.size, view.steps, (24, 32))
            if kind == "probabilities":
                values = undo(torch.stack([torch.zeros_like(blue), blue]).sigmoid(), view.size, view.steps, (24, 32))
            mean = mean + (values if kind == "probabilities" else values.softmax(0))
        np.testing.assert_array_equal(labels, mean.argmax(0).numpy())


def test_padding_is_taken_off_again():
    [result] = predict(Threshold().eval(), frames(1, size=(20, 27)), PADDED)
    np.testing.assert_array_equal(result.labels, picture(0, (20, 27))[..., 0] > 127)


def test_undo_goes_back_step_by_step():
    """A run of resizes is one resize; flips and padding come off in between, last first."""
    steps = [Resized((10, 12)), Resized((20, 24)), Flipped((16, 32)), Padded((16, 32), top=3, left=5)]
    values = torch.randn(2, 24, 40, generator=torch.Generator().manual_seed(0))
    inside = values[:, 3:19, 5:37].flip(-1)
    expected = nn.functional.interpolate(inside[None], (10, 12), mode="bilinear")[0]
    torch.testing.assert_close(undo(values, (24, 40), steps, (10, 12)), expected)
    coarse = nn.functional.interpolate(values[None], (12, 20), mode="bilinear")[0]
    up = nn.functional.interpolate(coarse[None], (24, 40), mode="bilinear")[0]
    torch.testing.assert_close(undo(coarse, (24, 40), steps, (10, 12)), undo(up, (24, 40), steps, (10, 12)))
    turned = undo(values, (24, 40), [Flipped((24, 40), "vertical")], (24, 40))
    assert torch.equal(turned, values.flip(-2))


def test_result_of_another_size_than_the_frame():
    [result] = predict(Threshold().eval(), [Frame(0, "0", picture(3), size=(48, 64))], PIPELINE)
    assert result.labels.shape == (48, 64)
    np.testing.assert_array_equal(result.labels[::2, 14:20:2], truth(3)[:, 7:10])


def test_objects_come_back_under_their_ids_and_nothing_before_the_first_mask():
    mask = np.zeros((24, 32), np.int64)
    mask[2:20, 4:12], mask[5:9, 20:31] = 200, 7
    given = [Frame(t, str(t), picture(t), given=mask if t == 2 else None) for t in range(4)]
    predictor = VideoPredictor(Objects().eval(), PIPELINE)
    results = [result for frame in given for result in predictor.push(frame)]
    assert [r.labels is None for r in results] == [True, True, False, False]
    assert results[2].ids == (0, 7, 200) and predictor.ids == (7, 200)
    np.testing.assert_array_equal(results[3].labels, mask)
    predictor.remove([7])
    [after] = predictor.push(Frame(4, "4", picture(4)))
    np.testing.assert_array_equal(after.labels, np.where(mask == 200, 200, 0))


def test_ids_beyond_8_bits_are_refused():
    mask = np.zeros((24, 32), np.int64)
    mask[2:9] = 300
    with pytest.raises(DataError, match="300"):
        list(predict(Objects().eval(), [Frame(0, "0", picture(0), given=mask)], PIPELINE))


class Forgetful(Threshold):
    """Breaks the promise in one of two ways."""

    stream_settings = ("block", "wrong")

    def stream(self, video=None, block: int = 1, wrong: bool = False) -> Stream:
        stream = BlockStream(self, block)
        if wrong:
            stream._take = lambda view: [Scores(view.number + 1, view.inputs["img"])]
        else:
            stream._take = lambda view: []
        return stream


@pytest.mark.parametrize(
    ("wrong", "message"), [(False, r"no scores for .*\[0, 1, 2\]"), (True, "frame 1 while frame 0")]
)
def test_a_model_that_breaks_its_promise_is_told(wrong, message):
    with pytest.raises(RuntimeError, match=message):
        list(predict(Forgetful().eval(), frames(3), PIPELINE, {"wrong": wrong}))


def test_errors_come_after_the_results_of_the_frames_before_and_name_the_frame():
    def broken():
        yield from frames(6)
        raise DataError("the file ends here", "a whole file", "copy it again")

    seen = []
    with pytest.raises(DataError, match=r"frame 6: the file ends here"):
        for result in predict(Threshold().eval(), broken(), PIPELINE):
            seen.append(result.frame.number)
    assert seen == [0, 1, 2, 3, 4, 5]
    odd = [*frames(2), Frame(2, "two", picture(2, (30, 32)), path="two.jpg")]
    with pytest.raises(DataError, match=r"frame 2 \(two\.jpg\): a frame of 32x30 pixels after frames of 32x24"):
        list(predict(Threshold().eval(), odd, PIPELINE))


def test_settings_have_one_reader():
    model = SYSTEMS[1].model()
    assert stream_settings({"dilation": [-3, -2, -1], "type": "X"}, None, model) == {"dilation": (-3, -2, -1)}
    assert stream_settings({"dilation": [-3, -2]}, None, SYSTEMS[0].model()) == {}  # needless for single frames
    assert stream_settings(None, {"block": 4}, Threshold()) == {"block": 4}
    for data, test_cfg, message in (
        ({"dilation": [-3, -2]}, None, "num_clips"),
        ({"dilation": [-1, -2, -3]}, None, "ascending"),
        ({"dilation": [-3, -2, 1]}, None, "past frames"),
        ({"dilation": [-3.5, -2, -1]}, None, "whole numbers"),
        ({"dilation": [-3, -2, -1]}, {"dilation": [-9, -6, -3]}, "one value"),
    ):
        with pytest.raises(ConfigError, match=message):
            stream_settings(data, test_cfg, model)
    with pytest.raises(ConfigError, match="block"):
        model.stream("v", block=3)


def test_a_place_is_named_once():
    with pytest.raises(DataError, match=r"^frame 3: clip\.mp4: broken$"), at("clip.mp4"), at("frame 3"):
        raise DataError("clip.mp4: broken")
    with pytest.raises(DataError, match=r"^clip\.mp4: frame 3: broken at frame 31$"), at("clip.mp4"), at("frame 3"):
        raise DataError("broken at frame 31")
