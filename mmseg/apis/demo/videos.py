"""The videos that people bring to the page, or take from it: in a temporary folder, under names of our own."""

from __future__ import annotations

import re
import secrets
import shutil
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import cv2
import numpy as np

from mmseg.datasets.sources import FrameSource
from mmseg.datasets.video_inputs import VIDEOS
from mmseg.errors import DataError
from mmseg.files import writing
from mmseg.making.toy_scene import TOY_CLASSES, ToyScene
from mmseg.visualization import VideoWriter
from mmseg.writing.label_png import write_label_png

SAMPLE = "sample"
_SAMPLE_SIZE, _SAMPLE_FRAMES, _SAMPLE_FPS = (240, 400), 48, 16
_CHUNK = 2**20
_HEAD = 4096  # bytes of a file that are looked at


@dataclass
class DemoVideo:
    """A video that the page knows.

    Attributes:
        key: random; who has it may see the video.
        name: as it was uploaded, made harmless.
        path: of the file, alone in a folder.
        size: (height, width) of its frames.
        fps, length: as the file says, or None.
        mask: (H, W) uint8 object ids of the first frame that the page begins with, or None.
    """

    key: str
    name: str
    path: Path
    size: tuple[int, int] = (0, 0)
    fps: float | None = None
    length: int | None = None
    mask: np.ndarray | None = field(default=None, repr=False)

    @property
    def picture(self) -> Path:
        """The first frame as a PNG."""
        return self.path.parent / "first.png"


class DemoVideos:
    """Keeps the last videos.

    Args:
        folder: where they go.
        keep: how many; older ones that nothing uses are removed.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._videos: dict[str, DemoVideo] = {}
        self._lock = threading.Lock()

    def __getitem__(self, key: str) -> DemoVideo:
        """The video of that key. Raises DataError if there is none."""
        with self._lock:
            if key not in self._videos:
                raise DataError("this video is not there any more", "one of the last ones", "upload it again")
            return self._videos[key]

    def receive(self, name: str, stream: IO[bytes], length: int, in_use: Callable[[Path], bool]) -> DemoVideo:
        """Take a file in that is sent to us.

        Args:
            name: that its sender gives it; nothing but its ending and its harmless characters count.
            stream, length: where it comes from, and how many bytes it has.
            in_use: whether the folder of a video may not be removed.

        Raises:
            DataError: it does not come to its end, or is no video.
            WriteError: the disk is full.
        """
        suffix = Path(name).suffix.lower()
        if suffix not in VIDEOS:
            raise DataError(f"{harmless(name)}{suffix}: no video by its name", ", ".join(VIDEOS), "choose another file")
        video = self._new(harmless(name), suffix)
        try:
            _copy(stream, video.path, length)
            _refuse_text(video.path)
            return self._looked_at(video, in_use)
        except BaseException:
            shutil.rmtree(video.path.parent, ignore_errors=True)
            raise

    def sample(self, in_use: Callable[[Path], bool]) -> DemoVideo:
        """A clip of the toy world, made now, with one of its objects marked."""
        video = self._new(SAMPLE, "")
        scene = ToyScene(secrets.randbelow(2**16) * 2, len(TOY_CLASSES), _SAMPLE_SIZE, np.random.default_rng())
        try:
            with VideoWriter(video.path, _SAMPLE_FPS) as writer:
                for t in range(_SAMPLE_FRAMES):
                    frame, labels = scene.render(t)
                    writer.write(frame)
                    if t == 0:
                        things = [n for n, look in enumerate(TOY_CLASSES, 1) if look.outline is not None]
                        areas = {n: int((labels == n).sum()) for n in things}
                        video.mask = (labels == max(areas, key=areas.__getitem__)).astype(np.uint8)
            video.path = writer.path
            return self._looked_at(video, in_use)
        except BaseException:
            shutil.rmtree(video.path.parent, ignore_errors=True)
            raise

    def _new(self, name: str, suffix: str) -> DemoVideo:
        key = secrets.token_urlsafe(12)
        folder = self.folder / key
        with writing(folder):
            folder.mkdir(parents=True)
        return DemoVideo(key, name, folder / f"{name}{suffix}")

    def _looked_at(self, video: DemoVideo, in_use: Callable[[Path], bool]) -> DemoVideo:
        """With what its first frame says; the oldest videos make room. Raises DataError if there is no frame."""
        try:
            source = FrameSource(video.path)
            with closing(iter(source)) as frames:
                first = next(frames).image
        except DataError as error:  # without our folder in it
            hidden = str(error.found).replace(f"{video.path.parent}/", "")
            raise DataError(hidden, error.expected, error.action) from error
        video.size, video.length = first.shape[:2], source.length
        video.fps = None if source.fps is None else float(source.fps)
        with writing(video.picture):
            cv2.imwrite(str(video.picture), first)
        with self._lock:
            self._videos[video.key] = video
            spare = [v for v in self._videos.values() if not in_use(v.path.parent)][: -self.keep]
            for old in spare:
                del self._videos[old.key]
                shutil.rmtree(old.path.parent, ignore_errors=True)
        return video


def write_ids(path: Path, ids: bytes, size: tuple[int, int], table: np.ndarray) -> Path:
    """Store the object ids that were painted over a first frame, one byte for each pixel. Raises DataError."""
    height, width = size
    if len(ids) != height * width:
        raise DataError(
            f"a mask of {len(ids)} pixels",
            f"{height * width}, as the frame has",
            "load the page again, and paint again",
        )
    labels = np.frombuffer(ids, np.uint8).reshape(size)
    if not labels.any():
        raise DataError("no object is marked", "one or more, in the first frame", "paint over what is to be followed")
    write_label_png(path, labels, table.tobytes())
    return path


def harmless(name: str) -> str:
    """The stem of a file name with nothing that could mean a place, or that a terminal or a page could act upon."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(name.replace("\\", "/")).stem).strip("._")[:60]
    return stem or "video"


def _copy(stream: IO[bytes], path: Path, length: int) -> None:
    with writing(path), path.open("xb") as file:
        left = length
        while left:
            data = stream.read(min(_CHUNK, left))
            if not data:
                raise DataError(f"{path.name}: {length - left} of {length} bytes came", "all of it", "upload it again")
            file.write(data)
            left -= len(data)


def _refuse_text(path: Path) -> None:
    """Raise DataError for play lists and the like, which decoders follow to other files and addresses."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head and b"\0" not in head:
        raise DataError(f"{path.name}: no video, but a text or a damaged file", "a video file", "choose another file")
    if not head:
        raise DataError(f"{path.name}: an empty file", "a video file", "choose another file")
