"""Many videos, segmented: shared over processes and machines, each finished or absent; a run goes on with the rest."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mmseg import distributed
from mmseg.apis.cli import memory_error
from mmseg.apis.segmentation import FINISHED, SegmentOptions, segment_video
from mmseg.datasets.mask_inputs import GivenMasks
from mmseg.datasets.sources import LazySource
from mmseg.errors import ConfigError, DataError
from mmseg.models.base import VideoModel
from mmseg.progress import VideoProgress
from mmseg.shared_counts import SharedCounts
from mmseg.writing.base import inside
from mmseg.writing.result_folder import finished_record

logger = logging.getLogger("mmseg.apis")

_NAMED = 3  # videos that an error message lists
_OF_FILES = ("input", "mask files", "checkpoint", "config", "palette", "flow_weights")  # no value that says anything
_DEFAULTS = SegmentOptions()
_PATIENCE = 0.5  # seconds between two messages of a process to the others


@dataclass(frozen=True)
class Row:
    """What has become of a video; a line of the table at the end."""

    video: str
    status: Literal["done", "kept", "failed", "not done"]
    frames: int = 0
    seconds: float = 0.0
    message: str = ""


def shard_of(sources: Sequence[LazySource], num_shards: int, shard: int) -> list[LazySource]:
    """Every `num_shards`-th of the videos, from number `shard` on: the same ones for the same list, wherever it is."""
    if not 0 <= shard < num_shards:
        raise ConfigError(f"shard {shard} of {num_shards}", f"a number from 0 to {num_shards - 1}", "correct --shard")
    return list(sources[shard::num_shards])


def segment_videos(
    model: VideoModel,
    sources: Sequence[LazySource],
    out: str | Path,
    options: SegmentOptions = _DEFAULTS,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> list[Row]:
    """Segment videos; called by all processes of a run, which take the next one from a common list when they are ready.

    A video that an earlier run has finished with the same settings is kept. One that cannot be read does not stop the
    others.

    Args:
        model: from :func:`init_segmentor`.
        sources: all videos, the same in all processes.
        out: see :func:`segment_video`.
        options: see :func:`segment_video`.
        settings: what else decides the results (JSON): of the model, say.
        overwrite: make videos again that are there already.
        progress: show how far all processes are, in the main one.

    Returns:
        A row for every video, in order, in all processes.

    Raises:
        ConfigError: there are finished videos that were made with other settings; before anything is done.
        WriteError: results cannot be written. Finished videos stay.
    """
    with distributed.together():
        options = options.settled(model)
    kept = distributed.broadcast_object(_agreed(sources, out, options, settings or {}, overwrite))
    left = [number for number in range(len(sources)) if number not in kept]
    if kept and distributed.is_main():
        logger.info("%d of %d videos are finished already and are kept", len(kept), len(sources))
    counts, rows = SharedCounts(), {}
    with _Line(counts, len(sources), len(kept), progress and distributed.is_main()) as line:
        while (turn := counts.add("taken") - 1) < len(left):
            number = left[turn]
            rows[number] = _row(model, sources[number], out, options, settings or {}, line)
            line.flush(videos=1)
        words = counts.exchange({number: asdict(row) for number, row in rows.items()}, line.show)
    found = {int(number): Row(**row) for word in words for number, row in word.items()} | kept
    return [found[number] for number in range(len(sources))]


def _agreed(
    sources: Sequence[LazySource],
    out: str | Path,
    options: SegmentOptions,
    settings: Mapping[str, Any],
    overwrite: bool,
) -> dict[int, Row]:
    """The videos that are kept, by number; looked up by the main process. Raises ConfigError in all."""
    kept: dict[int, Row] = {}
    with distributed.together():
        if distributed.is_main() and not overwrite:
            kept = _finished(sources, out, options, settings)
    return kept


def _finished(
    sources: Sequence[LazySource], out: str | Path, options: SegmentOptions, settings: Mapping[str, Any]
) -> dict[int, Row]:
    kept, others = {}, []
    for number, source in enumerate(sources):
        record = finished_record(inside(out, source.name))
        if record is None or record.get("status") != FINISHED:
            continue
        differs = _differences(record.get("settings"), settings_of(source, settings, options.masks, several=True))
        if differs:
            others.append(f"{source.name} ({differs})")
        kept[number] = Row(source.name, "kept", record.get("frames", 0), record.get("seconds", 0.0))
    if others:
        names = ", ".join(others[:_NAMED]) + (", ..." if len(others) > _NAMED else "")
        raise ConfigError(
            f"{out}: {len(others)} videos are finished, but with other settings: {names}",
            "the settings that they were made with",
            "give the same settings, --overwrite to make them again, or another --out",
        )
    return kept


def settings_of(
    source: LazySource, settings: Mapping[str, Any], masks: GivenMasks | None = None, several: bool = False
) -> dict[str, Any]:
    """What decides the results of a video, as JSON; `masks` and `several` as for :func:`segment_video`."""
    given = source.video.source
    files = given if isinstance(given, tuple) else [given] if isinstance(given, str) and os.path.exists(given) else []
    return {"input": [source.place, *_stamp(files)], "mask files": _mask_files(source, masks, several), **settings}


def _mask_files(source: LazySource, masks: GivenMasks | None, several: bool) -> list[int] | None:
    if masks is None:
        return None
    try:
        files = masks.files(source.name, several)
    except DataError:  # there are none yet
        return None
    return _stamp([masks.path] if files is None else files.values())


def _stamp(files: Iterable[str | Path]) -> list[int]:
    """Tells files from others in their place: number, size, time of the last change."""
    found = [os.stat(path) for path in files]
    return [len(found), sum(s.st_size for s in found), int(max((s.st_mtime for s in found), default=0))]


def _differences(before: Any, now: Mapping[str, Any]) -> str:
    """In words, which settings differ."""
    before = before if isinstance(before, Mapping) else {}
    changed = [name for name in dict.fromkeys([*now, *before]) if before.get(name) != now.get(name)]
    return ", ".join(_change(name, before.get(name), now.get(name)) for name in changed)


def _change(name: str, before: Any, now: Any) -> str:
    if name in _OF_FILES or len(f"{before}{now}") > 60:
        return f"another {name}"
    return f"{name} {_said(before)}, now {_said(now)}"


def _said(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _row(
    model: VideoModel,
    source: LazySource,
    out: str | Path,
    options: SegmentOptions,
    settings: Mapping[str, Any],
    line: _Line,
) -> Row:
    """Segment one video; what is wrong with it is a row as well."""
    began = time.monotonic()
    try:
        record = {"settings": settings_of(source, settings, options.masks, several=True)}
        done = segment_video(model, source, out, options, False, record, several=True, advance=line.advance)
    except (DataError, RuntimeError) as error:
        reason = error if isinstance(error, DataError) else memory_error(error)
        if reason is None:
            raise
        line.say(str(reason))
        return Row(source.name, "failed", seconds=time.monotonic() - began, message=reason.found)
    return Row(source.name, "done", done.num_frames, done.seconds, done.fault or "")


class _Line:
    """How far all processes are. A context manager: the line is closed at the end."""

    def __init__(self, counts: SharedCounts, videos: int, kept: int, shown: bool) -> None:
        self.counts = counts
        self._bar = VideoProgress(videos, kept, shown)
        self._frames, self._last = 0, time.monotonic()

    def advance(self) -> None:
        """One more frame of this process."""
        self._frames += 1
        if time.monotonic() - self._last >= _PATIENCE:
            self.flush()

    def flush(self, videos: int = 0) -> None:
        """Tell the others."""
        self._last = time.monotonic()
        self.counts.add("frames", self._frames)
        self.counts.add("videos", videos)
        self._frames = 0
        self.show()

    def show(self) -> None:
        """Bring the line up to date."""
        if self._bar.shown:
            self._bar.show(self.counts.add("videos", 0), self.counts.add("frames", 0))

    def say(self, text: str) -> None:
        """A message between two states of the line."""
        self._bar.clear()
        logger.error("%s", text)

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()


def finished_rows(sources: Sequence[LazySource], out: str | Path) -> Iterator[Row]:
    """What of a run that broke off is there."""
    for source in sources:
        record = finished_record(inside(out, source.name))
        if record is not None and record.get("status") == FINISHED:
            yield Row(source.name, "done", record.get("frames", 0), record.get("seconds", 0.0))
        else:
            yield Row(source.name, "not done")


def table_of(rows: Sequence[Row]) -> str:
    """The rows as a table for people, with sums."""
    width = min(60, max([len("total"), *(len(row.video) for row in rows)]))
    lines = [f"{'video':<{width}}  {'frames':>8}  {'seconds':>9}  {'frames/s':>8}  status"]
    for row in rows:
        note = f": {row.message}" if row.message else ""
        lines.append(f"{row.video:<{width}}  {_numbers(row.frames, row.seconds)}  {row.status}{note}")
    made = [row for row in rows if row.status == "done"]
    counts = [f"{sum(row.status == s for row in rows)} {s}" for s in ("done", "kept", "failed", "not done")]
    total = _numbers(sum(row.frames for row in made), sum(row.seconds for row in made))
    lines.append(f"{'total':<{width}}  {total}  {', '.join(c for c in counts if not c.startswith('0 '))}")
    return "\n".join(lines)


def _numbers(frames: int, seconds: float) -> str:
    rate = f"{frames / seconds:.2f}" if frames and seconds else "-"
    return f"{frames:>8}  {seconds:>9.1f}  {rate:>8}"
