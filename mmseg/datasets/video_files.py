"""A video as files: frames and, for all of them or some, masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmseg.clips import train_targets_both_ways
from mmseg.errors import DataError
from mmseg.structures import Video

_NAMED = 5  # how many offenders an error message lists


@dataclass(frozen=True)
class VideoFiles(Video):
    """A video and its files, oldest first."""

    frames: tuple[str, ...]
    labels: tuple[str | None, ...] | None  # one for each frame, None where it has no mask; None: no masks at all

    @classmethod
    def of(cls, name: str, frames: Sequence[str], labels: Sequence[str | None] | None = None) -> VideoFiles:
        """A video that has no place in a data set yet."""
        return cls(-1, name, len(frames), tuple(frames), None if labels is None else tuple(labels))

    @property
    def mask_files(self) -> list[str]:
        """The masks that there are."""
        return [path for path in self.labels or () if path is not None]

    @property
    def truths(self) -> list[int]:
        """See :class:`Video`."""
        return [number for number, path in enumerate(self.labels or ()) if path is not None]

    @property
    def labelled(self) -> list[bool] | None:
        """Which frames have masks; None if all have, or none."""
        if self.labels is None or None not in self.labels:
            return None
        return [path is not None for path in self.labels]

    def has_clips(self, dilation: Sequence[int], all_labelled: bool) -> bool:
        """Whether a training clip can be drawn, see :func:`train_targets_both_ways`."""
        return any(train_targets_both_ways(len(self.frames), dilation, self.labelled, all_labelled))


def without_clips(videos: Sequence[VideoFiles], dilation: Sequence[int], all_labelled: bool) -> DataError:
    """The error for videos of which no training clip can be drawn.

    Args:
        videos: these.
        dilation: offsets of the references relative to the target.
        all_labelled: whether the references have to be labelled, too.
    """
    length = 1 - min(dilation, default=0)
    short = [video for video in videos if len(video.frames) < length]
    named = [f"{video.name} ({len(video.frames)} frames)" for video in short or videos]
    names = ", ".join(named[:_NAMED]) + (", ..." if len(named) > _NAMED else "")
    action = "remove them from the split file or set short_videos='drop' in the data set's config, or use a "
    if short:
        return DataError(
            f"{len(short)} video(s) too short for a clip: {names}",
            f"at least {length} frames with dilation {list(dilation)}",
            f"{action}smaller dilation",
        )
    return DataError(
        f"{len(videos)} video(s) without a clip that is labelled: {names}",
        f"masks of {'all frames of a clip' if all_labelled else 'a target'} with dilation {list(dilation)}, which may "
        "run backwards",
        f"{action}{'dilation that fits the distance between masks' if all_labelled else 'smaller dilation'}",
    )
