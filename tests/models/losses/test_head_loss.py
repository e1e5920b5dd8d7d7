"""Losses of a head: names, lists, samplers, and how heads put them together."""

from __future__ import annotations

import copy

import pytest
import torch

from mmseg.errors import ConfigError
from mmseg.models import build_head, build_segmentor
from mmseg.models.losses import CrossEntropyLoss, DiceLoss, HeadLoss, OHEMPixelSampler
from tests.golden_cases import Case, build_filled
from tests.models.losses.test_cross_entropy import sample
from tests.models.test_cffm import tiny_config
from tests.models.test_segmentors import batch
from tests.tools.processes import finish_all, launch

CE, DICE = dict(type="CrossEntropyLoss"), dict(type="DiceLoss", loss_weight=2.0)
NINE = [1.0, 2.0] * 4 + [0.5]


def test_a_single_loss_is_the_loss_of_the_segmentation():
    logits, labels = sample((8, 8), (32, 32))
    for cfg, name in ((CE, "loss_seg"), ({**DICE, "loss_name": "loss_overlap"}, "loss_overlap")):
        losses, correct = HeadLoss(cfg, 12)(logits, labels)
        assert list(losses) == [name] and correct == CrossEntropyLoss()(logits, labels)[1]


def test_losses_of_a_list_have_names_and_equal_names_are_added():
    logits, labels = sample((8, 8), (32, 32))
    ce, dice = CrossEntropyLoss()(logits, labels)[0], 2 * DiceLoss()(logits, labels)[0]
    losses, _ = HeadLoss([CE, DICE, dict(type="CrossEntropyLoss", loss_weight=0.5)], 12)(logits, labels)
    assert list(losses) == ["loss_ce", "loss_dice"]
    torch.testing.assert_close(losses["loss_ce"], 1.5 * ce)
    torch.testing.assert_close(losses["loss_dice"], dice)


def test_losses_see_the_pixels_that_the_sampler_chooses():
    logits, labels = sample((8, 8), (32, 32))
    sampler = dict(type="OHEMPixelSampler", thresh=0.3, min_kept=10)
    losses, correct = HeadLoss([CE, DICE], 12, 255, sampler)(logits, labels)
    weight = OHEMPixelSampler(0.3, 10)(logits, labels)
    for name, loss in (("loss_ce", CrossEntropyLoss()), ("loss_dice", DiceLoss(loss_weight=2.0))):
        value, hits = loss(logits, labels, 255, weight)
        torch.testing.assert_close(losses[name], value)
        assert hits == correct  # of all pixels
        assert losses[name] != loss(logits, labels)[0]


def test_it_adds_nothing_to_the_state_dict():
    config = tiny_config()["decode_head"]
    names = list(build_head(config).state_dict())
    config.update(loss_decode=[{**CE, "class_weight": NINE}, DICE], sampler=dict(type="OHEMPixelSampler"))
    assert list(build_head(config).state_dict()) == names


@pytest.mark.parametrize("name", ["cffm_b1_seg", "cffmpp_b1_seg", "mrcfa_b0_seg", "segformer"])
def test_heads_give_every_loss_by_its_name(name):
    """Each is half that of all frames plus that of the target; of SegFormer, that of all frames."""
    if name == "segformer":
        head = {**copy.deepcopy(Case("cffm", "segformer_b0_head").config), "num_classes": 9}
        config = dict(type="FrameSegmentor", backbone=dict(type="mit_b0"), decode_head=head)
    else:
        config = copy.deepcopy(Case("mrcfa" if "mrcfa" in name else "cffm", name).config)
        config["backbone"] = dict(type="mit_b0")
        config["decode_head"].update(in_channels=[32, 64, 160, 256], num_classes=9)
    inputs = {**batch(size=96), "prototypes": torch.randn(2, 7, 256)}

    def losses_of(loss) -> dict[str, torch.Tensor]:
        config["decode_head"]["loss_decode"] = loss
        return build_filled(build_segmentor, config, "train").loss(inputs)

    weighted = {**CE, "class_weight": NINE}
    found = losses_of([weighted, DICE])
    assert list(found) == ["decode.loss_ce", "decode.loss_dice", "decode.acc_seg"]
    torch.testing.assert_close(found["decode.loss_ce"], losses_of(weighted)["decode.loss_seg"])
    torch.testing.assert_close(found["decode.loss_dice"], losses_of(DICE)["decode.loss_seg"])
    assert found["decode.loss_ce"] != losses_of(CE)["decode.loss_seg"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (dict(loss_decode=[]), r"loss_decode = \[\]"),
        (dict(loss_decode=[CE, dict(type="DiceLos")]), r"loss_decode\.1"),
        (dict(loss_decode={**CE, "class_weight": [1.0, 2.0]}), "2 numbers for a head with num_classes=9"),
        (dict(loss_decode=dict(type="FocalLoss", alpha=[0.5] * 8)), "alpha with 8 numbers"),
        (dict(sampler=dict(type="OHEMPixelSampler", thresh=1.5)), r"sampler\.thresh"),
        (dict(sampler=dict(type="OHEMPixelSampler", min_kept=-1)), r"sampler\.min_kept"),
        (dict(sampler=5), "sampler"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_that_cannot_work(settings, told):
    with pytest.raises(ConfigError, match=told):
        build_head({**tiny_config()["decode_head"], **settings})


PROGRAM = """
import torch
import torch.nn.functional as F
from mmseg import distributed
from mmseg.models.losses import CrossEntropyLoss
from tests.models.losses.test_cross_entropy import sample

distributed.init("pytorch")
logits, labels = sample((8, 8), (32, 32), n=2)
labels[1, 3:] = 255  # one has many labelled pixels, the other few
own = slice(distributed.rank(), distributed.rank() + 1)
loss, _ = CrossEntropyLoss(avg_non_ignore=True)(logits[own], labels[own])
up = F.interpolate(logits, size=(32, 32), mode="bilinear", align_corners=False)
torch.testing.assert_close(distributed.mean(loss), F.cross_entropy(up, labels, ignore_index=255).detach())
nothing, _ = CrossEntropyLoss(avg_non_ignore=True)(logits[own], torch.full_like(labels[own], 255))
assert nothing == 0
distributed.shutdown()
print("equal", flush=True)
"""


@pytest.mark.slow
def test_every_labelled_pixel_of_all_processes_counts_the_same():
    results = finish_all(launch(PROGRAM))
    assert [out.count("equal") for _, out, _ in results] == [1, 1], results
