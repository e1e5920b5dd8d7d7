"""Every system of the house, small enough for a laptop, and what it is held against. A new system is one entry."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmseg.clips import CFFM_DILATION, inference_clip, video_clips
from mmseg.models import build_head, build_segmentor
from mmseg.models.stream import Stream
from mmseg.structures import View
from tests.golden_cases import Case, build_filled, fill, fill_themask, points
from tests.models.gsfm_cases import network
from tests.reference import gsfm

SIZE = (64, 96)  # of frames; the smallest that all systems take
NUM_CLASSES = 9


def small(name: tuple[str, str], **head: Any) -> dict[str, Any]:
    """The model of a golden case with MiT-B0 and few classes."""
    config = copy.deepcopy(Case(*name).config)
    config["backbone"] = dict(type="mit_b0")
    config["decode_head"].update(in_channels=[32, 64, 160, 256], num_classes=NUM_CLASSES, **head)
    return config


def frame_model() -> dict[str, Any]:
    """SegFormer; its golden case is of the head alone."""
    head = {**copy.deepcopy(Case("cffm", "segformer_b0_head").config), "num_classes": NUM_CLASSES}
    return dict(type="EncoderDecoder", backbone=dict(type="mit_b0"), decode_head=head)


@dataclass(frozen=True)
class System:
    """One system.

    Attributes:
        name: as it stands in test names.
        official: (folder, case) of a golden case that lists an official state dict.
        config: makes the config of the small model.
        clip: frames of a training clip.
        channels: of a frame as the network sees it.
        settings: of its streams.
        extra: further entries of a training batch of n clips.
        unused: parts of the names of parameters that no loss reaches.
        numbers: frame t -> the frames of its whole clip in a video of 14, the target last or all of them being targets.
        filler: gives the model its fixed weights.
        prepared: changes a model, such as one that draws into a function of its inputs.
        matches: the losses are assigned on the host.
        head: the module behind the encoder.
        classes, void: of the labels of a training batch.
        size: of frames.
        frames: of a video that is long enough for everything that a stream does.
        few: frames of a shorter video.
        clips: of a training batch.
        lr, steps: of a training on one batch.
    """

    name: str
    official: tuple[str, str]
    config: Callable[[], dict[str, Any]]
    clip: int = 4
    channels: int = 3
    settings: Callable[[], dict[str, Any]] = dict
    extra: Callable[[int], dict[str, Any]] = lambda n: {}
    unused: tuple[str, ...] = ("conv_seg",)
    numbers: Callable[[int], list[int]] = lambda t: inference_clip(t, CFFM_DILATION)
    filler: Callable[[nn.Module], None] = fill.fill
    prepared: Callable[[nn.Module], nn.Module] = lambda model: model
    matches: bool = False
    head: str = "decode_head"
    classes: int = NUM_CLASSES
    void: int = 255
    size: tuple[int, int] = SIZE
    frames: int = 14
    few: int = 5
    clips: int = 2
    lr: float = 5e-4
    steps: int = 6

    def model(self, mode: str = "eval") -> nn.Module:
        """The small model with fixed weights, without any dropout."""
        return self.prepared(build_filled(build_segmentor, self.config(), mode, self.filler))

    def batch(self, clips: int | None = None, seed: int = 0) -> dict[str, Any]:
        """A training batch: patches of one class each, whose colour tells the class; some pixels are ignored."""
        clips = clips or self.clips
        generator = torch.Generator().manual_seed(seed)
        patches = torch.randint(
            0, self.classes, (clips, self.clip, 1, self.size[0] // 16, self.size[1] // 16), generator=generator
        )
        labels = patches.repeat_interleave(16, -1).repeat_interleave(16, -2)
        colours = torch.randn(self.classes, self.channels, generator=generator)
        imgs = colours[labels[:, :, 0]].movedim(-1, 2) + 0.1 * torch.randn(
            clips, self.clip, self.channels, *self.size, generator=generator
        )
        labels[..., :8, :] = self.void
        metas = [dict(video=f"video {i}") for i in range(clips)]
        return {"img": imgs, "gt_semantic_seg": labels, "img_metas": metas, **self.extra(clips)}

    def video(self, num_frames: int, seed: int = 0) -> Tensor:
        """Frames (n, C, H, W) of a video as the network sees them."""
        return video(num_frames, seed, self.size, self.channels)

    def official_model(self) -> nn.Module:
        """What `official` lists the state of."""
        config = Case(*self.official).config
        return (build_segmentor if "backbone" in config else build_head)(config)

    def stream(self, model: nn.Module) -> Stream:
        """A stream of the model."""
        return model.stream("some video", **self.settings())

    def view(self, t: int, frame: Tensor, wanted: bool = True) -> View:
        """Frame number `t` of a video, with all that a stream is told with it."""
        return View(t, {"img": frame}, wanted=wanted)

    def answers(
        self, stream: Stream, frames: Tensor, wanted: Callable[[int], bool] = lambda t: True
    ) -> dict[int, Tensor]:
        """Frame number -> scores of a whole video, and the promise that they come once each and in order."""
        scores = []
        for t, frame in enumerate(frames):
            scores += stream.push(self.view(t, frame, wanted(t)))
        scores += stream.finish()
        assert [s.number for s in scores] == [t for t in range(len(frames)) if wanted(t)]
        return {s.number: s.values for s in scores}

    def whole_clip(self, model: nn.Module, frames: Tensor, t: int) -> Tensor:
        """The prediction (K, H, W) of frame `t` of `frames` (n, C, H, W) from its clip, all of it encoded for it."""
        numbers = self.numbers(t)
        values = model.encode_decode(frames[numbers][None], **self.context())[0]
        return values[numbers.index(t)] if values.ndim == 4 else values

    def context(self) -> dict[str, Any]:
        """What goes to :meth:`encode_decode` beside the frames of one clip."""
        return {name: value for name, value in self.settings().items() if name in self.extra(1)}


def video(num_frames: int, seed: int = 0, size: tuple[int, int] = SIZE, channels: int = 3) -> Tensor:
    """Frames (n, C, H, W) of smooth noise that drifts."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(num_frames, channels, size[0] // 8, size[1] // 8, generator=generator)
    return nn.functional.interpolate(coarse, size=size, mode="bilinear")


def _prototypes(n: int) -> Tensor:
    return torch.randn(n, 7, 256, generator=torch.Generator().manual_seed(5))


def hfan() -> dict[str, Any]:
    """Its backbone is named inside of another one."""
    return {**small(HFAN), "backbone": dict(type="HFANVOS", ori_type="mit_b0")}


def themask(name: str, num_frames: int) -> dict[str, Any]:
    """One of THE-Mask's two models with few queries, layers and channels."""
    config = copy.deepcopy(Case("themask", name).config)
    config["backbone"] = dict(type="mit_b0")
    head = config["decode_head"]
    head["num_classes"] = NUM_CLASSES
    for shape, channels in zip(head["input_shape"].values(), (32, 64, 160, 256)):
        shape["channels"] = channels
    head["loss_cfg"].update(train_num_points=192, dec_layers=5)
    head["pixel_decoder_cfg"].update(
        conv_dim=64, mask_dim=64, transformer_dim_feedforward=128, transformer_enc_layers=2
    )
    head["transformer_decoder_cfg"].update(
        CONVS_DIM=64, MASK_DIM=64, num_classes=NUM_CLASSES, hidden_dim=64, num_queries=20, dim_feedforward=128,
        dec_layers=4, mask_dim=64, num_frames=num_frames,
    )  # fmt: skip
    return config


def given_points(model: nn.Module) -> nn.Module:
    """THE-Mask with points that are a function of the shape, as in its golden cases."""
    model.decode_head.criterion.draw = points
    return model


class GivenMasks(System):
    """A system that follows objects: masks come with some of the frames, and no clip of fixed length belongs to one."""

    def model(self, mode: str = "eval") -> nn.Module:
        """As large as the published one: it has no smaller variants."""
        return network(mode=mode, prepared=self.prepared)

    def official_model(self) -> nn.Module:
        with torch.device("meta"):
            return build_segmentor(self.config())

    def view(self, t: int, frame: Tensor, wanted: bool = True) -> View:
        """Two objects from the first frame on, a third one from frame 2 on."""
        inputs = {"img": frame}
        if t in GIVEN:
            mask = fill.blocks("objects", self.size, 4, 16).to(frame.device)
            inputs["given"] = torch.where((mask == 3) if t else (mask < 3), mask, 0)
            inputs["objects"] = GIVEN[t]
        return View(t, inputs, wanted=wanted)

    def whole_clip(self, model: nn.Module, frames: Tensor, t: int) -> Tensor:
        """From the formulas, which propagate from the first frame on."""
        given = {n: self.view(n, frames[n]).inputs["given"] for n in GIVEN if n <= t}
        masks = {n: {number: (mask == number).float() for number in GIVEN[n]} for n, mask in given.items()}
        return gsfm.propagate_youtube(model, frames[: t + 1], masks, mem_every=1, top_k=20)[t]


GIVEN = {0: (1, 2), 2: (3,)}  # frame -> objects that come with it
CFFM, CFFM_PLUS, MRCFA = ("cffm", "cffm_b1_seg"), ("cffm", "cffmpp_b1_seg"), ("mrcfa", "mrcfa_b1_seg")
HFAN, THEMASK = ("hfan", "hfan_b1_seg"), ("themask", "video_b1_eval_t1")
SYSTEMS = [
    System("SegFormer", ("cffm", "segformer_b0_head"), frame_model, clip=2, numbers=lambda t: [t]),
    System("CFFM", CFFM, partial(small, CFFM)),
    System(
        "CFFM++",
        CFFM_PLUS,
        partial(small, CFFM_PLUS),
        settings=lambda: {"prototypes": _prototypes(1)},
        extra=lambda n: {"prototypes": _prototypes(n)},
        unused=(
            "backbone",
            "conv_seg",
            "linear_c",
            "linear_fuse",
            "linear_pred.",
            "linear_pred2.",
            "decoder_focal",
            "decoder_swin.blocks.0.attn.proj",
            "relative_position_bias_table",
        ),
    ),
    System(
        "MRCFA",
        MRCFA,
        partial(small, MRCFA, backbone="b0"),
        unused=("conv_seg", ".0.conv2.bias"),  # a constant, which the norm behind it takes out: 0 up to rounding
    ),
    System("HFAN", HFAN, hfan, clip=1, channels=6, numbers=lambda t: [t]),
    System(
        "THE-Mask, one frame",
        ("themask", "1f_b1_eval_t1"),
        partial(themask, "1f_b1_eval_t1", 1),
        clip=1,
        numbers=lambda t: [t],
        filler=fill_themask,
        prepared=given_points,
        matches=True,
    ),
    System(
        "THE-Mask",
        THEMASK,
        partial(themask, THEMASK[1], 2),
        clip=2,
        settings=lambda: {"test_size": 2},
        unused=("conv_seg", "reference_points"),
        numbers=lambda t: next(clip for clip in video_clips(14, 2) if t in clip),
        filler=fill_themask,
        prepared=given_points,
        matches=True,
    ),
    GivenMasks(
        "GSFM",
        ("gsfm", "train_stage3"),
        lambda: dict(type="GSFM"),
        clip=3,
        settings=lambda: {"top_k": 20, "mem_every": 1, "max_memory_frames": 6},
        unused=(),
        head="decoder",
        classes=3,
        void=0,
        size=(32, 48),
        frames=5,  # so that none leaves the memory
        few=3,  # with the third object
        clips=1,
        lr=2e-5,
        steps=3,
    ),
]
