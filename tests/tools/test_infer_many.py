"""Many videos: shared over real processes, gone on with after a kill, in shards, with bad ones among them."""

import functools
import json
import os
import signal
import sys

import numpy as np
import pytest
from PIL import Image

from tests.engine.tiny_vspw import SIZE, make_data, write_checkpoint, write_config
from tests.tools.processes import ROOT, finish, launch, patience, running, wait_until

DIST = str(ROOT / "tools" / "dist_infer.sh")
LENGTHS = {"a": 6, "b": 3, "c": 4, "d": 3, "e": 3}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Five videos in data/data, and a checkpoint that carries its config, in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("many videos")
    make_data(folder / "data", LENGTHS)
    write_checkpoint(folder / "model.pth", write_config(folder / "baseline.py", folder / "data", clip=False))
    (folder / "list.txt").write_text("".join(f"data/data/{name}\n" for name in LENGTHS))
    return folder


@pytest.fixture
def infer(work, call, monkeypatch):
    monkeypatch.chdir(work)
    return functools.partial(call, "infer.py", "model.pth", "--device", "cpu", "--save", "labels")


def check(out, names) -> None:
    """Each of these videos is whole, and nothing else is there."""
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    for name in names:
        record = json.loads((out / name / "run.json").read_text())
        assert record["status"] == "finished" and record["frames"] == LENGTHS[name]
        assert len(list((out / name / "labels").iterdir())) == LENGTHS[name]


@pytest.mark.slow
def test_killed_in_the_middle_and_gone_on_with_by_two_processes(work, tmp_path):
    out = tmp_path / "out"
    long = tmp_path / "long"
    long.mkdir()
    for t in range(400):
        os.link(work / "data/data/a/origin/00000.jpg", long / f"{t:05d}.jpg")
    command = [work / "model.pth", "--out", out, "--save", "labels", "--launcher", "pytorch", "--input"]
    first = launch(ROOT / "tools/infer.py", *command, work / "data/data/a", long, work / "data/data/b", cwd=tmp_path)
    try:
        wait_until(lambda: (out / "b/run.json").exists() and (out / ".long.unfinished/labels/00003.png").exists(), 60)
    finally:
        for process in first:
            process.kill()
    check_out = sorted(path.name for path in out.iterdir())
    assert check_out == [".long.unfinished", "a", "b"]  # the video in flight is not there
    when = (out / "b/run.json").stat().st_mtime_ns
    (long / "00004.jpg").unlink()
    (long / "00004.jpg").write_bytes(b"")  # and now it is damaged
    command = [DIST, 2, *command[:5], "--input"]
    output = finish([*command, work / "list.txt", long], tmp_path, status=1)
    assert (out / "b/run.json").stat().st_mtime_ns == when
    check(out, LENGTHS)
    table = output[output.index("video ") :]
    rows = {line.split()[0]: line for line in table.splitlines() if line.split()}
    assert [name for name in rows if name in (*LENGTHS, "long")] == [*LENGTHS, "long"]
    for name, status in zip([*LENGTHS, "long"], ["kept", "kept", "done", "done", "done", "failed"]):
        assert f" {status}" in rows[name], output
    assert "00004.jpg" in rows["long"]
    assert "1 of 6 videos failed" in output and "Traceback" not in output
    assert output.count("DataError") == 0 and "process 0 ended" not in output


def test_one_bad_video_does_not_stop_the_others(work, tmp_path, infer):
    (tmp_path / "bad.mp4").write_text("no video")
    output = infer("--input", tmp_path / "bad.mp4", "data/data/b", "--out", tmp_path / "out", status=1)
    check(tmp_path / "out", ["b"])
    assert "bad.mp4 cannot be opened" in output and "1 of 2 videos failed" in output
    output = infer("--input", tmp_path / "bad.mp4", "data/data/b", "--out", tmp_path / "out", status=1)
    assert "1 kept, 1 failed" in output


def test_a_video_that_was_made_by_itself_is_kept(work, tmp_path, infer):
    infer("--input", "data/data/b", "--out", tmp_path)
    output = infer("--input", "data/data/b", "data/data/d", "--out", tmp_path)
    assert "1 done, 1 kept" in output
    check(tmp_path, "bd")


def test_finished_videos_of_other_settings_are_told(work, tmp_path, infer):
    infer("--input", "data/data/b", "data/data/d", "--out", tmp_path)
    before = (tmp_path / "b/run.json").read_bytes()
    arguments = ("--input", "list.txt", "--out", tmp_path, "--max-frames", 2)
    message = infer(*arguments, status=2)
    assert "2 videos are finished, but with other settings: b (max_frames None, now 2)" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "d"]
    assert (tmp_path / "b/run.json").read_bytes() == before
    message = infer(*arguments[:-2], "--options", "data.test.pipeline.1.img_scale=(64,64)", status=2)
    assert "another config" in message
    assert "5 done" in infer(*arguments, "--overwrite")
    assert len(list((tmp_path / "b/labels").iterdir())) == 2
    assert "5 kept" in infer(*arguments)


def test_shards_need_no_communication(work, tmp_path, infer):
    for shard, names in ((1, ["b", "d"]), (0, ["a", "c", "e"])):
        output = infer("--input", "list.txt", "--out", tmp_path, "--num-shards", 2, "--shard", shard)
        assert f"{len(names)} done" in output
        assert all((tmp_path / name).is_dir() for name in names)
    check(tmp_path, LENGTHS)


def test_masks_of_many_videos_have_folders_of_their_own(work, tmp_path, infer):
    Image.fromarray(np.ones(SIZE, np.uint8)).save(tmp_path / "m.png")
    message = infer("--input", "list.txt", "--out", tmp_path / "out", "--mask", tmp_path / "m.png", status=2)
    assert "--mask for 5 videos" in message and "--masks DIR" in message


@pytest.mark.slow
def test_ctrl_c_lists_what_is_done(work, tmp_path):
    long = tmp_path / "long"
    long.mkdir()
    for t in range(400):
        os.link(work / "data/data/a/origin/00000.jpg", long / f"{t:05d}.jpg")
    command = [sys.executable, ROOT / "tools/infer.py", "data/data/b", long, "model.pth", "--out", tmp_path / "out"]
    with running([*command, "--save", "labels", "--device", "cpu"], work) as process:
        wait_until(lambda: (tmp_path / "out/.long.unfinished/labels/00003.png").exists(), 60)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=patience(20))[0]
    assert process.returncode == 130, output
    check(tmp_path / "out", ["b"])
    assert "1 done, 1 not done" in output and "SIGINT: stopped" in output and "Traceback" not in output


def test_usage(work):
    assert "usage" in finish([DIST, 2], work, status=2)
    assert "GPUS is 'two'" in finish([DIST, "two", "model.pth"], work, status=2)
