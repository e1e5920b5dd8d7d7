"""Tensors that cannot be: one error where they come in, whoever calls the model."""

import numpy as np
import pytest
import torch

from mmseg.apis import VideoStream
from mmseg.config import load_config
from mmseg.errors import ConfigError, DataError
from tests.contract.systems import NUM_CLASSES, SYSTEMS

FRAME, CLIP, FLOW = SYSTEMS[0], SYSTEMS[1], SYSTEMS[4]


@pytest.fixture(scope="module")
def model():
    return FRAME.model()


@pytest.fixture(scope="module")
def streams(model):
    return {FRAME.name: model.stream(), FLOW.name: FLOW.model().stream()}


@pytest.fixture(scope="module")
def trained():
    return FRAME.model("train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda img: img.numpy(), "is a ndarray"),
        (lambda img: None, "is a NoneType"),
        (lambda img: img.int(), "of int32"),
        (lambda img: img.double(), "of float64 on cpu, the weights are torch.float32"),
        (lambda img: img.to("meta"), "on meta, the weights are torch.float32 on cpu"),
        (lambda img: img.to_sparse(), "is a tensor"),
        (lambda img: torch.cat([img, img[:1]]), r"is a tensor \(4, 64, 96\)"),
        (lambda img: img[None], r"has shape \(1, 3, 64, 96\)"),
    ],
)
def test_frames_of_a_stream(model, change, message):
    stream, img = model.stream(), torch.zeros(3, 64, 96)
    with pytest.raises(DataError, match=rf"frame 0 {message}|{message}"):
        stream.step(change(img))
    assert stream.step(img).shape == (NUM_CLASSES, 64, 96)  # it goes on


@pytest.mark.parametrize(
    ("system", "channels", "message"),
    [
        (FRAME, 1, r"1 channels\n.*the three colours\n.*repeat a grey one"),
        (FRAME, 4, r"4 channels\n.*the three colours\n.*leave out 1 of them"),
        (FLOW, 1, r"1 channels\n.*its optical flow\n.*append the picture"),
        (FLOW, 3, r"3 channels\n.*its optical flow\n.*append the picture of its flow"),
        (FLOW, 7, r"7 channels\n.*its optical flow\n.*leave out 1 of them"),
    ],
)
def test_frames_of_other_channels_are_told_what_to_do(streams, system, channels, message):
    with pytest.raises(DataError, match=message):
        streams[system.name].step(torch.zeros(channels, 64, 96))


def test_inputs_that_a_model_does_not_look_at(model):
    with pytest.raises(ConfigError, match=r"a mask \('given'\) for a FrameSegmentor"):
        model.stream().step(torch.zeros(3, 64, 96), given=torch.zeros(64, 96, dtype=torch.int64))
    model.cfg = load_config("local_configs/toy/cffm.b0.py")
    video, frame = VideoStream(model), np.zeros((40, 60, 3), np.uint8)
    with pytest.raises(ConfigError, match="a mask"):
        video.step(frame, mask=np.zeros((40, 60), np.uint8))
    with pytest.raises(DataError, match="objects without a mask"):
        video.step(frame, objects=[1])
    with pytest.raises(ConfigError, match="a model that follows objects"):
        VideoStream(model).remove([1])
    with pytest.raises(DataError, match=r"\(0, 60, 3\)"):
        video.step(frame[:0])
    assert video.step(frame).shape == (40, 60)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("gt_semantic_seg", lambda t: t - 1, "label 254 in a training batch"),
        ("gt_semantic_seg", lambda t: t + 200, "label 455 in"),
        ("gt_semantic_seg", lambda t: t.float(), "of float32"),
        ("gt_semantic_seg", lambda t: t[:, :1], r"\(2, 1, 1, 64, 96\)"),
        ("gt_semantic_seg", lambda t: t[..., :32], r"\(2, 2, 1, 64, 32\)"),
        ("gt_semantic_seg", lambda t: t.repeat(2, 1, 1, 1, 1), r"\(4, 2, 1, 64, 96\)"),
        ("gt_semantic_seg", lambda t: t.numpy(), "a ndarray"),
        ("img", lambda t: t.to(torch.uint8), "of uint8"),
        ("img", lambda t: torch.cat([t, t[:, :, :1]], dim=2), r"\(2, 2, 4, 64, 96\)"),
    ],
)
def test_training_batches(trained, key, change, message):
    batch = FRAME.batch()
    with pytest.raises(DataError, match=message):
        trained.loss({**batch, key: change(batch[key])})


def test_batches_without_an_entry_and_labels_of_any_whole_type(trained):
    batch = FRAME.batch()
    for wrong in ({"img": batch["img"]}, {}, None):
        with pytest.raises(ConfigError, match="samples without"):
            trained.loss(wrong)
    losses = [
        trained.loss({**batch, "gt_semantic_seg": batch["gt_semantic_seg"].to(dtype)})["decode.loss_seg"].item()
        for dtype in (torch.int64, torch.uint8, torch.int16)
    ]
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize("system", [CLIP, FLOW], ids=["clips", "flow"])
def test_other_systems_are_asked_the_same(system):
    model = system.model("train")
    batch = system.batch()
    with pytest.raises(DataError, match=f"label {NUM_CLASSES} in a training batch"):
        model.loss({**batch, "gt_semantic_seg": batch["gt_semantic_seg"].clamp(max=NUM_CLASSES)})
    with pytest.raises(DataError, match=rf"\(B, T, {system.channels}, H, W\)"):
        model.loss({**batch, "img": batch["img"][:, :, 1:]})
