"""GSFM, formula by formula (specification, sections 1 to 4 and 6 to 7), on the weights of the product's model.

Nothing is shared between objects or frames, spectra are whole, the memory is concatenated and its affinity dense:
``propagate`` for DAVIS, ``propagate_youtube`` for objects that appear later, ``loss`` for a training step.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# ---------------------------------------------------------------------------------------------------------- network


def conv(module, x: Tensor) -> Tensor:
    return F.conv2d(x, module.weight, module.bias, module.stride, module.padding)


def norm(module, x: Tensor) -> Tensor:
    return F.batch_norm(x, module.running_mean, module.running_var, module.weight, module.bias, False, 0.0, module.eps)


def residual_stage(stage, x: Tensor) -> Tensor:
    """A stage of a ResNet: basic blocks, or bottlenecks, which have a third convolution."""
    for block in stage:
        out = F.relu(norm(block.bn1, conv(block.conv1, x)))
        out = norm(block.bn2, conv(block.conv2, out))
        if hasattr(block, "conv3"):
            out = norm(block.bn3, conv(block.conv3, F.relu(out)))
        if block.downsample is not None:
            x = norm(block.downsample[1], conv(block.downsample[0], x))
        x = F.relu(out + x)
    return x


def res_block(block, x: Tensor) -> Tensor:
    skip = x if isinstance(block.downsample, torch.nn.Identity) else conv(block.downsample, x)
    return skip + conv(block.conv2, F.relu(conv(block.conv1, F.relu(x))))


def gaussian(height: int, width: int) -> Tensor:
    u, v = torch.arange(height)[:, None], torch.arange(width)[None]
    return torch.exp(-((u - height // 2) ** 2 + (v - width // 2) ** 2) / (2 * 7.0**2))


def spectral(module, x: Tensor) -> Tensor:
    """Low- or high-frequency module."""
    g = gaussian(*x.shape[-2:]).to(x)
    spectrum = torch.fft.fft2(x) * (g if module.high else 1 - g)
    z = torch.cat([spectrum.real, spectrum.imag], dim=1)
    z = conv(module.conv2, F.relu(conv(module.conv1, z)))
    real, imaginary = z.chunk(2, dim=1)
    return x + torch.fft.ifft2(torch.complex(real, imaginary)).real


def encode_key(model, frame: Tensor) -> tuple[Tensor, ...]:
    """Frame (n, 3, H, W) -> key, query value, f16, f8, f4."""
    encoder = model.key_encoder
    x = F.max_pool2d(F.relu(norm(encoder.bn1, conv(encoder.conv1, frame))), 3, 2, 1)
    f4 = residual_stage(encoder.res2, x)
    f8 = residual_stage(encoder.layer2, f4)
    f16 = spectral(model.lfm, residual_stage(encoder.layer3, f8))
    return conv(model.key_proj.key_proj, f16), conv(model.key_comp, f16), f16, f8, f4


def cbam(module, x: Tensor) -> Tensor:
    mlp = module.ChannelGate.mlp
    x = x * torch.sigmoid(mlp(F.adaptive_avg_pool2d(x, 1)) + mlp(F.adaptive_max_pool2d(x, 1)))[:, :, None, None]
    pooled = torch.cat([x.max(1, keepdim=True)[0], x.mean(1, keepdim=True)], dim=1)
    return x * torch.sigmoid(conv(module.SpatialGate.spatial.conv, pooled))


def encode_value(model, frame: Tensor, f16: Tensor, masks: Tensor) -> Tensor:
    """One frame (1, 3, H, W) with the masks (k, H, W) of its objects -> values (k, 512, h, w)."""
    encoder, values = model.value_encoder, []
    for number, mask in enumerate(masks):
        others = [other for position, other in enumerate(masks) if position != number]
        channels = [frame, mask[None, None]]
        if encoder.conv1.in_channels == 5:
            channels.append(sum(others, torch.zeros_like(mask))[None, None])
        x = F.relu(norm(encoder.bn1, conv(encoder.conv1, torch.cat(channels, dim=1))))
        x = F.max_pool2d(x, 3, 2, 1)
        for stage in (encoder.layer1, encoder.layer2, encoder.layer3):
            x = residual_stage(stage, x)
        x = res_block(encoder.fuser.block1, torch.cat([x, f16], dim=1))
        values.append(res_block(encoder.fuser.block2, x + cbam(encoder.fuser.attention, x)))
    return torch.cat(values)


def up(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def decode(model, f16: Tensor, f8: Tensor, f4: Tensor) -> tuple[Tensor, Tensor]:
    """Read-out and query value (k, 1024, h, w) and features of the frame -> logits (k, H, W) of mask and boundary."""
    d = model.decoder
    x = res_block(d.compress, f16)
    x = res_block(d.up_16_8.out_conv, conv(d.up_16_8.skip_conv, f8) + up(x, 2))
    x = res_block(d.up_8_4.out_conv, conv(d.up_8_4.skip_conv, f4) + up(x, 2))
    b, m = spectral(d.hfm, conv(d.boundary_1, x)), conv(d.mask_1, x)
    b = b + F.relu(conv(d.fusion_1, m))
    b = F.relu(conv(d.boundary_3, conv(d.boundary_2, b)))
    m = m + F.relu(conv(d.fusion_2, b))
    m = conv(d.pred, F.relu(conv(d.predict_mask, m)))
    b = conv(d.predict_boundary_2, F.relu(conv(d.predict_boundary_1, b)))
    return up(m, 4)[:, 0], up(b, 4)[:, 0]


def aggregation_logits(p: Tensor) -> Tensor:
    """Probabilities (k, ...) of objects -> logits (k + 1, ...), background first."""
    p = torch.cat([torch.prod(1 - p, dim=0, keepdim=True), p]).clamp(1e-7, 1 - 1e-7)
    return torch.log(p / (1 - p))


# ---------------------------------------------------------------------------------------------------------- memory


def affinity(keys: Tensor, query: Tensor, top_k: int | None = None) -> Tensor:
    """Keys (64, N) and queries (64, P) -> weights (N, P), of the `top_k` most similar positions only."""
    similarity = (2 * keys.T @ query - keys.square().sum(0)[:, None]) / math.sqrt(len(keys))
    if top_k is None:
        return similarity.softmax(dim=0)
    best, positions = similarity.topk(min(top_k, len(similarity)), dim=0)
    return torch.zeros_like(similarity).scatter_(0, positions, best.softmax(dim=0))


class Bank:
    """Permanent keys and values, and a temporary pair."""

    def __init__(self) -> None:
        self.permanent: list[tuple[Tensor, Tensor]] = []
        self.temporary: list[tuple[Tensor, Tensor]] = []

    def add(self, key: Tensor, value: Tensor, temporary: bool) -> None:
        """`key` (1, 64, h, w), `value` (k, 512, h, w)."""
        self.temporary = []
        (self.temporary if temporary and self.permanent else self.permanent).append((key, value))

    def read(self, query: Tensor, top_k: int) -> Tensor:
        """(1, 64, h, w) -> (k, 512, h, w)."""
        keys, values = zip(*(self.permanent + self.temporary))
        weights = affinity(torch.cat([key[0].flatten(1) for key in keys], dim=1), query[0].flatten(1), top_k)
        values = torch.cat([value.flatten(2) for value in values], dim=2)  # (k, 512, N)
        return (values @ weights).unflatten(-1, query.shape[-2:])


def predict(model, bank: Bank, frame: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mask probabilities (k, H, W) of the objects of a bank, each by itself; key and f16 of the frame."""
    key, query, f16, f8, f4 = encode_key(model, frame)
    readout = bank.read(key, top_k)
    joined = torch.cat([readout, query.expand(len(readout), -1, -1, -1)], dim=1)
    return decode(model, joined, f8, f4)[0].sigmoid(), key, f16


@torch.no_grad()
def propagate(model, frames: Tensor, masks: Tensor, mem_every: int = 3, top_k: int = 50, include_last: bool = False):
    """DAVIS: frames (T, 3, H, W), sides multiples of 16, and masks (k, H, W) of the first -> (T, k + 1, H, W)."""
    key, _, f16, *_ = encode_key(model, frames[:1])
    results = [aggregation_logits(masks).softmax(0)]
    bank = Bank()
    bank.add(key, encode_value(model, frames[:1], f16, results[0][1:]), False)
    for t in range(1, len(frames)):
        soft, key, f16 = predict(model, bank, frames[t : t + 1], top_k)
        results.append(aggregation_logits(soft).softmax(0))
        is_due = t % mem_every == 0
        if t < len(frames) - 1 and (is_due or include_last):
            bank.add(key, encode_value(model, frames[t : t + 1], f16, results[t][1:]), not is_due)
    return torch.stack(results)


@torch.no_grad()
def propagate_youtube(model, frames: Tensor, given, mem_every: int = 3, top_k: int = 50, include_last: bool = False):
    """YouTube-VOS: frames (T, 3, H, W), sides multiples of 16, and `given`, frame -> object -> mask (H, W).

    Returns:
        T maps (k + 1, H, W) of background and the objects so far, in order of appearance; zeros before the first mask.
    """
    results, banks, starts = [torch.zeros(1, *frames.shape[-2:]) for _ in frames], {}, sorted(given)
    for start, end in zip(starts, [*(later + 1 for later in starts[1:]), len(frames)]):
        region = sum(given[start].values()) > 0.5
        banks |= {number: Bank() for number in given[start]}
        masks = frames.new_zeros(len(banks), *frames.shape[-2:])
        masks[: len(results[start]) - 1] = results[start][1:].masked_fill(region, 0.0)
        for row, number in enumerate(banks):
            masks[row] = given[start].get(number, masks[row])
        results[start] = aggregation_logits(masks).softmax(0)
        key, _, f16, *_ = encode_key(model, frames[start : start + 1])
        insert(banks, key, encode_value(model, frames[start : start + 1], f16, results[start][1:]), False)
        last = start
        for t in range(start + 1, end):
            soft, keys, features = zip(*(predict(model, bank, frames[t : t + 1], top_k) for bank in banks.values()))
            results[t] = aggregation_logits(torch.cat(soft)).softmax(0)
            is_due = t - last >= mem_every
            if t < end - 1 and (is_due or include_last):
                value = encode_value(model, frames[t : t + 1], features[0], results[t][1:])
                insert(banks, keys[0], value, not is_due)
                last = t if is_due else last
    return results


def insert(banks: dict[int, Bank], key: Tensor, values: Tensor, temporary: bool) -> None:
    for bank, value in zip(banks.values(), values):
        bank.add(key, value[None], temporary)


# --------------------------------------------------------------------------------------------------------- training


def laplacian_target(mask: Tensor) -> Tensor:
    kernel = torch.tensor([[-1.0, -1, -1], [-1, 8, -1], [-1, -1, -1]])[None, None].to(mask)
    return (F.conv2d(mask[None, None], kernel, padding=1)[0, 0] > 0.1).to(mask)


def boundary_term(logits: Tensor, mask: Tensor) -> Tensor:
    target, scores = laplacian_target(mask), logits.sigmoid()
    dice = 1 - (2 * (scores * target).sum() + 1) / (scores.sum() + target.sum() + 1)
    return F.binary_cross_entropy_with_logits(logits, target) + dice


def share_of_pixels(iteration: int, start: int, end: int) -> float:
    if iteration < start:
        return 1.0
    return 0.15 if iteration > end else 0.15 + 0.85 * (end - iteration) / (end - start)


def loss(model, batch: dict[str, Tensor], iteration: int = 0) -> dict[str, Tensor]:
    """``loss_1`` and ``loss_2`` of a batch (see ``GSFM.loss``), clip by clip and object by object."""
    warm = model.losses.cross_entropy
    p = share_of_pixels(iteration, warm.start_warm, warm.end_warm)
    totals = {"loss_1": 0.0, "loss_2": 0.0}
    for j, (frames, labels) in enumerate(zip(batch["img"], batch["gt_semantic_seg"][:, :, 0])):
        count = 1
        if model.num_objects == 2 and batch["selector"][j, 1] > 0.5:
            count = 2
        masks = torch.stack([labels == number for number in range(1, count + 1)], dim=1).to(frames)  # (3, k, H, W)
        if "gt" in batch:
            masks = batch["gt"][j]
        keys, values = [], []
        for t in range(3):
            key, query, f16, f8, f4 = encode_key(model, frames[t : t + 1])
            soft = masks[0]
            if t > 0:
                weights = affinity(torch.cat(keys, dim=1), key[0].flatten(1))
                readout = (torch.cat(values, dim=2) @ weights).unflatten(-1, key.shape[-2:])
                joined = torch.cat([readout, query.expand(count, -1, -1, -1)], dim=1)
                mask_logits, boundaries = decode(model, joined, f8, f4)
                present = mask_logits.sigmoid()
                if count < model.num_objects:  # an object that is not there has probability 0
                    present = torch.cat([present, torch.zeros_like(present)])
                logits = aggregation_logits(present)
                soft = logits.softmax(0)[1:]
                pixels = F.cross_entropy(logits[None, : count + 1], labels[t][None], reduction="none").flatten()
                if iteration >= warm.start_warm:
                    pixels = pixels.sort(descending=True)[0][: int(p * len(pixels))]
                terms = [boundary_term(z, mask) for z, mask in zip(boundaries, masks[t])]
                totals[f"loss_{t}"] += (pixels.mean() + 0.05 * sum(terms) / count) / len(batch["img"])
            keys.append(key[0].flatten(1))
            values.append(encode_value(model, frames[t : t + 1], f16, soft)[:count].flatten(2))
    return totals
