"""Prototype files of CFFM++: one per video, in the released layout, read once and kept.

``<save_path>/<video>/centers.pt`` holds a tensor (1, n, C) float32. Folders with numbered ``*.pt`` files instead, an
older layout, are understood: their centres are joined and a random 80 % of them used.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from mmseg.errors import CheckpointError, DataError
from mmseg.weights import read_weights_file, write_weights_file

FILE_NAME = "centers.pt"
KEPT_SHARE = 0.8  # of the centres of numbered files
_COMMAND = (
    "./tools/dist_test.sh local_configs/cffm/B1/cffm.b1.480x480.vspw2_gene_prototype.py CKPT GPUS "
    "--out res.pkl --eval None"
)
_MAX_CACHED = 8192  # videos; 100 kB each with 100 centres


def video_seed(video: str) -> int:
    """The seed of everything random about the prototypes of a video: a function of its name alone."""
    return zlib.crc32(video.encode())


def prototype_file(save_path: str | Path, video: str) -> Path:
    """Where the prototypes of a video are."""
    return Path(save_path) / video / FILE_NAME


def has_prototypes(save_path: str | Path, video: str) -> bool:
    """Whether there is any file with prototypes of the video."""
    path = prototype_file(save_path, video)
    return path.is_file() or any(path.parent.glob("*.pt"))


def read_prototypes(save_path: str | Path, video: str, dim: int) -> tuple[Tensor, bool]:
    """The prototypes of a video.

    Args:
        save_path: folder of all videos.
        video: its name.
        dim: expected number of channels.

    Returns:
        (n, dim) float32 on the CPU, and whether they come from numbered files, of which a part is to be used.

    Raises:
        DataError: there is no file, or it is truncated, carries code or holds something else.
    """
    path = prototype_file(save_path, video)
    if path.is_file():
        return read_centers(path, dim), False
    files = sorted(path.parent.glob("*.pt"))
    if not files:
        raise DataError(
            f"{path}: no such file, the video {video!r} has no prototypes",
            f"prototypes of every video under {save_path}",
            f"make them with a CFFM checkpoint: {_COMMAND}  (data.test.split chooses the videos; decode_head.save_path "
            "the folder), or set decode_head.prototypes='auto' to compute them on the fly",
        )
    return torch.cat([read_centers(file, dim) for file in files]), True


def read_centers(path: Path, dim: int) -> Tensor:
    """The centres (n, dim) of one file. Raises DataError if it holds anything else."""
    try:
        content = read_weights_file(path)
    except CheckpointError as error:
        raise DataError(error.found, error.expected, f"make the file again: {_COMMAND} --overwrite") from error
    shape = list(content.shape) if isinstance(content, Tensor) else type(content).__name__
    if not isinstance(content, Tensor) or content.ndim not in (2, 3) or content.shape[:-2] not in ((), (1,)):
        raise _unfit(path, f"holds {shape}", dim)
    if content.shape[-1] != dim or content.shape[-2] == 0:
        raise _unfit(path, f"holds prototypes of shape {shape}", dim)
    if not content.is_floating_point() or not torch.isfinite(content).all():
        raise _unfit(path, "holds values that are not finite numbers", dim)
    return content.reshape(-1, dim).float()


def _unfit(path: Path, found: str, dim: int) -> DataError:
    return DataError(
        f"{path}: {found}",
        f"a float tensor [1, n, {dim}] of finite numbers, {dim} being decoder_params.embed_dim",
        f"make the file again with the CFFM checkpoint of this model: {_COMMAND} --overwrite",
    )


def write_prototypes(path: Path, centers: Tensor) -> None:
    """Write centres (n, C) as the file `path`, which holds all of them or its old content, whatever happens.

    Raises:
        WriteError: the file cannot be written.
    """
    advice = "or choose another decode_head.save_path; finished videos are kept and skipped next time"
    write_weights_file(path, centers.detach().float().cpu().clone()[None], advice)


class PrototypeStore:
    """The prototypes of videos, each read once and kept on the device where it is used."""

    def __init__(self, save_path: str | Path, dim: int) -> None:
        self.save_path, self.dim = save_path, dim
        self._kept: OrderedDict[tuple[str, torch.device], tuple[Tensor, bool]] = OrderedDict()

    def get(self, video: str, device: torch.device, training: bool = False) -> Tensor:
        """(n, dim) prototypes of `video` on `device`. Raises DataError, see :func:`read_prototypes`."""
        key = (video, device)
        kept = self._kept.get(key)
        if kept is None:
            centers, numbered = read_prototypes(self.save_path, video, self.dim)
            kept = (centers.to(device), numbered)
        self._keep(key, *kept)  # as the one that was used last
        centers, numbered = kept
        return self._draw(centers, video, training) if numbered else centers

    def put(self, video: str, centers: Tensor) -> None:
        """Keep centres that were computed on the fly."""
        self._keep((video, centers.device), centers, False)

    def holds(self, video: str, device: torch.device) -> bool:
        """Whether the prototypes of `video` are at hand, in memory or as files."""
        return (video, device) in self._kept or has_prototypes(self.save_path, video)

    def _keep(self, key: tuple[str, torch.device], centers: Tensor, numbered: bool) -> None:
        self._kept[key] = (centers, numbered)
        with suppress(KeyError):  # a stream in another thread has made room
            self._kept.move_to_end(key)
        if len(self._kept) > _MAX_CACHED:
            self._kept.popitem(last=False)

    @staticmethod
    def _draw(centers: Tensor, video: str, training: bool) -> Tensor:
        """A random part of the centres in their order; always the same one outside of training."""
        generator = None if training else torch.Generator().manual_seed(video_seed(video))
        chosen = torch.randperm(len(centers), generator=generator)[: max(1, int(KEPT_SHARE * len(centers)))]
        return centers[chosen.sort().values.to(centers.device)]
