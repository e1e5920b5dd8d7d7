"""Results without a model, fed to writers in this process or in several real ones."""

from __future__ import annotations

import contextlib
import pathlib
import resource
from collections.abc import Iterator, Sequence

import numpy as np

from mmseg.structures import Frame, Result, Video
from tests.tools.processes import finish_all, launch

LENGTHS = {"first": 7, "second": 18, "nested/third": 5}
OWNERS = [1, 0, 1]  # by frames, in two processes: the rank order is not the order of the data
SIZE = (9, 14)


def videos(lengths: dict[str, int] = LENGTHS) -> list[Video]:
    return [Video(index, name, length) for index, (name, length) in enumerate(lengths.items())]


def label_map(video: int, frame: int, run: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    rng = np.random.default_rng((video, frame, run))
    return rng.integers(0, 3, (size[0] + video, size[1]), np.uint8)


def result(video: Video, number: int, labels: np.ndarray | None, truth: np.ndarray | None = None) -> Result:
    height, width = SIZE if labels is None else labels.shape
    image = np.full((height, width, 3), 10 * number % 256, np.uint8)
    return Result(video, Frame(number, f"{number:08d}", image, truth=truth), labels)


def feed(writer, run: int = 0, rank: int = 0, owners: Sequence[int] = (0, 0, 0), missing: Sequence[tuple] = ()) -> None:
    """All videos of a rank but the end; `missing` (video, frame) has no result."""
    writer.start(videos(), owners)
    for video in videos():
        if owners[video.index] == rank:
            writer.begin_video(video)
            for number in range(video.num_frames):
                if (video.index, number) not in missing:
                    labels = label_map(video.index, number, run)
                    writer.add(result(video, number, labels, truth=labels))
            writer.end_video()


def expected(run: int = 0) -> list[np.ndarray]:
    """What ``res.pkl`` holds after :func:`feed`."""
    return [label_map(v.index, t, run) for v in videos() for t in range(v.num_frames)]


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files cannot grow beyond `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def in_two_processes(program: str, folder: pathlib.Path, status: int = 0) -> list[str]:
    """Runs `program` as ranks 0 and 1 in `folder`; it finds `rank` and this module's names. Their output."""
    head = (
        "import sys; from pathlib import Path; from mmseg import distributed; from mmseg.apis.cli import run\n"
        "from tests.writing.feeding import *\n"
        "distributed.init('pytorch'); rank = distributed.rank()\n"
    )
    body = "\n".join(["def main():", *(f"    {line}" for line in program.strip().splitlines()), "run(main)"])
    results = finish_all(launch(head + body, cwd=folder, merged=True))
    assert [returncode for returncode, *_ in results] == [status, status], results
    return [output for _, output, _ in results]


def left_in(folder: pathlib.Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


__all__ = ["LENGTHS", "OWNERS", "SIZE", "expected", "feed", "label_map", "largest_file", "left_in", "result", "videos"]
