import importlib.util
import json
import os
import pickle
import shutil
import signal
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmseg.apis.evaluation import read_flow
from mmseg.errors import ConfigError, DataError, WriteError
from mmseg.evaluation import VSPWEvaluator
from mmseg.parent import is_alive
from mmseg.writing.label_pickle import pickle_program, read_label_pickle
from tests.evaluation.metric_cases import feed, stored_videos
from tests.golden_cases import Case
from tests.tools.processes import descendants, patience, running, wait_until

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("VC16", "VC8", "mIoU", "FWIoU")


def program(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


evaluate = program(ROOT / "tools/evaluate.py")


def write_png(path, labels, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint8))
    if palette:
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(path)


def write_split(root, videos):
    """`videos` (name -> raw labels (N, H, W)) in the VSPW layout."""
    for name, labels in videos.items():
        for t, frame in enumerate(labels):
            write_png(root / "data" / name / "mask" / f"{t:08d}.png", frame, palette=t % 2 == 0)
            (root / "data" / name / "origin").mkdir(exist_ok=True)
            Image.fromarray(np.zeros((*frame.shape, 3), np.uint8)).save(
                root / "data" / name / "origin" / f"{t:08d}.jpg"
            )
    (root / "val.txt").write_text("\n".join(videos))  # without a newline at the end
    return root


def write_predictions(folder, videos):
    for name, labels in videos.items():
        for t, frame in enumerate(labels):
            write_png(folder / name / f"{t:08d}.png", frame, palette=t % 3 == 0)
    return folder


@pytest.fixture(scope="module")
def case():
    return Case("metrics", "vc_script")


@pytest.fixture(scope="module")
def truth(case):
    return {k[3:]: v for k, v in case.arrays.items() if k.startswith("gt/")}


@pytest.fixture(scope="module")
def guess(case):
    return {k[5:]: v for k, v in case.arrays.items() if k.startswith("pred/")}


@pytest.fixture(scope="module")
def data(truth, guess, tmp_path_factory):
    """Data root and predictions of the golden case, where the official script looks for them."""
    home = tmp_path_factory.mktemp("home")
    root = write_split(home / "data/vspw/VSPW_480p", truth)
    return root, write_predictions(home / "models/vspw2/result_submission", guess)


def run(root, predictions, out, *options):
    evaluate.main([str(predictions), "--data-root", str(root), "--out", str(out), *options])
    return json.loads(out.read_text())


def test_stored_pngs_get_the_numbers_of_the_script(case, data, tmp_path, capsys):
    report = run(*data, tmp_path / "scores.json")
    expected = case["expected"]["printed"]
    for name in NAMES:
        assert report[name] == pytest.approx(expected[name], abs=1e-12, rel=0)
    assert report["good_videos"] == expected["good_videos"]
    assert report["mmseg/mIoU"] == pytest.approx(case["expected"]["mmseg_all_videos"]["mIoU"], abs=1e-12, rel=0)
    assert report["skipped_videos"] == ["0003_short", "0005_d"]
    printed = capsys.readouterr().out
    assert "VC_perclip: 3 of 5 videos, 70 of 98 frames" in printed and "50.00" in printed


def test_processes_give_the_same_bits(data, tmp_path):
    alone, shared = run(*data, tmp_path / "1.json"), run(*data, tmp_path / "2.json", "--workers", "2")
    assert alone == shared


@pytest.mark.parametrize("name", ["all_windows", "ignore_void"])
def test_each_option_of_the_consistency_alone(name, data, truth, guess, tmp_path):
    report = run(*data, tmp_path / "scores.json", f"--{name.replace('_', '-')}")
    default = run(*data, tmp_path / "default.json")
    alone = feed(VSPWEvaluator(124, **{name: True}), stored_videos(Case("metrics", "vc_script"))).compute()
    assert report["VC8"] == alone["VC8"] and report["VC16"] == alone["VC16"]
    assert report["VC8"] != default["VC8"]
    windows = {"8": default["counts"]["windows"]["8"] + (3 if name == "all_windows" else 0)}  # three videos count
    assert report["counts"]["windows"]["8"] == windows["8"]


def zero_based(root, num_classes=4):
    """A split whose masks hold class numbers (0 is a class), and perfect predictions."""
    maps = np.arange(num_classes, dtype=np.uint8).repeat(4)[None, None].repeat(20, axis=0).repeat(6, axis=1)
    write_split(root / "set", {"a": maps})
    (root / "set" / "classes.json").write_text(json.dumps([f"name{i}" for i in range(num_classes)]))
    return root / "set", write_predictions(root / "pred", {"a": maps})


def test_masks_that_hold_class_numbers(tmp_path):
    root, folder = zero_based(tmp_path)
    with pytest.raises(DataError, match=r"next class(.|\n)*give --no-reduce-zero-label"):
        run(root, folder, tmp_path / "scores.json")
    report = run(root, folder, tmp_path / "scores.json", "--no-reduce-zero-label")
    assert report["mIoU"] == report["VC8"] == 1.0 and report["counts"]["labelled_pixels"] == 20 * 6 * 16
    config = tmp_path / "config.py"
    config.write_text(
        f"data = dict(test=dict(type='VSPWDataset', data_root={str(root)!r}, split='val',"
        " reduce_zero_label=False, classes=['w', 'x', 'y', 'z']))"
    )
    report = run_config(config, folder, tmp_path / "scores.json")
    assert report["mIoU"] == 1.0 and [row["class"] for row in report["per_class"]] == ["w", "x", "y", "z"]
    with pytest.raises(DataError, match="next class"):
        run_config(config, folder, tmp_path / "none.json", "--options", "data.test.reduce_zero_label=True")
    with pytest.raises(DataError, match="next class"):
        run_config(config, folder, tmp_path / "none.json", "--reduce-zero-label")
    assert not (tmp_path / "none.json").exists()


def run_config(config, predictions, out, *options):
    evaluate.main([str(predictions), "--config", str(config), "--out", str(out), *options])
    return json.loads(out.read_text())


def test_masks_to_be_reduced_are_not_taken_for_class_numbers(data, tmp_path):
    """Class 124 is no class then, and a whole image off by one is noticed."""
    with pytest.raises(DataError, match=r"label value 124|previous class"):
        run(*data, tmp_path / "scores.json", "--no-reduce-zero-label")


def test_options_need_a_config(data, tmp_path):
    with pytest.raises(ConfigError, match="--options without --config"):
        run(*data, tmp_path / "scores.json", "--options", "data.test.split=val")


def test_the_official_script_takes_the_switch(tmp_path, call):
    root, folder = zero_based(tmp_path)
    command = ["VC_perclip.py", "--data-root", root, "--predictions", folder]
    assert "--no-reduce-zero-label" in call(*command, status=2)
    assert "VC8 score: 1.0" in call(*command, "--no-reduce-zero-label")


def test_a_result_pickle_without_a_map_for_a_labelled_frame(small, tmp_path):
    (tmp_path / "res.pkl").write_bytes(pickle.dumps([np.full((6, 8), 4, np.uint8)] * 5 + [None]))
    with pytest.raises(DataError, match=r"no result \(None\) for frame 2 of video 'b'(.|\n)*what to do"):
        run(small[0], tmp_path / "res.pkl", tmp_path / "scores.json")


@pytest.mark.parametrize("kind", ["uint8", "int64", "ours"])
def test_a_result_pickle_gets_the_same_numbers(kind, data, guess, tmp_path):
    maps = [np.array(frame, np.int64 if kind == "int64" else np.uint8) for v in guess.values() for frame in v]
    path = tmp_path / "res.pkl"
    if kind == "ours":
        path.write_bytes(b"\x80\x05]" + b"".join(map(pickle_program, maps)) + b".")
        assert np.array_equal(pickle.loads(path.read_bytes())[3], maps[3])
    else:
        path.write_bytes(pickle.dumps(maps))
    of_pickle, of_folder = run(data[0], path, tmp_path / "1.json"), run(*data, tmp_path / "2.json")
    assert {**of_pickle, "predictions": ""} == {**of_folder, "predictions": ""}


def test_options_reach_the_metrics(data, tmp_path):
    options = ["--lengths", "3", "--min-frames", "5", "--all-windows", "--ignore-void", "--good-threshold", "0.97"]
    report = run(*data, tmp_path / "scores.json", *options, "--confusion", str(tmp_path / "a" / "confusion.png"))
    assert (tmp_path / "a" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert report["counts"]["windows"] == {"3": 98 - 5 * 2} and report["skipped_videos"] == []
    assert report["good_videos"] == ["0001_a"]
    with pytest.raises(DataError, match="value"):
        run(*data, tmp_path / "none.json", "--num-classes", "50")
    assert not (tmp_path / "none.json").exists()


def test_the_official_command_needs_no_arguments(case, data, call, monkeypatch):
    monkeypatch.chdir(data[1].parents[2])
    output = call("VC_perclip.py")
    expected = case["expected"]["printed"]
    lines = dict(line.split(": ", 1) for line in output.splitlines() if ": " in line)
    assert float(lines["VC16 score"]) == pytest.approx(expected["VC16"], abs=1e-12, rel=0)
    assert float(lines["VC8 score"]) == pytest.approx(expected["VC8"], abs=1e-12, rel=0)
    accuracy, class_accuracy, miou, fwiou = json.loads(lines["Acc, Acc_class, mIoU, FWIoU"])
    assert (miou, fwiou) == pytest.approx((expected["mIoU"], expected["FWIoU"]), abs=1e-12, rel=0)
    assert (accuracy, class_accuracy) == pytest.approx((expected["aAcc"], expected["mAcc"]), abs=1e-12, rel=0)
    assert lines["videos of mIoU > 0.8"] == str(expected["good_videos"])


def test_temporal_consistency_with_stored_flow(tmp_path):
    case = Case("metrics", "tc_warp")
    pred = {k: case.arrays[f"pred/{k}"] for k in "ab"}
    raw = {name: maps + np.uint8(1) for name, maps in pred.items()}
    root, folder = write_split(tmp_path / "set", raw), write_predictions(tmp_path / "pred", pred)
    for name in "ab":
        (tmp_path / "flow" / name).mkdir(parents=True)
        for t, flow in enumerate(case.arrays[f"flow/{name}"]):
            np.save(tmp_path / "flow" / name / f"{t:08d}.npy", flow)
    flow_dir = ["--flow-dir", str(tmp_path / "flow")]
    report = run(root, folder, tmp_path / "scores.json", *flow_dir)
    assert report["temporal_consistency"]["video_TC"] == pytest.approx(case["expected"]["TC"], abs=1e-12, rel=0)
    corrected = run(root, folder, tmp_path / "scores.json", *flow_dir, "--align-corners")
    assert corrected["temporal_consistency"]["TC"] != report["temporal_consistency"]["TC"]
    (tmp_path / "flow/b/00000001.npy").unlink()
    with pytest.raises(DataError, match=r"00000001\.npy:? cannot be read"):
        run(root, folder, tmp_path / "scores.json", *flow_dir)


@pytest.fixture
def small(tmp_path):
    """A split of two videos of three frames, and perfect predictions."""
    raw = np.full((3, 6, 8), 5, np.uint8)
    return write_split(tmp_path / "set", {"a": raw, "b": raw}), write_predictions(
        tmp_path / "pred", {"a": raw - np.uint8(1), "b": raw - np.uint8(1)}
    )


def test_missing_predictions_are_named_before_anything_is_read(small, tmp_path):
    root, folder = small
    (folder / "a/00000001.png").unlink()
    with pytest.raises(DataError, match=r"1 of 6 predictions are missing: a/00000001\.png"):
        run(root, folder, tmp_path / "scores.json")
    for path in (folder / "b").iterdir():
        path.unlink()
    (folder / "b").rmdir()
    with pytest.raises(DataError, match="4 of 6 predictions are missing"):
        run(root, folder, tmp_path / "scores.json")
    with pytest.raises(DataError, match="no such folder"):
        run(root, tmp_path / "nowhere", tmp_path / "scores.json")
    assert not (tmp_path / "scores.json").exists()


def test_a_split_without_labels_cannot_be_scored(small, tmp_path):
    root, folder = small
    for name in "ab":
        shutil.rmtree(root / "data" / name / "mask")
    (root / "val.txt").rename(root / "test.txt")
    with pytest.raises(DataError, match=r"videos without masks \(2 of 2, the first is 'a'"):
        run(root, folder, tmp_path / "scores.json", "--split", "test")


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: Image.new("RGB", (8, 6)).save(p), "mode RGB"),
        (lambda p: p.write_bytes(p.read_bytes()[:-30]), r"b/00000002\.png: truncated or damaged"),
        (lambda p: write_png(p, np.zeros((6, 9))), "prediction is 6x9 .* label is 6x8"),
        (lambda p: write_png(p, np.full((6, 8), 124)), "frame 2 of video 'b': value 124"),
    ],
)
def test_damaged_predictions_are_refused(damage, message, workers, small, tmp_path):
    root, folder = small
    damage(folder / "b/00000002.png")
    with pytest.raises(DataError, match=message):
        run(root, folder, tmp_path / "scores.json", "--workers", workers)


@pytest.fixture(scope="module")
def much(tmp_path_factory):
    """A split of many frames, and predictions."""
    home, maps = tmp_path_factory.mktemp("much"), np.full((100, 90, 120), 5, np.uint8)
    root, folder = write_split(home / "set", {"0": maps}), write_predictions(home / "pred", {"0": maps - np.uint8(1)})
    names = [str(number) for number in range(60)]
    for name in names[1:]:
        (root / "data" / name).symlink_to("0")
        (folder / name).symlink_to("0")
    (root / "val.txt").write_text("\n".join(names))
    return root, folder


@pytest.fixture
def in_workers(much, tmp_path):
    """An evaluation with two workers and more to do than they will have the time for."""
    command = [sys.executable, ROOT / "tools" / "evaluate.py", much[1], "--data-root", much[0], "--workers", "2"]
    with running(command, tmp_path) as process:
        wait_until(lambda: len(descendants(process.pid)) == 2 or process.poll() is not None, 60)
        yield process


def test_a_worker_that_is_killed_is_one_message(in_workers):
    os.kill(descendants(in_workers.pid)[0], signal.SIGKILL)
    output, _ = in_workers.communicate(timeout=patience(15))  # the other one may wait for what the dead one held
    assert in_workers.returncode == 2 and "Traceback" not in output
    assert "DataError: a worker process has ended, killed for memory perhaps" in output and "--workers" in output


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_workers_end_with_the_evaluation(in_workers, signum, status):
    workers = descendants(in_workers.pid)
    in_workers.send_signal(signum)
    output, _ = in_workers.communicate(timeout=patience(15))
    assert in_workers.returncode == status and "Traceback" not in output
    wait_until(lambda: not any(is_alive(pid) for pid in workers), 5)


def test_a_place_that_cannot_be_written_is_told_at_once(small, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WriteError, match="a part of the path is a file"):
        run(*small, tmp_path / "file" / "scores.json")
    assert capsys.readouterr().out == ""


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("made_by_a_pickle",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps([np.zeros((6, 8), np.uint8)] * 5), "5 label maps"),
        (pickle.dumps([np.zeros((6, 8), np.uint8)] * 7), "7 label maps"),
        (pickle.dumps([np.zeros((6, 8), np.uint8)] * 6)[:-9], "cannot be read"),
        (b"\x80\x05]" + pickle_program(np.zeros((6, 8), np.uint8)) * 6, "cannot be read"),
        (b"\x80\x05]" + pickle_program(np.zeros((6, 8), np.uint8))[:-9], "cannot be read"),
        (b"not a pickle", "cannot be read"),
        (pickle.dumps(["results/a.npy"] * 6), "a list that holds str"),
        (pickle.dumps({"a": 1}), "holds dict"),
        (pickle.dumps([Harmful()]), "asks for (posix|nt).mkdir"),
    ],
)
def test_pickles_that_are_no_results_are_refused(content, message, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "res.pkl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        run(small[0], tmp_path / "res.pkl", tmp_path / "scores.json")
    assert not (tmp_path / "made_by_a_pickle").exists() and not (tmp_path / "scores.json").exists()


def test_a_pickle_of_ours_is_read_map_by_map(tmp_path):
    path = tmp_path / "res.pkl"
    path.write_bytes(b"\x80\x05]" + pickle_program(np.ones((6, 8), np.uint8)) + b"what follows is not looked at")
    assert np.array_equal(next(read_label_pickle(path)), np.ones((6, 8)))


def test_flow_files_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (%s,)}"
    for name, count in (("claims", 10**9), ("claims more", 10**16)):
        text = (header % count).ljust(117) + "\n"
        (tmp_path / f"{name}.npy").write_bytes(b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text.encode())
    np.save(tmp_path / "objects.npy", np.array([None]), allow_pickle=True)
    for name in ("none", "pipe", "claims", "claims more", "objects"):
        with pytest.raises(DataError, match=name):
            read_flow(tmp_path / f"{name}.npy")


def test_flow_needs_a_folder_of_predictions(tmp_path):
    (tmp_path / "res.pkl").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"--flow-dir with a \.pkl"):
        evaluate.main([str(tmp_path / "res.pkl"), "--flow-dir", str(tmp_path)])
