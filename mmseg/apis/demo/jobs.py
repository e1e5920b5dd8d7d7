"""What the page has computed: one video after the other, by one thread, whoever asks."""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
import time
import zipfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mmseg.apis.cli import memory_error
from mmseg.apis.demo.choices import Choices
from mmseg.apis.demo.videos import DemoVideo
from mmseg.apis.inference import init_segmentor
from mmseg.apis.segmentation import SegmentOptions, segment_video
from mmseg.datasets.mask_inputs import GivenMasks
from mmseg.datasets.sources import FrameSource
from mmseg.errors import ConfigError, DataError, SegError, WriteError
from mmseg.files import writing
from mmseg.models.base import VideoModel
from mmseg.writing.video_outputs import numbers_name

logger = logging.getLogger("mmseg.demo")

WAITING, LOADING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "loading", "running", "done", "failed", "cancelled"
_ENDED = (DONE, FAILED, CANCELLED)
_MAX_WAITING = 20


class Cancelled(Exception):
    """Leaves the middle of a video that nobody waits for any more."""


@dataclass
class Job:
    """One video for one model.

    Attributes:
        key: random; who has it may see the results.
        state: one of those above.
        done, total: frames; the total is None where the file does not say it.
        seconds: since the first frame, or that all took.
        error: what went wrong, in the three parts of a :class:`SegError`.
        files: name -> file that can be downloaded.
        classes: names and colours of the classes, or None for objects.
    """

    key: str
    video: DemoVideo
    config: str
    checkpoint: str
    settings: dict[str, Any]
    folder: Path
    state: str = WAITING
    done: int = 0
    total: int | None = None
    seconds: float = 0.0
    error: dict[str, str | None] | None = None
    files: dict[str, Path] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    _began: float | None = None

    def public(self) -> dict[str, Any]:
        """What the page is told."""
        seconds = self.seconds if self._began is None else time.monotonic() - self._began
        rate = self.done / seconds if self.done and seconds > 0 else None
        return {
            "key": self.key, "state": self.state, "done": self.done, "total": self.total, "rate": rate,
            "seconds": seconds, "error": self.error, "files": {name: path.stat().st_size for name, path in
            self.files.items() if path.exists()},
        }  # fmt: skip

    def advance(self) -> None:
        """One frame more. Raises Cancelled."""
        self.done += 1
        if self.stop.is_set():
            raise Cancelled

    def begin(self) -> None:
        self.state, self._began = RUNNING, time.monotonic()

    def end(self, state: str) -> None:
        self.seconds = 0.0 if self._began is None else time.monotonic() - self._began
        self._began, self.state = None, state


class Jobs:
    """The queue and its thread.

    Args:
        folder: where results go.
        choices: of configs and checkpoints.
        device: where models compute.
        keep: how many ended jobs keep their results.
        max_frames: of a video; None: all of them.
    """

    def __init__(
        self, folder: Path, choices: Choices, device: torch.device, keep: int, max_frames: int | None = None
    ) -> None:
        self.folder, self.choices, self.device, self.keep, self.max_frames = folder, choices, device, keep, max_frames
        self._jobs: dict[str, Job] = {}
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._model: tuple[tuple, VideoModel] | None = None  # the one that was used last
        self._thread = threading.Thread(target=self._work, name="demo", daemon=True)
        self._thread.start()

    def __getitem__(self, key: str) -> Job:
        """The job of that key. Raises DataError if there is none."""
        with self._changed:
            if key not in self._jobs:
                raise DataError("this result is not there any more", "one of the last ones", "run the video again")
            return self._jobs[key]

    def submit(self, video: DemoVideo, config: str, checkpoint: str, settings: dict[str, Any]) -> Job:
        """Put a video at the end of the queue. Raises ConfigError if that is full."""
        key = secrets.token_urlsafe(12)
        job = Job(key, video, config, checkpoint, settings, self.folder / key)
        with self._changed:
            if len(self._waiting) >= _MAX_WAITING:
                raise ConfigError(f"{_MAX_WAITING} videos wait already", "a shorter queue", "try again later")
            self._jobs[key] = job
            self._waiting.append(job)
            for old in [old for old in self._jobs.values() if old.state in _ENDED][: -self.keep]:
                del self._jobs[old.key]
                shutil.rmtree(old.folder, ignore_errors=True)
            self._changed.notify()
        return job

    def public(self, key: str) -> dict[str, Any]:
        """What the page is told about a job: also how many are before it."""
        job = self[key]
        with self._changed:
            before = self._waiting.index(job) + self._is_busy() if job in self._waiting else 0
        return {**job.public(), "before": before}

    def _is_busy(self) -> bool:
        return any(job.state in (LOADING, RUNNING) for job in self._jobs.values())

    def cancel(self, key: str) -> None:
        """Stop a job, or take it out of the queue; what has ended stays as it is."""
        job = self[key]
        with self._changed:
            job.stop.set()
            if job in self._waiting:
                self._waiting.remove(job)
                job.end(CANCELLED)

    def uses(self, folder: Path) -> bool:
        """Whether the video in that folder is waited for."""
        with self._changed:
            return any(job.video.path.parent == folder and job.state not in _ENDED for job in self._jobs.values())

    def close(self) -> None:
        """Stop what is under way."""
        with self._changed:
            self._closing = True
            for job in self._jobs.values():
                job.stop.set()
            self._changed.notify()
        self._thread.join(timeout=10)

    # ------------------------------------------------------------------ the thread

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                job = self._waiting.popleft()
                job.state = LOADING
            try:
                self._run(job)
                job.end(DONE)
            except Cancelled:
                job.end(CANCELLED)
            except SegError as error:
                self._fail(job, error)
            except Exception as error:  # told on the page and in the terminal; the next video has its own chance
                shortage = memory_error(error)
                if shortage is None:
                    logger.exception("a job of the page")
                self._fail(job, shortage or unexpected(error))

    def _fail(self, job: Job, error: SegError) -> None:
        """Say why, without the places of files."""
        checkpoint = self.choices.checkpoints().get(job.checkpoint)
        files = (job.video.path, job.folder, *(() if checkpoint is None else (checkpoint,)))
        job.error = parts(error, *(file.parent for file in files))
        shutil.rmtree(job.folder, ignore_errors=True)
        job.end(FAILED)

    def _run(self, job: Job) -> None:
        model = self._loaded(job.config, job.checkpoint)
        if job.stop.is_set():
            raise Cancelled
        settings = dict(job.settings)
        masks = settings.pop("mask", None)
        if "given" not in (model.view_inputs or ()):
            masks = None
        if not model.takes_flow:
            settings.pop("flow", None)
        options = SegmentOptions(
            save=("labels", "video", "json"), masks=None if masks is None else GivenMasks(masks), **settings
        )
        source = FrameSource(job.video.path, max_frames=self.max_frames)
        job.total = source.length
        job.begin()
        made = segment_video(model, source, job.folder, options, progress=False, advance=job.advance)
        job.total = job.done = made.num_frames
        overlays = [made.folder / name for name in made.files if name.startswith(f"{made.name}_overlay")]
        job.files = {path.name: path for path in (*overlays, made.folder / numbers_name(made.name)) if path.exists()}
        archive = _zipped(made.folder, job.folder / f"{made.name}_results.zip")
        job.files[archive.name] = archive

    def _loaded(self, config: str, checkpoint: str) -> VideoModel:
        path = self.choices.checkpoint(checkpoint)
        key = (config, path, None if path is None else path.stat().st_mtime_ns)
        if self._model is None or self._model[0] != key:
            self._model = None  # makes room before the next one comes
            cfg = self.choices.config(config, checkpoint)
            self._model = key, init_segmentor(cfg, path, self.device)
        return self._model[1]


def parts(error: SegError, *hidden: Path) -> dict[str, str | None]:
    """What the page shows of an error; of the full disk, say, the terminal tells the place, too."""
    if isinstance(error, WriteError):
        logger.error("%s", error)
    told = {"found": error.found, "expected": error.expected, "action": error.action}
    for folder in hidden:
        told = {name: text and text.replace(f"{folder}/", "") for name, text in told.items()}
    return told


def unexpected(error: BaseException) -> SegError:
    """An error of the program as one that can be shown."""
    return SegError(
        f"the program has failed: {type(error).__name__}: {error}", None, "look into the terminal of the demo for more"
    )


def _zipped(folder: Path, path: Path) -> Path:
    """All files of a folder as a ZIP; they are compressed already."""
    with writing(path), zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder.parent))
    return path
