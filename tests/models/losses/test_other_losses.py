"""Class weights, focal and Dice loss, hard pixels: equal to their formulas on upsampled logits, and small."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmseg.errors import ConfigError
from mmseg.models.losses import CrossEntropyLoss, DiceLoss, FocalLoss, OHEMPixelSampler, upsampled
from mmseg.registry import MODELS, build
from tests.models.losses.largest import Largest
from tests.models.losses.test_cross_entropy import SIZES, sample

CLASSES = 12
WEIGHTS = [0.5 + 0.25 * k for k in range(CLASSES)]


@pytest.fixture(params=[None, 4000], ids=["whole", "slices"])
def slice_numbers(request, monkeypatch) -> None:
    if request.param:
        monkeypatch.setitem(upsampled._SLICE_NUMBERS, "cpu", request.param)


def upsample(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)


def one_hot(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, K, H, W), all zeros where there is no label; and where there is one, (n, 1, H, W)."""
    valid = labels != 255
    hot = F.one_hot(torch.where(valid, labels, 0), CLASSES).movedim(-1, 1) * valid[:, None]
    return hot.double(), valid[:, None].double()


def check(loss, formula, logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None = None) -> None:
    """Value, accuracy and gradient, in double."""
    logits = logits.detach().double().requires_grad_()
    found, correct = loss(logits, labels, 255, weight)
    expected = formula(upsample(logits, labels), labels, 1.0 if weight is None else weight)
    torch.testing.assert_close(found, expected)
    assert correct == (upsample(logits, labels).argmax(1) == labels).sum()
    (grad,), (expected_grad,) = (torch.autograd.grad(2.5 * x, logits) for x in (found, expected))
    assert expected_grad.any()
    torch.testing.assert_close(grad, expected_grad, rtol=1e-6, atol=1e-9 * expected_grad.abs().max().item())


def pixel_weights(labels: torch.Tensor) -> torch.Tensor:
    return torch.rand(labels.shape, generator=torch.Generator().manual_seed(3))


# ---------------------------------------------------------------------- cross entropy


def mean_of_all(z: torch.Tensor, labels: torch.Tensor, weight, class_weight=None) -> torch.Tensor:
    factors = None if class_weight is None else torch.tensor(class_weight, dtype=z.dtype)
    return (F.cross_entropy(z, labels, factors, ignore_index=255, reduction="none") * weight).mean()


@pytest.mark.usefixtures("slice_numbers")
@pytest.mark.parametrize("sizes", SIZES)
def test_class_weights_of_cross_entropy(sizes):
    """The weighted sum over all pixels, divided by their number."""
    logits, labels = sample(*sizes)
    formula = lambda z, y, w: mean_of_all(z, y, w, WEIGHTS)  # noqa: E731
    check(CrossEntropyLoss(class_weight=WEIGHTS), formula, logits, labels)
    check(CrossEntropyLoss(class_weight=WEIGHTS), formula, logits, labels, pixel_weights(labels))


def test_class_weights_of_zero_leave_classes_out():
    logits, labels = sample((8, 8), (32, 32))
    loss, correct = CrossEntropyLoss(class_weight=[0.0] * CLASSES)(logits, labels)
    (grad,) = torch.autograd.grad(loss, logits)
    assert loss == 0 and not grad.any() and correct > 0


def test_mean_over_the_labelled_pixels():
    logits, labels = sample((8, 8), (32, 32))
    labelled = (labels != 255).sum()

    def formula(z: torch.Tensor, labels: torch.Tensor, weight) -> torch.Tensor:
        return mean_of_all(z, labels, weight, WEIGHTS) * labels.numel() / labelled

    check(CrossEntropyLoss(avg_non_ignore=True, class_weight=WEIGHTS), formula, logits, labels)
    nothing, _ = CrossEntropyLoss(avg_non_ignore=True)(logits, torch.full_like(labels, 255))
    assert nothing == 0


@pytest.mark.parametrize("name", ["weights.npy", "weights.json"])
def test_class_weights_from_a_file(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, np.array(WEIGHTS, np.float32))
    else:
        path.write_text(json.dumps(WEIGHTS))
    assert build(MODELS, dict(type="CrossEntropyLoss", class_weight=str(path))).class_weight == pytest.approx(WEIGHTS)


@pytest.mark.parametrize(
    "content", [None, "{}", "[1, -1]", "[1, NaN]", "[[1, 2]]", "3", "[]", '["a"]', "nonsense"], ids=str
)
def test_files_that_hold_no_class_weights(tmp_path, content):
    path = tmp_path / "weights.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"class_weight = .*weights\.json"):
        build(MODELS, dict(type="DiceLoss", class_weight=str(path)))


def test_arrays_that_are_no_class_weights(tmp_path):
    path = tmp_path / "weights.npy"
    np.save(path, np.array([{"a": 1}], dtype=object))
    with pytest.raises(ConfigError, match="class_weight"):
        build(MODELS, dict(type="FocalLoss", class_weight=str(path)))


# ---------------------------------------------------------------------- focal


def sigmoid_focal(z: torch.Tensor, labels: torch.Tensor, weight, gamma=2.0, alpha=0.5, factors=None) -> torch.Tensor:
    hot, valid = one_hot(labels)
    alpha, factors = (torch.as_tensor(x, dtype=z.dtype).reshape(1, -1, 1, 1) for x in (alpha, factors or 1.0))
    p_true = torch.where(hot == 1, z.sigmoid(), 1 - z.sigmoid())
    balance = torch.where(hot == 1, alpha, 1 - alpha)
    weight = weight[:, None] if isinstance(weight, torch.Tensor) else weight
    return (-balance * (1 - p_true) ** gamma * p_true.log() * valid * factors * weight).mean()


def softmax_focal(z: torch.Tensor, labels: torch.Tensor, weight, gamma=2.0, alpha=0.5, factors=None) -> torch.Tensor:
    hot, valid = one_hot(labels)
    alpha, factors = (torch.as_tensor(x, dtype=z.dtype).reshape(1, -1, 1, 1) for x in (alpha, factors or 1.0))
    p = z.softmax(1)
    per_pixel = (-alpha * (1 - p) ** gamma * p.log() * hot * factors).sum(1)
    return (per_pixel * valid[:, 0] * weight).mean()


@pytest.mark.usefixtures("slice_numbers")
@pytest.mark.parametrize("formula", [sigmoid_focal, softmax_focal])
@pytest.mark.parametrize(
    "settings",
    [{}, dict(gamma=0.0, alpha=0.25), dict(gamma=0.5, class_weight=WEIGHTS), dict(alpha=[0.05 * k for k in range(12)])],
    ids=["default", "gamma 0", "class_weight", "alpha of each class"],
)
def test_focal_loss(formula, settings):
    logits, labels = sample((7, 9), (50, 33))
    loss = FocalLoss(use_sigmoid=formula is sigmoid_focal, **settings)
    numbers = {"factors" if name == "class_weight" else name: value for name, value in settings.items()}
    check(loss, lambda *args: formula(*args, **numbers), logits, labels)
    check(loss, lambda *args: formula(*args, **numbers), logits, labels, pixel_weights(labels))


@pytest.mark.parametrize("use_sigmoid", [False, True])
def test_focal_loss_of_large_logits(use_sigmoid):
    logits, labels = sample((4, 4), (16, 16))
    loss, _ = FocalLoss(use_sigmoid=use_sigmoid, gamma=0.5)(1e4 * logits, labels)
    (grad,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite() and grad.isfinite().all()


# ---------------------------------------------------------------------- Dice


def dice(z: torch.Tensor, labels: torch.Tensor, weight, smooth=1.0, exponent=2.0, factors=None) -> torch.Tensor:
    hot, valid = one_hot(labels)
    p = z.softmax(1)
    weight = valid * (weight[:, None] if isinstance(weight, torch.Tensor) else weight)
    both = (p * hot * weight).sum((2, 3))  # (n, K)
    separate = ((p**exponent + hot**exponent) * weight).sum((2, 3))
    per_class = 1 - (2 * both + smooth) / (separate + smooth)
    return (per_class * torch.as_tensor(factors or 1.0, dtype=z.dtype)).mean()


@pytest.mark.usefixtures("slice_numbers")
@pytest.mark.parametrize("settings", [{}, dict(smooth=3.0, exponent=1.0), dict(class_weight=WEIGHTS)], ids=str)
@pytest.mark.parametrize("sizes", SIZES)
def test_dice_loss(sizes, settings):
    logits, labels = sample(*sizes)
    numbers = {"factors" if name == "class_weight" else name: value for name, value in settings.items()}
    check(DiceLoss(**settings), lambda *args: dice(*args, **numbers), logits, labels)
    check(DiceLoss(**settings), lambda *args: dice(*args, **numbers), logits, labels, pixel_weights(labels))


# ---------------------------------------------------------------------- hard pixels


def probabilities(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    p = upsample(logits, labels).softmax(1)
    return p.gather(1, torch.where(labels == 255, 0, labels)[:, None])[:, 0]


@pytest.mark.usefixtures("slice_numbers")
@pytest.mark.parametrize(("thresh", "kept"), [(0.05, 20), (0.3, 20), (0.05, 300), (0.7, 100_000), (None, 50)])
def test_hard_pixels(thresh, kept):
    """Those below the threshold; at least `kept` for each image, wherever they are."""
    logits, labels = sample((8, 8), (32, 32))
    p, valid = probabilities(logits, labels), labels != 255
    weight = OHEMPixelSampler(thresh, kept)(logits, labels)
    chosen = weight.bool()
    assert set(weight.unique().tolist()) <= {0.0, 1.0} and not (chosen & ~valid).any()
    ordered, least = p[valid].sort().values, min(kept * 3, int(valid.sum()) - 1)
    if thresh is None:
        assert chosen.sum() == kept * 3 and p[chosen].max() <= p[valid & ~chosen].min()
    else:
        assert torch.equal(chosen, valid & (p < max(ordered[least], torch.tensor(thresh))))
        assert chosen.sum() >= least


def test_nothing_is_hard_where_nothing_is_labelled():
    logits, labels = sample((8, 8), (32, 32))
    for thresh in (0.7, None):
        assert not OHEMPixelSampler(thresh, 10)(logits, torch.full_like(labels, 255)).any()


# ---------------------------------------------------------------------- all of them


LOSSES = {
    "cross entropy": CrossEntropyLoss(class_weight=[1.0] * 40),
    "sigmoid focal": FocalLoss(class_weight=[1.0] * 40),
    "softmax focal": FocalLoss(use_sigmoid=False),
    "dice": DiceLoss(),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_no_tensor_of_label_size_and_all_classes_exists(loss, monkeypatch):
    monkeypatch.setitem(upsampled._SLICE_NUMBERS, "cpu", 40 * 120 * 8)
    logits, labels = sample((30, 30), (120, 120), classes=40, n=5)
    with Largest() as largest:
        weight = OHEMPixelSampler(0.7, 100)(logits, labels)
        loss(logits, labels, 255, weight)[0].backward()
    assert largest.numel <= logits.numel()  # a sixteenth of the upsampled logits


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_autocast_and_bfloat16_logits(loss):
    logits, labels = sample((8, 8), (32, 32), classes=40)
    low = logits.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = loss(low, labels)
    torch.testing.assert_close(found, loss(low.float(), labels)[0])
    found.backward()
    assert low.grad.dtype == torch.bfloat16 and low.grad.any()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_weight_and_nothing_labelled(loss):
    logits, labels = sample((8, 8), (32, 32), classes=40)
    thrice = type(loss)(loss_weight=3.0)
    torch.testing.assert_close(thrice(logits, labels)[0], 3 * type(loss)()(logits, labels)[0])
    nothing, correct = loss(logits, torch.full_like(labels, 255))
    nothing.backward()
    assert nothing.isfinite() and correct == 0
    assert logits.grad.abs().max() < 1e-12


@pytest.mark.parametrize(
    ("cfg", "told"),
    [
        (dict(type="CrossEntropyLoss", class_weight=[1, -1]), "class_weight"),
        (dict(type="CrossEntropyLoss", use_sigmoid=True), "use_sigmoid"),
        (dict(type="CrossEntropyLoss", loss_name="ce"), "loss_name"),
        (dict(type="CrossEntropyLoss", reduction="sum"), "reduction"),
        (dict(type="FocalLoss", gamma=-1), "gamma"),
        (dict(type="FocalLoss", alpha=2), "alpha"),
        (dict(type="DiceLoss", loss_weight="much"), "loss_weight"),
        (dict(type="DiceLoss", smooth=-1), "smooth"),
        (dict(type="LovaszLoss"), "LovaszLoss"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_that_cannot_work(cfg, told):
    with pytest.raises(ConfigError, match=told):
        build(MODELS, cfg)
