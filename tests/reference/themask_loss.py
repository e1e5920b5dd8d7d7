"""The losses of THE-Mask (arXiv:2309.08020, section 3.3), layer by layer, clip by clip, all masks in full size.

B clips of T frames, Q queries, n targets of a clip, N matched pairs, P points. A pseudo-target is made, and compared
with, at the size of the labels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

Targets = list[tuple[Tensor, Tensor]]  # of each item: classes (n,) and masks (n, T, H, W)
Pairs = list[tuple[Tensor, Tensor]]  # of each item: queries (n,) and targets (n,)


def losses(criterion: nn.Module, layers: list[dict[str, Tensor]], labels: Tensor, iteration: int) -> dict[str, Tensor]:
    """All losses by name.

    Args:
        criterion: for its settings, the weights of its classes, and where its points come from.
        layers: ``logits`` (B, Q, K + 1) and ``masks`` (B, Q, T, h, w) of every prediction, and for videos
            ``frame_logits`` (B * T, Q, K + 1) and ``frame_masks`` (B * T, Q, 1, h, w).
        labels: (B, T, 1, H, W).
    """
    clips = [targets_of(clip) for clip in labels[:, :, 0]]
    frames = [(classes, masks[:, t, None]) for classes, masks in clips for t in range(labels.shape[1])]
    two_rounds = criterion.video or (criterion.two_round_after_warmup and iteration >= criterion.warmup_iters)
    out: dict[str, Tensor] = {}
    for number, layer in enumerate(layers):
        suffix = "" if number == len(layers) - 1 else f"_{number}"
        rounds = matched(criterion, layer, clips)[: 1 + two_rounds]
        terms = terms_of(criterion, layer["logits"], layer["masks"], clips, rounds)
        out |= {name + suffix: value for name, value in terms.items()}
        if criterion.video:
            repeated = [[pair for pair in pairs for _ in range(labels.shape[1])] for pairs in rounds]
            terms = terms_of(criterion, layer["frame_logits"], layer["frame_masks"], frames, repeated)
            out |= {f"{name}{suffix}_aux": criterion.aux_weight * value for name, value in terms.items()}
    return out


def targets_of(clip: Tensor) -> tuple[Tensor, Tensor]:
    """Classes (n,) in a clip (T, H, W), and the mask of each; ignored pixels are in none."""
    classes = torch.tensor([c for c in clip.unique().tolist() if c != 255], dtype=torch.int64)
    masks = [(clip == c).float() for c in classes]
    return classes, torch.stack(masks) if masks else torch.zeros(0, *clip.shape)


def matched(criterion: nn.Module, layer: dict[str, Tensor], clips: Targets) -> list[Pairs]:
    """Pairs of both rounds."""
    rounds: list[Pairs] = [[], []]
    masks = layer["masks"]
    if criterion.video:
        masks = layer["frame_masks"][:, :, 0].unflatten(0, (len(clips), -1)).transpose(1, 2)
    for logits, mask, (classes, target) in zip(layer["logits"].detach(), masks.detach(), clips):
        points = criterion.draw((1, criterion.num_points, 2))
        x, y = sampled(mask, points), sampled(target, points)  # (Q, T * P), (n, T * P)
        by_class = -logits.softmax(-1)[:, classes]
        by_mask = (F.softplus(-x) @ y.T + F.softplus(x) @ (1 - y).T) / x.shape[1]
        s = x.sigmoid()
        by_dice = 1 - (2 * s @ y.T + 1) / (s.sum(1)[:, None] + y.sum(1) + 1)
        w = criterion.weights
        cost = w["mask_weight"] * by_mask + w["class_weight"] * by_class + w["dice_weight"] * by_dice
        rounds[0].append(tuple(map(torch.from_numpy, linear_sum_assignment(cost))))
        cost = (cost if criterion.video else by_mask).clone()
        if cost.numel():
            cost[rounds[0][-1][0]] = 1000 * cost.max().abs()
        rounds[1].append(tuple(map(torch.from_numpy, linear_sum_assignment(cost))))
    return rounds


def sampled(masks: Tensor, points: Tensor) -> Tensor:
    """(n, T, H, W) at points (1, P, 2) that all share: (n, T * P)."""
    maps = masks.flatten(0, 1)[None]
    return F.grid_sample(maps, 2 * points[:, :, None] - 1, align_corners=False).view(
        len(masks), masks.shape[1] * points.shape[1]
    )


def terms_of(
    criterion: nn.Module, logits: Tensor, masks: Tensor, items: Targets, rounds: list[Pairs]
) -> dict[str, Tensor]:
    """The losses of one prediction of items (clips or frames): logits (items, Q, K + 1), masks (items, Q, T, h, w)."""
    w, total = criterion.weights, max(1, sum(len(classes) for classes, _ in items)) * masks.shape[2]
    out = {"loss_ce": w["class_weight"] * cross_entropy(criterion, logits, items, rounds)}
    mask, dice = first_round(criterion, masks, items, rounds[0])
    prefix, factor = ("r0_", criterion.round_weight[0]) if len(rounds) == 2 else ("", 1.0)
    out[f"{prefix}loss_mask"] = w["mask_weight"] * factor * mask / total
    out[f"{prefix}loss_dice"] = w["dice_weight"] * factor * dice / total
    if len(rounds) == 2:
        mask, dice = second_round(masks, items, rounds[1])
        out["r1_loss_mask_unmatched"] = w["mask_weight_unmatched"] * criterion.round_weight[1] * mask / total
        out["r1_loss_dice_unmatched"] = w["dice_weight_unmatched"] * criterion.round_weight[1] * dice / total
    return out


def cross_entropy(criterion: nn.Module, logits: Tensor, items: Targets, rounds: list[Pairs]) -> Tensor:
    wanted = torch.full(logits.shape[:2], criterion.num_classes)
    for pairs in rounds:
        for item, (queries, targets) in enumerate(pairs):
            wanted[item, queries] = items[item][0][targets]
    return F.cross_entropy(logits.transpose(1, 2), wanted, criterion.empty_weight)


def paired(masks: Tensor, items: Targets, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Mask logits (N * T, h, w) and targets (N * T, H, W) of all pairs."""
    logits = torch.cat([masks[item, queries] for item, (queries, _) in enumerate(pairs)])
    targets = torch.cat([items[item][1][found] for item, (_, found) in enumerate(pairs)])
    return logits.flatten(0, 1), targets.flatten(0, 1)


def first_round(criterion: nn.Module, masks: Tensor, items: Targets, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Sums of cross entropy and dice loss at points most of which are uncertain."""
    logits, targets = paired(masks, items, pairs)
    if not len(logits):
        return logits.sum(), logits.sum()
    count = criterion.num_points
    uncertain = int(criterion.importance_sample_ratio * count)
    candidates = criterion.draw((len(logits), int(count * criterion.oversample_ratio), 2))
    best = at_points(logits.detach(), candidates).abs().topk(uncertain, largest=False).indices
    chosen = torch.gather(candidates, 1, best[..., None].expand(-1, -1, 2))
    points = torch.cat([chosen, criterion.draw((len(logits), count - uncertain, 2))], 1)
    return cross_entropy_and_dice(at_points(logits, points), at_points(targets, points))


def at_points(maps: Tensor, points: Tensor) -> Tensor:
    """Maps (N, h, w) at points (N, P, 2) of their own."""
    return F.grid_sample(maps[:, None], 2 * points[:, :, None] - 1, align_corners=False)[:, 0, :, 0]


def second_round(masks: Tensor, items: Targets, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Sums of cross entropy and dice loss at all pixels, with the part of its class that a query claims already."""
    logits, targets = paired(masks, items, pairs)
    x = F.interpolate(logits[:, None], size=targets.shape[-2:], mode="nearest")[:, 0]
    pseudo = targets * (targets * x.detach().sigmoid() > 0.5)
    return cross_entropy_and_dice(x.flatten(1), pseudo.flatten(1))


def cross_entropy_and_dice(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    s = x.sigmoid()
    dice = 1 - (2 * (s * y).sum(1) + 1) / (s.sum(1) + y.sum(1) + 1)
    return F.binary_cross_entropy_with_logits(x, y, reduction="none").mean(1).sum(), dice.sum()


def layers_of(found: dict[str, Any], video: bool) -> list[dict[str, Tensor]]:
    """What the decoders have found, prediction by prediction."""
    names = {"logits": "logits", "masks": "masks"}
    if video:
        names = {
            f"{ours}{name}": f"{theirs}{name}"
            for ours, theirs in (("", "main."), ("frame_", "frame."))
            for name in names
        }
    count = sum(name.startswith(f"{names['logits']}.") for name in found)
    return [{ours: found[f"{theirs}.{k}"] for ours, theirs in names.items()} for k in range(count)]
