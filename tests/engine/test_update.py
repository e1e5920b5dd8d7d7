"""One optimiser update: accumulation, clipping, mixed precision."""

import pytest
import torch

from mmseg.engine.step import Updater, accumulation_steps
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
        def forward(self, batch):
            values = super().forward(batch)
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
    with pytest.raises(ConfigError, match="did you mean 'bfloat16'"):
        updater({"amp": {"dtype": "bfloat61"}})
