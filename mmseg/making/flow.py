"""Optical flow between frames: RAFT, and two methods of OpenCV that stand in where its weights cannot be had.

RAFT (Teed and Deng, ECCV 2020) is torchvision's. The published flow of HFAN is that of its large network with weights
trained on FlyingThings ("things"), on frames of native size; 20 updates are the default of RAFT's own program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.errors import CheckpointError, ConfigError, DataError, nearest
from mmseg.images import check_frame
from mmseg.weights import check_values, differences, read_weights_file, strip_prefix

UPDATES = 20
DEFAULT_FLOW = "raft_large"
_RAFT = ("raft_large", "raft_small")
_MULTIPLE, _SMALLEST = 8, 128  # of the sides of what RAFT sees


class FlowNetwork(Protocol):
    """What computes optical flow."""

    name: str

    def __call__(self, first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
        """The flow of pairs of frames, each (H, W, 3) uint8 BGR and all of one size.

        Returns:
            (B, H, W, 2) float32: how many pixels to the right and down a point of the first frame has moved in the
            second.
        """


def flow_network(
    name: str | FlowNetwork = DEFAULT_FLOW,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    updates: int = UPDATES,
) -> FlowNetwork:
    """What computes flow, by its name.

    Args:
        name: ``raft_large`` (also ``raft``), ``raft_small``, ``farneback``, ``dis``; or a network, which is returned.
        weights: a file of RAFT's weights with torchvision's names; None: what torchvision has downloaded, or downloads.
        device: for RAFT.
        updates: of RAFT.

    Raises:
        ConfigError: an unknown name, weights or updates for a method that has none, or no weights can be had.
        CheckpointError: the file cannot be read or is of another network.
    """
    if not isinstance(name, str):
        return name
    name = {"raft": "raft_large"}.get(name, name)
    if name in _RAFT:
        return Raft(name, weights, device, updates)
    if name not in _OPENCV:
        known = (*_RAFT, *_OPENCV)
        raise ConfigError(f"optical flow {name!r}", " or ".join(known), nearest(name, known))
    if weights is not None:
        raise ConfigError(f"weights for optical flow {name!r}", "none: it has none", "leave the weights out")
    if updates != UPDATES:
        raise ConfigError(
            f"updates={updates} for optical flow {name!r}", "none: RAFT has them", "leave the updates out"
        )
    return OpenCVFlow(name)


class Raft:
    """RAFT on batches of frame pairs.

    Args:
        name: ``raft_large`` or ``raft_small``.
        weights, device, updates: see :func:`flow_network`.
    """

    def __init__(
        self,
        name: str = DEFAULT_FLOW,
        weights: str | Path | None = None,
        device: str | torch.device = "cpu",
        updates: int = UPDATES,
    ) -> None:
        self.name, self.updates, self.device = name, updates, torch.device(device)
        build, _ = _of_torchvision(name)
        self.network = build(weights=None)
        state = _downloaded(name) if weights is None else _from_file(self.network, weights)
        self.network.load_state_dict(state)
        self.network.to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
        height, width = _size(first, second)
        a, b = (self._prepared(frames) for frames in (first, second))  # (B, 3, H', W')
        flow = self.network(a, b, num_flow_updates=self.updates)[-1]  # (B, 2, H', W')
        left, _, top, _ = _padding(height, width)
        return flow[..., top : top + height, left : left + width].permute(0, 2, 3, 1).float().cpu().numpy()

    def _prepared(self, frames: Sequence[np.ndarray]) -> Tensor:
        """RGB from -1 to 1, the sides continued to multiples of 8."""
        rgb = np.stack([np.ascontiguousarray(frame[..., ::-1]) for frame in frames])
        images = torch.from_numpy(rgb).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        return F.pad(images, _padding(*images.shape[-2:]), mode="replicate")


def _of_torchvision(name: str) -> tuple[Callable[..., torch.nn.Module], Any]:
    """What builds a network, and the entry of its weights. Imported when it is needed: the import takes seconds."""
    from torchvision.models import optical_flow

    weights = {"raft_large": "Raft_Large_Weights", "raft_small": "Raft_Small_Weights"}[name]
    return getattr(optical_flow, name), getattr(optical_flow, weights).C_T_V1


def _padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Pixels that are added left, right, top and bottom, half on either side."""
    x, y = (max(-size % _MULTIPLE, _SMALLEST - size) for size in (width, height))
    return x // 2, x - x // 2, y // 2, y - y // 2


def _from_file(network: torch.nn.Module, path: str | Path) -> dict[str, Tensor]:
    state = read_weights_file(path)
    state = strip_prefix(state.get("state_dict", state)) if isinstance(state, dict) else {}
    own = network.state_dict()
    if state.keys() != own.keys() or any(state[name].shape != own[name].shape for name in own):
        raise CheckpointError(
            f"{path}: not the weights of this network ({differences(network, state)})",
            "the file that torchvision downloads, raft_large_C_T_V1-22a6c225.pth or raft_small_C_T_V1-ad48884c.pth",
            "take the file of the network that is named by --flow",
        )
    check_values(path, state, own)
    return state


def _downloaded(name: str) -> dict[str, Tensor]:
    """Weights from torchvision: its cache, or its server."""
    _, weights = _of_torchvision(name)
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong checksum is a RuntimeError
        reason = getattr(error, "reason", None) or error
        raise ConfigError(
            f"the weights of {name}: neither in {torch.hub.get_dir()}/checkpoints nor to be downloaded ({reason})",
            weights.url,
            "download this file elsewhere and give --weights FILE, or take --flow dis or farneback, which need none",
        ) from error


def _farneback(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0)


def _dis(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(first, second, None)


_OPENCV: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"farneback": _farneback, "dis": _dis}
FLOW_NAMES = (*_RAFT, *_OPENCV)


class OpenCVFlow:
    """Flow without a network: Farneback's polynomials, or dense inverse search (Kroeger et al., ECCV 2016).

    Args:
        name: ``farneback`` or ``dis``.
    """

    def __init__(self, name: str) -> None:
        self.name, self._flow = name, _OPENCV[name]

    def __call__(self, first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
        height, width = _size(first, second)
        grey = [[_grey(frame) for frame in frames] for frames in (first, second)]
        return np.stack([self._flow(a, b)[:height, :width] for a, b in zip(*grey)]).astype(np.float32)


_SMALLEST_OPENCV = 32


def _grey(frame: np.ndarray) -> np.ndarray:
    """(H, W) uint8, tiny ones continued, since dense inverse search has patches of eight pixels on several scales."""
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    below, right = (max(0, _SMALLEST_OPENCV - size) for size in grey.shape)
    return cv2.copyMakeBorder(grey, 0, below, 0, right, cv2.BORDER_REPLICATE) if below or right else grey


def _size(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> tuple[int, int]:
    """(H, W) of all frames. Raises DataError if they are no frames, or differ."""
    for frame in (*first, *second):
        check_frame(frame)
    sizes = {frame.shape[:2] for frame in (*first, *second)}
    if len(sizes) != 1:
        raise DataError(
            f"frames of {len(sizes)} sizes: " + ", ".join(f"{w}x{h}" for h, w in sorted(sizes)),
            "one size within a video",
            "resize the frames of this video alike",
        )
    return sizes.pop()
