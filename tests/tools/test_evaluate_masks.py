"""``tools/evaluate.py --protocol``: folders of masks in, the toolkits' numbers out, in tables, JSON and CSV."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mmseg.errors import ConfigError, DataError
from mmseg.image_trees import read_video_list
from tests.evaluation.metric_cases import stored_videos
from tests.evaluation.test_davis import CLOSE, approx
from tests.golden_cases import Case
from tests.reference.davis import evaluate_folder
from tests.tools.test_evaluate import evaluate, write_png


def write_masks(folder, videos, which):
    for name, maps in videos.items():
        for t, labels in enumerate(maps[which]):
            write_png(folder / name / f"{t:05d}.png", labels, palette=t % 2 == 0)
    return folder


@pytest.fixture
def stored(tmp_path):
    """Writes the videos of a golden case; returns the two folders."""

    def write(case):
        videos = stored_videos(case)
        return write_masks(tmp_path / "pred", videos, 1), write_masks(tmp_path / "truth", videos, 0)

    return write


def run(tmp_path, *arguments):
    out = tmp_path / "scores.json"
    evaluate.main([*map(str, arguments), "--out", str(out)])
    return json.loads(out.read_text())


@pytest.mark.parametrize(
    ("name", "protocol"), [("davis17_semi", "davis17"), ("davis17_unsup", "davis17-unsup"), ("davis16", "davis16")]
)
def test_numbers_of_the_toolkits_from_files(name, protocol, stored, tmp_path, capsys):
    case = Case("metrics", name)
    pred, truth = stored(case)
    found = run(tmp_path, "--protocol", protocol, pred, truth)
    if protocol == "davis16":
        flat = {f"{m}-{s.title()}": v for m in "JF" for s, v in case["expected"]["davis16"][m].items()}
    else:
        flat = case["expected"]["global"]
        literal = evaluate_folder(pred, truth, case.config["task"])["global"]
        assert literal == approx(flat, **CLOSE)  # the formulas that the speed is measured against
    assert {key: found[key] for key in flat} == approx(flat, **CLOSE)
    printed = capsys.readouterr().out
    assert found["protocol"]["equals"] in printed and f"{len(found['per_sequence'])} videos" in printed


def test_vos_benchmark_and_its_option(stored, tmp_path):
    case = Case("metrics", "vos_benchmark")
    pred, truth = stored(case)
    for key, options in (("skip_first_and_last", []), ("all_frames", ["--all-frames"])):
        found = run(tmp_path, "--protocol", "vos-benchmark", pred, truth, *options)
        assert 100 * found["J&F-Mean"] == pytest.approx(case["expected"][key]["mean"]["J&F"], **CLOSE)


def test_saliency_by_both_toolkits(stored, tmp_path):
    case = Case("metrics", "vsod_dataset")
    pred, truth = stored(case)
    found = run(tmp_path, "--protocol", "vsod", pred, truth)
    expected = case["expected"]["frames_of_pysodmetrics"]
    assert {key: found[key] for key in expected} == approx(expected, **CLOSE)
    found = run(tmp_path, "--protocol", "vsod", pred, truth, "--toolkit", "vsod")
    expected = case["expected"]["toolbox"]["total"]
    assert {key: found[key] for key in expected} == approx(expected, **CLOSE)
    found = run(tmp_path, "--protocol", "vsod", pred, truth, "--all-frames", "--pooled")
    expected = case["expected"]["all_frames_pooled"]
    assert {key: found[key] for key in expected} == approx(expected, **CLOSE)


def test_youtube_vos_with_its_files(stored, tmp_path):
    case = Case("metrics", "youtube_vos")
    pred, truth = stored(case)
    videos = {
        name: {
            "objects": {
                number: {"category": category, "frames": [f"{t:05d}" for t in frames]}
                for number, (category, frames) in objects.items()
            }
        }
        for name, objects in case.config["meta"].items()
    }
    (tmp_path / "meta.json").write_text(json.dumps({"videos": videos}))
    (tmp_path / "seen.txt").write_text("\n".join(case.config["seen"]))
    shutil.rmtree(pred / "beta" / "00000.png", ignore_errors=True)
    (pred / "beta" / "00000.png").unlink()  # what is given need not be predicted
    found = run(tmp_path, "--protocol", "youtube", pred, truth, "--seen", tmp_path / "seen.txt")
    names = ("overall", "J_seen", "F_seen", "J_unseen", "F_unseen")
    assert {name: found[name] for name in names} == approx({n: case["expected"][n] for n in names}, **CLOSE)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("seen.json", b'{"a": 1}', "not as expected"),
        ("seen.json", b"[", "no JSON file"),
        ("seen.txt", b"\x89PNG", "cannot be read as text"),
        ("seen.txt", b"\n", "names no categories"),
        ("seen.txt", None, "cannot be read"),
    ],
)
def test_categories_that_cannot_be_read(name, content, message, small, tmp_path):
    (tmp_path / "meta.json").write_text('{"videos": {}}')
    if content is not None:
        (tmp_path / name).write_bytes(content)
    folders = [small / "pred", small / "truth"]
    with pytest.raises(DataError, match=message):
        run(tmp_path, "--protocol", "youtube", *folders, "--seen", tmp_path / name)


@pytest.mark.parametrize("names", [["0", "1", "2"], [0, 1, 2]])
def test_frames_of_meta_json_that_no_mask_has(names, small, tmp_path):
    videos = [path.name for path in (small / "truth").iterdir()]
    objects = {"1": {"category": "dog", "frames": names}}
    (tmp_path / "meta.json").write_text(json.dumps({"videos": {video: {"objects": objects} for video in videos}}))
    (tmp_path / "seen.txt").write_text("dog")
    options = ["--seen", tmp_path / "seen.txt", "--meta", tmp_path / "meta.json"]
    with pytest.raises(DataError, match=r"object 1 of video .* none of them has a mask"):
        run(tmp_path, "--protocol", "youtube", small / "pred", small / "truth", *options)


def test_names_in_lists_may_have_blanks(tmp_path):
    (tmp_path / "list.txt").write_text(
        "a b\na\nJPEGImages/480p/c/00000.jpg Annotations/480p/c/00000.png\n/JPEGImages/480p/c/00001.jpg x\n"
    )
    assert read_video_list(tmp_path / "list.txt") == ["a b", "a", "c"]


def test_vos_benchmark_on_masks_of_0_and_255(small, tmp_path, caplog):
    for path in (small / "truth").rglob("*.png"):
        write_png(path, 255 * np.asarray(Image.open(path)))
    run(tmp_path, "--protocol", "vos-benchmark", small / "pred", small / "truth")
    assert "255 is the only object" in caplog.text and "--protocol davis16" in caplog.text
    caplog.clear()
    run(tmp_path, "--protocol", "vos-benchmark", small / "truth", small / "truth")
    assert not caplog.text


def test_processes_and_lists_and_csv(stored, tmp_path, capsys):
    pred, truth = stored(Case("metrics", "davis17_semi"))
    alone = run(tmp_path, "--protocol", "davis17", pred, truth)
    assert run(tmp_path, "--protocol", "davis17", pred, truth, "--workers", "2") == alone
    (tmp_path / "some.txt").write_text("beta\nalpha\n")
    some = run(
        tmp_path, "--protocol", "davis17", pred, truth, "--videos", tmp_path / "some.txt", "--csv", tmp_path / "csv"
    )
    assert list(some["per_sequence"]) == ["beta", "alpha"] and some["not_scored"] == ["delta", "gamma"]
    assert "some.txt, or have no truth: delta, gamma" in capsys.readouterr().out
    lines = (tmp_path / "csv" / "global_results-some.csv").read_text().splitlines()
    assert lines[0] == "J&F-Mean,J-Mean,J-Recall,J-Decay,F-Mean,F-Recall,F-Decay"
    assert lines[1].split(",")[0] == f"{some['J&F-Mean']:.3f}"
    lines = (tmp_path / "csv" / "per-sequence_results-some.csv").read_text().splitlines()
    assert lines[0] == "Sequence,J-Mean,F-Mean" and lines[1].startswith("beta_1,0.843,0.900")


def test_layouts_and_lists_of_davis_2016(stored, tmp_path):
    """Annotations/480p inside a data root, pairs in the list, all masks in one folder."""
    pred, truth = stored(Case("metrics", "davis16"))
    expected = run(tmp_path, "--protocol", "davis16", pred, truth)
    (tmp_path / "DAVIS" / "Annotations").mkdir(parents=True)
    truth.rename(tmp_path / "DAVIS" / "Annotations" / "480p")
    pairs = [
        f"/JPEGImages/480p/{name}/{t:05d}.jpg /Annotations/480p/{name}/{t:05d}.png"
        for name in ("ant", "bee", "cat", "dog")
        for t in range(3)
    ]
    (tmp_path / "val.txt").write_text("\n".join(pairs))
    root = tmp_path / "DAVIS"
    found = run(tmp_path, "--protocol", "davis16", pred, root, "--videos", tmp_path / "val.txt")
    assert found["J&F-Mean"] == expected["J&F-Mean"]
    flat = tmp_path / "mask" / "val"
    flat.mkdir(parents=True)
    for path in sorted((root / "Annotations" / "480p").rglob("*.png")):
        shutil.copy(path, flat / f"{path.parent.name}_{path.name}")
    assert run(tmp_path, "--protocol", "davis16", pred, flat)["per_sequence"] == expected["per_sequence"]


def test_long_videos_have_masks_of_some_frames_only(tmp_path):
    rng = np.random.default_rng(0)
    for t in range(30):
        write_png(tmp_path / "pred" / "rat" / f"{t:05d}.png", 255 * (rng.random((40, 50)) > 0.4))
        (tmp_path / "flow" / "rat").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "flow" / "rat" / f"{t:05d}.npy", np.zeros((2, 40, 50), np.float32))
        if t % 6 == 0:
            write_png(tmp_path / "truth" / "rat" / f"{t:05d}.png", 255 * (rng.random((40, 50)) > 0.4))
    folders = [tmp_path / "pred", tmp_path / "truth"]
    found = run(tmp_path, "--protocol", "long-videos", *folders, "--flow-dir", tmp_path / "flow")
    assert found["counts"] == {"videos": 1, "frames": 3, "objects": 1}
    assert found["temporal_consistency"]["pairs"] == 29  # of neighbours, whichever of them have a truth


def test_temporal_consistency_of_objects(stored, tmp_path):
    pred, truth = stored(Case("metrics", "davis17_semi"))
    for folder in pred.iterdir():
        for path in folder.iterdir():
            labels = np.asarray(Image.open(path))
            (tmp_path / "flow" / folder.name).mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / "flow" / folder.name / f"{path.stem}.npy", np.zeros((2, *labels.shape), np.float32))
    found = run(tmp_path, "--protocol", "davis17", pred, truth, "--flow-dir", tmp_path / "flow", "--align-corners")
    assert 0 < found["temporal_consistency"]["TC"] <= 1 and found["temporal_consistency"]["videos"] == 4


# -- bad input


@pytest.fixture
def small(tmp_path):
    for kind in ("pred", "truth"):
        for video in ("a", "b"):
            for t in range(4):
                labels = np.zeros((20, 30), np.uint8)
                labels[4:9, 5 + t : 15 + t] = 1
                write_png(tmp_path / kind / video / f"{t:05d}.png", labels, palette=True)
    return tmp_path


def colour(path):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(path)


def wide(path):
    Image.fromarray(np.full((20, 30), 300, np.uint16)).save(path)


DAMAGES = [
    (lambda root: shutil.rmtree(root / "pred" / "b"), "1 of 2 videos are missing: b"),
    (lambda root: (root / "pred" / "b" / "00002.png").unlink(), "1 predictions are missing: b/00002.png"),
    (lambda root: shutil.rmtree(root / "truth"), "truth: no such folder"),
    (lambda root: [shutil.rmtree(root / "pred" / v) for v in "ab"], "no pictures"),
    (lambda root: colour(root / "pred" / "a" / "00001.png"), "a/00001.png: picture of mode RGB"),
    (lambda root: wide(root / "pred" / "a" / "00001.png"), "a/00001.png: picture of mode I;16"),
    (lambda root: write_png(root / "pred" / "a" / "00001.png", np.zeros((10, 30))), "a/00001.png: frame 1 .*10x30"),
    (lambda root: write_png(root / "pred" / "a" / "00001.png", np.full((20, 30), 255)), "a/00001.png: .*id 255"),
    (lambda root: (root / "pred" / "a" / "00001.png").write_bytes(b"\x89PNG"), "a/00001.png: "),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[str(n) for n in range(len(DAMAGES))])
@pytest.mark.parametrize("workers", [0, 2])
def test_one_error_that_names_the_file(damage, message, workers, small, tmp_path):
    damage(small)
    with pytest.raises(DataError, match=message) as caught:
        run(tmp_path, "--protocol", "davis17", small / "pred", small / "truth", "--workers", workers)
    assert caught.value.expected and caught.value.action
    assert not (tmp_path / "scores.json").exists()


def test_truth_that_does_not_fit_is_named_itself(small, tmp_path):
    with pytest.raises(DataError, match="truth/a/00000.png: truth of frame 0".replace(".", r"\.")) as caught:
        run(tmp_path, "--protocol", "vsod", small / "pred", small / "truth")
    assert "--truth-threshold 0" in caught.value.action
    assert run(tmp_path, "--protocol", "vsod", small / "pred", small / "truth", "--truth-threshold", "0")["S"] > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol", "davis17", "pred"], "without masks"),
        (["--protocol", "davis17", "pred", "truth", "--lengths", "8"], "--lengths with --protocol davis17"),
        (["--protocol", "davis17", "pred", "truth", "--options", "a=1"], "--options with --protocol davis17"),
        (["--protocol", "davis17", "pred", "truth", "--align-corners"], "--align-corners without --flow-dir"),
        (["--protocol", "davis17", "pred", "truth", "--toolkit", "vsod"], "--toolkit with --protocol davis17"),
        (["--protocol", "davis17", "pred", "truth", "--all-frames"], "--all-frames with --protocol davis17"),
        (["--protocol", "vsod", "pred", "truth", "--csv", "csv"], "--csv with --protocol vsod"),
        (["--protocol", "davis16", "pred", "truth", "--meta", "m.json"], "--meta with --protocol davis16"),
        (["--protocol", "youtube", "pred", "truth"], "without --seen"),
        (["pred", "--all-frames"], "--all-frames with --protocol vspw"),
    ],
)
def test_options_that_do_not_belong_to_the_protocol(arguments, message, small, tmp_path, monkeypatch):
    monkeypatch.chdir(small)
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, *arguments)
