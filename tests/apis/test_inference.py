"""The interface for other programs: init_segmentor, inference_segmentor, VideoStream."""

import cv2
import numpy as np
import pytest
import torch

from mmseg.apis import VideoStream, inference_segmentor, init_segmentor, segment_video
from mmseg.datasets import build_dataset
from mmseg.engine.checkpoints import save_checkpoint
from mmseg.engine.predict import predict, stream_settings
from mmseg.errors import CheckpointError, ConfigError, DataError
from tests.datasets.vos_folder import vos_config, write_vos
from tests.engine.tiny_vspw import SIZE, make_data, write_config


@pytest.fixture
def config(tmp_path):
    make_data(tmp_path / "data", {"a": 12})
    return write_config(tmp_path / "cffm.py", tmp_path / "data")


def frames_of(tmp_path) -> list[np.ndarray]:
    return [cv2.imread(str(p)) for p in sorted((tmp_path / "data/data/a/origin").iterdir())]


def test_stream_folder_and_frames_agree(tmp_path, config):
    torch.manual_seed(0)
    model = init_segmentor(str(config))
    assert not model.training and model.cfg.data.test.type == "VSPWDataset"
    stream = VideoStream(model)
    labels = [stream.step(frame) for frame in frames_of(tmp_path)]
    assert all(m.shape == SIZE and m.dtype == np.uint8 for m in labels)
    for source in (frames_of(tmp_path), tmp_path / "data/data/a/origin"):
        assert np.array_equal(inference_segmentor(model, source), labels)
    assert np.array_equal(inference_segmentor(torch.compile(model), frames_of(tmp_path)[:2]), labels[:2])
    stream.reset()
    assert np.array_equal(stream.step(frames_of(tmp_path)[0]), labels[0])


def test_bad_frames(tmp_path, config):
    stream = VideoStream(init_segmentor(config))
    frame = frames_of(tmp_path)[0]
    for bad in (frame[..., 0], frame.astype(np.float32), "frame.jpg", np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(DataError, match="BGR"):
            stream.step(bad)
    stream.step(frame)
    with pytest.raises(DataError, match=r"70x40 pixels after frames of 70x45"):
        stream.step(frame[:40])
    stream.reset()
    assert stream.step(frame[:40]).shape == (40, 70)


def test_names_come_from_the_checkpoint(tmp_path, config):
    model = init_segmentor(config)
    assert model.CLASSES is None  # VSPW's 124 names do not fit 3 classes
    meta = {"CLASSES": ("x", "y", "z"), "PALETTE": [[1, 2, 3]] * 3}
    save_checkpoint(tmp_path / "model.pth", {"meta": meta, "state_dict": model.state_dict()})
    loaded = init_segmentor(config, tmp_path / "model.pth", options={"data.test.dilation": [-3, -2, -1]})
    assert tuple(loaded.CLASSES) == ("x", "y", "z") and stream_settings(loaded.cfg.data.test, None, loaded) == {
        "dilation": (-3, -2, -1)
    }
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_bad_arguments(tmp_path, config):
    with pytest.raises(CheckpointError, match=r"gone\.pth"):
        init_segmentor(config, tmp_path / "gone.pth")
    with pytest.raises(ConfigError, match=r"gone\.py"):
        init_segmentor(tmp_path / "gone.py")
    with pytest.raises(ConfigError, match="device 'gpu'"):
        init_segmentor(config, device="gpu")
    for wrong, message in ((None, "config = None"), ({"model": {}}, r"config = \{"), (3, "config = 3")):
        with pytest.raises(ConfigError, match=message):
            init_segmentor(wrong)
    with pytest.raises(ConfigError, match=r"(?s)options = \['a=1'\].*a dict"):
        init_segmentor(config, options=["a=1"])
    model = init_segmentor(config)
    for key, wrong in (("amp", "bfloat16"), ("amp", torch.int8), ("aug_test", "yes"), ("video", 3)):
        with pytest.raises(ConfigError, match=f"{key} = "):
            VideoStream(model, **{key: wrong})
    with pytest.raises(ConfigError, match="flow_backward=True without flow"):
        VideoStream(model, flow_backward=True)
    with pytest.raises(ConfigError, match="model = None"):
        VideoStream(None)
    assert VideoStream(model, False, torch.bfloat16, dilation=[-3, -2, -1]).step(np.zeros((40, 40, 3), np.uint8)).any
    del model.cfg
    with pytest.raises(ConfigError, match="init_segmentor"):
        VideoStream(model)


def test_a_checkpoint_without_the_head_is_refused(tmp_path, config):
    state = init_segmentor(config).state_dict()
    backbone = {name: value for name, value in state.items() if name.startswith("backbone.")}
    save_checkpoint(tmp_path / "backbone.pth", {"meta": {}, "state_dict": backbone})
    with pytest.raises(CheckpointError, match=r"decode_head\.conv_seg\.weight"):
        init_segmentor(config, tmp_path / "backbone.pth")


def test_a_loaded_config_is_not_changed(config):
    from mmseg.config import load_config

    cfg = load_config(config)
    model = init_segmentor(cfg, options={"data.test.dilation": [-1]})
    assert list(model.cfg.data.test.dilation) == [-1] and list(cfg.data.test.dilation) == [-9, -6, -3]


@pytest.fixture
def hfan(tmp_path):
    write_vos(tmp_path / "data", {"bear": 3})
    torch.manual_seed(0)
    return init_segmentor(vos_config(tmp_path / "hfan.py", tmp_path / "data"))


def test_frames_with_flow_are_answered_at_once(hfan, tmp_path):
    dataset = build_dataset(hfan.cfg.data.test, test_mode=True)
    video, frames = VideoStream(hfan), list(dataset.frames(0))
    maps = [video.step(frame.image, flow=frame.flow) for frame in frames]
    results = list(predict(hfan, dataset.frames(0), dataset.pipeline))
    for labels, result in zip(maps, results, strict=True):
        assert np.array_equal(labels, result.labels) and labels.shape == frames[0].image.shape[:2]
    assert len(VideoStream(hfan, aug_test=True)._predictor.pipeline.views(frames[0])) == 6


def test_frames_without_flow_or_with_one_that_does_not_fit(hfan, tmp_path):
    video, frame = VideoStream(hfan), np.zeros((48, 64, 3), np.uint8)
    with pytest.raises(DataError, match=r"(?s)without optical flow.*step\(frame, flow="):
        video.step(frame)
    with pytest.raises(DataError, match="32x24"):
        video.step(frame, flow=np.zeros((24, 32, 3), np.uint8))
    with pytest.raises(DataError, match=r"float64 array \(2, 48, 64\)"):
        video.step(frame, flow=np.zeros((2, 48, 64)))
    assert video.step(frame, flow=frame).shape == (48, 64)


def test_arguments_that_do_not_exist_and_models_of_others_are_told(tmp_path, config):
    with pytest.raises(ConfigError, match=r"unknown argument 'cfg_options'(.*\n)*.*did you mean 'options'"):
        init_segmentor(str(config), cfg_options={})
    for use in (inference_segmentor, lambda model, frames: segment_video(model, frames, tmp_path / "out")):
        with pytest.raises(ConfigError, match="Linear as model"):
            use(torch.nn.Linear(2, 2), frames_of(tmp_path))
    assert not (tmp_path / "out").exists()
