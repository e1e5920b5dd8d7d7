"""The losses of THE-Mask: official numbers, and what batches of few or no classes do."""

import numpy as np
import pytest
import torch

from mmseg.errors import DataError
from mmseg.models.decode_heads.themask.criterion import HierarchicalCriterion
from mmseg.models.decode_heads.themask.prediction import Prediction
from mmseg.models.decode_heads.themask.targets import find_targets
from mmseg.models.losses.matching import assign, without
from tests.golden_cases import Case, points
from tests.reference import themask_loss
from tests.tools.processes import finish_all, launch


def criterion_of(config: dict, **more) -> HierarchicalCriterion:
    criterion = HierarchicalCriterion(124, video=config["type"] == "THEMaskHead", **config["loss_cfg"], **more)
    criterion.draw = points
    return criterion


@pytest.mark.parametrize(
    ("name", "iteration", "more"),
    [
        ("criterion_1f_warmup", 30000, {}),  # as released: the second round never comes
        ("criterion_1f_two_round", 30000, {"two_round_after_warmup": True}),
        ("criterion_video_t2", 0, {}),
    ],
)
def test_losses_and_gradients_are_the_official_ones(name, iteration, more):
    case = Case("themask", name)
    inputs = case.inputs()
    labels = inputs.pop("gt_semantic_seg")
    inputs = {key: value.requires_grad_() for key, value in inputs.items()}
    layers = zip(*inputs.values())  # main.logits, main.masks, then those of the frames
    criterion = criterion_of(case.config, **more)
    losses = criterion([Prediction(*layer) for layer in layers], labels, iteration)
    total = sum(losses.values())
    total.backward()
    grads = {f"grad.{key}": value.grad for key, value in inputs.items()}
    found = {**losses, "total": total, **grads}
    assert set(found) == set(case["outputs"])
    for key, value in found.items():
        case.check(key, value)


@pytest.mark.parametrize(("name", "video"), [("matcher_1f", False), ("matcher_video_t2", True)])
def test_both_rounds_of_matching_are_the_official_ones(name, video):
    case = Case("themask", name)
    inputs, cfg = case.inputs(), case.config
    weights = {f"{cost}_weight": cfg[f"cost_{cost}"] for cost in ("class", "mask", "dice")}
    criterion = HierarchicalCriterion(124, video, matcher_cfg=weights, train_num_points=cfg["num_points"])
    criterion.draw = points
    prediction = Prediction(inputs["pred_logits"], inputs["pred_masks"])
    if video:  # the masks of the frames are what is matched
        prediction.frame_masks = inputs["pred_masks"].transpose(1, 2).flatten(0, 1)[:, :, None]
        prediction.masks = torch.full_like(prediction.masks, torch.nan)
    targets = find_targets(inputs["gt_semantic_seg"][:, :, 0], criterion.num_classes, 20, torch.float32)
    first, second = criterion.pair_costs(prediction, targets)
    rounds = criterion.match([prediction], targets, rounds=2)
    for item, count in enumerate(targets.counts):
        case.check(f"labels.item{item}", targets.classes[item, :count])
        case.check(f"cost.round1.item{item}", first[item, :, :count])
        taken = rounds[0][0][item][0]
        case.check(f"cost.round2.item{item}", without(second[item, :, :count].numpy(), taken))
        for number, of_layers in enumerate(rounds, start=1):
            case.check(f"round{number}.item{item}", np.stack(of_layers[0][item]))


def test_taken_queries_cost_a_thousand_times_the_highest_cost_and_are_never_taken_again():
    costs = np.array([[-1.9, -1.5], [-1.8, 0.01], [-1.2, -0.4], [-0.3, -0.2]])  # good pairs have negative costs
    second = without(costs, np.array([0, 1]))
    np.testing.assert_allclose(second, [[10, 10], [10, 10], [-1.2, -0.4], [-0.3, -0.2]])
    assert [x.tolist() for x in assign(second)] == [[2, 3], [0, 1]]
    assert [x.tolist() for x in assign(without(costs - 1, np.array([0, 3])))] == [[1, 2], [0, 1]]  # all are negative


def test_second_round_waits_for_the_end_of_the_warm_up():
    criterion = HierarchicalCriterion(4, False, warmup_iters=7, two_round_after_warmup=True)
    assert [criterion.takes_two_rounds(i) for i in (0, 6, 7, 8)] == [False, False, True, True]
    assert not HierarchicalCriterion(4, False, warmup_iters=7).takes_two_rounds(10**6)
    assert HierarchicalCriterion(4, True, warmup_iters=7).takes_two_rounds(0)


def batch(video: bool, labels: torch.Tensor, queries: int = 8, layers: int = 3) -> list[Prediction]:
    """Random predictions of 4 classes for the clips `labels` (B, T, 1, H, W)."""
    clips, frames, _, height, width = labels.shape
    size = (height // 4, width // 4)

    def made(*shape):
        return torch.randn(*shape, requires_grad=True)

    def one():
        clip = made(clips, queries, 5), made(clips, queries, frames, *size)
        return Prediction(*clip, *((made(clips * frames, queries, 5), made(clips * frames, queries, 1, *size)) * video))

    return [one() for _ in range(layers)]


@pytest.mark.parametrize("video", [False, True], ids=["1f", "video"])
@pytest.mark.parametrize("nothing", ["one clip", "all clips"])
def test_clips_without_classes_train_without_nan(video, nothing):
    labels = torch.full((2, 2, 1, 16, 16), 255)
    if nothing == "one clip":
        labels[1, 0, 0, :8] = 2
    criterion = HierarchicalCriterion(4, video, train_num_points=32, two_round_after_warmup=True)
    predictions = batch(video, labels)
    losses = criterion(predictions, labels, 0)
    full = criterion(batch(video, labels), torch.randint(0, 4, labels.shape), 0)
    assert list(losses) == list(full)  # so that what the processes log can be averaged
    sum(losses.values()).backward()
    for prediction in predictions:
        for value in vars(prediction).values():
            assert value is None or (value.grad is not None and bool(value.grad.isfinite().all()))
    if nothing == "all clips":
        assert all(value == 0 for name, value in losses.items() if "loss_ce" not in name)
        wanted = torch.nn.functional.cross_entropy(predictions[-1].logits.flatten(0, 1), torch.full((16,), 4))
        torch.testing.assert_close(losses["loss_ce"], 2 * wanted)


def test_nothing_to_learn_is_no_loss():
    """No class in the batch, and no weight for queries that answer for nothing."""
    labels, predictions = torch.full((1, 1, 1, 16, 16), 255), batch(False, torch.zeros(1, 1, 1, 16, 16))
    losses = HierarchicalCriterion(4, False, train_num_points=32, no_object_weight=0)(predictions, labels, 0)
    assert all(value == 0 for value in losses.values())
    sum(losses.values()).backward()
    assert bool((predictions[0].logits.grad == 0).all())


def test_too_many_classes_for_the_queries_and_unknown_labels_are_told():
    labels = torch.arange(4).repeat_interleave(4)[None, None, None, None].expand(1, 1, 1, 16, 16).contiguous()
    criterion = HierarchicalCriterion(4, False, train_num_points=32)
    criterion(batch(False, labels, queries=8), labels, 0)
    with pytest.raises(DataError, match="4 classes in a training clip for 7 queries"):
        criterion(batch(False, labels, queries=7), labels, 0)
    with pytest.raises(DataError, match="label 4 in a training batch"):
        criterion(batch(False, labels), labels + 1, 0)


def test_only_the_result_is_trained_without_deep_supervision():
    labels = torch.randint(0, 4, (1, 2, 1, 16, 16))
    criterion = HierarchicalCriterion(4, True, train_num_points=32, deep_supervision=False)
    losses = criterion(predictions := batch(True, labels), labels, 0)
    assert "loss_ce" in losses and "r1_loss_dice_unmatched_aux" in losses and len(losses) == 10
    sum(losses.values()).backward()
    assert predictions[0].logits.grad is None


def test_losses_are_a_function_of_the_generator_and_are_taken_in_float32():
    labels = torch.randint(0, 4, (1, 2, 1, 16, 16))
    criterion, predictions = HierarchicalCriterion(4, True, train_num_points=32), batch(True, labels)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(criterion(predictions, labels, 0)["r0_loss_mask"].item())
    assert found[0] == found[1] != found[2]
    half = [Prediction(*(value.detach().bfloat16() for value in vars(p).values())) for p in predictions]
    wide = [Prediction(*(value.float() for value in vars(p).values())) for p in half]
    results = []
    for inputs, enabled in ((half, True), (wide, False)):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            results.append(criterion(inputs, labels, 0))
    assert results[0] == results[1]


@pytest.mark.parametrize("video", [False, True], ids=["1f", "video"])
@pytest.mark.parametrize("size", [(16, 24), (18, 22), (15, 9)])
@pytest.mark.parametrize("iteration", [0, 10])
def test_losses_are_those_of_the_formulas(video, size, iteration):
    """Also where a mask logit does not stand for the same number of pixels everywhere."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 5, (3, 2, 1, *size), generator=generator)
    labels[labels == 4], labels[1, :, :, :5], labels[2] = 255, 255, 255
    torch.manual_seed(4)
    predictions = batch(video, labels, queries=9)
    criterion = HierarchicalCriterion(
        4, video, train_num_points=50, warmup_iters=5, two_round_after_warmup=True, no_object_weight=0.3
    )
    criterion.draw = points
    values = [value for prediction in predictions for value in vars(prediction).values() if value is not None]
    found = criterion(predictions, labels, iteration)
    expected = themask_loss.losses(criterion, [vars(prediction) for prediction in predictions], labels, iteration)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=2e-6, rtol=1e-5, msg=lambda m: f"{name}: {m}")  # noqa: B023
    ours, theirs = (torch.autograd.grad(sum(losses.values()), values) for losses in (found, expected))
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


PROCESS = """
import sys
import torch
from mmseg import distributed
from mmseg.errors import DataError
from mmseg.models.decode_heads.themask.criterion import HierarchicalCriterion
from tests.models.test_themask_criterion import batch

distributed.init("pytorch", "gloo")
rank = distributed.rank()
labels = torch.full((1, 2, 1, 16, 16), 255)
labels[..., :8] = torch.tensor([[255], [0]])[rank]
labels[..., 8:] = torch.tensor([[255], [3]])[rank]
criterion = HierarchicalCriterion(4, True, train_num_points=32)
torch.manual_seed(0)
losses = criterion(batch(True, labels), labels, 0)
print(losses["r1_loss_dice_unmatched"].item(), losses["r1_loss_dice_unmatched_aux"].item())
labels[:] = torch.arange(2 * rank + 1).repeat_interleave(16)[:16]
labels[..., 0] = torch.arange(16) % (2 * rank + 1)
try:
    criterion(batch(True, labels, queries=4), labels, 0)
except DataError as error:
    print(error)
"""


@pytest.mark.slow
def test_processes_share_the_normaliser_and_their_errors():
    outputs = finish_all(launch(PROCESS))
    assert [status for status, *_ in outputs] == [0, 0], outputs
    (none, told), (some, also_told) = (out.splitlines()[:2] for _, out, _ in outputs)
    assert none == "0.0 0.0"
    labels = torch.full((1, 2, 1, 16, 16), 0)
    labels[..., 8:] = 3
    torch.manual_seed(0)
    alone = HierarchicalCriterion(4, True, train_num_points=32)(batch(True, labels), labels, 0)
    clip, frame = map(float, some.split())
    # 2 classes here and none there: sums are divided by 1 (of 2 frames: by 2) in place of 2 (and 4)
    assert clip == pytest.approx(2 * alone["r1_loss_dice_unmatched"].item())
    assert frame == pytest.approx(2 * alone["r1_loss_dice_unmatched_aux"].item())
    assert told == also_told and "3 classes in a training clip for 4 queries" in told
