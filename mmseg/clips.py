"""Which frames of a video form a clip.

The rules are shared by the data sets (training clips, prototype clips) and by the streaming models (which
past frames a target looks at), and belong to neither. Frame numbers are positions in the sorted frame
list of a video; a clip is ordered oldest first and its last frame is the target.
"""

from __future__ import annotations

from collections.abc import Sequence

CFFM_DILATION = (-9, -6, -3)

# Targets 3..8 have no frame t-9 yet; with the shipped dilation they take these references instead.
_EARLY_REFERENCES = {3: (0, 1, 2), 4: (0, 2, 3), 5: (0, 2, 4), 6: (0, 2, 4), 7: (0, 3, 5), 8: (0, 3, 6)}


def inference_clip(target: int, dilation: Sequence[int] = CFFM_DILATION, num_frames: int | None = None) -> list[int]:
    """The clip that predicts frame `target` of a video at test time.

    With the shipped dilation the first three frames stand alone and frames 3..8 use a fixed table; with any
    other dilation the offsets that fall outside the video are dropped.

    Args:
        target: frame number, counted from 0.
        dilation: offsets of the references relative to the target.
        num_frames: length of the video if known; only offsets above 0 need it.
    """
    if tuple(dilation) == CFFM_DILATION and target < 9:
        return [*_EARLY_REFERENCES.get(target, ()), target]
    last = num_frames - 1 if num_frames is not None else target
    return [target + d for d in dilation if 0 <= target + d <= last] + [target]


def train_targets(num_frames: int, dilation: Sequence[int] = CFFM_DILATION) -> range:
    """The targets that can be drawn from a (possibly reversed) training video; empty if it is too short."""
    return range(-dilation[0] if dilation else 0, num_frames)


def train_targets_both_ways(
    num_frames: int, dilation: Sequence[int], labelled: Sequence[bool] | None = None, all_labelled: bool = False
) -> tuple[Sequence[int], Sequence[int]]:
    """The targets that can be drawn from a training video, and those from the reversed one.

    Args:
        num_frames: length of the video.
        dilation: offsets of the references.
        labelled: which frames can be learned, in their order; None: all.
        all_labelled: whether the references have to be among them, too.
    """
    targets = train_targets(num_frames, dilation)
    if labelled is None:
        return targets, targets
    needed = (*dilation, 0) if all_labelled else (0,)
    ways = (labelled, labelled[::-1])
    return tuple([t for t in targets if all(way[t + offset] for offset in needed)] for way in ways)


def train_clip(target: int, dilation: Sequence[int] = CFFM_DILATION) -> list[int]:
    """The training clip with this target: the references at their offsets, then the target."""
    return [target + d for d in dilation] + [target]


def prototype_clip(num_frames: int, count: int = 10) -> list[int]:
    """The `count` frames spread over a video from which its prototypes are computed (CFFM++, stage 2).

    Only the first ``count * (num_frames // count)`` frames are covered; fewer than `count` frames give
    frame 0 again and again.
    """
    interval = num_frames // count
    return [int((k + 0.5) * interval) for k in range(count)]


BLOCK_SPACING = 3  # between the frames of a clip inside of a block


def block_clips(size: int) -> list[list[int]]:
    """The clips that a block of ``BLOCK_SPACING * size`` frames is cut into at test time, for THE-Mask.

    Frames of a clip lie as far apart as in training; every frame is in one clip. Frames alone are blocks of one.
    """
    if size == 1:
        return [[0]]
    return [[first + BLOCK_SPACING * k for k in range(size)] for first in range(BLOCK_SPACING)]


def rest_clips(num_frames: int, size: int) -> list[list[int]]:
    """The clips that an incomplete block is cut into: consecutive frames, the last clip possibly being shorter."""
    return [list(range(first, min(first + size, num_frames))) for first in range(0, num_frames, size)]


def video_clips(num_frames: int, size: int) -> list[list[int]]:
    """All clips of a video: block after block, then the rest."""
    clips = block_clips(size)
    length = sum(map(len, clips))
    whole = num_frames - num_frames % length
    clips = [[start + place for place in clip] for start in range(0, whole, length) for clip in clips]
    return clips + [[whole + place for place in clip] for clip in rest_clips(num_frames - whole, size)]
