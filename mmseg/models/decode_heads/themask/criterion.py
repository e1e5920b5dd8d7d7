"""The hierarchical loss of THE-Mask: two rounds of matching, clips and their frames (arXiv:2309.08020, section 3.3).

B clips of T frames, L predictions (one before the decoder and one after each layer), Q queries, n targets of a clip
(the classes that occur in it), N matched pairs of a query and a target in the batch. Two levels are looked at: the
clips' queries on whole clips, and in the video head the frames' queries on single frames. Both use one matching.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Len
from torch import Tensor, nn

from mmseg import distributed
from mmseg.models.decode_heads.themask.pairs import Pairs, matched_masks, pairs_of, sample_targets
from mmseg.models.decode_heads.themask.prediction import Prediction
from mmseg.models.decode_heads.themask.targets import Targets, count_in_cells, find_targets, nearest_cells
from mmseg.models.layers import full_precision
from mmseg.models.layers.compiling import outside_graphs
from mmseg.models.losses.matching import assign, class_costs, mask_costs, without
from mmseg.models.losses.point_sampling import sample_maps, uncertain_points
from mmseg.models.losses.upsampled import widened
from mmseg.values import Fraction, Keys, NonNegativeFloat, NonNegativeInt, PositiveInt


class MatcherCfg(Keys, total=False):
    """Weights of the costs of a pair, which are those of the losses too, and of the masks' losses in the second round.

    `class_weight_unmatched` stands in the published configs; there is no such loss.
    """

    class_weight: NonNegativeFloat
    mask_weight: NonNegativeFloat
    dice_weight: NonNegativeFloat
    class_weight_unmatched: NonNegativeFloat
    mask_weight_unmatched: NonNegativeFloat
    dice_weight_unmatched: NonNegativeFloat


_PUBLISHED = MatcherCfg(
    class_weight=2.0, mask_weight=5.0, dice_weight=5.0, mask_weight_unmatched=0.5, dice_weight_unmatched=0.5
)


def without_effect(loss_cfg: Mapping[str, Any], video: bool) -> Iterator[tuple[str, Any, str]]:
    """Keys of the criterion that nothing comes of, unless they have the values of the published configs.

    Args:
        loss_cfg: arguments of :class:`HierarchicalCriterion`.
        video: of the video head.

    Yields:
        Key, its value, and why it is not looked at.
    """
    matcher, rounds = loss_cfg.get("matcher_cfg"), video or loss_cfg.get("two_round_after_warmup") is True
    given = {**loss_cfg, **(matcher if isinstance(matcher, Mapping) else {})}
    one_round = "there is no second round of matching unless two_round_after_warmup=True"
    warm_up, unmatched = ("warmup_iters", (0, 30000)), ("mask_weight_unmatched", "dice_weight_unmatched")
    unread = [("class_weight_unmatched", (1.0,), "there is no such loss")]
    if video:
        always = "the video head takes both rounds from the start"
        unread += [(*warm_up, always), ("two_round_after_warmup", (False,), always)]
    else:
        unread += [("aux_weight", (0.25,), "frames have no queries of their own in the one-frame head")]
    if not rounds:
        unread += [(*warm_up, one_round), ("round_weight", ([1.0, 0.5], (1.0, 0.5)), one_round)]
        unread += [(key, (0.5,), one_round) for key in unmatched]
    for key, published, reason in unread:
        if key in given and given[key] not in published:
            yield (key if key in loss_cfg else f"matcher_cfg.{key}"), given[key], reason


class HierarchicalCriterion(nn.Module):
    """All losses of a batch.

    Args:
        num_classes: K.
        video: match and train the clips' queries and the frames' ones; else the clips' alone.
        matcher_cfg: see :class:`MatcherCfg`.
        warmup_iters: iterations of the one-frame head with the first round alone.
        two_round_after_warmup: take the second round in the one-frame head after `warmup_iters`, as the paper has it;
            False is what was released, whose counter of iterations never moves. The video head always takes it.
        round_weight: factors of the masks of the two rounds.
        aux_weight: factor of the frames' losses.
        deep_supervision: also train the predictions before the last one.
        no_object_weight: of queries that answer for nothing, in the cross entropy.
        train_num_points: P, points of a mask at which the costs and the losses of the first round are taken.
        dec_layers: stands in the published configs; a loss is taken of every prediction that the decoder makes.
        oversample_ratio, importance_sample_ratio: see :func:`uncertain_points`.

    Attributes:
        draw: where points come from, a function of a shape; default: torch's generator of the device, which a training
            seeds by (seed, iteration, rank).
    """

    def __init__(
        self,
        num_classes: PositiveInt,
        video: bool,
        matcher_cfg: MatcherCfg | None = None,
        warmup_iters: NonNegativeInt = 0,
        two_round_after_warmup: bool = False,
        round_weight: Annotated[Sequence[NonNegativeFloat], Len(2, 2)] = (1.0, 0.5),
        aux_weight: NonNegativeFloat = 0.25,
        deep_supervision: bool = True,
        no_object_weight: NonNegativeFloat = 0.1,
        train_num_points: PositiveInt = 12544,
        dec_layers: PositiveInt | None = None,
        oversample_ratio: Annotated[float, Ge(1)] = 3.0,
        importance_sample_ratio: Fraction = 0.75,
    ) -> None:
        super().__init__()
        self.num_classes, self.video, self.num_points = num_classes, video, train_num_points
        self.weights = {**_PUBLISHED, **(matcher_cfg or {})}
        self.warmup_iters, self.two_round_after_warmup = warmup_iters, two_round_after_warmup
        self.round_weight, self.aux_weight, self.deep_supervision = tuple(round_weight), aux_weight, deep_supervision
        self.oversample_ratio, self.importance_sample_ratio = oversample_ratio, importance_sample_ratio
        self.draw = self._draw
        empty_weight = torch.ones(num_classes + 1)
        empty_weight[-1] = no_object_weight
        self.register_buffer("empty_weight", empty_weight)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(*shape, device=self.empty_weight.device)

    def takes_two_rounds(self, iteration: int) -> bool:
        """Whether the second round of matching is trained in this iteration."""
        return self.video or (self.two_round_after_warmup and iteration >= self.warmup_iters)

    @outside_graphs
    def forward(self, predictions: Sequence[Prediction], gt_semantic_seg: Tensor, iteration: int) -> dict[str, Tensor]:
        """Weighted losses by name: ``loss_ce``, ``r0_loss_mask_3``, ``loss_ce_3_aux`` ... (specification, section 6.4).

        Names and collectives are the same in all processes, whatever their batches hold.

        Args:
            predictions: L of them, the last one is the result.
            gt_semantic_seg: (B, T, 1, H, W) int64.
            iteration: number of the update, counted from 0.

        Raises:
            DataError: a clip shows more classes than half the queries, or a label that is no class; in all processes.
        """
        predictions = predictions if self.deep_supervision else predictions[-1:]
        two_rounds = self.takes_two_rounds(iteration)
        with full_precision(predictions[0].masks):
            predictions = [_widened(prediction) for prediction in predictions]
            num_queries, dtype = predictions[0].logits.shape[1], widened(self.empty_weight).dtype
            targets = find_targets(gt_semantic_seg[:, :, 0], self.num_classes, num_queries, dtype)
            assignments = self.match(predictions, targets, 1 + two_rounds)
            if two_rounds:
                targets.cells = count_in_cells(targets.masks, predictions[0].masks.shape[-2:])
            of_clips = float(sum(targets.counts))
            counts = torch.tensor([of_clips, of_clips * gt_semantic_seg.shape[1]], device=gt_semantic_seg.device)
            total = distributed.mean(counts).clamp(min=1)  # targets in clips, and in frames
            losses = self._level(predictions, False, targets, assignments, total[0])
            if self.video:
                losses |= self._level(predictions, True, targets, assignments, total[1])
        return losses

    # ------------------------------------------------------------------ matching

    @torch.no_grad()
    def match(self, predictions: Sequence[Prediction], targets: Targets, rounds: int) -> list[list[list[tuple]]]:
        """Assigned (queries, targets) of each round, layer and clip; costs leave the device all at once."""
        costs = torch.stack([self.pair_costs(prediction, targets) for prediction in predictions])  # (L, 2, B, Q, n)
        first, second = costs.cpu().numpy().swapaxes(0, 1)
        found: list[list[list[tuple]]] = [[] for _ in range(rounds)]
        for layer in range(len(predictions)):
            of_layer = [
                self.assign_rounds(first[layer, clip, :, :count], second[layer, clip, :, :count], rounds)
                for clip, count in enumerate(targets.counts)
            ]
            for number in range(rounds):
                found[number].append([of_clip[number] for of_clip in of_layer])
        return found

    def pair_costs(self, prediction: Prediction, targets: Targets) -> Tensor:
        """Costs of the two rounds for one prediction, (2, B, Q, n).

        The video head matches the classes of the clips' queries and the masks of the frames' ones. Its rounds have the
        same costs; in the one-frame head the second round goes by the cross entropy of the masks alone.
        """
        num_clips, num_frames = targets.masks.shape[:2]
        if self.video:
            masks = prediction.frame_masks[:, :, 0]  # (B * T, Q, h, w)
        else:
            masks = prediction.masks.transpose(1, 2).flatten(0, 1)
        points = torch.cat([self.draw((1, self.num_points, 2)) for _ in range(num_clips)])  # (B, P, 2)
        points = points.repeat_interleave(num_frames, dim=0)  # (B * T, P, 2)
        sampled = sample_maps(masks, points).unflatten(0, (num_clips, num_frames))  # (B, T, Q, P)
        shares = sample_maps(targets.masks.flatten(0, 1), points).unflatten(0, (num_clips, num_frames))  # (B, T, n, P)
        by_mask, by_dice = mask_costs(sampled, shares.to(sampled.dtype))
        weights = self.weights
        total = weights["mask_weight"] * by_mask + weights["dice_weight"] * by_dice
        total = total + weights["class_weight"] * class_costs(prediction.logits, targets.classes.clamp(min=0))
        return torch.stack([total, total if self.video else by_mask])

    @staticmethod
    def assign_rounds(first: np.ndarray, second: np.ndarray, rounds: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Queries (n,) and their targets (n,) of each round, whose costs are (Q, n)."""
        found = [assign(first)]
        if rounds == 2:
            found.append(assign(without(second, found[0][0])))
        return found

    # ------------------------------------------------------------------ losses of one level

    def _level(
        self,
        predictions: Sequence[Prediction],
        of_frames: bool,
        targets: Targets,
        assignments: Sequence[Sequence[Sequence[tuple]]],
        total: Tensor,
    ) -> dict[str, Tensor]:
        """The losses of the clips' queries, or of the frames' ones, by name.

        Args:
            assignments: see :meth:`match`.
            total: what sums over targets are divided by.
        """
        num_frames = targets.masks.shape[1]
        rounds = [pairs_of(layers, num_frames, of_frames, targets.masks.device) for layers in assignments]
        logits = torch.stack([p.frame_logits if of_frames else p.logits for p in predictions])  # (L, items, Q, K + 1)
        masks = [p.frame_masks if of_frames else p.masks for p in predictions]
        weights, prefix, factors = self.weights, "r0_" if len(rounds) == 2 else "", self.round_weight
        factors = factors if len(rounds) == 2 else (1.0,)
        mask, dice = self._first_round(masks, rounds[0], targets, total)
        terms = {
            "loss_ce": weights["class_weight"] * self._cross_entropy(logits, rounds, targets),
            f"{prefix}loss_mask": weights["mask_weight"] * factors[0] * mask,
            f"{prefix}loss_dice": weights["dice_weight"] * factors[0] * dice,
        }  # (L,) each
        if len(rounds) == 2:
            mask, dice = self._second_round(masks, rounds[1], targets, total)
            terms["r1_loss_mask_unmatched"] = weights["mask_weight_unmatched"] * factors[1] * mask
            terms["r1_loss_dice_unmatched"] = weights["dice_weight_unmatched"] * factors[1] * dice
        factor, suffix = (self.aux_weight, "_aux") if of_frames else (1.0, "")
        layers = [*(f"_{k}" for k in range(len(masks) - 1)), ""]
        return {
            f"{name}{layer}{suffix}": factor * value
            for name, of_layers in terms.items()
            for layer, value in zip(layers, of_layers)
        }

    def _cross_entropy(self, logits: Tensor, rounds: Sequence[Pairs], targets: Targets) -> Tensor:
        """Weighted mean over all queries (L,): matched ones of both rounds have a class, the others are no object."""
        classes = logits.new_full(logits.shape[:3], self.num_classes, dtype=torch.int64)  # (L, items, Q)
        layer = torch.arange(len(logits), device=logits.device)[:, None]
        for pairs in rounds:
            classes[layer, pairs.items, pairs.queries] = targets.classes[pairs.clips, pairs.targets]
        weight = self.empty_weight.to(logits.dtype)
        loss = F.cross_entropy(logits.flatten(0, 2), classes.flatten(), weight, reduction="none")
        total = weight[classes].sum((1, 2)).clamp(min=torch.finfo(weight.dtype).tiny)  # 0: no class, no_object_weight 0
        return loss.unflatten(0, classes.shape).sum((1, 2)) / total

    def _first_round(
        self, masks: Sequence[Tensor], pairs: Pairs, targets: Targets, total: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cross entropy and dice loss (L,) of the matched masks at uncertain points."""
        maps = matched_masks(masks, pairs)  # (L, N, frames of an item, h, w)
        if not maps.numel():
            return (nothing := maps.sum((1, 2, 3, 4))), nothing
        ratios = self.oversample_ratio, self.importance_sample_ratio
        points = torch.stack(
            [uncertain_points(of_layer.flatten(0, 1), self.num_points, *ratios, self.draw) for of_layer in maps]
        )  # (L, N * frames, P, 2)
        logits = sample_maps(maps.flatten(0, 2)[:, None], points.flatten(0, 1))[:, 0]  # (L * N * frames, P)
        wanted = sample_targets(targets.masks, pairs, points).to(logits.dtype)
        mask = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(1)
        probability = logits.sigmoid()
        dice = _dice((probability * wanted).sum(1), probability.sum(1) + wanted.sum(1))
        return tuple(x.view(len(masks), -1).sum(1) / total / maps.shape[2] for x in (mask, dice))

    def _second_round(
        self, masks: Sequence[Tensor], pairs: Pairs, targets: Targets, total: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cross entropy and dice loss (L,) of the masks that fit second best, over all pixels.

        A query is to be sure of the part of its class that it claims already (sigmoid above 0.5), and of no more. Seen
        at full size by the nearest logit, a logit is the same in all pixels of its cell, so that sums over pixels are
        sums over cells, weighted by the pixels in them.
        """
        maps = matched_masks(masks, pairs)  # (L, N, frames of an item, h, w)
        height, width = targets.masks.shape[-2:]
        counts = targets.cells.flatten(0, 1)[pairs.frames, pairs.targets[..., None]]  # (L, N, frames, h, w)
        rows, columns = (
            nearest_cells(maps.shape[-2], height, maps.device),
            nearest_cells(maps.shape[-1], width, maps.device),
        )
        area = torch.outer(rows.bincount(minlength=maps.shape[-2]), columns.bincount(minlength=maps.shape[-1]))
        area = area.to(maps.dtype)  # (h, w) pixels of a cell
        probability = maps.sigmoid()
        claimed = counts.to(maps.dtype) * (probability > 0.5)
        mask = (area * F.softplus(maps) - claimed * maps).sum((-2, -1)) / (height * width)
        both, separate = (probability * claimed).sum((-2, -1)), (area * probability + claimed).sum((-2, -1))
        dice = _dice(both, separate)
        return tuple(x.sum((1, 2)) / total / maps.shape[2] for x in (mask, dice))


def _dice(both: Tensor, separate: Tensor) -> Tensor:
    return 1 - (2 * both + 1) / (separate + 1)


def _widened(prediction: Prediction) -> Prediction:
    """In float32 at least."""
    return Prediction(
        *(
            None if x is None else widened(x)
            for x in (prediction.logits, prediction.masks, prediction.frame_logits, prediction.frame_masks)
        )
    )
