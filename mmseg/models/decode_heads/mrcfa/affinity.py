"""Cross-frame affinities with selective token masking (MRCFA, section 3.1; ``hypercorre_module`` of the head).

Affinities are plain dot products of projected target and reference features at strides 32, 16 and 8. Only the best
tokens of every reference are kept: those with the highest sum of their five largest affinities at stride 32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.models.cpu.pieces import maps_at_once
from mmseg.models.decode_heads.mrcfa.refinement import AffinityRefinement
from mmseg.models.layers import full_precision

SCORED_POSITIONS = 5  # target positions whose affinities make the score of a reference token


class CrossFrameAffinity(nn.Module):
    """Selection, affinities of the kept tokens at three strides, and their refinement.

    Suffixes 1, 2, 3 are strides 8, 16, 32; q belongs to the target, k to the references.

    Args:
        dim: channels of the backbone maps of strides 4, 8, 16, 32.
        backbone: 'b0' keeps 80 % of the tokens of every reference, any other name 50 %; 'b1' selects the long
            refinement, any other name the short one.
    """

    def __init__(self, dim: Sequence[int], backbone: str = "b1") -> None:
        super().__init__()
        _, c2, c3, c4 = dim
        self.keep_ratio = 0.8 if backbone == "b0" else 0.5
        self.q1, self.q2, self.q3 = nn.Linear(c2, c2), nn.Linear(c3, c3), nn.Linear(c4, c4)
        self.k1, self.k2, self.k3 = nn.Linear(c2, c2), nn.Linear(c3, c3), nn.Linear(c4, c4)
        self.hpn = AffinityRefinement(backbone)

    def project_references(self, r8: Tensor, r16: Tensor, r32: Tensor) -> dict[str, Tensor]:
        """What the affinities need of n reference frames: 'k1' ``(n, N, C2)``, 'k2' ``(n, N, C3)`` on the reference
        grid of N tokens and 'k3' ``(n, h32*w32, C4)``."""
        r8, r16, r32 = (r.to(self.k1.weight.dtype) for r in (r8, r16, r32))  # convolutions came under autocast
        with full_precision(r8):
            return {
                "k1": self.k1(map_to_tokens(r8)),
                "k2": self.k2(map_to_tokens(r16)),
                "k3": _exact_linear(map_to_tokens(r32), self.k3),
            }

    def attend(
        self, t8: Tensor, t16: Tensor, t32: Tensor, keys: dict[str, Tensor], grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Affinities of the kept tokens, positions first; only these tokens are multiplied.

        Args:
            t8, t16, t32: target features ``(B, C, h, w)``.
            keys: of :meth:`project_references`, each ``(B, R, tokens, C)``.
            grid: (gh, gw) of the reference grid.

        Returns:
            affinities ``(B, h8*w8, R, s)`` and the kept tokens ``(B, R, s)``, ascending.
        """
        t8, t16, t32 = (t.to(self.q1.weight.dtype) for t in (t8, t16, t32))  # the backbone may run under autocast
        with full_precision(t8):
            q3 = _exact_linear(map_to_tokens(t32), self.q3)  # (B, h32*w32, C4)
            index = self.select(q3, keys["k3"], tuple(t32.shape[2:]), grid)
            k3 = _resize_tokens(keys["k3"], tuple(t32.shape[2:]), grid)
            kept = [gather_tokens(k, index).flatten(1, 2) for k in (keys["k1"], keys["k2"], k3)]  # (B, R*s, C)
            queries = [self._convolved(t8, self.q1, 2), self._convolved(t16, self.q2, 3), q3]  # (B, h*w, C)
            sizes = [tuple(t.shape[2:]) for t in (t8, t16, t32)]
            samples = [self._refine([q[b] for q in queries], [k[b] for k in kept], sizes) for b in range(len(t8))]
            affinity = torch.stack(samples) if len(samples) > 1 else samples[0][None]
        return affinity.unflatten(2, index.shape[1:]), index

    @torch.no_grad()
    def select(self, q3: Tensor, k3: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        """Kept tokens ``(B, R, s)`` of each reference, ascending; the selection carries no gradient.

        Args:
            q3: target queries ``(B, h32*w32, C4)``.
            k3: reference keys ``(B, R, h32*w32, C4)``.
            size: (h32, w32).
            grid: (gh, gw) of the reference grid.
        """
        with full_precision(q3):
            scores = self.scores(q3, k3, size, grid)
        # arithmetic of the official floor: int(0.8 * 405) is taken in floating point
        count = int(grid[0] * grid[1] * self.keep_ratio)
        return scores.topk(count, dim=2).indices.sort(dim=2).values

    def scores(self, q3: Tensor, k3: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        """Scores ``(B, R, gh*gw)``: the sum of the largest raw stride-32 affinities of every reference token.

        The product is taken exactly whatever the precision of other products is, because the selection made from it
        is a hard decision between close numbers.
        """
        exact = _exact_dtype(q3)
        raw = k3.flatten(1, 2).to(exact) @ q3.to(exact).transpose(1, 2)  # (B, R*h32*w32, h32*w32)
        scores = raw.topk(SCORED_POSITIONS, dim=2).values.sum(2).to(q3.dtype)
        return _resize_maps(scores.unflatten(1, k3.shape[1:3]), size, grid)

    def _convolved(self, target: Tensor, projection: nn.Linear, layer: int) -> Tensor:
        """Queries ``(B, h*w, C)`` of a target map, convolved by the first stage of the stride's refinement block."""
        queries = projection(map_to_tokens(target)).transpose(1, 2).unflatten(2, target.shape[2:])  # (B, C, h, w)
        return map_to_tokens(self._first_convolution(layer).on_queries(queries))

    def _first_convolution(self, layer: int) -> nn.Module:
        return getattr(self.hpn, f"encoder_layer{layer}")[0]

    def _refine(self, queries: list[Tensor], keys: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        """Products and refinement of one sample: queries ``(h*w, C)``, keys ``(n, C)`` -> ``(h8*w8, n)``."""
        (q1, q2, q3), total = queries, len(keys[0])
        biases = [self._first_convolution(layer).conv2.bias for layer in (2, 3)]
        chunk = maps_at_once(q1, total)
        training = torch.is_grad_enabled()
        out = [] if training else q1.new_empty(len(q1), total)
        for start in range(0, total, chunk):
            k1, k2, k3 = (k[start : start + chunk].t() for k in keys)
            a8, a16 = torch.addmm(biases[0], q1, k1), torch.addmm(biases[1], q2, k2)
            planes = [_planes(a, size) for a, size in zip((q3 @ k3, a16, a8), reversed(sizes))]
            refined = self.hpn(*planes, convolved=True)[0].flatten(1).t()  # (h8*w8, chunk)
            if training:
                out.append(refined)
            else:
                out[:, start : start + chunk] = refined
        return torch.cat(out, dim=1) if training else out


def map_to_tokens(x: Tensor) -> Tensor:
    """``(n, C, h, w)`` -> ``(n, h*w, C)``."""
    return x.flatten(2).transpose(1, 2)


def _planes(products: Tensor, size: tuple[int, int]) -> Tensor:
    """Products ``(h*w, n)`` as planes ``(1, n, h, w)`` in channels-last memory, with the strides that tell of it."""
    return products.unflatten(0, size)[None].permute(0, 3, 1, 2)  # no copy


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Rows ``index (B, R, s)`` of ``tokens (B, R, N, C)`` -> ``(B, R, s, C)``."""
    return tokens.gather(2, index[..., None].expand(-1, -1, -1, tokens.shape[3]))


def _resize_maps(maps: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Bilinear resize of ``(B, ..., h*w)``, maps over positions of `size`, to `grid`; nothing if they are equal."""
    if size == grid:
        return maps
    flat = maps.reshape(maps.shape[0], -1, *size)
    return F.interpolate(flat, size=grid, mode="bilinear", align_corners=False).view(*maps.shape[:-1], -1)


def _resize_tokens(tokens: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """The same for keys ``(B, R, h*w, C)``: affinities are linear in the keys, so resizing may come first."""
    if size == grid:
        return tokens
    return _resize_maps(tokens.transpose(2, 3), size, grid).transpose(2, 3)


def _exact_dtype(x: Tensor) -> torch.dtype:
    """float64 for float64, and where a float32 product may be taken in TF32 or bfloat16; otherwise float32."""
    return torch.float64 if rounds_products(x.device.type) else torch.promote_types(x.dtype, torch.float32)


def rounds_products(device: str) -> bool:
    """Whether products of float32 matrices are less exact than float32 on a kind of device, as it is set now."""
    if device != "cpu":
        return device == "cuda"  # the other kinds of device have no such setting, and some no float64
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # set for one backend alone, through the settings of torch 2.9 and later
        return True


def _exact_linear(x: Tensor, layer: nn.Linear) -> Tensor:
    dtype = _exact_dtype(layer.weight)
    if dtype == layer.weight.dtype:
        return layer(x)
    return F.linear(x.to(dtype), layer.weight.to(dtype), layer.bias.to(dtype)).to(layer.weight.dtype)
