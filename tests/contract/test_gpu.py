"""Every system on a real GPU: ``pytest -m gpu``. Without one the tests are skipped, and say so."""

from __future__ import annotations

import pytest
import torch

from mmseg.engine.optim import build_optimizer
from mmseg.engine.predict import predict
from mmseg.engine.step import norms_to_synchronise, synchronise
from mmseg.models.cpu.label_map import label_map, resize_logits
from tests.contract.systems import SIZE, SYSTEMS, System
from tests.engine.test_ahead import IN_PARTS, PIPELINE, frames
from tests.gpu import MARKS, exact_products  # noqa: F401  (a fixture of every test here)

pytestmark = MARKS
every_system = pytest.mark.parametrize("system", SYSTEMS, ids=[system.name for system in SYSTEMS])
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def on_gpu(entries: dict) -> dict:
    return {name: value.cuda() if torch.is_tensor(value) else value for name, value in entries.items()}


def gpu_stream(system: System, model):
    return model.stream("some video", **on_gpu(system.settings()))


@every_system
@pytest.mark.parametrize("precision", PRECISIONS)
def test_training_step(system: System, precision: str):
    """Loss and gradients are those of the CPU; an update lowers the loss of its batch."""
    dtype, batch = PRECISIONS[precision], system.batch()
    expected = sum(v for n, v in system.model("train").loss(batch, 0).items() if "loss" in n).item()
    model, batch = system.model("train").cuda(), on_gpu(batch)
    optimizer = build_optimizer(model, dict(type="AdamW", lr=system.lr / 5, weight_decay=0.0))
    scaler = torch.amp.GradScaler("cuda", enabled=dtype is torch.float16)
    seen = []
    for iteration in range(3):
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype, enabled=dtype is not None):
            loss = sum(v for n, v in model(batch, iteration).items() if "loss" in n)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        seen.append(loss.item())
    tolerance = 1e-3 if dtype is None else 5e-2
    assert abs(seen[0] - expected) < tolerance * expected, (seen, expected)
    assert all(torch.isfinite(torch.tensor(seen)))


@every_system
def test_stream_equals_that_of_the_cpu(system: System):
    frames = system.video(12)
    expected = system.answers(system.stream(system.model()), frames)
    got = system.answers(gpu_stream(system, system.model().cuda()), frames.cuda())
    for t, values in got.items():
        torch.testing.assert_close(values.cpu(), expected[t], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("system", IN_PARTS, ids=[system.name for system in IN_PARTS])
@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_frames_together_are_those_one_at_a_time(system: System, amp: torch.dtype | None):
    """Batches of frames, label maps that are copied while the GPU goes on, weights in bfloat16."""
    model = system.model().cuda()
    short = {"dilation": (-3, -2, -1)} if "dilation" in model.stream_settings else {}
    options = {"settings": {**on_gpu(system.settings()), **short}, "source": "some video", "amp": amp}
    one, several = (
        list(predict(model, frames(21, SIZE, model.takes_flow), PIPELINE, ahead=ahead, **options))
        for ahead in (False, True)
    )
    assert [result.frame.number for result in several] == [result.frame.number for result in one]
    same = [(a.labels == b.labels).mean() for a, b in zip(one, several, strict=True)]
    assert min(same) > (0.999 if amp is None else 0.9), same


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_labels_of_another_gpu_than_the_current_one():
    """They are copied while the GPU works on, and looked at when it has done so."""
    found = []
    for device in ("cuda:0", "cuda:1"):
        model = IN_PARTS[0].model().to(device)
        found.append([result.labels for result in predict(model, frames(21, SIZE), PIPELINE)])
    assert torch.cuda.current_device() == 0
    assert min((a == b).mean() for a, b in zip(*found, strict=True)) > 0.999


@every_system
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_streams(system: System, precision: str):
    model, frames = system.model().cuda(), system.video(12).cuda()
    exact = system.answers(gpu_stream(system, model), frames)
    with torch.autocast("cuda", PRECISIONS[precision]):
        rounded = system.answers(gpu_stream(system, model), frames)
    same = [(rounded[t].argmax(0) == exact[t].argmax(0)).float().mean() for t in exact]
    assert torch.stack(same).mean() > 0.9


@every_system
def test_two_streams_at_once(system: System):
    model, (first, second) = system.model().cuda(), (system.video(11, seed=1).cuda(), system.video(11, seed=2).cuda())
    alone = system.answers(gpu_stream(system, model), second)
    a, b = gpu_stream(system, model), gpu_stream(system, model)
    mixed = []
    for t in range(11):
        list(a.push(system.view(t, first[t])))
        mixed += b.push(system.view(t, second[t]))
    mixed += b.finish()
    for s in mixed:
        torch.testing.assert_close(s.values, alone[s.number], rtol=1e-5, atol=1e-5)


@every_system
def test_memory_of_a_long_stream_is_flat(system: System):
    model, frames = system.model().cuda(), system.video(10).cuda()
    stream, seen = gpu_stream(system, model), {}
    for t in range(200):
        list(stream.push(system.view(t, frames[t % 10])))
        if t in (20, 199):
            torch.cuda.synchronize()
            seen[t] = torch.cuda.memory_allocated()
    assert seen[199] <= 1.01 * seen[20], seen


@every_system
def test_compiled_training_step(system: System):
    """The same loss, and one compilation whatever the videos are called."""
    batch = on_gpu(system.batch())
    expected = system.model("train").cuda().loss(batch, 0)
    model = system.model("train").cuda()
    model.compile()
    torch._dynamo.utils.counters.clear()
    for number in range(3):
        batch["img_metas"] = [dict(video=f"another {number} {i}") for i in range(2)]
        losses = model(batch, number)
        if number == 0:
            compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("sizes", [[(240, 424)], [(480, 864), (480, 853)], [(64, 96), (45, 70)]])
def test_label_map_equals_the_formula(sizes):
    logits = torch.randn(124, 60, 106, generator=torch.Generator().manual_seed(0))
    expected = resize_logits(logits, sizes).argmax(0)
    assert (label_map(logits.cuda(), sizes).cpu() == expected).float().mean() > 0.9999


def test_batch_norm_is_converted_where_the_model_says_so(tmp_path):
    """SyncBatchNorm of one process over nccl gives the statistics of plain batch norm."""
    torch.distributed.init_process_group("nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        system = SYSTEMS[1]
        model = system.model("train").cuda()
        synchronise(model, norms_to_synchronise(model, model.synchronised_norms))
        assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in model.modules())
        batch = on_gpu(system.batch())
        losses, expected = model.loss(batch), system.model("train").cuda().loss(batch)
        torch.testing.assert_close(losses["decode.loss_seg"], expected["decode.loss_seg"], rtol=1e-4, atol=1e-4)
    finally:
        torch.distributed.destroy_process_group()
