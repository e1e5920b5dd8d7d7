"""Stage 2 of CFFM++: prototypes of every video of a data set, made with a CFFM checkpoint and written to files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from mmseg import distributed
from mmseg.clips import prototype_clip
from mmseg.datasets.base import VideoDataset, WholeVideo
from mmseg.distributed import share_videos
from mmseg.errors import CheckpointError, ConfigError, DataError
from mmseg.files import sweep
from mmseg.models.base import Segmentor
from mmseg.models.decode_heads.cffm.kmeans import kmeans
from mmseg.models.decode_heads.cffm.prototype_files import (
    prototype_file,
    read_centers,
    video_seed,
    write_prototypes,
)
from mmseg.models.decode_heads.cffm.video_prototypes import NUM_FRAMES
from mmseg.progress import FrameProgress
from mmseg.weights import differences, read_checkpoint

logger = logging.getLogger("mmseg.apis")

_DECODERS = 4  # threads that read the frames of a video


def generate_prototypes(
    model: Segmentor,
    dataset: VideoDataset,
    checkpoint: str | Path | None = None,
    overwrite: bool = False,
    frames_at_once: int = 5,
    progress: bool = True,
) -> list[Path]:
    """Cluster ten frames of every video and write the centres to ``<save_path>/<video>/centers.pt``.

    Each process makes whole videos; a file is complete or not there. The result depends on the weights, the frames and
    the name of the video alone, not on the number of processes or on what was there before.

    Args:
        model: with a :class:`~mmseg.models.decode_heads.CFFMPrototypeHead`, in eval mode, on its device.
        dataset: in test mode.
        checkpoint: the file that the weights come from, to be checked.
        overwrite: make again what exists.
        frames_at_once: frames that pass the backbone together.
        progress: show a progress bar in the main process.

    Returns:
        The files that this process wrote.

    Raises:
        ConfigError: the model's head does not make prototypes.
        CheckpointError: `checkpoint` is not CFFM's.
        DataError: a video of fewer than ten frames (before anything is written), or a frame that cannot be read.
        WriteError: a file that cannot be written.
    """
    head = model.decode_head
    if not getattr(head, "generates_prototypes", False):
        raise ConfigError(
            f"prototypes with a {type(head).__name__}", "a CFFMPrototypeHead", "use a *_gene_prototype.py config"
        )
    model.require_eval()
    if checkpoint is not None:
        require_cffm(model, checkpoint)
    if head.short_videos == "error":
        _check_lengths(dataset)
    owners = share_videos([NUM_FRAMES] * len(dataset.videos), distributed.world_size())
    own = [index for index, owner in enumerate(owners) if owner == distributed.rank()]
    missing = [index for index in own if overwrite or not _is_complete(head, dataset.videos[index].name)]
    if distributed.is_main():
        logger.info(
            "prototypes of %d videos go to %s; %d of the %d videos of this process are there already",
            len(dataset.videos), head.save_path, len(own) - len(missing), len(own),
        )  # fmt: skip
    if kept := len(own) - len(missing):
        logger.warning(
            "%d videos keep the prototypes that they have, of whatever checkpoint; --overwrite makes them again",
            kept,
        )
    own_frames = NUM_FRAMES * len(missing)
    bar = FrameProgress(own_frames * distributed.world_size(), own_frames, progress and distributed.is_main())
    written = []
    try:
        for index in missing:
            written.append(_generate(model, WholeVideo(dataset, index), frames_at_once, bar))
    finally:
        bar.close()
    distributed.barrier()
    return written


def require_cffm(model: Segmentor, checkpoint: str | Path) -> None:
    """Raise CheckpointError unless the file holds exactly the weights of `model`, a CFFM."""
    state = read_checkpoint(checkpoint)["state_dict"]
    counters = {name for name in model.state_dict() if name.endswith("num_batches_tracked")}  # absent in old files
    found = differences(model, {**dict.fromkeys(counters, None), **state})
    if found:
        raise CheckpointError(
            f"{checkpoint}: not a checkpoint of this CFFM ({found})",
            "exactly the weights of the CFFM that is to be fine-tuned",
            "give the CFFM checkpoint that --load-from will name, and the *_gene_prototype.py config of its size",
        )


def _check_lengths(dataset: VideoDataset) -> None:
    """Raise DataError for the first video with fewer than ten frames."""
    for video in dataset.videos:
        if len(video.frames) < NUM_FRAMES:
            raise DataError(
                f"video {video.name!r} has {len(video.frames)} frames",
                f"at least {NUM_FRAMES}, from which prototypes are made; nothing was written",
                "take it out of the split, or set decode_head.short_videos='repeat' to use its first frame ten times",
            )


def _is_complete(head: torch.nn.Module, video: str) -> bool:
    """Whether the file of a video exists and holds what this head would write."""
    path = prototype_file(head.save_path, video)
    if not path.is_file():
        return False
    try:
        return len(read_centers(path, head.embed_dim)) == head.n_clusters
    except DataError as error:
        logger.warning("%s; it is made again", error.found)
        return False


@torch.no_grad()
def _generate(model: Segmentor, video: WholeVideo, frames_at_once: int, bar: FrameProgress) -> Path:
    """Make and write the prototypes of one video."""
    head = model.decode_head
    path = prototype_file(head.save_path, video.name)
    sweep(path.parent, path.name)
    rows = [head.cluster_input(model.backbone(frames)) for frames in _batches(model, video, frames_at_once, bar)]
    try:
        centers = kmeans(torch.cat(rows), head.n_clusters, max_iter=head.max_iter, seed=video_seed(video.name))[1]
    except DataError as error:
        raise DataError(f"video {video.name!r}: {error.found}", error.expected, error.action) from error
    write_prototypes(path, centers)
    return path


def _batches(model: Segmentor, video: WholeVideo, size: int, bar: FrameProgress) -> Iterator[Tensor]:
    """The ten frames of a video, `size` at a time, (n, 3, h, w) on the model's device."""
    device = next(model.parameters()).device
    numbers = prototype_clip(video.num_frames, NUM_FRAMES)
    with ThreadPoolExecutor(_DECODERS) as pool:
        for start in range(0, len(numbers), size):
            frames = list(pool.map(video.network_input, numbers[start : start + size]))
            yield torch.stack(frames).to(device)
            for _ in frames:
                bar.advance()
