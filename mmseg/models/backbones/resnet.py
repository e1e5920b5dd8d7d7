"""ResNet and its variant with a stem of three 3x3 convolutions (arXiv:1512.03385, arXiv:1812.01187).

The residual blocks are torchvision's, and so are the names of the weights; files of timm and OpenMMLab have them, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.resnet import ResNet as TorchvisionResNet

from mmseg.models.backbones.pretrained import init_from_config
from mmseg.registry import MODELS, absolute
from mmseg.values import Keys

_BLOCKS = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
_STAGES = ("layer1", "layer2", "layer3", "layer4")


class BatchNormConfig(Keys, total=False):
    """Which batch norm: 'SyncBN' takes the statistics of all processes."""

    type: Literal["BN", "SyncBN"]
    requires_grad: bool


class _Network(TorchvisionResNet):
    """torchvision's network without its classifier; ``stem`` in place of the first convolution if it is deep."""

    deep_stem = False

    def __init__(
        self,
        depth: Literal[18, 34, 50, 101, 152],
        num_stages: Literal[4] = 4,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        norm_cfg: BatchNormConfig | None = None,
        norm_eval: bool = False,
        style: Literal["pytorch"] = "pytorch",
        frozen_stages: Annotated[int, Ge(-1), Le(4)] = -1,
        zero_init_residual: bool = True,
        contract_dilation: bool = False,
        with_cp: bool = False,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        kept = dict(out_indices=(0, 1, 2, 3), strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1))
        for name, given in (("out_indices", out_indices), ("strides", strides), ("dilations", dilations)):
            if tuple(given) != kept[name]:
                raise ValueError(f"{name}={list(given)}: only {list(kept[name])} gives maps of strides 4, 8, 16, 32")
        block, layers = _BLOCKS[depth]
        super().__init__(block, list(layers), zero_init_residual=zero_init_residual)
        del self.avgpool, self.fc
        self.out_channels = tuple(width * block.expansion for width in (64, 128, 256, 512))
        norm_cfg = norm_cfg or {"type": "BN"}
        self.synchronised = norm_cfg.get("type") == "SyncBN"
        self.norm_eval, self.frozen_stages, self.with_cp = norm_eval, frozen_stages, with_cp
        if self.deep_stem:
            self._deepen()
        init_from_config(self, init_cfg, absolute("init_cfg"))
        for part in self._frozen_parts():
            part.requires_grad_(False)
        if not norm_cfg.get("requires_grad", True):
            for norm in self._norms():
                norm.requires_grad_(False)

    def _deepen(self) -> None:
        """Replace the first convolution by three."""
        stages = {name: self._modules.pop(name) for name in ("relu", "maxpool", *_STAGES)}
        del self.conv1, self.bn1
        layers: list[nn.Module] = []
        for inside, outside, stride in ((3, 32, 2), (32, 32, 1), (32, 64, 1)):
            conv = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            layers += [conv, nn.BatchNorm2d(outside), nn.ReLU(inplace=True)]
        self.stem = nn.Sequential(*layers)
        self._modules.update(stages)

    def _first(self) -> list[nn.Module]:
        return [self.stem] if self.deep_stem else [self.conv1, self.bn1]

    def _frozen_parts(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        return [*self._first(), *(getattr(self, name) for name in _STAGES[: self.frozen_stages])]

    def _norms(self) -> list[nn.Module]:
        return [module for module in self.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    def train(self, mode: bool = True) -> _Network:
        """Training mode of what is trained; with `norm_eval` norms keep their statistics."""
        super().train(mode)
        for part in [*self._frozen_parts(), *(self._norms() if self.norm_eval else ())]:
            part.eval()
        return self

    def adapt_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The entries of a file of pretrained weights under the names of this module: timm's for a deep stem."""
        if not self.deep_stem or not any(name.startswith("conv1.0.") for name in state):
            return dict(state)
        renamed = {re.sub(r"^conv1\.(\d)\.", r"stem.\1.", name): value for name, value in state.items()}
        return {re.sub(r"^bn1\.", "stem.7.", name): value for name, value in renamed.items()}

    def forward(self, x: Tensor) -> list[Tensor]:
        """`x` (n, 3, H, W) -> [(n, C_s, h_s, w_s)] of strides 4, 8, 16, 32."""
        x = self.stem(x) if self.deep_stem else self.relu(self.bn1(self.conv1(x)))
        x = self.maxpool(x)
        maps = []
        for name in _STAGES:
            for block in getattr(self, name):
                if self.with_cp and torch.is_grad_enabled():
                    x = checkpoint(block, x, use_reentrant=False)
                else:
                    x = block(x)
            maps.append(x)
        return maps


@MODELS.register_module("ResNet")
class ResNet(_Network):
    """ResNet with a 7x7 convolution at its beginning.

    Args:
        depth: 18, 34, 50, 101 or 152.
        num_stages, out_indices, strides, dilations, style, contract_dilation: of published configs; the network has
            four stages, none dilated, with the stride in the 3x3 convolution.
        norm_cfg: ``dict(type='SyncBN')`` for statistics of all processes.
        norm_eval: norms keep their statistics in training.
        frozen_stages: the first stages that are not trained, 0 stands for the first convolution, -1 for nothing.
        zero_init_residual: the last norm of every block starts with weight 0.
        with_cp: recompute activations in backward.
        init_cfg: ``dict(type='Pretrained', checkpoint=FILE)``.
    """


@MODELS.register_module("ResNetV1c")
class ResNetV1c(_Network):
    """ResNet with three 3x3 convolutions at its beginning; keys as for :class:`ResNet`."""

    deep_stem = True
