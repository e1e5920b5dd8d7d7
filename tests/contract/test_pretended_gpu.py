"""Every system on tensors that say they are on a GPU: mistakes of device and type, and waits for the device, show up
on a CPU. The tensors have shapes and types and no values (``FakeTensorMode``)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmseg.models.cpu.label_map import label_map
from mmseg.models.decode_heads.cffm.focal_geometry import focal_geometry
from mmseg.models.decode_heads.themask.pixel_decoder import token_centres
from mmseg.models.decode_heads.themask.position import code_2d, code_3d
from mmseg.models.layers.deformable_attention import level_sizes
from mmseg.models.networks.gsfm.spectral import filter_window
from mmseg.models.stream import computed_together
from tests.contract.shallow import shallow
from tests.contract.systems import SIZE, SYSTEMS, System
from tests.engine.test_ahead import IN_PARTS

# bfloat16 in one system: casts that float16 does not need as well are those of autocast itself
SHALLOW = [shallow(system) for system in SYSTEMS]  # every operation takes a millisecond here, whatever its size
AMPS = [(system, amp) for system in SHALLOW for amp in (None, torch.float16)] + [(SHALLOW[1], torch.bfloat16)]
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
in_precisions = pytest.mark.parametrize(("system", "amp"), AMPS, ids=[f"{system.name}-{amp}" for system, amp in AMPS])
CUDA = torch.device("cuda:0")
TABLES = (focal_geometry, code_2d, code_3d, token_centres, level_sizes, filter_window)


@pytest.fixture
def pretend() -> Iterator[FakeTensorMode]:
    """A mode in which tensors are pretended; tables that depend on sizes alone are made before it, for real."""
    focal_geometry(SIZE[0] // 8, SIZE[1] // 8, torch.device("cpu"))
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with pytest.MonkeyPatch.context() as patch:
        # what torch asks of a driver that is not there
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *args, **kwargs: True)
        yield mode
    for table in TABLES:
        table.cache_clear()  # they are pretended ones now


def on_gpu(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """The same model with pretended weights."""
    with mode:
        for module in model.modules():
            for store in (module._parameters, module._buffers):
                for name, value in store.items():
                    if value is not None:
                        pretended = torch.empty(value.shape, dtype=value.dtype, device=CUDA)
                        kept = isinstance(value, nn.Parameter)
                        store[name] = nn.Parameter(pretended, value.requires_grad) if kept else pretended
    return model


def short(system: System) -> dict:
    """The settings of its streams, with references that are at hand after three frames, if any."""
    return {**system.settings(), **({"dilation": (-3, -2, -1)} if system.clip == 4 else {})}


def moved(entries: dict) -> dict:
    return {name: pretended(value) if torch.is_tensor(value) else value for name, value in entries.items()}


def pretended(value: torch.Tensor) -> torch.Tensor:
    return torch.empty(value.shape, dtype=value.dtype, device=CUDA)


@in_precisions
def test_forward_pass_of_a_training_step(system: System, amp: torch.dtype | None, pretend: FakeTensorMode):
    model = on_gpu(system.model("train"), pretend)
    batch = system.batch()
    with pretend:
        batch = moved(batch)
        with torch.autocast("cuda", amp, enabled=amp is not None):
            if system.matches:  # pairs are found on the host, which pretended values cannot reach
                feats = model.backbone(batch["img"].flatten(0, 1))
                predictions = model.decode_head.predictions(feats, *batch["img"].shape[:2])
                total = sum(
                    value.float().mean() for p in predictions for value in vars(p).values() if value is not None
                )
            else:
                losses = model(batch, 0)
                total = sum(value for name, value in losses.items() if "loss" in name)
        assert (total.shape, total.device, total.dtype) == ((), CUDA, torch.float32)


@in_precisions
def test_stream(system: System, amp: torch.dtype | None, pretend: FakeTensorMode):
    """Longer than the memory, if any, under autocast, so that every branch is taken there; nothing asks for a value."""
    model, settings = on_gpu(system.model(), pretend), short(system)
    frames = 2 if system.numbers(5) == [5] else 5 if "dilation" in settings or amp is None else 11
    with pretend, torch.no_grad():
        stream = model.stream("some video", **moved(settings))
        scores = []
        with torch.autocast("cuda", amp, enabled=amp is not None):
            for t in range(frames):
                scores += stream.push(system.view(t, torch.empty(system.channels, *system.size, device=CUDA)))
            scores += stream.finish()
        assert [s.number for s in scores] == list(range(frames))
        assert all(s.values.device == CUDA and s.values.is_floating_point() for s in scores)


@pytest.mark.parametrize("system", IN_PARTS, ids=[system.name for system in IN_PARTS])
def test_frames_together(system: System, pretend: FakeTensorMode):
    """As a GPU computes frames of a file: all are encoded as one batch, and decoded as few."""
    model = on_gpu(system.model(), pretend)
    settings = short(system)
    with pretend:
        views = [system.view(t, torch.empty(system.channels, *system.size, device=CUDA)) for t in range(5)]
        stream = model.stream("some video", **moved(settings))
        pending = [one for pair in zip(views, model.prepare_together(views)) for one in stream.admit(*pair)]
        scores = computed_together(pending)
        assert [s.number for s in scores] == list(range(5))
        assert all(s.values.device == CUDA and s.values.is_floating_point() for s in scores)
        labels = label_map(scores[0].values, [system.size])
        assert (labels.device, labels.dtype) == (CUDA, torch.uint8)
