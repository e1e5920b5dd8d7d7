import pickle

import numpy as np
import pytest
import torch

from mmseg.errors import ConfigError, DataError
from mmseg.evaluation import TemporalConsistency, warp_labels
from tests.evaluation.metric_cases import shapes
from tests.golden_cases import Case, fill


def tc_of(frames, flow, **options):
    metric = TemporalConsistency(124, **options)
    for t, labels in enumerate(frames):
        metric.update("v", t, labels, flow=flow[t - 1] if t else None)
    return metric


def flows(case, frames, height, width):
    constant = np.broadcast_to(np.array([2, -1], np.float32)[:, None, None], (2, height, width))
    return {
        "zero": np.zeros((frames - 1, 2, height, width), np.float32),
        "constant": np.broadcast_to(constant, (frames - 1, 2, height, width)),
        "normal": (3 * fill.normal(case["flow_name"], (frames - 1, 2, height, width), 0)).numpy(),
    }


@pytest.mark.parametrize("video", ["moving", "noisy"])
@pytest.mark.parametrize("kind", ["zero", "constant", "normal"])
def test_warped_maps_and_tc_are_the_golden_ones(video, kind):
    case = Case("metrics", "temporal_consistency")
    labels = shapes.video(case["videos"][video]["labels"])
    assert shapes.checksum(labels) == case["videos"][video]["checksum"]
    flow = flows(case, *labels.shape)[kind]
    warped = np.stack([warp_labels(after, f) for after, f in zip(labels[1:], flow)])
    assert np.array_equal(warped, case.arrays[f"{video}/{kind}/warped"])
    expected = case["expected"][f"{video}, {kind} flow"]["TC"]
    assert tc_of(labels, flow).compute()["TC"] == pytest.approx(expected, abs=1e-12, rel=0)


def test_even_and_odd_sizes_with_stored_flow():
    case = Case("metrics", "tc_warp")
    total, parts = TemporalConsistency(124), []
    for video in ("a", "b"):
        pred, flow = case.arrays[f"pred/{video}"], case.arrays[f"flow/{video}"]
        warped = np.stack([warp_labels(after, f) for after, f in zip(pred[1:], flow)])
        assert np.array_equal(warped, case.arrays[f"warped/{video}"])
        part = TemporalConsistency(124)
        for t, labels in enumerate(pred):  # flow as OpenCV gives it: (H, W, 2)
            part.update(video, t, labels, flow=flow[t - 1].transpose(1, 2, 0) if t else None)
        parts.append(part)
    for part in reversed(parts):
        total.merge(pickle.loads(pickle.dumps(part)))
    result = total.compute()
    assert result["video_TC"] == pytest.approx(case["expected"]["TC"], abs=1e-12, rel=0)
    assert (result["videos"], result["pairs"]) == (2, 5)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(24, 32), (17, 31), (1, 5)])
def test_warping_equals_grid_sample(align_corners, size):
    height, width = size
    rng = np.random.default_rng(7)
    labels = rng.integers(1, 124, size).astype(np.uint8)
    flow = rng.normal(0, 3, (2, height, width)).astype(np.float32)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([x, y]).float() + torch.from_numpy(flow)  # (2, H, W)
    scale = torch.tensor([max(width - 1, 1), max(height - 1, 1)]).view(2, 1, 1)
    grid = (2.0 * place / scale - 1.0).permute(1, 2, 0)[None]
    expected = torch.nn.functional.grid_sample(
        torch.from_numpy(labels)[None, None].float(), grid, mode="nearest", align_corners=align_corners
    )
    assert np.array_equal(warp_labels(labels, flow, align_corners), expected[0, 0].numpy().astype(np.uint8))


def test_a_static_video_is_perfect_only_under_the_corrected_convention():
    frames = [np.full((24, 32), 5, np.uint8)] * 3
    still = np.zeros((2, 2, 24, 32), np.float32)
    assert tc_of(frames, still, align_corners=True).compute()["TC"] == 1.0
    assert tc_of(frames, still).compute()["TC"] == pytest.approx(23 * 31 / (24 * 32))  # last row and column are lost


def test_bad_input_is_refused():
    labels, metric = np.zeros((4, 6), np.uint8), TemporalConsistency(5)
    metric.update("v", 0, labels)
    with pytest.raises(DataError, match="has no optical flow"):
        metric.update("v", 1, labels)
    with pytest.raises(DataError, match=r"optical flow of shape \(2, 4, 5\)"):
        metric.update("v", 1, labels, flow=np.zeros((2, 4, 5)))
    with pytest.raises(DataError, match="value 9"):
        metric.update("v", 1, labels + np.uint8(9), flow=np.zeros((2, 4, 6)))
    with pytest.raises(DataError, match="is due"):
        metric.update("v", 2, labels, flow=np.zeros((2, 4, 6)))
    metric.end_video()
    with pytest.raises(DataError, match="finished"):
        metric.update("v", 1, labels, flow=np.zeros((2, 4, 6)))
    with pytest.raises(ConfigError, match="settings"):
        metric.merge(TemporalConsistency(5, align_corners=True))
