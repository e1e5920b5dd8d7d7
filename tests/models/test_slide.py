"""Sliding windows: every pixel is covered, windows are averaged, all windows of a frame are one batch."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from mmseg.errors import ConfigError
from mmseg.models import build_segmentor
from mmseg.models.segmentors.slide import slide, window_boxes
from tests.contract.systems import SYSTEMS, video
from tests.golden_cases import build_filled

FRAME_MODEL = SYSTEMS[0]


def windowed(**test_cfg):
    return {**FRAME_MODEL.config(), "test_cfg": dict(mode="slide", **test_cfg)}


@pytest.mark.parametrize(("size", "crop", "stride"), [((64, 97), (32, 40), (20, 40)), ((20, 50), (32, 32), (32, 9))])
def test_windows_cover_the_frame_and_stay_inside(size, crop, stride):
    boxes = window_boxes(size, crop, stride)
    cover = torch.zeros(size)
    for top, bottom, left, right in boxes:
        assert top >= 0 and bottom <= size[0] and left >= 0 and right <= size[1]
        assert (bottom - top, right - left) == (min(crop[0], size[0]), min(crop[1], size[1]))
        cover[top:bottom, left:right] += 1
    assert cover.min() >= 1 and boxes == sorted(boxes)


def test_boxes_by_hand():
    columns = [(0, 4), (3, 7), (6, 10)]  # 10 columns in windows of 4 every 3
    assert window_boxes((5, 10), (5, 4), (5, 3)) == [(0, 5, *column) for column in columns]
    columns[2] = (5, 9)  # moved back inside a frame of 9
    assert window_boxes((5, 9), (5, 4), (5, 3)) == [(0, 5, *column) for column in columns]


def test_overlapping_windows_are_averaged_and_seen_at_once():
    batches = []

    def predict(windows):
        batches.append(len(windows))
        return windows.mean((2, 3), keepdim=True).expand(-1, -1, *windows.shape[-2:])  # a constant per window

    img = torch.arange(10.0).expand(1, 5, 10)
    out = slide(predict, img, (5, 4), (5, 3))[0, 0]
    means = torch.tensor([1.5, 4.5, 7.5])
    expected = [means[0]] * 3 + [means[:2].mean()] + [means[1]] * 2 + [means[1:].mean()] + [means[2]] * 3
    torch.testing.assert_close(out, torch.stack(expected))
    assert batches == [3]


def test_stream_and_whole_images_by_hand():
    model = build_filled(build_segmentor, windowed(crop_size=(64, 64), stride=(40, 40)))
    whole = FRAME_MODEL.model()
    [frame] = video(1, size=(96, 128))
    total, cover = torch.zeros(9, 96, 128), torch.zeros(96, 128)
    for top, left in itertools.product((0, 32), (0, 40, 64)):
        window = frame[:, top : top + 64, left : left + 64]
        total[:, top : top + 64, left : left + 64] += whole.encode_decode(window[None])[0]
        cover[top : top + 64, left : left + 64] += 1
    for got in (model.stream().step(frame), model.encode_decode(frame[None])[0]):
        torch.testing.assert_close(got, total / cover, rtol=1e-4, atol=1e-4)


def test_a_frame_of_one_window_is_as_without():
    model = build_filled(build_segmentor, windowed(crop_size=(64, 96), stride=(40, 40)))
    [frame] = video(1)
    torch.testing.assert_close(
        model.stream().step(frame), FRAME_MODEL.model().stream().step(frame), rtol=1e-4, atol=1e-4
    )
    small = F.interpolate(frame[None], (40, 50))[0]
    expected = FRAME_MODEL.model().stream().step(small)
    torch.testing.assert_close(model.stream().step(small), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "test_cfg",
    [dict(), dict(crop_size=(64, 64)), dict(crop_size=64, stride=40), dict(crop_size=(0, 64), stride=(40, 40)),
     dict(crop_size=(64, 64), stride=(65, 40)), dict(crop_size=(64.0, 64), stride=(40, 40))],
)  # fmt: skip
def test_windows_that_cannot_work(test_cfg):
    with pytest.raises(ConfigError, match=r"test_cfg"):
        build_segmentor(windowed(**test_cfg))


CLIP_MODELS = [system for system in SYSTEMS if system.name in ("CFFM", "CFFM++", "MRCFA")]


@pytest.mark.parametrize("system", CLIP_MODELS, ids=lambda system: system.name)
def test_models_of_clips_take_whole_frames(system):
    with pytest.raises(ConfigError, match="single frames"):
        build_segmentor({**system.config(), "test_cfg": dict(mode="slide", crop_size=(64, 64), stride=(40, 40))})
