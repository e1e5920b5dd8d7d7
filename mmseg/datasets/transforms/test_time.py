"""The test pipeline: one frame in, one or several network inputs ("views") out.

In testing every frame is decoded and transformed once and handed to the model's stream; what a clip is, the
stream knows. So the pipeline of an official config (load, then MultiScaleFlipAug around the rest) is applied to frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Len

from mmseg import values
from mmseg.datasets.transforms.compose import Compose
from mmseg.datasets.transforms.geometry import fitted_mask
from mmseg.datasets.transforms.loading import LoadFrames, LoadLabels
from mmseg.errors import ConfigError, DataError
from mmseg.images import check_flow, check_frame
from mmseg.registry import TRANSFORMS, absolute
from mmseg.structures import Frame, View

AUGMENT_RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)

Scale = tuple[int, int]


@TRANSFORMS.register_module()
class MultiScaleFlipAug:
    """The transforms of the test pipeline, and at which scales and flips they are applied.

    Args:
        transforms: config dicts.
        img_scale: (long side, short side) or a list of them; None takes multiples of the frame's own size.
        img_ratios: factors of `img_scale`.
        flip: also mirrored views.
        flip_direction: accepted for official configs; only 'horizontal' can be undone here.

    Raises:
        ConfigError: neither img_scale nor img_ratios, or ratios of several scales.
    """

    def __init__(
        self,
        transforms: Annotated[Sequence[Any], Len(1)],
        img_scale: values.Size | Annotated[Sequence[values.Size], Len(1)] | None = None,
        img_ratios: values.PositiveFloat | Annotated[Sequence[values.PositiveFloat], Len(1)] | None = None,
        flip: bool = False,
        flip_direction: Literal["horizontal"] | Annotated[Sequence[Literal["horizontal"]], Len(1, 1)] = "horizontal",
    ) -> None:
        self.transforms = Compose(transforms, "transforms")
        self.scales = [tuple(s) for s in img_scale] if _is_list_of_scales(img_scale) else None
        self.img_scale = tuple(img_scale) if img_scale is not None and self.scales is None else None
        self.img_ratios = [img_ratios] if isinstance(img_ratios, float | int) else img_ratios
        self.flip = flip
        if img_scale is None and img_ratios is None:
            raise ConfigError("MultiScaleFlipAug: no img_scale", "(long side, short side)", "add img_scale=(853, 480)")
        if self.scales is not None and img_ratios is not None:
            raise ConfigError("MultiScaleFlipAug: img_ratios with several img_scale", "one of them", "drop one")

    def view_scales(self, height: int, width: int) -> list[Scale]:
        """The scales at which a frame is looked at, in the order of the views."""
        if self.scales is not None:
            return self.scales
        base = self.img_scale or (width, height)
        if not self.img_ratios:
            return [base]
        return [(max(int(base[0] * ratio), 1), max(int(base[1] * ratio), 1)) for ratio in self.img_ratios]

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        raise ConfigError(
            "MultiScaleFlipAug in a training pipeline", "it only in a test pipeline", "use Resize and RandomFlip there"
        )


class TestPipeline:
    """Makes the network inputs of a frame.

    Args:
        transforms: config dicts: loaders, then one MultiScaleFlipAug, or plain transforms for a single view.
        aug_test: several scales and flips (multi-scale testing): the ratios of the config, or `augment_ratios` where it
            gives none; flips in any case.
        where: dotted path of the list in the config file, for error messages.
        augment_ratios: those that a method was published with.

    Raises:
        ConfigError: the list cannot be built or does not end in an ``img`` tensor.
    """

    __test__ = False  # the name starts with "Test", but this is no test case

    def __init__(
        self,
        transforms: Sequence[Any],
        aug_test: bool = False,
        where: str = "pipeline",
        augment_ratios: Sequence[float] = AUGMENT_RATIOS,
    ) -> None:
        self._config, self._where, self._ratios = transforms, (where := absolute(where)), augment_ratios
        steps = [t for t in Compose(transforms, where).transforms if not isinstance(t, LoadFrames | LoadLabels)]
        multi = [t for t in steps if isinstance(t, MultiScaleFlipAug)]
        if multi and len(steps) > 1:
            raise ConfigError(
                f"{where}: transforms beside MultiScaleFlipAug", "loaders, then MultiScaleFlipAug", "move them into it"
            )
        self._multi = multi[0] if multi else None
        self._apply = self._multi.transforms if multi else Compose(steps, where)
        self.aug_test = aug_test
        if aug_test and self._multi is None:
            raise ConfigError(f"{where}: no MultiScaleFlipAug", "one, for multi-scale testing", "wrap the transforms")
        if aug_test:
            self._multi.flip = True
            if self._multi.scales is None and self._multi.img_ratios is None:
                self._multi.img_ratios = augment_ratios

    @property
    def transforms(self) -> list[Any]:
        """What is done to a frame, in order, loaders left out."""
        return self._apply.transforms

    def augmented(self) -> TestPipeline:
        """The same pipeline with `aug_test`."""
        return TestPipeline(self._config, True, self._where, self._ratios)

    @property
    def num_views(self) -> int:
        """Of a frame, whatever its size."""
        if self._multi is None:
            return 1
        return len(self._multi.view_scales(1, 1)) * (2 if self._multi.flip else 1)

    def checked_views(self, frame: Frame, takes_flow: bool) -> list[View]:
        """:meth:`views` of a frame; it has optical flow if and only if the model takes it, else DataError is raised."""
        check_frame(frame.image)
        check_flow(frame.image, frame.flow, takes_flow)
        return self.views(frame)

    def views(self, frame: Frame) -> list[View]:
        """The views of a frame: for each scale the plain one, then the mirrored one if wanted.

        May be called from several threads at once.
        """
        if self._multi is None:
            return [self._view(frame, None, False)]
        flips = (False, True) if self._multi.flip else (False,)
        return [self._view(frame, s, flip) for s in self._multi.view_scales(*frame.image.shape[:2]) for flip in flips]

    def _view(self, frame: Frame, scale: Scale | None, flip: bool) -> View:
        shape = frame.image.shape
        meta = dict(ori_shape=shape, img_shape=shape, pad_shape=shape, flip=flip)
        results = dict(img=[frame.image], meta=meta, flip=flip, scale=scale, rng=np.random.default_rng(0), steps=[])
        if frame.flow is not None:
            results["flow"] = [frame.flow]
        if frame.given is not None:
            given = fitted_mask(as_ids(frame.given), shape[:2], frame.path or f"frame {frame.number}", warn=True)
            results["given"] = [given]
        collected = self._apply(results)
        img = collected.get("img")
        if not isinstance(img, torch.Tensor):
            raise ConfigError(
                f"{self._where}: makes no tensor of the frame", "ImageToTensor and Collect at its end", "add them"
            )
        inputs: dict[str, Any] = {"img": img[0]}
        if frame.given is not None:
            inputs["given"] = torch.from_numpy(results["given"][0].astype(np.int64))  # (h, w)
            inputs["objects"] = frame.objects if frame.objects is not None else _ids_of(frame.given)
        return View(frame.number, inputs, results["steps"], frame.wanted)


def as_ids(given: Any) -> np.ndarray:
    """A mask that is given as int32, which OpenCV resizes. Raises DataError for one that holds no whole numbers."""
    array = np.asarray(given)
    if array.ndim != 2 or array.dtype.kind not in "biu":
        raise DataError(
            f"a given mask that is an array {array.shape} of {array.dtype}",
            "(H, W) whole numbers: object ids, 0 for background",
            "convert it; masks of one object can be (mask > 0.5)",
        )
    return array.astype(np.int32)


def _ids_of(given: np.ndarray) -> tuple[int, ...]:
    """The objects of a mask, read at full size: a small one may vanish in a view."""
    return tuple(int(value) for value in np.unique(given) if value)


def _is_list_of_scales(img_scale: Any) -> bool:
    return img_scale is not None and len(img_scale) > 0 and not isinstance(img_scale[0], int)
