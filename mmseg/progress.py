"""Progress of a long run: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from tqdm import tqdm


class FrameProgress:
    """Frames done, frames per second and time left, shown by the main process for all processes together.

    The processes have about equal shares and the same speed, so the main process scales its own count up.

    Args:
        total: frames of all processes; 0 if that is not known.
        own: frames of this process.
        enabled: False shows nothing, as is right for every process but the main one.
        seconds: time between two lines when the output is no terminal.
        stream: where to write (default: standard error).
    """

    def __init__(
        self, total: int, own: int, enabled: bool = True, seconds: float = 15.0, stream: TextIO | None = None
    ) -> None:
        self.total, self.own, self.seconds = total, max(own, 1), seconds
        self.stream = stream or sys.stderr
        self.shown = enabled
        self._done = 0
        self._start = self._last = time.monotonic()
        terminal = self.shown and self.stream.isatty()
        self._bar = tqdm(total=total or None, unit="frame", file=self.stream, dynamic_ncols=True) if terminal else None

    def advance(self) -> None:
        """This process has finished one more frame."""
        self._done += 1
        if not self.shown:
            return
        frames = self._done * self.total // self.own if self.total else self._done
        if self._bar is not None:
            self._bar.update(frames - self._bar.n)
            return
        now = time.monotonic()
        if now - self._last >= self.seconds or frames == self.total:
            self._last = now
            self._write_line(frames, now - self._start)

    def close(self) -> None:
        """Leave the terminal in order."""
        if self._bar is not None:
            self._bar.close()

    def _write_line(self, frames: int, seconds: float) -> None:
        rate = frames / max(seconds, 1e-9)
        of, left = "", ""
        if self.total:
            of, left = f"/{self.total}", f", {_clock(max(self.total - frames, 0) / rate)} left"
        self.stream.write(f"{frames}{of} frames, {rate:.2f} frames/s, {_clock(seconds)} elapsed{left}\n")
        self.stream.flush()


class VideoProgress:
    """Videos and frames done by all processes, frames per second and time left, in one line.

    Args:
        total: videos.
        before: how many of them were done before this run.
        enabled, seconds, stream: see :class:`FrameProgress`.
    """

    def __init__(
        self, total: int, before: int = 0, enabled: bool = True, seconds: float = 15.0, stream: TextIO | None = None
    ) -> None:
        self.total, self.before, self.shown, self.seconds = total, before, enabled, seconds
        self.stream = stream or sys.stderr
        self._terminal = enabled and self.stream.isatty()
        self._start = self._last = time.monotonic()
        self._said = (0, 0)

    def show(self, videos: int, frames: int) -> None:
        """`videos` and `frames` of this run are done."""
        now = time.monotonic()
        over = videos + self.before == self.total
        due = self._terminal or over or now - self._last >= self.seconds
        if not self.shown or not due or (videos, frames) == self._said:
            return
        self._last, self._said = now, (videos, frames)
        seconds = max(now - self._start, 1e-9)
        left = f", {_clock((self.total - self.before - videos) * seconds / videos)} left" if videos else ""
        line = f"{self.before + videos}/{self.total} videos, {frames} frames, {frames / seconds:.2f} frames/s"
        self.stream.write("\r\x1b[K" * self._terminal + f"{line}, {_clock(seconds)} elapsed{left}")
        self.stream.write("" if self._terminal else "\n")
        self.stream.flush()

    def clear(self) -> None:
        """Make room for another line."""
        if self._terminal:
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    def close(self) -> None:
        """Leave the terminal in order."""
        if self._terminal and self._said != (0, 0):
            self.stream.write("\n")
            self.stream.flush()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
