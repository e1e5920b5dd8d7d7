"""The benchmark measures what it says; figures themselves depend on the machine."""

import json
import sys
import time
from dataclasses import replace

import pytest
import torch

import mmseg
from mmseg.apis.inference import init_segmentor
from mmseg.engine.benchmark import measure_memory, measure_stream, measure_train
from mmseg.engine.benchmark_job import Job
from mmseg.engine.benchmark_loading import measure_loading
from mmseg.engine.benchmark_reference import reference_of
from mmseg.engine.benchmark_video import measure_video, write_video
from mmseg.engine.measure import StageTimer
from mmseg.errors import ConfigError
from tests.datasets.vos_folder import vos_config, write_vos
from tests.datasets.vspw_folder import TRAIN, write_vspw
from tests.engine.tiny_vspw import write_config
from tests.tools.processes import ROOT, finish

CPU = torch.device("cpu")


@pytest.fixture
def job(request, tmp_path) -> Job:
    """Of CFFM, or of a baseline without a memory."""
    config = write_config(tmp_path / "config.py", tmp_path, clip=getattr(request, "param", "CFFM") == "CFFM")
    config.write_text(config.read_text() + "\noptimizer = dict(type='AdamW', lr=1e-4)\n")
    return Job(str(config), size=(45, 70), repeats=2, clips=1)


of_both = pytest.mark.parametrize("job", ["CFFM", "SegFormer"], indirect=True)


@of_both
def test_stream(job):
    rows = measure_stream(job)
    assert [row["cache"] for row in rows] == ["steady", "cold"]
    assert rows[0]["network_size"] == [64, 96] and rows[0]["size"] == [45, 70]
    for row in rows:
        assert row["precision"] == "float32" and row["repeats"] == 2 and "thread" in row["device"]
        assert {"read", "backbone", "embed", "decode", "resize+argmax", "other"} <= set(row["stages"])
        assert 0 < sum(row["stages"].values()) < 2 * row["seconds"]
        assert row["peak_memory"] > 2**20


@of_both
def test_reference_and_amp(job):
    rows = measure_stream(Job(job.config, size=job.size, repeats=1, reference=True, amp="bfloat16"))
    assert [(r["formulation"], r["precision"], r["cache"]) for r in rows] == [("reference", "bfloat16", "cold")]
    assert {"backbone", "head"} <= set(rows[0]["stages"])


def test_training_step(job):
    for reference in (False, True):
        (row,) = measure_train(Job(job.config, size=(64, 64), repeats=1, clips=1, reference=reference))
        assert row["what"] == "training step, 1 clips of 4"
        assert set(row["stages"]) >= {"forward", "backward", "optimizer"}


def test_reference_without_a_checkout_or_a_file_is_an_error(job, tmp_path, monkeypatch):
    """As of a package installed elsewhere, and of a model whose formulas nobody has written down."""
    model = init_segmentor(job.config)
    model.decode_head.__class__ = type("NewHead", (type(model.decode_head),), {})
    with pytest.raises(ConfigError, match="no reference for a NewHead"):
        reference_of(model)
    monkeypatch.setattr(mmseg, "__file__", str(tmp_path / "mmseg" / "__init__.py"))
    with pytest.raises(ConfigError, match=r"(?s)tests.reference: no such folder.*a checkout of the repository"):
        reference_of(model)


def test_memory_along_a_video(job):
    rows = measure_memory(Job(job.config, size=job.size, repeats=20), points=4)
    assert [row["what"] for row in rows] == [f"test loop, after {n} frames" for n in (5, 10, 15, 20)]


def test_a_video_file(job):
    rows = measure_video(Job(job.config, size=(48, 64), repeats=3))
    assert [row["what"] for row in rows] == ["video, frame by frame", "video, frames ahead"]
    assert all(0 < row["seconds"] < 10 and row["network_size"] == [64, 64] for row in rows)


@pytest.mark.parametrize("size", [(480, 853), (8, 64)])
def test_a_video_file_has_the_size_that_is_told(size, tmp_path):
    with pytest.raises(ConfigError, match=f"a video of {size[0]}x{size[1]} pixels"):
        write_video(tmp_path / "a.mp4", size, 1)


def test_stage_timer_books_nested_calls_and_gives_methods_back():
    class Worker:
        def work(self):
            time.sleep(0.01)

    worker, timer = Worker(), StageTimer(CPU)
    with timer.watch((worker, "work", "working")):
        for _ in range(3):
            with timer.step():
                worker.work()
                worker.work()
    medians = timer.medians()
    assert 0.02 <= medians["working"] <= medians["total"] and "work" not in vars(worker)


PEAK = """
import torch
from mmseg.engine.measure import PeakMemory
memory = PeakMemory(torch.device("cpu"))
memory.start()
torch.ones(40 * 2**20).sum()  # 160 MiB
print(memory.added())
"""


def test_peak_memory_sees_what_was_freed():
    """In a process of its own: this one may keep what streams have freed, and take nothing anew."""
    assert 100 * 2**20 < int(finish([sys.executable, "-c", PEAK], ROOT)) < 300 * 2**20


def test_command_line(job, tmp_path, call):
    command = ["benchmark.py", job.config, "--size", "45", "70", "--frames", "1",
               "--against-reference", "--device", "cpu", "--threads", "1", "--json", tmp_path / "b.json"]  # fmt: skip
    out = call(*command)
    assert "times as fast as the reference" in out and "45x70" in out and "float32" in out and "1 thread" in out
    report = json.loads((tmp_path / "b.json").read_text())
    assert {row["formulation"] for row in report["rows"]} == {"product", "reference"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--objects", "3"], "--objects or --memory-frames with --mode stream for"),
        (["--memory-frames", "3", "--mode", "growth"], "--objects or --memory-frames with --mode growth for"),
        (["--clips", "3", "--mode", "video"], "--clips with --mode video"),
        (["--amp", "float16", "--device", "cpu"], "--amp float16 on a CPU"),
        (["--cpu-time"], "--cpu-time with --device cpu --threads 0 --mode stream"),
        (["--cpu-time", "--threads", "1", "--mode", "memory"], "--threads 1 --mode memory"),
        (["--amp", "--mode", "table"], "--amp with --mode table"),
        (["--device", "nonsense"], "device 'nonsense'"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(call, options, told):
    config = ROOT / "local_configs/toy/cffm.b0.py"
    assert told in call("benchmark.py", config, "--device", "cpu", *options, status=2)


def test_all_configs_are_read_before_the_first_is_measured(call):
    config = ROOT / "local_configs/toy/cffm.b0.py"
    assert "no_such.py does not exist" in call("benchmark.py", config, "no_such.py", "--mode", "table", status=2)


def test_objects_of_a_training_step_are_those_of_the_model(call):
    config = ROOT / "local_configs/toy/gsfm_stage3.py"
    assert "--mode train" in call("benchmark.py", config, "--mode", "train", "--objects", "3", status=2)


def test_training_data(tmp_path, call):
    config = vos_config(tmp_path / "config.py", write_vos(tmp_path, {"a": 4}, part="train"))
    out = call("benchmark.py", config, "--mode", "data", "--frames", "2", "--clips", "3", "--threads", "1",
               "--json", tmp_path / "data.json")  # fmt: skip
    rows = json.loads((tmp_path / "data.json").read_text())["rows"]
    assert [row["workers"] for row in rows] == [0, 1, 2]
    for row in rows:
        assert (row["clips"], row["images"]) == (3, 3)
        assert f"{3 / row['seconds']:.1f}" in out
    refused = call("benchmark.py", config, "--mode", "data", "--size", "64", "64", status=2)
    assert "none of them: the data alone" in refused


def test_training_data_beside_the_literal_pipeline(tmp_path):
    write_vspw(tmp_path, train=dict(a=10, b=10))
    data = dict(type="VSPWDataset", data_root=str(tmp_path), split="train", pipeline=TRAIN)
    config = tmp_path / "config.py"
    config.write_text(f"data = dict(samples_per_gpu=2, train={data!r})\n")
    job = Job(str(config), repeats=1, threads=1)
    rows = [row for literal in (False, True) for row in measure_loading(replace(job, reference=literal))]
    assert [(row["formulation"], row["workers"]) for row in rows] == [
        (formulation, workers) for formulation in ("product", "reference") for workers in (0, 1, 2)
    ]
    data["pipeline"] = [step for step in TRAIN if step["type"] != "RandomFlip"]
    config.write_text(f"data = dict(samples_per_gpu=2, train={data!r})\n")
    with pytest.raises(ConfigError, match="--against-reference for a VSPWDataset"):
        measure_loading(replace(job, reference=True))


def test_a_model_of_frame_and_flow(tmp_path):
    job = Job(str(vos_config(tmp_path / "config.py", tmp_path)), size=(45, 70), repeats=1, clips=2)
    rows = measure_stream(job) + measure_stream(replace(job, reference=True))
    assert [(row["what"], row["formulation"]) for row in rows[1:]] == [
        ("clip of 1", "product"),
        ("clip of 1", "reference"),
    ]
    assert all({"read", "backbone"} <= set(row["stages"]) for row in rows)
    for reference in (False, True):
        (row,) = measure_train(replace(job, size=(64, 64), reference=reference))
        assert row["what"] == "training step, 2 clips of 1"
    assert len(measure_memory(replace(job, repeats=4), points=2)) == 2


def test_a_model_that_predicts_frames_together():
    """A frame has its share of the whole block that was decoded with it."""
    small = {"transformer_decoder_cfg.dec_layers": 1, "pixel_decoder_cfg.transformer_enc_layers": 1}
    options = {f"model.decode_head.{key}": value for key, value in small.items()}
    config = str(ROOT / "local_configs" / "toy" / "themask_video.b0.py")
    job = Job(config, {**options, "data.test.test_size": 2}, size=(45, 70), repeats=2, clips=1)
    rows = measure_stream(job) + measure_stream(replace(job, reference=True))
    assert [(row["what"], row["formulation"], row["repeats"]) for row in rows] == [
        ("stream, blocks of 6", "product", 6),
        ("clip of 2", "product", 4),
        ("clip of 2", "reference", 4),
    ]
    for row in rows[:2]:
        assert min(row["stages"][name] for name in ("read", "backbone", "embed", "decode", "resize+argmax")) > 0
        assert sum(row["stages"].values()) == pytest.approx(row["seconds"], rel=0.5)
    for reference in (False, True):
        (row,) = measure_train(replace(job, size=(64, 64), repeats=1, reference=reference))
        assert row["what"] == "training step, 1 clips of 2"


def test_a_model_that_follows_objects():
    job = Job(str(ROOT / "local_configs/toy/gsfm_stage3.py"), size=(30, 48), repeats=1, objects=3, memory_frames=2)
    rows = [*measure_stream(job), *measure_stream(replace(job, reference=True))]
    for row in rows:
        assert row["what"] == "frame, 3 objects, 2 frames in memory" and row["network_size"] == [32, 48]
        assert 0 < row["stages"]["value"] < row["seconds"]
    assert {"key", "memory reading", "decode"} <= set(rows[0]["stages"])
    assert not set(rows[1]["stages"]) & {"memory reading"}
    (row,) = measure_train(replace(job, size=(32, 48), clips=1))
    assert row["what"] == "training step, 1 clips of 3"
    with pytest.raises(ConfigError, match="--mode memory"):
        measure_memory(job)
