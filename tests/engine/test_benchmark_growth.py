"""What the growth of costs is measured at, and what rows and curves hold."""

import os
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from mmseg.apis import init_segmentor
from mmseg.engine.benchmark import frames_of_warm_up
from mmseg.engine.benchmark_growth import (
    LOGITS,
    Point,
    growth_points,
    growth_rows,
    measure_point,
    replace_classifiers,
)
from mmseg.engine.benchmark_job import Job
from mmseg.engine.measure import StageTimer, in_own_process
from mmseg.errors import ConfigError, DataError
from mmseg.models.cpu.kernels.library import library
from mmseg.visualization.plots import plot_curves
from tests.engine.tiny_vspw import write_config
from tests.tools.processes import ROOT

CPU = torch.device("cpu")


@pytest.fixture
def job(tmp_path) -> Job:
    return Job(str(write_config(tmp_path / "config.py", tmp_path, clip=True)), size=(32, 48), repeats=1)


def test_axes_of_a_model_of_classes(job):
    points = growth_points(job, [90, 180])
    values = {axis: [p.value for p in points if p.axis == axis] for axis in dict.fromkeys(p.axis for p in points)}
    assert list(values) == ["frame height", "classes", LOGITS, "clip length", "processes"]
    assert values["frame height"] == [90, 180] and values["processes"][0] == 1
    assert [p.job.size for p in points[:3]] == [(90, 160), (180, 320), (32, 48)]
    longest = points[-1 - len(values["processes"])].job.options
    assert longest["model.decode_head.num_clips"] == len(longest["data.test.dilation"]) + 1 == 8
    assert longest["data.test.dilation"][0] == -21


def test_axes_of_a_model_of_objects():
    config = ROOT / "local_configs/toy/gsfm_stage3.py"
    points = growth_points(Job(str(config), objects=3, memory_frames=5), [90])
    assert {p.axis for p in points} == {"frame height", "objects", "frames in memory", "processes"}
    assert all(p.job.memory_frames == 5 for p in points if p.axis == "objects")
    assert all(p.job.objects == 3 for p in points if p.axis == "frames in memory")


def test_clips_of_every_length_have_all_references_when_the_clock_starts(job):
    for point in (point for point in growth_points(job) if point.axis == "clip length"):
        stream = init_segmentor(job.config, options=point.job.options).stream(
            dilation=point.job.options["data.test.dilation"]
        )
        assert frames_of_warm_up(stream, CPU) == 1 + 3 * (point.value - 1)
    assert frames_of_warm_up(stream, torch.device("cuda")) == 22
    single = init_segmentor(str(ROOT / "local_configs/toy/hfan.b0.py")).stream()
    assert [frames_of_warm_up(single, torch.device(kind)) for kind in ("cpu", "cuda")] == [2, 10]


def test_more_classes_than_a_label_map_holds_are_measured_without_one(job):
    points = growth_points(job)
    assert max(point.value for point in points if point.axis == "classes") == 255
    point = next(point for point in points if point.axis == LOGITS and point.value == 512)
    [row] = point.measure(point.job)
    assert row["what"] == "network, 512 classes" and row["seconds"] > 0 and row["repeats"] == 1
    with pytest.raises(ConfigError, match="the network alone of a Conv2d"):
        replace_classifiers(init_segmentor(job.config).decode_head.linear_pred, 512)
    head = init_segmentor(job.config).decode_head
    head.linear_pred = torch.nn.Conv2d(4, head.num_classes, 3)
    with pytest.raises(ConfigError, match="1x1 convolutions"):
        replace_classifiers(head, 512)


@pytest.mark.parametrize("kernels", ["on", "off"])
def test_axes_that_another_config_has_shown_are_passed_over(job, kernels, monkeypatch):
    monkeypatch.setenv("MMSEG_KERNELS", kernels)
    shown = {"classes", LOGITS, "clip length", "processes"}
    rows = list(growth_rows(replace(job, cpu_time=True, threads=1, size=(32, 56)), [32], [], passed_over=shown))
    assert [(row["axis"], row["value"]) for row in rows] == [("frame height", 32)]
    without = "" if library() else ", no kernels"
    assert rows[0]["device"].endswith(f"1 thread{without}, CPU time") and rows[0]["size"] == [32, 56]


def test_seconds_that_the_cpu_works():
    passed, worked = StageTimer(CPU), StageTimer(CPU, cpu_time=True)
    for timer in (passed, worked):
        with timer.step():
            time.sleep(0.2)
    assert worked.medians()["total"] < 0.1 < passed.medians()["total"]
    with worked.step():
        start = time.process_time()
        while time.process_time() < start + 0.05:
            pass
    assert worked.steps[-1]["total"] >= 0.05


def test_processes_share_the_work_and_add_their_memory(job):
    row = measure_point(Point("processes", 2, job, 2))
    with pytest.raises(ConfigError, match="CPU time"):  # would be the same on one processor
        measure_point(Point("processes", 2, replace(job, cpu_time=True), 2))
    assert row["processes"] == 2 and 0 < row["seconds"] < sum(row["stages"].values())
    assert row["peak_memory"] > 2 * 200 * 2**20  # PyTorch alone takes that, in each of them


def test_a_config_that_cannot_be_measured_is_an_error(job, tmp_path):
    with pytest.raises(ConfigError, match=r"missing\.py does not exist"):
        list(growth_rows(Job(str(tmp_path / "missing.py")), [32], []))


def test_a_process_that_is_killed_is_an_error():
    with pytest.raises(DataError, match="a worker process has ended"):
        in_own_process(os._exit, 1)


def no_room(_: int) -> list:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40.00 GiB. GPU 0 has ...")


def test_a_gpu_without_room_is_an_error():
    with pytest.raises(DataError, match=r"memory of the GPU does not suffice \(CUDA out of memory\)"):
        in_own_process(no_room, 1)


def test_logarithmic_curves(tmp_path):
    curves = {"frames per second": {"a": ([1, 2, 4], [4.0, 2.0, 1.0]), "b": ([1, 2], [3.0, 2.9])}}
    pictures = [plot_curves(curves, ["objects"], log=log) for log in (False, True)]
    level, logarithmic = (cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR) for picture in pictures)
    assert level.shape == logarithmic.shape and (level != logarithmic).any()
