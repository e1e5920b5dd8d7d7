"""Label maps and an overlay video for a video file or a folder of pictures, as ``tools/infer.py`` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmseg.apis.inference import VideoStream
from mmseg.datasets.sources import FrameSource, Source
from mmseg.errors import DataError
from mmseg.models.base import BaseSegmentor
from mmseg.progress import FrameProgress
from mmseg.visualization import OverlayVideo, palette_table
from mmseg.writing.results import make_folder, write_label_png

DEFAULT_FPS = 15.0


@dataclass
class SegmentedVideo:
    """What :func:`segment_video` wrote."""

    num_frames: int
    labels: Path
    overlay: Path | None


def segment_video(
    model: BaseSegmentor,
    video: Source,
    out: str | Path,
    aug_test: bool = False,
    overlay: bool = True,
    progress: bool = True,
) -> SegmentedVideo:
    """Segment a video frame by frame; memory use does not depend on its length.

    Args:
        model: from :func:`mmseg.apis.init_segmentor`.
        video: a video file, a folder of pictures, a camera, or frames: see :class:`FrameSource`.
        out: folder for ``labels/<frame>.png`` (mode P, pixel = class number) and ``<name>_overlay.mp4``.
        aug_test: average over scales and flips.
        overlay: write the overlay video.
        progress: show a progress bar.

    Raises:
        DataError: frames that cannot be read or differ in size, or files that cannot be written.
    """
    source, stream = FrameSource(video), VideoStream(model, aug_test)
    table = palette_table(model.PALETTE, model.num_classes)
    labels_folder = Path(out) / "labels"
    make_folder(labels_folder)
    clip = OverlayVideo(Path(out) / f"{source.name}_overlay", table, source.fps or DEFAULT_FPS) if overlay else None
    bar = FrameProgress(source.length or 0, source.length or 0, progress)
    count = 0
    try:
        for frame in source:
            try:
                labels = stream.step(frame.image)
            except DataError as error:
                raise DataError(f"{video}, frame {frame.name}: {error.found}", error.expected, error.action) from error
            write_label_png(labels_folder / f"{frame.name}.png", labels, table.tobytes())
            if clip is not None:
                clip.add(frame.image, labels)
            count += 1
            bar.advance()
    finally:
        bar.close()
        if clip is not None:
            clip.close()
    return SegmentedVideo(count, labels_folder, clip.path if clip is not None else None)
