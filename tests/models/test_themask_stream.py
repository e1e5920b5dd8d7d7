"""THE-Mask on videos: blocks of frames, the rest at the end, and what is kept meanwhile."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import Tensor, nn

from mmseg.clips import video_clips
from mmseg.engine.predict import stream_settings
from mmseg.errors import ConfigError
from mmseg.models import build_segmentor
from mmseg.registry import MODELS
from mmseg.structures import View
from tests.contract.systems import themask
from tests.golden_cases import Case, build_filled, fill_themask
from tests.reference import themask as reference

SIZE = (32, 32)
LONGEST = 40
HEADS = {"one frame": "1f_b1_eval_t1", "video": "video_b1_eval_t1"}


@MODELS.register_module(force=True)
class PooledColours(nn.Module):
    """A backbone that costs nothing: the mean colours of cells of four sizes."""

    out_channels = (3, 3, 3, 3)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.scale * nn.functional.avg_pool2d(x, stride) for stride in (4, 8, 16, 32)]


def model_of(head: str) -> nn.Module:
    config = themask(HEADS[head], 1)
    config["backbone"] = dict(type="PooledColours")
    for shape in config["decode_head"]["input_shape"].values():
        shape["channels"] = 3
    config["decode_head"]["loss_cfg"]["dec_layers"] = 3
    config["decode_head"]["transformer_decoder_cfg"]["dec_layers"] = 2
    config["decode_head"]["pixel_decoder_cfg"]["transformer_enc_layers"] = 1
    return build_filled(build_segmentor, config, filler=fill_themask)


def official_clips(n: int, test_size: int) -> list[tuple[int, ...]]:
    """Section 7 of the specification, word by word."""
    if test_size == 1:
        return [(t,) for t in range(n)]
    clips, block = [], {2: 6, 4: 12}[test_size]
    for s in range(0, n - n % block, block):
        if test_size == 2:
            clips += [(s, s + 3), (s + 1, s + 4), (s + 2, s + 5)]
        else:
            clips += [(s + i, s + i + 3, s + i + 6, s + i + 9) for i in range(3)]
    rest = list(range(n - n % block, n))
    return clips + [tuple(rest[i : i + test_size]) for i in range(0, len(rest), test_size)]


def test_videos_are_cut_as_in_the_official_test():
    case = Case("themask", "test_clips")
    for size in case["test_sizes"]:
        rows = case.arrays[f"clips.test_size{size}"].tolist()
        for video, n in enumerate(case["lengths"]):
            expected = [tuple(t for t in row[1:] if t >= 0) for row in rows if row[0] == video]
            assert {t for clip in expected for t in clip} == set(range(n))
            assert [tuple(clip) for clip in video_clips(n, size)] == expected == official_clips(n, size)


@pytest.mark.parametrize(("head", "test_size"), [("one frame", 2), ("video", 1), ("video", 2), ("video", 4)])
@torch.no_grad()
def test_streams_equal_the_official_clips_for_every_length(head, test_size):
    """Every length from 1 to 40: after each frame a copy of the stream is told that it was the last one.

    A stream does not know how long its video is, so that those of all lengths are one until they are told.
    """
    model = model_of(head)
    frames = torch.randn(LONGEST, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    pixels = reference.pixel_decoder(model.decode_head.pixel_decoder, model.backbone(frames))

    @functools.cache
    def of_clip(clip: tuple[int, ...]) -> dict[int, Tensor]:
        own = {name: maps[list(clip)] for name, maps in pixels.items() if name.startswith(("multi_scale", "mask_"))}
        return dict(zip(clip, reference.scores_of_clips(model.decode_head, own, 1, len(clip))[0]))

    stream, block, answered = model.stream(test_size=test_size), {1: 1, 2: 6, 4: 12}[test_size], 0
    for t in range(LONGEST):
        due = list(stream.push(View(t, {"img": frames[t]})))
        assert len(due) == (block if (t + 1) % block == 0 else 0)
        rest = list(copy.deepcopy(stream, {id(part): part for part in (model, model.decode_head)}).finish())
        assert [s.number for s in due + rest] == list(range(answered, t + 1))
        answered += len(due)
        clip_of = {number: clip for clip in official_clips(t + 1, test_size) for number in clip}
        for s in due + rest:
            assert s.kind == "scores"
            torch.testing.assert_close(s.values, of_clip(clip_of[s.number])[s.number], rtol=1e-4, atol=1e-4)
    assert len(list(stream.finish())) == LONGEST - answered


@pytest.mark.parametrize(("test_size", "kept"), [(1, 0), (2, 5), (4, 11)])
def test_a_frame_is_encoded_once_and_its_maps_are_kept_until_its_block_is_done(test_size, kept):
    model, encoded, most = model_of("video"), [], 0
    model.decode_head.pixel_decoder.register_forward_hook(lambda *args: encoded.append(len(args[2].mask_features)))
    stream = model.stream(test_size=test_size)
    for t in range(30):
        list(stream.push(View(t, {"img": torch.randn(3, *SIZE)})))
        most = max(most, len(stream._maps))
    list(stream.finish())
    assert encoded == [1] * 30
    assert (most, len(stream._maps)) == (kept, 0)


def test_frames_that_nobody_wants_are_decoded_only_beside_wanted_ones():
    model, decoded = model_of("video"), []
    model.decode_head.predictor.register_forward_hook(lambda *args: decoded.append(args[1][2]))
    stream, seen = model.stream(test_size=2), []
    for t in range(9):
        seen += stream.push(View(t, {"img": torch.randn(3, *SIZE)}, wanted=t in (4, 7)))
    seen += stream.finish()
    assert [s.number for s in seen] == [4, 7] and decoded == [2, 2]  # (1, 4) and (6, 7)


def test_step_needs_frames_that_are_answered_at_once():
    model, frame = model_of("video"), torch.randn(3, *SIZE)
    torch.testing.assert_close(model.stream().step(frame), model.encode_decode(frame[None, None])[0, 0])
    with pytest.raises(ConfigError, match="test_size=1"):
        model.stream(test_size=2).step(frame)


def test_the_config_of_the_data_says_how_videos_are_cut():
    model = model_of("video")
    assert stream_settings({"test_size": 4}, None, model) == {"test_size": 4}
    assert model.stream(**stream_settings({"dilation": [0]}, None, model)).test_size == 1
    with pytest.raises(ConfigError, match="one of 1, 2, 4"):
        stream_settings({"test_size": 32}, None, model)


@pytest.mark.parametrize("late", ["the rest", "a block"])
@pytest.mark.parametrize("change", ["weights", "mode", "autocast"])
def test_what_comes_late_is_computed_by_the_model_that_saw_the_frames(late, change):
    model, frames = model_of("video"), torch.randn(6, 3, *SIZE)
    stream, count = model.stream(test_size=2), 6 if late == "a block" else 4
    for t in range(count):
        due = stream.push(View(t, {"img": frames[t]}))
    due = iter(stream.finish() if late == "the rest" else due)
    assert next(due).number == 0
    if change == "weights":
        model.load_state_dict(model.state_dict())
    elif change == "mode":
        model.train()
    half = torch.autocast("cpu", torch.bfloat16, enabled=change == "autocast")
    with pytest.raises(ConfigError, match=f"after {count} frames"), half:
        next(due)
    stream.model.eval()
    stream.reset()
    assert list(stream.push(View(0, {"img": frames[0]}))) == [] and len(list(stream.finish())) == 1


def test_a_model_may_change_after_the_last_result():
    model, frames = model_of("video"), torch.randn(6, 3, *SIZE)
    stream = model.stream(test_size=2)
    results = [scores for t in range(6) for scores in stream.push(View(t, {"img": frames[t]}))]
    model.load_state_dict(model.state_dict())
    assert len(results) == 6 and list(stream.finish()) == []
