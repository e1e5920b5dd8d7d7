"""Flow of frame pairs, its colours, and frames that carry it: directions, channels, the last frame, one frame alone."""

from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest
import torch
from torchvision.models.optical_flow import raft_large, raft_small
from torchvision.utils import flow_to_image

from mmseg.errors import CheckpointError, ConfigError, DataError
from mmseg.making.flow import OpenCVFlow, Raft, flow_network
from mmseg.making.flow_colours import colour_wheel, flow_picture, no_flow, wheel_picture
from mmseg.making.flow_frames import with_flow
from mmseg.structures import Frame
from tests.golden_cases import Case, fill

STEP = (3, -2)  # pixels to the right and down, of the moving frames


def moving(number, size=(96, 144)):
    """Frames of one texture that moves by STEP."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (200, 260, 3), dtype=np.uint8), (0, 0), 2)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    corner = [(60 - STEP[1] * t, 60 - STEP[0] * t) for t in range(number)]
    return [np.ascontiguousarray(texture[y : y + size[0], x : x + size[1]]) for y, x in corner]


def frames_of(images):
    return [Frame(t, f"{t:05d}", image) for t, image in enumerate(images)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files of random weights of both networks."""
    folder, files = tmp_path_factory.mktemp("weights"), {}
    for name, build in (("raft_large", raft_large), ("raft_small", raft_small)):
        torch.manual_seed(0)
        files[name] = folder / f"{name}.pth"
        torch.save(build(weights=None).state_dict(), files[name])
    return files


# -- colours


def test_colours_of_the_published_files():
    case = Case("hfan", "flow_color")
    _, name, shape, seed = case["inputs"]["noise"]
    y, x = np.mgrid[: shape[0], : shape[1]]
    slope = np.stack([4 * (x / (shape[1] - 1) - 0.5), 3 * (y / (shape[0] - 1) - 0.4)], axis=-1)
    flow = 0.5 * fill.normal(name, tuple(shape), seed).numpy() + slope
    wheel = case.arrays["wheel_rgb"].astype(int)
    assert np.abs(wheel_picture(flow) - wheel).max() <= 1
    stored = flow_picture(flow)[..., ::-1].astype(int)  # BGR in memory -> RGB
    assert np.abs(stored - case.arrays["stored_rgb"]).max() <= 1
    assert np.abs(stored - wheel).max() > 100  # the exchange of red and blue is one
    theirs = flow_to_image(torch.from_numpy(flow).permute(2, 0, 1).float()).permute(1, 2, 0).numpy()
    assert np.abs(wheel_picture(flow) - theirs.astype(int)).max() <= 1


def test_the_wheel_has_55_colours_and_no_motion_is_white():
    assert colour_wheel().shape == (55, 3)
    assert colour_wheel()[[0, 15, 21, 25, 36, 49]].tolist() == [
        [255, 0, 0], [255, 255, 0], [0, 255, 0], [0, 255, 255], [0, 0, 255], [255, 0, 255]
    ]  # fmt: skip
    assert (wheel_picture(np.zeros((3, 4, 2))) == 255).all()


@pytest.mark.parametrize("field", [np.zeros((2, 3, 4)), np.full((3, 4, 2), np.nan), np.zeros((3, 4))])
def test_fields_that_are_none(field):
    with pytest.raises(DataError, match="optical flow of shape"):
        flow_picture(field)


# -- methods


@pytest.mark.parametrize("name", ["farneback", "dis"])
def test_stand_ins_follow_the_motion(name):
    a, b = moving(2)
    flow = flow_network(name)([a, b], [b, a])
    assert flow.shape == (2, 96, 144, 2) and flow.dtype == np.float32
    forth, back = np.median(flow[:, 16:-16, 16:-16], axis=(1, 2))
    np.testing.assert_allclose(forth, STEP, atol=0.5)
    np.testing.assert_allclose(back, np.negative(STEP), atol=0.5)
    tiny = moving(2, (12, 15))
    assert OpenCVFlow(name)(tiny[:1], tiny[1:]).shape == (1, 12, 15, 2)


@pytest.mark.parametrize("name", ["raft_large", "raft_small"])
def test_raft_from_a_file(name, weights):
    a, b = moving(2, (130, 141))
    network = flow_network(name, weights[name], updates=2)
    batch = network([a, b], [b, a])
    assert batch.shape == (2, 130, 141, 2) and np.isfinite(batch).all()
    np.testing.assert_allclose(batch[1], network([b], [a])[0], atol=1e-3)
    # the same by hand: RGB from -1 to 1, sides continued to multiples of 8, half on either side
    rgb = [torch.from_numpy(f[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 127.5 - 1 for f in (a, b)]
    padded = [torch.nn.functional.pad(image, (1, 2, 3, 3), mode="replicate") for image in rgb]
    with torch.no_grad():
        expected = network.network(*padded, num_flow_updates=2)[-1][0, :, 3:133, 1:142].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(batch[0], expected, atol=1e-3)


def test_published_settings_are_the_defaults(weights):
    network = flow_network("raft", weights["raft_large"])
    assert isinstance(network, Raft) and (network.name, network.updates) == ("raft_large", 20)
    assert flow_network(network) is network


def test_names_files_and_weights_that_do_not_work(weights, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="updates=3 for optical flow 'dis'"):
        flow_network("dis", updates=3)
    with pytest.raises(ConfigError, match="optical flow 'raft_larg'") as caught:
        flow_network("raft_larg")
    assert "raft_large" in caught.value.action
    with pytest.raises(ConfigError, match="weights for optical flow 'dis'"):
        flow_network("dis", weights["raft_large"])
    with pytest.raises(CheckpointError, match="not the weights of this network"):
        flow_network("raft_small", weights["raft_large"])
    with pytest.raises(CheckpointError, match=r"missing\.pth"):
        flow_network("raft_small", tmp_path / "missing.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no way out
    with pytest.raises(ConfigError, match=r"the weights of raft_large: neither in .* nor to be downloaded") as caught:
        flow_network("raft_large")
    assert "raft_large_C_T_V1" in caught.value.expected and "--flow dis" in caught.value.action


def test_frames_of_two_sizes():
    a, b = moving(2)
    with pytest.raises(DataError, match="frames of 2 sizes: 144x90, 144x96"):
        flow_network("dis")([a], [b[:90]])


# -- frames with flow


class Told:
    """Flow that tells which frames it was computed from: u = number of the first, v = of the second."""

    name = "told"

    def __init__(self):
        self.pairs = []

    def __call__(self, first, second):
        self.pairs += [(int(a[0, 0, 0]), int(b[0, 0, 0])) for a, b in zip(first, second)]
        return np.stack([np.full((*a.shape[:2], 2), 1.0) for a in first])


def numbered(number):
    return frames_of([np.full((8, 9, 3), t, np.uint8) for t in range(number)])


def test_forward_flow_and_backward_for_the_last_frame():
    network, fed, got = Told(), [], []

    def source():
        for frame in numbered(4):
            fed.append(frame.number)
            yield frame

    for frame in with_flow(source(), network):
        got.append((frame.number, len(fed)))
        assert frame.flow.shape == (8, 9, 3)
        frame.image = None  # as the prediction does with a frame that it is done with
    assert network.pairs == [(0, 1), (1, 2), (2, 3), (3, 2)]
    assert got == [(0, 2), (1, 3), (2, 4), (3, 4)]  # one frame late, and no more


def test_backward_flow_answers_at_once():
    network, fed = Told(), []

    def source():
        for frame in numbered(3):
            fed.append(frame.number)
            yield frame

    got = [(frame.number, len(fed), bool((frame.flow == 255).all())) for frame in with_flow(source(), network, True)]
    assert got == [(0, 1, True), (1, 2, False), (2, 3, False)] and network.pairs == [(1, 0), (2, 1)]


def test_a_video_of_one_frame_has_a_white_picture_and_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "mmseg.making"):
        [frame] = with_flow(numbered(1), Told())
    assert np.array_equal(frame.flow, no_flow(frame.image)) and (frame.flow == 255).all()
    assert "one frame has no optical flow" in caplog.text
    assert list(with_flow([], Told())) == []
