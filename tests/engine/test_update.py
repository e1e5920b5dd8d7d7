"""One optimiser update: accumulation, clipping, mixed precision."""

import pytest
import torch
from torch import nn

from mmseg.engine.step import Updater, accumulation_steps, norms_to_synchronise, synchronise, to_device
from mmseg.errors import ConfigError
from tests.engine.toy import ToySegmentor, batch_of

CPU = torch.device("cpu")


def updater(cfg: dict | None = None, **model) -> Updater:
    torch.manual_seed(0)
    module = ToySegmentor(**model)
    return Updater(module, torch.optim.SGD(module.parameters(), lr=0.5), CPU, cfg or {})


def split(batch: dict) -> list[dict]:
    return [{key: value[i : i + 1] for key, value in batch.items()} for i in range(len(batch["img"]))]


def test_accumulation_equals_the_big_batch():
    batch = batch_of(4)
    big, small = (updater(dropout=0.0, batch_norm=False) for _ in range(2))
    values_big, values_small = big([batch]), small(split(batch))
    assert values_big.keys() == values_small.keys() == {"decode.loss_seg", "decode.acc_seg", "loss"}
    for name, value in values_big.items():
        torch.testing.assert_close(values_small[name], value)
    for a, b in zip(big.model.parameters(), small.model.parameters()):
        torch.testing.assert_close(a, b)
    assert big.model.unused.weight.grad is None and small.model.unused.weight.grad is None


def test_total_loss_is_the_sum_of_the_entries_named_loss():
    class TwoLosses(ToySegmentor):
        def forward(self, batch, iteration=0):
            values = super().forward(batch, iteration)
            return {**values, "decode.loss_aux": 0.4 * values["decode.loss_seg"]}

    module = TwoLosses(dropout=0.0)
    values = Updater(module, torch.optim.SGD(module.parameters(), lr=0.1), CPU, {})([batch_of(2)])
    torch.testing.assert_close(values["loss"], 1.4 * values["decode.loss_seg"])


def test_gradients_are_clipped_over_all_parameters():
    free, clipped = updater(), updater({"optimizer_config": {"grad_clip": {"max_norm": 0.01, "norm_type": 2}}})
    torch.manual_seed(1)
    free([batch_of(2)])
    torch.manual_seed(1)
    values = clipped([batch_of(2)])
    norms = [
        torch.stack([p.grad.norm() for p in u.model.parameters() if p.grad is not None]).norm() for u in (free, clipped)
    ]
    torch.testing.assert_close(values["grad_norm"], norms[0])
    assert norms[1] == pytest.approx(0.01, rel=1e-3)


def test_scaled_gradients_are_clipped_by_their_true_size():
    clip = {"optimizer_config": {"grad_clip": {"max_norm": 0.01}}}
    plain, scaled = updater(clip, dropout=0.0), updater(clip, dropout=0.0)
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1)  # as on a GPU
    values, expected = scaled([batch_of(2)]), plain([batch_of(2)])
    torch.testing.assert_close(values["grad_norm"], expected["grad_norm"])
    assert scaled.scaler.get_scale() == 2048.0  # adapts itself after every update
    for a, b in zip(scaled.model.parameters(), plain.model.parameters()):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_amp_on_the_cpu(dtype, caplog):
    seen = []
    mixed, full = updater({"amp": {"dtype": dtype}}, dropout=0.0), updater(dropout=0.0)
    mixed.model.conv.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    values, expected = mixed([batch_of(2)]), full([batch_of(2)])
    assert seen == [torch.bfloat16] and mixed.model.conv.weight.dtype == torch.float32
    torch.testing.assert_close(values["loss"], expected["loss"], atol=0.02, rtol=0)
    assert ("needs a GPU" in caplog.text) == (dtype == "float16")


def test_accumulation_keys():
    assert accumulation_steps({}) == 1
    assert accumulation_steps({"gradient_accumulation": 4}) == 4
    assert accumulation_steps({"optimizer_config": {"cumulative_iters": 2}, "gradient_accumulation": 2}) == 2
    with pytest.raises(ConfigError, match="remove the other"):
        accumulation_steps({"optimizer_config": {"cumulative_iters": 2}, "gradient_accumulation": 3})
    with pytest.raises(ConfigError, match="gradient_accumulation = 0"):
        accumulation_steps({"gradient_accumulation": 0})


def test_unknown_amp_type():
    with pytest.raises(ConfigError, match=r"amp\.dtype = 'bfloat61'"):
        updater({"amp": {"dtype": "bfloat61"}})


def test_iteration_reaches_the_model():
    class Counting(ToySegmentor):
        def forward(self, batch, iteration=0):
            seen.append(iteration)
            return super().forward(batch, iteration)

    seen = []
    module = Counting()
    Updater(module, torch.optim.SGD(module.parameters(), lr=0.1), CPU, {})([batch_of(1), batch_of(1)], 7)
    assert seen == [7, 7]


def normed() -> nn.Module:
    frozen = nn.BatchNorm2d(4).requires_grad_(False)
    head = nn.ModuleDict(
        {"fuse": nn.BatchNorm2d(4), "fuse2": nn.BatchNorm1d(4), "blocks": nn.Sequential(nn.BatchNorm2d(4))}
    )
    return nn.ModuleDict({"backbone": nn.Sequential(frozen, nn.BatchNorm2d(4), nn.LayerNorm(4)), "head": head})


@pytest.mark.parametrize(
    ("prefixes", "expected"),
    [
        (("",), ["backbone.1", "head.fuse", "head.fuse2", "head.blocks.0"]),
        (("head.fuse",), ["head.fuse"]),
        (("head.blocks", "backbone."), ["backbone.1", "head.blocks.0"]),
        ((), []),
    ],
)
def test_which_norms_are_synchronised(prefixes, expected):
    """A frozen norm keeps its statistics and is left alone, a prefix ends where a part of the name ends."""
    assert norms_to_synchronise(normed(), prefixes) == expected


def test_synchronised_norms_keep_weights_and_names():
    model, before = normed(), normed()
    for one, other in zip(model.parameters(), before.parameters()):
        nn.init.normal_(one)
        other.data.copy_(one)
    synchronise(model, ["head.fuse", "head.blocks.0"])
    kinds = {name: type(m) for name, m in model.named_modules() if isinstance(m, nn.SyncBatchNorm)}
    assert list(kinds) == ["head.fuse", "head.blocks.0"]
    assert list(model.state_dict()) == list(before.state_dict())
    assert all(torch.equal(v, before.state_dict()[k]) for k, v in model.state_dict().items())


def test_tensors_in_lists_travel_to_the_device_too():
    batch = {"img": torch.ones(2, 3), "masks": [torch.ones(4), torch.ones(2)], "img_metas": [{"video": "a"}, {"n": 1}]}
    moved = to_device(batch, torch.device("meta"))
    assert moved["img"].is_meta and [mask.is_meta for mask in moved["masks"]] == [True, True]
    assert moved["img_metas"] == batch["img_metas"] and not batch["masks"][0].is_meta
