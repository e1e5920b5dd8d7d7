"""Mix Transformer (MiT-B0 .. B5), the backbone of SegFormer (arXiv:2105.15203, section 3.1).

Tokens (n, h * w, C) are the channels-last storage of a map (n, C, h, w), so linear layers and convolutions pass them
on by views.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le, Lt
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmseg.errors import DataError
from mmseg.models.backbones.mit_weights import own_names
from mmseg.models.backbones.pretrained import init_from_config
from mmseg.models.cpu.attention import attend
from mmseg.models.cpu.layout import depthwise_gelu, is_depthwise3x3
from mmseg.models.cpu.linear import uses_onednn
from mmseg.models.cpu.pieces import in_strips, rows_of_strips
from mmseg.models.cpu.samples import add_by_samples, has_plain_layers, is_plain, learns_by_samples
from mmseg.models.layers.compiling import is_exporting
from mmseg.models.layers.linear import Linear, pointwise_conv
from mmseg.models.layers.norms import LayerNorm
from mmseg.registry import MODELS, absolute

HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
MLP_RATIO = 4
DROP_PATH_RATE = 0.1
_FEW_CHANNELS = 128  # up to which hidden maps are large, and the product that makes them is cheap
_STAGE = ("patch_embed", "block", "norm")  # parts of a stage


def tokens_to_map(tokens: Tensor, h: int, w: int) -> Tensor:
    """(n, h * w, C) -> (n, C, h, w): a view, in channels-last memory order with the strides that tell of it."""
    return tokens.unflatten(1, (h, w)).permute(0, 3, 1, 2)


def map_to_tokens(maps: Tensor) -> Tensor:
    """(n, C, h, w) -> contiguous (n, h * w, C); a view of a channels-last map."""
    return maps.flatten(2).transpose(1, 2).contiguous()


class Attention(nn.Module):
    """Self-attention whose keys and values come from a map reduced by `reduction` per side."""

    def __init__(self, dim: int, num_heads: int, reduction: int) -> None:
        super().__init__()
        self.num_heads, self.reduction = num_heads, reduction
        self.q = Linear(dim, dim)
        self.kv = Linear(dim, 2 * dim)
        self.proj = Linear(dim, dim)
        if reduction > 1:
            self.sr = nn.Conv2d(dim, dim, reduction, stride=reduction)
            self.norm = LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        """`x` (n, h * w, C) -> (n, h * w, C)."""
        q = self._split(self.q(x))  # (n, heads, h * w, d)
        if self.reduction > 1:
            x = self.norm(map_to_tokens(self.sr(tokens_to_map(x, h, w))))  # (n, floor(h / r) * floor(w / r), C)
        k, v = (self._split(part) for part in self.kv(x).chunk(2, dim=-1))
        if self.num_heads == 1 and not torch.is_grad_enabled() and is_plain(self.proj, [Linear]):
            # the weights of a mean add up to 1: few values are projected instead of many means
            return attend(q, k, self._split(self.proj(v.flatten(1, 2)))).squeeze(1)
        return self.proj(attend(q, k, v).transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """(n, L, C) -> (n, heads, L, d)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class DepthwiseConv(nn.Module):
    """3x3 depth-wise convolution on tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        return map_to_tokens(self.dwconv(tokens_to_map(x, h, w)))


class MixFFN(nn.Module):
    """Linear, depth-wise convolution, GELU, linear."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.dwconv = DepthwiseConv(hidden_dim)
        self.fc2 = Linear(hidden_dim, dim)

    def forward(self, x: Tensor, h: int, w: int, norm: nn.Module | None = None, keep: bool = False) -> Tensor:
        """`x` (n, h * w, C) -> (n, h * w, C).

        Args:
            norm: what `x` passes first.
            keep: for backward all that lies inside, instead of making some of it again.
        """
        if torch.is_grad_enabled() and not keep and all(is_plain(part, _PARTS) for part in (self, norm) if part):
            return self._learning(x, h, w, norm)
        x = x if norm is None else norm(x)
        if is_exporting() and has_plain_layers(self, _PARTS):
            return self._of_maps(x, h, w)
        rows = rows_of_strips(x, h, self.fc1.out_features)
        if not rows or not is_plain(self, _PARTS) or not is_depthwise3x3(self.dwconv.dwconv):
            return self._activate(self.fc1(x), h, w)
        out = torch.empty_like(x)  # hooks would be shown strips

        def then(strip: slice, *parts: Any) -> None:
            out[:, strip] = self._second(w, *parts)

        in_strips(h, w, rows, lambda strip: self.fc1(x[:, strip]), then)
        return out

    def add_to(self, branch: Tensor, x: Tensor, h: int, w: int, norm: nn.Module) -> Tensor:
        """``y + self(y, h, w, norm)`` for the sum y of `branch` and `x`, (n, h * w, C); written into `branch`.

        For parts that are what they seem, without a graph.
        """

        def first(strip: slice) -> Tensor:
            return self.fc1(norm(branch[:, strip].add_(x[:, strip])))

        def then(strip: slice, *parts: Any) -> None:
            branch[:, strip].add_(self._second(w, *parts))

        in_strips(h, w, rows_of_strips(x, h, self.fc1.out_features) or h, first, then)
        return branch

    def _of_maps(self, x: Tensor, h: int, w: int) -> Tensor:
        """The same as convolutions of maps: other engines would store each of the wide hidden maps twice."""
        hidden = pointwise_conv(tokens_to_map(x, h, w), self.fc1.weight, self.fc1.bias)
        hidden = F.gelu(self.dwconv.dwconv(hidden))  # (n, 4C, h, w)
        return map_to_tokens(pointwise_conv(hidden, self.fc2.weight, self.fc2.bias))

    def _learning(self, x: Tensor, h: int, w: int, norm: nn.Module | None) -> Tensor:
        """What is cheap to make again is not kept for backward."""

        def hidden(x: Tensor) -> Tensor:
            return self.fc1(x if norm is None else norm(x))  # (n, h * w, 4C)

        def whole(x: Tensor) -> Tensor:
            return self._activate(hidden(x), h, w)

        if self.fc1.in_features <= _FEW_CHANNELS:
            return checkpoint(whole, x, use_reentrant=False, preserve_rng_state=False)
        # of the three hidden maps only this one is kept
        return checkpoint(self._activate, hidden(x), h, w, use_reentrant=False, preserve_rng_state=False)

    def _activate(self, x: Tensor, h: int, w: int) -> Tensor:
        plain = is_plain(self.dwconv, _PARTS) and is_depthwise3x3(self.dwconv.dwconv)
        return self._second(w, [x]) if plain else self.fc2(F.gelu(self.dwconv(x, h, w)))

    def _second(self, w: int, parts: list[Tensor], ends: tuple[bool, bool] = (True, True)) -> Tensor:
        """All behind `fc1`, of its result in parts (n, L_i, 4C), see :func:`depthwise_gelu`."""
        return self.fc2(depthwise_gelu(parts, self.dwconv.dwconv, w, ends))


class DropPath(nn.Module):
    """Stochastic depth: in training zeroes its input per sample (axis 0) with probability `drop_prob` and scales what
    is kept by ``1 / (1 - drop_prob)``; an identity in eval mode and for `drop_prob` 0."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        factors = self.factors(x)
        return x if factors is None else x * factors

    def factors(self, x: Tensor) -> Tensor | None:
        """What it multiplies the samples of `x` with this time, (n, 1, ...); None where that is 1."""
        if self.drop_prob == 0.0 or not self.training:
            return None
        keep = 1.0 - self.drop_prob
        return x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:.4f}"


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, num_heads: int, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads, reduction)
        self.drop_path = DropPath(drop_path)
        self.norm2 = LayerNorm(dim, eps=1e-6)
        self.mlp = MixFFN(dim, MLP_RATIO * dim)

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        """`x` (n, h * w, C) -> (n, h * w, C)."""
        if learns_by_samples(x) and is_plain(self, _PARTS):
            return self._learn(self._learn(x, self._attend, h, w), self._transform, h, w)
        if self._adds_in_place(x):
            return self.mlp.add_to(self._attend(x, h, w), x, h, w, self.norm2)
        x = x + self.drop_path(self._attend(x, h, w))
        return x + self.drop_path(self.mlp(x, h, w, self.norm2))

    def _adds_in_place(self, x: Tensor) -> bool:
        """Whether what the branches give is new, and nobody else holds it."""
        if not uses_onednn(x) or not is_plain(self, _PARTS) or not is_depthwise3x3(self.mlp.dwconv.dwconv):
            return False
        return not self.drop_path.training or self.drop_path.drop_prob == 0.0

    def _attend(self, x: Tensor, h: int, w: int) -> Tensor:
        return self.attn(self.norm1(x), h, w)

    def _transform(self, x: Tensor, h: int, w: int) -> Tensor:
        return self.mlp(x, h, w, self.norm2, keep=True)  # for the few samples whose backward pass this is

    def _learn(self, x: Tensor, branch: Callable[..., Tensor], h: int, w: int) -> Tensor:
        """`x` and what `branch` makes of it, with gradients."""
        attends = branch == self._attend
        modules, last = ((self.norm1, self.attn), self.attn.proj) if attends else ((self.norm2, self.mlp), self.mlp.fc2)
        weights = [weight for module in modules for weight in module.parameters()]
        places = sum(last.weight is weight for _, weight in modules[1].named_parameters(remove_duplicate=False))
        unseen = last.weight if places == 1 else None  # what tied weights give elsewhere is looked at
        width, factors = x.shape[-1] * MLP_RATIO, self.drop_path.factors(x)
        return add_by_samples(x, lambda part: branch(part, h, w), weights, width, factors, unseen)


# what a block is made of
_PARTS = {Block, Attention, MixFFN, DepthwiseConv, DropPath, Linear, nn.Conv2d, nn.LayerNorm, LayerNorm}


class OverlapPatchEmbed(nn.Module):
    """Strided convolution and norm: a map to tokens."""

    def __init__(self, in_channels: int, dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel, stride=stride, padding=kernel // 2)
        self.norm = LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        """`x` (n, C_in, H, W) -> tokens (n, h * w, C), h, w."""
        x = self.proj(x.contiguous(memory_format=torch.channels_last))
        return self.norm(map_to_tokens(x)), *x.shape[-2:]


class MixVisionTransformer(nn.Module):
    """MiT: images (n, 3, H, W) to four normalised maps of strides 4, 8, 16, 32.

    Args:
        with_cp: recompute the activations of the blocks in backward instead of keeping them.
        frozen_stages: the first stages that are not trained, their patch embeddings and norms included; they run
            without drop path, as in eval mode. 0 stands for the first patch embedding alone, -1 for nothing.
        drop_path_rate: of the last block; it rises linearly from 0 in the first.
        init_cfg: ``dict(type='Pretrained', checkpoint=FILE)``, weights to start from.

    Attributes:
        out_channels: channels of the four maps.

    Raises:
        ConfigError: an `init_cfg` of another kind.
        CheckpointError: the file does not fit.
        DataError: images smaller than 29 pixels a side.
    """

    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]

    def __init__(
        self,
        with_cp: bool = False,
        frozen_stages: Annotated[int, Ge(-1), Le(4)] = -1,
        drop_path_rate: Annotated[float, Ge(0), Lt(1)] = DROP_PATH_RATE,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.with_cp, self.frozen_stages, self.out_channels = with_cp, frozen_stages, self.embed_dims
        channels = (3, *self.embed_dims)
        for s, dim in enumerate(self.embed_dims):
            kernel, stride = (7, 4) if s == 0 else (3, 2)
            self.add_module(f"patch_embed{s + 1}", OverlapPatchEmbed(channels[s], dim, kernel, stride))
        total, done = sum(self.depths), 0
        for s, (dim, depth) in enumerate(zip(self.embed_dims, self.depths)):
            rates = [drop_path_rate * (done + i) / (total - 1) for i in range(depth)]
            blocks = [Block(dim, HEADS[s], REDUCTIONS[s], rate) for rate in rates]
            self.add_module(f"block{s + 1}", nn.ModuleList(blocks))
            self.add_module(f"norm{s + 1}", LayerNorm(dim, eps=1e-6))
            done += depth
        self.apply(_init_weights)
        init_from_config(self, init_cfg, absolute("init_cfg"))
        for part in self._frozen_parts():
            part.requires_grad_(False)

    def _frozen_parts(self) -> list[nn.Module]:
        if self.frozen_stages == 0:
            return [self.patch_embed1]
        return [getattr(self, f"{kind}{s + 1}") for s in range(self.frozen_stages) for kind in _STAGE]

    def train(self, mode: bool = True) -> MixVisionTransformer:
        """Training mode of what is trained."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    def adapt_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The entries of a file of pretrained weights under the names of this module."""
        return own_names(state)

    def forward(self, x: Tensor) -> list[Tensor]:
        """`x` (n, 3, H, W) -> [(n, C_s, h_s, w_s)] for s = 1..4, in channels-last memory order."""
        if min(x.shape[-2:]) < 29:
            raise DataError(
                f"images of {x.shape[-2]}x{x.shape[-1]} pixels", "at least 29 pixels a side", "use larger images"
            )
        maps = []
        for s in range(1, 5):
            with torch.set_grad_enabled(torch.is_grad_enabled() and s > self.frozen_stages):
                x = self._stage(s, x)
            maps.append(x)
        return maps

    def _stage(self, s: int, x: Tensor) -> Tensor:
        """Stage s: (n, C_in, H, W) -> (n, C_s, h_s, w_s)."""
        tokens, h, w = getattr(self, f"patch_embed{s}")(x)
        for block in getattr(self, f"block{s}"):
            if self.with_cp and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, h, w, use_reentrant=False)
            else:
                tokens = block(tokens, h, w)
        return tokens_to_map(getattr(self, f"norm{s}")(tokens), h, w)


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        kernel_h, kernel_w = module.kernel_size
        fan_out = kernel_h * kernel_w * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        nn.init.zeros_(module.bias)


@MODELS.register_module("mit_b0")
class MiTB0(MixVisionTransformer):
    embed_dims, depths = (32, 64, 160, 256), (2, 2, 2, 2)


@MODELS.register_module("mit_b1")
class MiTB1(MixVisionTransformer):
    embed_dims, depths = (64, 128, 320, 512), (2, 2, 2, 2)


@MODELS.register_module("mit_b2")
class MiTB2(MixVisionTransformer):
    embed_dims, depths = (64, 128, 320, 512), (3, 4, 6, 3)


@MODELS.register_module("mit_b3")
class MiTB3(MixVisionTransformer):
    embed_dims, depths = (64, 128, 320, 512), (3, 4, 18, 3)


@MODELS.register_module("mit_b4")
class MiTB4(MixVisionTransformer):
    embed_dims, depths = (64, 128, 320, 512), (3, 8, 27, 3)


@MODELS.register_module("mit_b5")
class MiTB5(MixVisionTransformer):
    embed_dims, depths = (64, 128, 320, 512), (3, 6, 40, 3)
