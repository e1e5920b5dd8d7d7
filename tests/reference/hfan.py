"""HFAN (arXiv:2207.08485, sections 3.1 to 3.3): alignment and adaptation of frame and flow, formula by formula.

B frames with their flow pictures, C channels of a stage, N = h * w positions, c inner channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .segformer import cross_entropy, frame_logits, fused_feature, mit, resize


@torch.no_grad()
def encode_decode(model: nn.Module, imgs: Tensor, img_metas: Any = None, **context: Any) -> Tensor:
    """Logits (B, K, H, W) of `imgs` (B, 6, H, W), or of the last frames of clips (B, T, 6, H, W)."""
    imgs = imgs[:, -1] if imgs.ndim == 5 else imgs
    if model.test_cfg.get("mode", "whole") == "whole":
        return window_logits(model, imgs)
    return slide(model, imgs, model.test_cfg["crop_size"], model.test_cfg["stride"])


def loss(model: nn.Module, batch: Mapping[str, Any], iteration: int = 0) -> dict[str, Tensor]:
    """Cross entropy and accuracy over all pixels; `img` (B, 6, H, W), labels (B, 1, H, W), or clips of one frame."""
    imgs, labels = batch["img"], batch["gt_semantic_seg"]
    logits = forward(model.decode_head, maps_of_streams(model, imgs.reshape(-1, *imgs.shape[-3:])))
    value, accuracy = cross_entropy(logits, labels.reshape(-1, *labels.shape[-2:]))
    return {"decode.loss_seg": value, "decode.acc_seg": accuracy}


def slide(model: nn.Module, imgs: Tensor, crop_size: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Mean of the logits of all windows that cover a pixel; windows end inside the picture, one at a time."""
    (crop_h, crop_w), (stride_h, stride_w), (height, width) = crop_size, stride, imgs.shape[-2:]
    rows = max(height - crop_h + stride_h - 1, 0) // stride_h + 1
    columns = max(width - crop_w + stride_w - 1, 0) // stride_w + 1
    total, cover = None, imgs.new_zeros(height, width)
    for i in range(rows):
        for j in range(columns):
            bottom, right = min(i * stride_h + crop_h, height), min(j * stride_w + crop_w, width)
            top, left = max(bottom - crop_h, 0), max(right - crop_w, 0)
            logits = window_logits(model, imgs[:, :, top:bottom, left:right])
            total = logits.new_zeros(*logits.shape[:2], height, width) if total is None else total
            total += F.pad(logits, (left, width - right, top, height - bottom))
            cover[top:bottom, left:right] += 1
    return total / cover


def window_logits(model: nn.Module, imgs: Tensor) -> Tensor:
    """Logits (B, K, H, W) of whole pictures (B, 6, H, W)."""
    return resize(forward(model.decode_head, maps_of_streams(model, imgs)), imgs.shape[-2:])


def maps_of_streams(model: nn.Module, imgs: Tensor) -> list[Tensor]:
    """Four maps [(2B, C_s, h_s, w_s)] of (B, 6, H, W), all frames first, then all flow pictures."""
    pictures, backbone = torch.cat([imgs[:, :3], imgs[:, 3:]]), model.backbone.backbone
    return mit(backbone, pictures) if hasattr(backbone, "patch_embed1") else backbone(pictures)


def forward(head: nn.Module, feats: Sequence[Tensor], *clips: Any) -> Tensor:
    """Logits (B, K, h, w) of the maps of both streams, finest first."""
    fused = [fuse_stage(head, s, *maps.chunk(2))["out"] for s, maps in enumerate(feats, start=1)]
    return frame_logits(head, fused_feature(head, fused))


def fuse_stage(head: nn.Module, s: int, im: Tensor, fw: Tensor) -> dict[str, Tensor]:
    """What stage `s` makes of frame and flow (B, C, h, w), with every intermediate; ``out`` is decoded."""
    method = head.select_method
    if method in ("im", "fw", "base"):
        return {"out": {"im": im, "fw": fw, "base": im + fw}[method]}
    return fuse(getattr(head, f"{method}{s}"), method, im, fw)


def fuse(block: nn.Module, method: str, im: Tensor, fw: Tensor) -> dict[str, Tensor]:
    """``fam``: the sum of the aligned streams; ``fat``: their adaptive mean; ``hfan``: that of the aligned ones."""
    found = {}
    if method in ("fam", "hfan"):
        found = align(block, im, fw)
        im, fw = found["fam_im"], found["fam_fw"]
    if method == "fam":
        return {**found, "out": im + fw}
    return {**found, **adapt(block, im, fw)}


# ---------------------------------------------------------------------- feature alignment


def align(block: nn.Module, im: Tensor, fw: Tensor) -> dict[str, Tensor]:
    """Both streams, each by itself, attend to two region vectors of the frame."""
    logits = conv_relu(im, block.object_pred)  # (B, 2, h, w)
    weights = logits.flatten(2).softmax(dim=2)  # over the N positions
    context = torch.einsum("bkn,bcn->bck", weights, im.flatten(2))[..., None]  # (B, C, 2, 1)
    found = {"object": logits, "context": context}
    for name, x in (("im", im), ("fw", fw)):
        found.update({f"{part}_{name}": value for part, value in attend(block.poc, x, context).items()})
    return found


def attend(poc: nn.Module, x: Tensor, context: Tensor) -> dict[str, Tensor]:
    """softmax(q k^T / sqrt(c)) v over the two regions, projected, and mixed with the stream `x` (B, C, h, w)."""
    query = conv_norm_relu(conv_norm_relu(x, poc.query_project[0]), poc.query_project[1])  # (B, c, h, w)
    key = conv_norm_relu(conv_norm_relu(context, poc.key_project[0]), poc.key_project[1])  # (B, c, 2, 1)
    value = conv_norm_relu(context, poc.value_project)  # (B, c, 2, 1)
    weights = torch.einsum("bchw,bck->bhwk", query, key.squeeze(3)) * query.shape[1] ** -0.5
    mixed = torch.einsum("bhwk,bck->bchw", weights.softmax(dim=3), value.squeeze(3))
    out = conv_norm_relu(mixed, poc.out_project)
    parts = {"query_project": query, "key_project": key, "value_project": value, "out_project": out}
    fam = conv_norm_relu(torch.cat([out, x], dim=1), poc.bottleneck)
    return {**{f"poc.{name}": part for name, part in parts.items()}, "fam": fam}


# ---------------------------------------------------------------------- feature adaptation


def adapt(block: nn.Module, im: Tensor, fw: Tensor) -> dict[str, Tensor]:
    """2 w im + 2 (1 - w) fw, with w from every position by itself and from the mean over all positions."""
    total = im + fw
    local = branch(total, *(block.ca_layers[i] for i in (0, 1, 3, 4)))
    pooled = branch(total.mean(dim=(2, 3), keepdim=True), *(block.pa_layers[i] for i in (1, 2, 4, 5)))
    weight = torch.sigmoid(local + pooled)
    out = 2 * im * weight + 2 * fw * (1 - weight)
    return {"sum": total, "local": local, "global": pooled, "weight": weight, "out": out}


def branch(x: Tensor, reduce: nn.Module, norm: nn.Module, expand: nn.Module, out_norm: nn.Module) -> Tensor:
    """Convolution, ReLU, norm, ReLU, convolution, ReLU, norm."""
    return batch_norm(conv_relu(F.relu(batch_norm(conv_relu(x, reduce), norm)), expand), out_norm)


# ---------------------------------------------------------------------- words of this file


def conv_relu(x: Tensor, layer: nn.Module) -> Tensor:
    return F.relu(F.conv2d(x, layer.conv.weight, layer.conv.bias))


def conv_norm_relu(x: Tensor, layer: nn.Module) -> Tensor:
    return F.relu(batch_norm(F.conv2d(x, layer.conv.weight), layer.bn))


def batch_norm(x: Tensor, norm: nn.Module) -> Tensor:
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.training, 0.1, 1e-5)
