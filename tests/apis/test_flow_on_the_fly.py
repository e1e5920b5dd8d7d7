"""Models of frame and flow on plain videos: flow is computed while frames come, one frame ahead of the model."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmseg.apis import VideoStream, inference_segmentor, init_segmentor
from mmseg.errors import ConfigError, DataError
from mmseg.making.flow import flow_network
from mmseg.making.flow_frames import with_flow
from mmseg.structures import Frame
from tests.engine.tiny_vspw import make_data, write_config
from tests.golden_cases import fill
from tests.making.test_flow import moving
from tests.tools.processes import finish

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "local_configs/hfan/hfan.small.512x512.160k.py"
OPTIONS = {
    "model.backbone.ori_type": "mit_b0",
    "model.decode_head.in_channels": [32, 64, 160, 256],
    "data.test.pipeline.1.img_scale": (192, 96),
}


@pytest.fixture(scope="module")
def model():
    model = init_segmentor(CONFIG, options=OPTIONS)
    fill.fill(model)
    logits = model.stream().step(fill.normal("img", (6, 96, 144)))
    with torch.no_grad():  # untrained ones see background everywhere: make both classes as likely
        model.decode_head.linear_pred.bias[1] += (logits[0] - logits[1]).median()
    return model


@pytest.fixture(scope="module")
def expected(model):
    """Label maps with flow that is given."""
    stream, frames = VideoStream(model), [Frame(t, str(t), image) for t, image in enumerate(moving(4))]
    return [stream.step(frame.image, flow=frame.flow) for frame in with_flow(frames, flow_network("dis"))]


def test_results_come_one_frame_late(model, expected):
    stream = VideoStream(model, flow="dis")
    for _ in range(2):  # the second time after finish()
        answers = [stream.push(frame) for frame in moving(4)]
        assert [[number for number, _ in answer] for answer in answers] == [[], [0], [1], [2]]
        [(number, last)] = stream.finish()
        assert number == 3
        for labels, wanted in zip([*(answer[0][1] for answer in answers[1:]), last], expected):
            np.testing.assert_array_equal(labels, wanted)
    assert len({labels.tobytes() for labels in expected}) > 1


def test_frames_of_one_buffer_and_a_frame_that_does_not_fit(model, expected):
    stream, buffer, found = VideoStream(model, flow="dis"), np.empty_like(moving(1)[0]), []
    for t, frame in enumerate(moving(4)):
        buffer[:] = frame
        found += stream.push(buffer)
        if t == 1:
            with pytest.raises(DataError, match="frames of 2 sizes"):
                stream.push(frame[:90])
    for (number, labels), t in zip([*found, *stream.finish()], range(4), strict=True):
        assert number == t
        np.testing.assert_array_equal(labels, expected[t])


def test_whole_videos(model, expected):
    for labels, wanted in zip(inference_segmentor(model, moving(4), flow="dis"), expected, strict=True):
        np.testing.assert_array_equal(labels, wanted)


def test_step_needs_flow_or_backward_flow(model):
    frames = moving(3)
    with pytest.raises(DataError, match="a frame without optical flow") as caught:
        VideoStream(model).step(frames[0])
    assert "step(frame, flow=picture)" in caught.value.action
    with pytest.raises(ConfigError, match=r"step\(\) while flow to the next frame is computed"):
        VideoStream(model, flow="dis").step(frames[0])
    backward = VideoStream(model, flow="dis", flow_backward=True)
    assert [backward.step(frame).shape for frame in frames] == [(96, 144)] * 3
    with pytest.raises(ConfigError, match="flow given with a frame while it is computed"):
        backward.push(frames[0], flow=frames[0])


def test_models_of_frames_alone_take_no_flow(tmp_path):
    make_data(tmp_path / "data", {"a": 12})
    other = init_segmentor(write_config(tmp_path / "cffm.py", tmp_path / "data"))
    with pytest.raises(ConfigError, match="does not look at it"):
        VideoStream(other, flow="dis")


def test_the_command_on_a_folder_of_frames(tmp_path):
    (tmp_path / "clip").mkdir()
    for t, image in enumerate(moving(3)):
        cv2.imwrite(str(tmp_path / "clip" / f"{t:05d}.png"), image)
    options = ["model.backbone.ori_type=mit_b0", "model.decode_head.in_channels=[32,64,160,256]"]
    options += ["data.test.pipeline.1.img_scale=(192,96)"]
    command = [sys.executable, ROOT / "tools/infer.py", "clip", CONFIG, "none", "--out", "out", "--device", "cpu"]
    output = finish([*command, "--flow", "dis", "--no-overlay", "--options", *options], tmp_path)
    assert "3 frames in" in output
    assert sorted(path.name for path in (tmp_path / "out/clip/labels").iterdir()) == [f"{t:05d}.png" for t in range(3)]
