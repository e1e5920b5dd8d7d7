"""GSFM's streams: the official propagation of DAVIS and YouTube-VOS, masks at any time, removal, bounded memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from mmseg.errors import ConfigError, DataError
from mmseg.models.layers.aggregation import aggregate
from mmseg.models.layers.padding import centred_margins, pad, unpad
from mmseg.structures import Scores, View
from tests.golden_cases import fill
from tests.models.gsfm_cases import GSFMCase, network
from tests.reference import gsfm as reference


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return network()


def frames_of(case: GSFMCase) -> Tensor:
    """(T, 3, H, W)."""
    inputs = case.inputs()
    return (inputs["base"] + 0.5 * inputs["noise"])[0]


def settings_of(case: GSFMCase) -> dict:
    return {name: case["params"][name] for name in ("top_k", "mem_every", "include_last")}


def push(stream, number: int, frame: Tensor, given: Tensor | None = None, wanted: bool = True, **more) -> Scores | None:
    inputs = {"img": frame} if given is None else {"img": frame, "given": given, **more}
    answers = list(stream.push(View(number, inputs, wanted=wanted)))
    assert len(answers) == wanted
    return answers[0] if answers else None


def clip(frames: int = 6, size: tuple[int, int] = (32, 48)) -> Tensor:
    """(T, 3, H, W)."""
    return fill.normal("base", (1, 3, *size)) + 0.5 * fill.normal("noise", (frames, 3, *size))


def labels(high: int = 4, size: tuple[int, int] = (32, 48)) -> Tensor:
    return fill.blocks("labels", size, high, 8)


def test_frames_and_results_may_be_written_to_by_the_caller(model):
    """A frame is remembered when the next one comes, which may lie in the same place."""
    plain, careless, place = model.stream(mem_every=1), model.stream(mem_every=1), torch.empty(3, 32, 48)
    for number, frame in enumerate(clip(4)):
        given = labels() if number == 0 else None
        expected = push(plain, number, frame, given).values
        result = push(careless, number, place.copy_(frame), given).values
        assert torch.equal(result, expected)
        result.zero_()


def test_padding_has_the_official_numbers():
    case = GSFMCase("padding")
    for height, width in case["params"]["sizes"]:
        left, right, top, bottom = margins = centred_margins(height, width, 16)
        size = (height + top + bottom, width + left + right)
        case.check(f"pad_{height}x{width}", torch.tensor([left, right, top, bottom, *size]))
        x = torch.rand(2, height, width)
        assert torch.equal(unpad(pad(x, margins), margins), x)


@pytest.mark.parametrize("name", ["davis_1obj", "davis_3obj", "davis_odd_2obj_last"])
def test_davis_has_the_official_numbers(model, name):
    case = GSFMCase(name)
    frames, given = frames_of(case), case.inputs()["labels"]
    margins = centred_margins(*frames.shape[-2:], 16)
    stream, objects = model.stream(**settings_of(case)), range(1, case["params"]["objects"] + 1)
    scores, masks, calls = [], [], 0
    for t, frame in enumerate(frames):
        shown = dict(given=pad(given, margins), objects=tuple(objects)) if t == 0 else {}
        calls += stream._pending is not None
        answer = push(stream, t, pad(frame, margins), **shown)
        assert (answer.kind, answer.ids) == ("probabilities", (0, *objects))
        scores.append(answer.values)
        masks.append(unpad(answer.values.argmax(0), margins))
    case.check("prob", torch.stack(scores, dim=1)[:, :, None])
    case.check("mask", torch.stack(masks).to(torch.uint8))
    bank, positions = stream._groups[0].bank, scores[0][0].numel() // 256
    left, right, top, bottom = margins
    tokens = [bank.permanent * positions, bank.has_temporary * positions]
    case.check("facts", torch.tensor([left, right, top, bottom, *scores[0].shape[1:], *tokens, calls]))
    if any(margins):  # the stream pads by itself
        stream = model.stream(**settings_of(case))
        for t, frame in enumerate(frames):
            answer = push(stream, t, frame, given if t == 0 else None)
            torch.testing.assert_close(answer.values, unpad(scores[t], margins), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["youtube_new_object", "youtube_required_frames"])
def test_youtube_vos_has_the_official_numbers(model, name):
    case = GSFMCase(name)
    frames, every, params = frames_of(case), case.inputs()["labels"], case["params"]
    given = {int(frame): tuple(ids) for frame, ids in params["gt_obj"].items()}
    wanted = [*(params["req_frames"] or range(len(frames))), 3, 8]  # and the official prob holds what is remembered
    prob = torch.zeros(params["objects"] + 1, len(frames), 1, *frames.shape[-2:])
    prob[0] = 1e-7
    stream = model.stream(**settings_of(case))
    for t, frame in enumerate(frames):
        shown = {}
        if t in given:
            shown = dict(given=every[t] * torch.isin(every[t], torch.tensor(given[t])), objects=given[t])
        answer = push(stream, t, frame, wanted=t in wanted, **shown)
        if answer is not None and answer.values is not None:
            for row, number in enumerate(answer.ids):
                prob[number, t, 0] = answer.values[row]
        assert answer is None or (answer.values is None) == (t < min(given))
    case.check("mask", prob[:, :, 0].argmax(0).to(torch.uint8))
    case.check("prob", prob)
    tokens = []
    for group in stream._groups:
        positions = frames.shape[-1] * frames.shape[-2] // 256
        bank = group.bank
        tokens += [[number, bank.permanent * positions, bank.has_temporary * positions] for number in group.ids]
    case.check("memory_tokens", torch.tensor(tokens))


# ------------------------------------------------------------------------------------------------------ masks and ids


def test_ids_are_the_users_and_come_in_order_of_appearance(model):
    frames, mask = clip(5), labels()
    plain, named = model.stream(), model.stream()
    table = torch.tensor([0, 200, 7, 42])
    for t, frame in enumerate(frames):
        one = push(plain, t, frame, mask if t == 0 else None)
        other = push(named, t, frame, table[mask] if t == 0 else None, objects=(200, 7, 42))
        assert torch.equal(one.values, other.values)
    assert plain.ids == (1, 2, 3) and named.ids == (200, 7, 42) and other.ids == (0, 200, 7, 42)


def test_nothing_is_said_before_the_first_mask(model):
    frames, mask = clip(3), labels()
    late, early = model.stream(), model.stream()
    assert push(late, 0, frames[2]).values is None
    assert push(late, 1, frames[2], torch.zeros_like(mask)).values is None  # no object in it
    for t, frame in enumerate(frames):
        one = push(late, t + 2, frame, mask if t == 0 else None)
        other = push(early, t, frame, mask if t == 0 else None)
        assert torch.equal(one.values, other.values)
    with pytest.raises(ConfigError, match="give a mask first"):
        model.stream().step(frames[0])


def test_a_small_object_that_a_view_does_not_show_is_followed(model):
    stream = model.stream()
    answer = push(stream, 0, clip(1)[0], labels(2), objects=(1, 9))
    assert answer.ids == (0, 1, 9) and not (answer.values.argmax(0) == 2).any()


def test_a_mask_given_again_replaces_the_object_and_leaves_the_others(model):
    frames, mask = clip(4), labels(3)
    stream = model.stream(mem_every=2)
    for t in range(3):
        before = push(stream, t, frames[t], mask if t == 0 else None)
    stream = model.stream(mem_every=2)
    for t in range(2):
        push(stream, t, frames[t], mask if t == 0 else None)
    corner = torch.zeros_like(mask)
    corner[:16, :16] = 2
    after = push(stream, 2, frames[2], corner, objects=(2,))
    assert after.ids == (0, 1, 2) and len(stream._groups) == 1
    region = corner == 2
    masks = torch.stack([before.values[1].masked_fill(region, 0), region.float()])
    torch.testing.assert_close(after.values, aggregate(masks)[1], rtol=1e-4, atol=1e-5)
    push(stream, 3, frames[3])
    assert stream._groups[0].bank.permanent == 2  # frames 0 and 2


def test_given_masks_restart_the_memory_interval(model):
    frames, mask = clip(9), labels(2)
    stream, sizes = model.stream(mem_every=3), []
    for t, frame in enumerate(frames):
        push(stream, t, frame, {0: mask, 4: 3 * mask}.get(t))
        sizes.append([group.bank.permanent for group in stream._groups])
    # frames 0, 3, 4 (given) and 7 are remembered, each when the next one comes
    assert sizes == [[0], [1], [1], [1], [2, 0], [3, 1], [3, 1], [3, 1], [4, 2]]


def test_removed_objects_leave_results_and_memory(model):
    frames, mask = clip(6), labels(4)
    stream, alone = model.stream(mem_every=1), model.stream(mem_every=1)
    for t, frame in enumerate(frames):
        if t == 1:
            stream.remove([2])
            assert stream.ids == (1, 3)
        answer = push(stream, t, frame, mask if t == 0 else None)
        other = push(alone, t, frame, torch.where(mask == 2, 0, mask) if t == 0 else None)
    assert answer.ids == other.ids == (0, 1, 3)
    torch.testing.assert_close(answer.values, other.values, rtol=1e-4, atol=1e-4)
    width = stream._groups[0].bank.width
    stream.remove([1])
    assert stream._groups[0].bank.width == width // 2
    stream.remove([3])
    assert stream.ids == () and push(stream, 6, frames[0]).values is None
    assert push(stream, 7, frames[0], mask).ids == (0, 1, 2, 3)
    with pytest.raises(ConfigError, match="object 9"):
        stream.remove([1, 9])
    assert stream.ids == (1, 2, 3)


def test_unwanted_frames_are_skipped_unless_they_are_remembered(model):
    frames, mask = clip(6), labels(3)
    every, some = model.stream(mem_every=2), model.stream(mem_every=2)
    encoded = []
    hook = model.decoder.register_forward_hook(lambda *_: encoded.append(some.count))
    for t, frame in enumerate(frames):
        one = push(some, t, frame, mask if t == 0 else None, wanted=t in (0, 5))
    hook.remove()
    assert encoded == [2, 4, 5]
    for t, frame in enumerate(frames):
        other = push(every, t, frame, mask if t == 0 else None)
    assert torch.equal(one.values, other.values)


# -------------------------------------------------------------------------------------------------- memory, bad input


def test_memory_is_bounded(model):
    frames, mask = clip(9), labels(2)
    free, bounded, loose = model.stream(mem_every=1), model.stream(mem_every=1, max_memory_frames=3), model.stream(
        mem_every=1, max_memory_frames=20
    )  # fmt: skip
    for t, frame in enumerate(frames):
        one, two, three = (push(s, t, frame, mask if t == 0 else None) for s in (free, bounded, loose))
        assert torch.equal(one.values, three.values)
        assert (t > 3) or torch.equal(one.values, two.values)
    assert not torch.equal(one.values, two.values)
    assert [len(s._groups[0].bank) for s in (free, bounded, loose)] == [8, 3, 8]
    assert bounded._groups[0].bank._keys.shape[0] <= 4


def test_more_positions_than_the_memory_has(model):
    frames, mask = clip(3, (32, 32)), labels(2, (32, 32))
    last = []
    for top_k in (4, 4000):  # 2 x 2 positions in memory
        stream = model.stream(top_k=top_k)
        for t, frame in enumerate(frames):
            answer = push(stream, t, frame, mask if t == 0 else None)
        last.append(answer.values)
    assert torch.isfinite(last[0]).all() and torch.equal(*last)


@pytest.mark.parametrize(
    "given, objects, message",
    [
        (torch.zeros(32, 49, dtype=torch.long), None, r"a mask \(32, 49\) for a frame \(32, 48\)"),
        (torch.full((32, 48), 256), None, r"object ids \[256\]"),
        (torch.zeros(32, 48, dtype=torch.long), (1, -3), r"object ids \[-3\]"),
    ],
)
def test_wrong_masks(model, given, objects, message):
    stream = model.stream()
    push(stream, 0, clip(1)[0], labels(2))
    with pytest.raises(DataError, match=message):
        stream.push(View(1, {"img": clip(1)[0], "given": given, **({"objects": objects} if objects else {})}))
    assert stream.count == 1 and push(stream, 1, clip(2)[1]).ids == (0, 1)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(mem_every=0), "mem_every=0"),
        (dict(top_k=2.5), r"top_k=2\.5"),
        (dict(include_last=1), "include_last=1"),
        (dict(max_memory_frames=0), "at least 1, or None"),
        (dict(mem_evry=3), "did you mean 'mem_every'"),
    ],
)
def test_wrong_settings(model, settings, message):
    with pytest.raises(ConfigError, match=message):
        model.check_settings(settings)


# --------------------------------------------------------------------------------------------- formulas of the paper


@torch.no_grad()
def test_streams_are_the_formulas(model):
    """Odd maps, a window of the spectrum that is smaller than it, and the large maps of Winograd's convolutions.

    In float32 the formulas themselves may take another one of two places of the memory that are equally similar.
    """
    frames = clip(3, (64, 1040))  # 16 x 260 at a quarter
    mask = fill.blocks("wide", (64, 1040), 3, 32)
    settings = dict(mem_every=1, top_k=50)
    given = torch.stack([mask == 1, mask == 2]).double()
    expected = reference.propagate(copy.deepcopy(model).double(), frames.double(), given, **settings)
    stream = model.stream(**settings)
    for t, frame in enumerate(frames):
        answer = push(stream, t, frame, mask if t == 0 else None)
        torch.testing.assert_close(answer.values, expected[t].float(), rtol=1e-4, atol=1e-4)
