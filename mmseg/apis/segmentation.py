"""One video, segmented: frames from anywhere go in, and what was asked for stands in a folder, whole or not at all."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmseg.apis.features import FeatureWriter
from mmseg.apis.inference import frames_with_flow, pipeline_of, require_model, settings_of
from mmseg.apis.video_stream import AutocastType
from mmseg.behind import Behind
from mmseg.datasets.mask_inputs import GivenMasks
from mmseg.datasets.sources import FrameSource, LazySource, Source
from mmseg.engine.ahead import at
from mmseg.engine.answers import check_returns
from mmseg.engine.interrupts import Interrupted
from mmseg.engine.predict import predict
from mmseg.errors import ConfigError, nearest
from mmseg.files import make_folder
from mmseg.making.flow import DEFAULT_FLOW, FlowNetwork, flow_network
from mmseg.models.base import VideoModel
from mmseg.progress import FrameProgress
from mmseg.structures import Result
from mmseg.values import Fraction, Palette, checked
from mmseg.version import __version__
from mmseg.visualization import Legend, palette_table
from mmseg.visualization.painting import OPACITY
from mmseg.writing.result_folder import ResultFolder
from mmseg.writing.video_outputs import LabelMaps, Numbers, Output, Painter, Paintings, Probabilities, numbers_name

logger = logging.getLogger("mmseg.apis")

KINDS = ("labels", "overlay", "video", "probs", "json", "features")
FINISHED, INTERRUPTED = "finished", "interrupted"


@dataclass(frozen=True)
class SegmentOptions:
    """What is made of a video, and how.

    Attributes:
        save: some of 'labels' (``labels/<frame>.png``, mode P, pixel = class or object id), 'overlay'
            (``overlay/<frame>.jpg``), 'video' (``<video>_overlay.mp4``), 'probs' (``probs/<frame>.npz``, see
            :class:`~mmseg.writing.video_outputs.Probabilities`), 'json' (``<video>.json``, see
            :class:`~mmseg.writing.video_outputs.Numbers`), 'features' (heat maps of HFAN).
        opacity: of the colours in pictures, 0 to 1; None: 0.45.
        legend: names of the classes beside the pictures.
        side_by_side: the frame itself to the left of the pictures.
        palette: RGB colours in label order, in place of those of the model.
        aug_test: average over scales and flips.
        amp: type to compute in, see :func:`mmseg.engine.predict.predict`.
        flow: for models that look at optical flow, see :func:`mmseg.making.flow.flow_network`; None: RAFT.
        masks: for models that follow objects.

    Raises:
        ConfigError: a value of another type, or out of range.
    """

    save: tuple[str, ...] = ("labels", "video")
    opacity: Fraction | None = None
    legend: bool = False
    side_by_side: bool = False
    palette: Palette | None = None
    aug_test: bool = False
    amp: AutocastType | None = None
    flow: str | FlowNetwork | None = None
    masks: GivenMasks | None = None

    def check(self, model: VideoModel) -> None:
        """Raise ConfigError for what this model cannot do, and for what would be without effect."""
        for kind in self.save:
            if kind not in KINDS:
                raise ConfigError(f"save: {kind!r}", f"some of {', '.join(KINDS)}", nearest(kind, KINDS))
        if not self.save:
            raise ConfigError("nothing to save", f"some of {', '.join(KINDS)}", "name one")
        pictures = {"overlay", "video"} & set(self.save)
        for name, given in (("opacity", self.opacity is not None), ("legend", self.legend)):
            _require(pictures or not given, name, "pictures, which are not saved", "save overlay or video, or drop it")
        _require(
            pictures or not self.side_by_side, "side-by-side", "pictures, which are not saved", "save overlay or video"
        )
        coloured = pictures or "labels" in self.save
        _require(coloured or self.palette is None, "palette", "label maps or pictures", "save labels, overlay or video")
        self._check_palette(model)
        name = type(model).__name__
        takes_masks = "given" in (model.view_inputs or ())
        _require(
            takes_masks or self.masks is None, "mask", f"a model that follows given objects, not a {name}", "drop it"
        )
        if takes_masks and self.masks is None:
            raise ConfigError(
                f"a {name} without a mask",
                "the objects that it is to follow, in the first frame or in several",
                "give --mask FIRST.png or --masks DIR (Python: SegmentOptions(masks=GivenMasks(path)))",
            )
        _require(model.takes_flow or self.flow is None, "flow", f"a model that looks at flow, not a {name}", "drop it")
        if "probs" in self.save:
            try:
                check_returns(("probabilities",), model, model.score_kind)
            except ConfigError as error:
                raise ConfigError(f"--save probs: {error.found}", error.expected, "leave probs out") from error
        if "features" in self.save:
            FeatureWriter("", model, pipeline_of(model), palette_table(None, 1))

    def _check_palette(self, model: VideoModel) -> None:
        """Labels beyond the palette would be seen nowhere."""
        ids = None if self.masks is None else self.masks.ids
        needed = model.num_classes if model.num_classes is not None else 0 if ids is None else max(ids) + 1
        if self.palette is not None and len(self.palette) < needed:
            raise ConfigError(
                f"a palette of {len(self.palette)} colours", f"{needed}, one for each label from 0 on", "add the others"
            )

    def settled(self, model: VideoModel) -> SegmentOptions:
        """With the network that computes flow, read from its file. Raises ConfigError; see also :meth:`check`."""
        self.check(model)
        if not model.takes_flow:
            return self
        return replace(self, flow=flow_network(self.flow or DEFAULT_FLOW, device=next(model.parameters()).device))


SegmentOptions.__init__ = checked(SegmentOptions.__init__)
_DEFAULTS = SegmentOptions()


def _require(met: Any, name: str, expected: str, action: str) -> None:
    if not met:
        raise ConfigError(f"--{name} has no effect here", expected, action)


@dataclass(frozen=True)
class SegmentedVideo:
    """What :func:`segment_video` made.

    Attributes:
        name: of the video.
        num_frames: with a result or without.
        seconds: that it took.
        folder: ``<out>/<video>``.
        files: names of what stands in it.
        fault: what of the video was missing or damaged; None if nothing.
    """

    name: str
    num_frames: int
    seconds: float
    folder: Path
    files: tuple[str, ...]
    fault: str | None = None


def segment_video(
    model: VideoModel,
    video: Source | FrameSource | LazySource,
    out: str | Path,
    options: SegmentOptions = _DEFAULTS,
    progress: bool = True,
    record: dict[str, Any] | None = None,
    several: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> SegmentedVideo:
    """Segment a video frame by frame; memory use does not depend on its length. Reading, computing and writing overlap.

    Args:
        model: from :func:`init_segmentor`.
        video: see :class:`FrameSource`; or one of :func:`mmseg.datasets.sources.video_sources`.
        out: receives a folder ``<video>``, whose results take the place of those of an earlier run. They appear at the
            end, together, with ``run.json``, which says what they were made from.
        options: what is made, and how.
        progress: show a progress bar.
        record: what ``run.json`` says beside what is known here.
        several: this is one of several videos: a signal leaves nothing of it, and masks stand in ``<masks>/<video>``.
            Of a single video what is done then stays, playable and marked as interrupted.
        advance: is called for every frame.

    Raises:
        DataError: frames that cannot be read or differ in size.
        ConfigError: options that this model cannot follow, or that are without effect.
        WriteError: files that cannot be written, or another run makes the same video. Nothing of it stays.
    """
    require_model(model)
    options, began = options.settled(model), time.monotonic()

    def seconds() -> float:
        return round(time.monotonic() - began, 3)

    source = video.open() if isinstance(video, LazySource) else video
    source = source if isinstance(source, FrameSource) else FrameSource(source)
    count, status, signals, files = 0, FINISHED, [], []
    with at(source.place), ResultFolder(out, source.name) as folder:
        outputs = _outputs(folder.path, model, source, options)
        with _behind(outputs) as thread:
            try:
                with _bar(source, progress) as bar, closing(_results(model, source, options, several)) as results:
                    for result in results:
                        for output in outputs.here:
                            output.add(result)
                        thread.put(result)
                        count += 1
                        bar.advance()
                        advance()
            except (KeyboardInterrupt, Interrupted) as signal:
                if several or not count:
                    raise
                status = INTERRUPTED
                signals.append(signal)

            def complete() -> None:
                thread.close()
                for output in outputs:
                    output.close(status == FINISHED)
                about = {"status": status, "video": source.place, "frames": count, "seconds": seconds()}
                about.update({"fault": source.fault, "mmseg_version": __version__, **(record or {})})
                files.extend(folder.publish(about))

            signals += _undisturbed(complete)
    done = SegmentedVideo(source.name, count, seconds(), folder.final, tuple(files), source.fault)
    if signals:
        what = "all of it" if status == FINISHED else "what is done"
        logger.warning("interrupted after %d frames; %s is in %s: %s", count, what, done.folder, ", ".join(files))
        raise signals[0]
    return done


def _undisturbed(work: Callable[[], None]) -> list[BaseException]:
    """Do what is quickly done, in a thread; a signal meanwhile does not stop it and is returned. Raises its errors."""
    signals: list[BaseException] = []
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        try:
            done.exception()
        except (KeyboardInterrupt, Interrupted) as signal:
            signals.append(signal)
    done.result()
    return signals


def _results(model: VideoModel, source: FrameSource, options: SegmentOptions, several: bool) -> Iterator[Result]:
    frames: Iterable = source
    if options.masks is not None:
        frames = options.masks.shown(frames, source.name, several)
    frames = frames_with_flow(model, frames, options.flow)
    returns = ("probabilities",) if "probs" in options.save else ()
    pipeline = pipeline_of(model, options.aug_test)
    return predict(
        model,
        frames,
        pipeline,
        settings_of(model),
        source=source.name,
        amp=options.amp,
        returns=returns,
        ahead=not source.live,
    )


class _Outputs(list[Output]):
    """What is written in the background; `here`: what needs the model, which is done at once."""

    here: list[Output]


def _outputs(folder: Path, model: VideoModel, source: FrameSource, options: SegmentOptions) -> _Outputs:
    """What takes the results, as the options say."""
    save, leaf = options.save, source.name.split("/")[-1]
    table = palette_table(options.palette or model.PALETTE, model.num_classes)
    outputs = _Outputs()
    outputs.here = []
    if "labels" in save:
        outputs.append(LabelMaps(folder, table))
    if {"overlay", "video"} & set(save):
        opacity = OPACITY if options.opacity is None else options.opacity
        legend = Legend(table, _names(model, options), opacity) if options.legend else None
        painter = Painter(table, opacity, legend, options.side_by_side)
        clip = leaf if "video" in save else None
        outputs.append(Paintings(folder, painter, "overlay" in save, clip, source.fps, source.sar))
    if "probs" in save:
        outputs.append(Probabilities(folder))
    if "json" in save:
        fps = None if source.fps is None else float(source.fps)
        head = {"video": source.place, "fps": fps, "classes": None if model.CLASSES is None else list(model.CLASSES)}
        outputs.append(Numbers(folder / numbers_name(leaf), head, source.fps, model.CLASSES))
    if "features" in save:
        outputs.here.append(_Features(folder, model, options, table))
    return outputs


def _names(model: VideoModel, options: SegmentOptions) -> Sequence[str] | None:
    """Names of classes, or of objects as far as it is known which there are; None: any objects."""
    if model.num_classes is not None:
        return model.CLASSES or [f"class {label}" for label in range(model.num_classes)]
    ids = None if options.masks is None else options.masks.ids
    return None if ids is None else ["background", *(f"object {number}" for number in range(1, max(ids) + 1))]


class _Features(Output):
    def __init__(self, folder: Path, model: VideoModel, options: SegmentOptions, table: np.ndarray) -> None:
        self.folder = make_folder(folder / "features")
        self.writer = FeatureWriter(self.folder, model, pipeline_of(model), table)

    def add(self, result: Result) -> None:
        if result.labels is not None:
            self.writer.write(self.folder, result)


@contextmanager
def _bar(source: FrameSource, progress: bool) -> Iterator[FrameProgress]:
    bar = FrameProgress(source.length or 0, source.length or 0, progress)
    try:
        yield bar
    finally:
        bar.close()


@contextmanager
def _behind(outputs: _Outputs) -> Iterator[Behind[Result]]:
    """What gives results to all outputs, in the background; they are discarded after an error."""

    def add(result: Result) -> None:
        for output in outputs:
            output.add(result)

    thread = Behind(add)
    try:
        yield thread
    except BaseException:
        thread.discard()
        for output in outputs:
            output.discard()
        raise
