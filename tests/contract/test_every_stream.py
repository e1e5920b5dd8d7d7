"""One tester for the streams of every system, with one layer of each kind: what the house promises of a video."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from mmseg.errors import ConfigError, DataError
from mmseg.models import build_segmentor
from mmseg.structures import View
from mmseg.weights import load_checkpoint
from tests.contract.shallow import shallow
from tests.contract.systems import SYSTEMS, System

pytestmark = pytest.mark.parametrize("system", [pytest.param(shallow(system), id=system.name) for system in SYSTEMS])


def labels(system: System, stream, frames: Tensor) -> Tensor:
    return torch.stack([values.argmax(0) for values in system.answers(stream, frames).values()])


def test_two_streams_at_once(system: System):
    """They do not disturb each other, be it in turns or in two threads that fold the weights at the same time."""
    model, (first, second) = system.model(), (system.video(system.few, seed=1), system.video(system.few, seed=2))
    alone = system.answers(system.stream(model), second)
    a, b = system.stream(model), system.stream(model)
    of_first, of_second = [], []
    for t in range(system.few):
        of_first += a.push(system.view(t, first[t]))
        of_second += b.push(system.view(t, second[t]))
    of_first, of_second = of_first + list(a.finish()), of_second + list(b.finish())
    assert all(torch.equal(s.values, alone[s.number]) for s in of_second)
    model.float()  # counts as a change
    together = threading.Barrier(2)

    def run(frames: Tensor) -> dict[int, Tensor]:
        together.wait()
        return system.answers(system.stream(model), frames)

    with ThreadPoolExecutor(2) as pool:
        threaded = list(pool.map(run, (first, second)))
    for expected, got in zip((of_first, of_second), threaded, strict=True):
        assert all(torch.equal(s.values, got[s.number]) for s in expected)


def test_unwanted_frames_get_no_scores_and_change_none(system: System):
    n = min(12, system.frames + 3)
    model, frames = system.model(), system.video(n)
    every = system.answers(system.stream(model), frames)
    for t, values in system.answers(system.stream(model), frames, wanted=lambda t: t in (2, n - 3, n - 1)).items():
        torch.testing.assert_close(values, every[t], rtol=1e-5, atol=1e-5)


def test_finish_and_reset_begin_a_new_video(system: System):
    model, frames = system.model(), system.video(5)
    stream = system.stream(model)
    first = labels(system, stream, frames)
    assert torch.equal(labels(system, stream, frames), first)
    list(stream.push(system.view(0, frames[4])))
    stream.reset()
    assert torch.equal(labels(system, stream, frames), first)
    with pytest.raises(ConfigError, match="object"):
        stream.remove([1])


def test_a_frame_that_does_not_fit_is_refused_and_forgotten(system: System):
    model, frames = system.model(), system.video(5)
    expected = system.answers(system.stream(model), frames)
    stream, got = system.stream(model), []
    for t, frame in enumerate(frames):
        if t == 3:
            with pytest.raises(DataError, match="frame 3"):
                stream.push(View(t, {"img": torch.zeros(system.channels, 2 * system.size[0], system.size[1])}))
        got += stream.push(system.view(t, frame))
    got += stream.finish()
    assert all(torch.equal(s.values, expected[s.number]) for s in got)


@pytest.mark.parametrize("precision", ["double", "bfloat16", "autocast"])
def test_other_precisions(system: System, precision: str):
    """Equal in float64 up to rounding; in bfloat16 other numbers, and by far most labels the same."""
    model, frames = system.model(), system.video(system.few)
    exact = system.answers(system.stream(model), frames)
    context = nullcontext()
    if precision == "autocast":
        context = torch.autocast("cpu", torch.bfloat16)
    else:
        model = model.double() if precision == "double" else model.bfloat16()
        frames = frames.to(next(model.parameters()).dtype)
    with context:
        rounded = system.answers(system.stream(model), frames)
    last = max(exact)
    if precision == "double":
        assert rounded[last].dtype is torch.float64
        torch.testing.assert_close(rounded[last].float(), exact[last], rtol=1e-3, atol=1e-3)
    else:
        assert torch.isfinite(rounded[last]).all() and not torch.equal(rounded[last].float(), exact[last])
        same = [(rounded[t].argmax(0) == exact[t].argmax(0)).float().mean() for t in exact]
        assert torch.stack(same).mean() > 0.8


CHANGES = {
    "load_state_dict": lambda model: model.load_state_dict(other_weights(model)),
    "to double": lambda model: model.double(),
    "train and back": lambda model: model.train().eval(),
}


def other_weights(model: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(9)
    return {
        name: value + 0.05 * torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in model.state_dict().items()
        if "running_var" not in name
    } | {name: value for name, value in model.state_dict().items() if "running_var" in name}


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_change_under_a_stream(system: System, change: str):
    """A clear error in the middle of a video; right results afterwards, from the same stream and from a new one."""
    model, frames = system.model(), system.video(system.few)
    stream = system.stream(model)
    last = system.few - 1
    for t in range(last):
        list(stream.push(system.view(t, frames[t])))
    CHANGES[change](model)
    frames = frames.to(next(model.parameters()).dtype)
    with pytest.raises(ConfigError, match="middle of a video"):
        stream.push(system.view(last, frames[last]))
    stream.reset()
    fresh = system.model().to(frames.dtype)
    fresh.load_state_dict(model.state_dict())
    expected = system.answers(system.stream(fresh), frames)
    for again in (stream, system.stream(model)):
        for t, values in system.answers(again, frames).items():
            torch.testing.assert_close(values, expected[t], rtol=1e-5, atol=1e-5)


def test_weights_written_in_place_are_noticed_at_reset(system: System):
    model, frames = system.model(), system.video(system.few)
    stream = system.stream(model)
    before = system.answers(stream, frames)
    with torch.no_grad():
        for parameter in model.get_submodule(system.head).parameters():
            parameter.mul_(1.2)
    after = system.answers(stream, frames)  # finish() has reset it
    fresh = system.model()
    fresh.load_state_dict(model.state_dict())
    expected = system.answers(system.stream(fresh), frames)
    last = max(expected)
    assert not torch.allclose(after[last], before[last], atol=1e-3)
    for t in expected:
        torch.testing.assert_close(after[t], expected[t], rtol=1e-5, atol=1e-5)


def test_autocast_that_changes_under_a_stream(system: System):
    model, frames = system.model(), system.video(system.few)
    expected = system.answers(system.stream(model), frames)
    stream = system.stream(model)
    with torch.autocast("cpu", torch.bfloat16):
        list(stream.push(system.view(0, frames[0])))
    with pytest.raises(ConfigError, match="autocast"):
        stream.push(system.view(1, frames[1]))
    stream.reset()
    assert all(torch.equal(values, expected[t]) for t, values in system.answers(stream, frames).items())
    with torch.autocast("cpu", torch.bfloat16):  # folded weights come from a stream outside of autocast
        inside = system.answers(system.stream(model), frames)
    assert all(torch.isfinite(values).all() for values in inside.values())


def test_save_and_load(system: System, tmp_path):
    model, frames = system.model(), system.video(system.few)
    torch.save({"meta": {}, "state_dict": other_weights(model)}, tmp_path / "model.pth")
    load_checkpoint(model, tmp_path / "model.pth", strict=True)
    again = system.prepared(build_segmentor(system.config())).eval()
    load_checkpoint(again, tmp_path / "model.pth", strict=True)
    assert torch.equal(labels(system, system.stream(model), frames), labels(system, system.stream(again), frames))


def test_memory_of_a_stream_does_not_grow(system: System):
    model, frames = system.model(), system.video(10)
    gc.freeze()  # what is there already is not looked through again, which takes half a second each time

    def held() -> int:
        gc.collect()
        return sum(o.numel() * o.element_size() for o in gc.get_objects() if type(o) is Tensor)

    stream, seen = system.stream(model), {}
    early, late = system.frames + 1, 2 * system.frames - 1  # at the same place of a block of 12 frames, if any
    for t in range(late + 1):
        list(stream.push(system.view(t, frames[t % 10])))
        if t in (early, late):
            seen[t] = held()
    gc.unfreeze()
    assert seen[early] > 0 or len(system.numbers(early)) == 1  # single frames leave nothing behind
    assert seen[late] <= 1.02 * seen[early], seen
