"""``tools/test.py`` in two processes, once as ``tools/dist_test.sh`` starts them; its arguments inside this process."""

import json
import pathlib
import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mmseg.apis.inference import init_segmentor
from mmseg.engine.checkpoints import save_checkpoint
from tests.engine.tiny_vspw import CLASSES, SIZE, make_data, make_video, write_config
from tests.tools.processes import ROOT, finish, finish_two
from tests.tools.report_numbers import numbers_of

DIST = str(ROOT / "tools" / "dist_test.sh")
LENGTHS = {"a": 7, "b": 18, "c": 5}  # of two processes, the second tests a and c
PALETTE = [[10, 20, 30], [200, 0, 0], [0, 200, 0]]


@pytest.fixture
def run_test_py(work, monkeypatch, call):
    """Calls ``python tools/test.py ...`` in the work folder; returns what it wrote to the terminal."""

    def run(*arguments: str, status: int = 0) -> str:
        monkeypatch.chdir(work)
        return call("test.py", *arguments, "--device", "cpu", status=status)

    return run


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> pathlib.Path:
    """Data, config and checkpoint, in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("my work")
    make_data(folder / "data", LENGTHS)
    config = write_config(folder / "cffm.py", folder / "data")
    torch.manual_seed(0)
    model = init_segmentor(config)
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    for name, classes in (
        ("model", CLASSES),
        ("renamed", [f"my {name}" for name in CLASSES]),
        ("reordered", CLASSES[::-1]),
        ("fewer", CLASSES[:2]),
    ):
        meta = {"CLASSES": list(classes), "PALETTE": PALETTE}
        save_checkpoint(folder / f"{name}.pth", {"meta": meta, "state_dict": state})
    save_checkpoint(folder / "nameless.pth", {"meta": {}, "state_dict": state})
    return folder


@pytest.fixture(scope="module")
def single(work) -> tuple[pathlib.Path, str]:
    """The result folder and the output of a run in one process."""
    arguments = ["--out", "single/res.pkl", "--show-dir", "single/show", "--show", "--save-png", "--report"]
    test_py = [sys.executable, ROOT / "tools" / "test.py", "--device=cpu"]
    return work / "single", finish([*test_py, "cffm.py", "model.pth", *arguments], work)


def test_one_process(single):
    folder, output = single
    maps = pickle.loads((folder / "res.pkl").read_bytes())
    assert len(maps) == 30 and all(m.shape == SIZE and m.dtype == np.uint8 for m in maps)
    report = json.loads((folder / "res.json").read_text())
    assert report["run"]["checkpoint"] == "model.pth" and 0 <= report["mIoU"] <= 1
    assert [row["class"] for row in report["per_class"]] == list(CLASSES)
    assert list(report["per_video"]) == list(LENGTHS)
    assert set(report["mmseg_evaluate"]) == {"mIoU", "mAcc", "aAcc"}
    for word in ("mIoU", "FWIoU", "VC8", "VC16", "mAcc", "aAcc", "ball", "30/30 frames", "no display found"):
        assert word in output
    assert "pretrained/not_there.pth" not in output  # the checkpoint holds the backbone
    picture = Image.open(folder / "result_submission" / "c" / "00003.png")
    assert np.array_equal(np.asarray(picture), maps[7 + 18 + 3])
    assert picture.getpalette()[:9] == [value for colour in PALETTE for value in colour]
    worst = numbers_of(folder / "report.html")["frames"]["rows"]
    assert "report: single/report.html" in output and worst == sorted(worst, key=lambda row: row["score"])
    shown = {"contact_sheet.png", "confusion.png", "a.mp4", "b.mp4", "c.mp4"}
    assert {p.name for p in (folder / "show").iterdir()} == shown


@pytest.mark.parametrize("extra", [["--tmpdir", "parts of it"], ["--gpu-collect"]], ids=["shared folder", "collect"])
def test_two_processes_give_the_same_files(work, single, extra):
    arguments = ["cffm.py", "model.pth", "--out", "two/res.pkl", "--show-dir", "two/show", "--report", *extra]
    if "--tmpdir" in extra:
        output = finish([DIST, *arguments[:2], 2, *arguments[2:]], work)
    else:
        output = finish_two("test.py", work, *arguments)
    assert output.count("per class, all frames") == 1
    for name in ("res.pkl", "res.json", "show/contact_sheet.png"):
        assert (work / "two" / name).read_bytes() == (single[0] / name).read_bytes()
    assert {p.name for p in (work / "two").iterdir()} == {"res.pkl", "res.json", "report.html", "show"}
    assert numbers_of(work / "two" / "report.html") == numbers_of(single[0] / "report.html")
    if "--tmpdir" in extra:
        assert list((work / "parts of it").iterdir()) == []  # used, and left as clean


@pytest.mark.parametrize(
    ("checkpoint", "whose", "names"),
    [
        ("renamed", "checkpoint", ["my floor", "my box", "my ball"]),
        ("renamed", "data", list(CLASSES)),
        ("nameless", None, list(CLASSES)),
    ],
)
def test_whose_class_names(work, run_test_py, checkpoint, whose, names):
    (work / "data" / "one.txt").write_text("c\n")
    arguments = ["--class-names", whose] if whose else []
    output = run_test_py(
        "cffm.py", f"{checkpoint}.pth", *arguments, "--out", "n/res.pkl", "--options", "data.test.split=one"
    )
    report = json.loads((work / "n" / "res.json").read_text())
    assert [row["class"] for row in report["per_class"]] == names and names[2] in output


def test_format_only_implies_no_evaluation(work, single, run_test_py):
    output = run_test_py("cffm.py", "model.pth", "--format-only", "--out", "sub/res.pkl")
    assert "mIoU" not in output and not (work / "sub" / "res.json").exists()
    written = sorted(p.relative_to(work / "sub") for p in (work / "sub").rglob("*.png"))
    assert len(written) == 30
    for path in written:
        assert (work / "sub" / path).read_bytes() == (single[0] / path).read_bytes()


def test_options_and_aug_test(work, run_test_py):
    (work / "data" / "one.txt").write_text("c\n")
    output = run_test_py(
        *"cffm.py model.pth --options data.test.split=one --eval mDice --aug-test --eval-options min_frames=3".split(),
        *"lengths=[2] --out aug/res.pkl --launcher none --local-rank 0 --amp bfloat16".split(),
    )
    report = json.loads((work / "aug" / "res.json").read_text())
    assert report["run"]["aug_test"] and report["run"]["precision"] == "bfloat16"
    assert set(report["mmseg_evaluate"]) == {"mDice", "mAcc", "aAcc"}
    assert report["mmseg_evaluate"]["mDice"] == pytest.approx(report["mmseg/mDice"], abs=1e-4)
    assert "Class   Dice" in output
    assert report["VC2"] is not None and report["counts"]["frames"] == 5


def test_untrained_network_without_evaluation(work, run_test_py):
    (work / "data" / "one.txt").write_text("c\n")
    for folder in ("u1", "u2"):
        out = f"{folder}/res.pkl"
        output = run_test_py("cffm.py", "none", "--out", out, "--eval", "None", "--cfg-options", "data.test.split=one")
        assert "per class" not in output and "written" not in output
        assert [p.name for p in (work / folder).iterdir()] == ["res.pkl"]
    assert (work / "u1" / "res.pkl").read_bytes() == (work / "u2" / "res.pkl").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("cffm.py model.pth --out bad/res.txt", ".pkl or .pickle"),
        ("cffm.py model.pth --out None --format-only", "give --out"),
        ("cffm.py model.pth --opacity 0.5", "--opacity 0.5 without --output_dir"),
        ("cffm.py model.pth --out model.pth/res.pkl", "model.pth: cannot be written, a part of the path is a file"),
        ("cffm.py model.pth --out /proc/res.pkl", "/proc/res.pkl: cannot be written"),
        ("cffm.py model.pth --out None --show-dir model.pth", "model.pth: cannot be written"),
        ("cffm.py gone.pth", "gone.pth"),
        ("gone.py model.pth", "gone.py"),
        ("cffm.py model.pth --eval mIou", "did you mean 'mIoU'?"),
        ("cffm.py model.pth --eval mIoU None", "--eval None"),
        ("cffm.py model.pth --eval-options num_classes=4", "what the data set leaves open"),
        ("cffm.py model.pth --eval-options lengths=x", "lengths"),
        ("cffm.py model.pth --eval-options lengths=[1]", "lengths"),
        ("cffm.py model.pth --eval-options good_threshold=2", "good_threshold"),
        ("cffm.py renamed.pth", "class 0 is 'my floor' in the checkpoint and 'floor' in the data"),
        ("cffm.py reordered.pth", "class 0 is 'ball' in the checkpoint and 'floor' in the data"),
        ("cffm.py fewer.pth", "2 in the checkpoint, 3 in the data"),
        ("cffm.py fewer.pth --class-names checkpoint", "2 in the checkpoint, 3 in the data"),
        ("cffm.py model.pth --eval-options all_window=1", "all_windows"),
        ("cffm.py model.pth --options data.test.split=nope", "nope.txt"),
        ("cffm.py model.pth --options model.decode_head.num_classes=4", "model.pth"),
        ("cffm.py none --options model.decode_head.num_classes=4", "4 classes"),
        ("cffm.py model.pth --launcher pytorch", "LOCAL_RANK"),
    ],
)
def test_bad_input_writes_nothing(work, run_test_py, arguments, message):
    before = sorted(p.name for p in work.iterdir())
    default = [] if "--out" in arguments else ["--out", "bad/res.pkl"]
    output = run_test_py(*arguments.split(), *default, status=2)
    assert message in output and "what to do" in output
    assert sorted(p.name for p in work.iterdir()) == before


def test_dist_test_checks_its_arguments(work):
    assert "usage" in finish([DIST, "cffm.py"], work, status=2)
    assert "GPUS is 'two'" in finish([DIST, "cffm.py", "model.pth", "two"], work, status=2)


def test_a_damaged_frame_stops_all_processes(work):
    make_video(work / "data", "broken", 6, 0)
    (work / "data" / "data" / "broken" / "origin" / "00004.jpg").write_bytes(b"")
    (work / "data" / "two.txt").write_text("broken\nb\n")
    arguments = ["--out", "broken/res.pkl", "--options", "data.test.split=two"]
    output = finish_two("test.py", work, "cffm.py", "model.pth", *arguments, status=2)
    assert "DataError: video 'broken', frame 4" in output and "Traceback" not in output
    assert not (work / "broken" / "res.pkl").exists()


def test_split_without_masks_asks_for_format_only(work, run_test_py):
    (work / "data" / "data" / "bare" / "origin").mkdir(parents=True)
    source = work / "data" / "data" / "b" / "origin" / "00000.jpg"
    (work / "data" / "data" / "bare" / "origin" / "00000.jpg").write_bytes(source.read_bytes())
    (work / "data" / "test.txt").write_text("bare\n")
    arguments = ["cffm.py", "model.pth", "--out", "bare/res.pkl", "--options", "data.test.split=test"]
    assert "--format-only" in run_test_py(*arguments, status=2)
    run_test_py(*arguments, "--format-only")
    assert (work / "bare" / "result_submission" / "bare" / "00000.png").is_file()
