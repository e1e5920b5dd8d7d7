"""``--report``: the numbers are those of the evaluation, and a real browser shows them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmseg.errors import ConfigError
from mmseg.evaluation import DAVIS16Evaluator, DAVIS17Evaluator, PooledFramesEvaluator, VSPWEvaluator
from mmseg.evaluation.frame_scores import WorstFrames
from mmseg.visualization import palette_table
from mmseg.visualization.report import ShownFrame, render_report
from mmseg.writing.report_content import report_content
from mmseg.writing.report_page import ReportPageWriter
from tests.tools.report_numbers import numbers_of
from tests.tools.test_evaluate import run, write_predictions, write_split
from tests.tools.test_evaluate_masks import run as run_masks
from tests.tools.test_evaluate_masks import write_masks
from tests.writing.feeding import result, videos

EVIL = "</script><script>document.title = 'broken'</script>"
SIZE = (24, 40)


def class_videos(num_classes: int, names: list[str], frames: int = 20) -> dict[str, np.ndarray]:
    """Stripes of classes, (N, 2, H, W): truth and prediction, which is right but for a band that grows."""
    found = {}
    for seed, name in enumerate(names):
        rng = np.random.default_rng(seed)
        truth = rng.permutation(num_classes)[np.arange(SIZE[1]) * min(num_classes, 20) // SIZE[1]].astype(np.uint8)
        truth = np.broadcast_to(truth, (frames, *SIZE)).copy()
        pred = truth.copy()
        for t in range(frames):
            pred[t, : (t + seed) % SIZE[0]] = rng.integers(num_classes)
        found[name] = np.stack([truth, pred], axis=1)
    return found


def class_page(num_classes: int, names: list[str], frames: int = 20) -> str:
    """A report as tools write it."""
    evaluator, worst = (
        VSPWEvaluator(num_classes, [f"class <{c}>" for c in range(num_classes)]),
        WorstFrames(8, frames * len(names)),
    )
    table = palette_table(None, num_classes)
    for name, maps in class_videos(num_classes, names, frames).items():
        for t, maps_of_frame in enumerate(maps):
            evaluator.update(name, t, *maps_of_frame[::-1])
            show = partial(ShownFrame.of, f"{t:05d}", None, *maps_of_frame)
            worst.offer(evaluator.frame_score(name), name, t, show)
    content = report_content({"checkpoint": EVIL}, [evaluator], worst, table, evaluator.class_names)
    return render_report(f"Test of {EVIL}", content)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "report.html"
    path.write_text(class_page(5, ["10", "9", EVIL]))
    return path


# -- in a browser


def texts(page, selector: str) -> list[str]:
    return page.locator(selector).all_inner_texts()


def section(title: str) -> str:
    return f'section:has(h2:text-matches("^{title}"))'


def test_the_page_shows_the_numbers_and_asks_nobody(page, small):
    page.goto(small.as_uri())
    data = numbers_of(small)
    assert page.title() == f"Test of {EVIL}"
    assert texts(page, ".scores b")[0] == f"{100 * data['parts'][0]['scores'][0][1]:.2f}"
    assert sorted(texts(page, f"{section('Videos')} tbody td:first-child")) == sorted(["10", "9", EVIL])
    assert texts(page, f"{section('Classes')} .bars .name")[0].startswith("class <")
    assert texts(page, f"{section('Worst')} h3")[0].startswith("1. mIoU")
    widths = page.eval_on_selector_all(".pictures img", "all => all.map(img => img.naturalWidth)")
    assert len(widths) == 2 * min(6, len(data["frames"]["rows"])) and set(widths) == {420}
    assert [a for a in page.addresses if not a.startswith("data:")] == [small.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_tables_sort_by_click_and_by_key(page, small):
    page.goto(small.as_uri())
    table = f"{section('Videos')} table"
    head = page.locator(f"{table} th", has_text="video")
    first = f"{table} tbody td:first-child"
    assert head.get_attribute("aria-sort") == "none"
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending" and texts(page, first) == [EVIL, "9", "10"]
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending" and texts(page, first) == ["10", "9", EVIL]
    score = page.locator(f"{table} th", has_text="mIoU").locator("button")
    score.focus()
    page.keyboard.press("Space")
    values = [float(text) for text in texts(page, f"{table} tbody td:nth-child(4)")]
    assert values == sorted(values) and head.get_attribute("aria-sort") == "none"
    page.locator(first).first.locator("a").click()  # leads to the chart of that video
    assert page.locator(".curve:target .name").inner_text() == texts(page, first)[0]


def test_light_and_dark(page, small):
    def paper() -> int:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))

    page.emulate_media(color_scheme="light")
    page.goto(small.as_uri())
    light = paper()
    page.emulate_media(color_scheme="dark")
    dark = paper()
    assert light > 600 > 150 > dark
    canvas = "canvas.getContext('2d').getImageData(2, canvas.height - 3, 1, 1).data[0]"
    drawn = f"(canvas => {canvas})(document.querySelector('canvas'))"
    page.wait_for_function(f"{drawn} < 60")  # the page is told of the change a moment later
    page.get_by_role("button", name="Show in light colours").click()
    assert paper() == light and page.evaluate(drawn) > 200  # what is drawn, too
    page.get_by_role("button", name="Show in dark colours").click()
    assert paper() == dark


def test_the_matrix_says_what_is_under_the_pointer(page, tmp_path):
    path = tmp_path / "large.html"
    path.write_text(class_page(124, [f"video {n}" for n in range(30)], frames=3))
    page.goto(path.as_uri())
    confusion = numbers_of(path)["parts"][0]["confusion"]
    names, cells = confusion["names"], {(row, column): count for row, column, count in confusion["cells"]}
    canvas, side = page.locator(".matrix canvas"), len(names)
    assert side > 100 and page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    canvas.focus()
    canvas.evaluate("canvas => canvas.scrollIntoView()")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    tip = page.locator("#tip")
    assert tip.inner_text().startswith(f"truth: {names[1]}\npredicted: {names[1]}\n")
    band = page.locator(".band").first.bounding_box()
    cell, edge = band["height"], canvas.bounding_box()
    row, column = next(place for place in cells if place[0] == 3 and place[1] != 3)
    page.mouse.move(edge["x"] + edge["width"] - 6 - (side - column - 0.5) * cell, band["y"] + (row - 0.5) * cell)
    total = sum(count for (r, _), count in cells.items() if r == row)
    share = 100 * cells[row, column] / total
    assert tip.inner_text() == (
        f"truth: {names[row]}\npredicted: {names[column]}\n{share:.2f} % of it, {cells[row, column]:,} pixels"
    )
    page.mouse.move(2, 2)
    assert tip.is_hidden()
    mixed = f"{section('Confusion')} tbody tr:first-child td"
    most = max((count for (r, c), count in cells.items() if r != c), default=0)
    assert texts(page, mixed)[3] == f"{most:,}"
    assert len(texts(page, ".curve")) == 24
    page.get_by_role("button", name="Show all 30 videos").click()
    assert len(texts(page, ".curve")) == 30
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_curves_say_what_is_under_the_pointer_and_tables_are_searched(page, tmp_path):
    path = tmp_path / "many.html"
    path.write_text(class_page(3, [f"v{n}" for n in range(20)], frames=9))
    page.goto(path.as_uri())
    curve = numbers_of(path)["parts"][0]["curves"][0]
    svg = page.locator(".curve svg").first
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 5)
    assert page.locator("#tip").inner_text() == f"frame 8\nmIoU {100 * curve['curves']['mIoU'][-1]:.2f} %"
    page.locator(section("Videos")).get_by_role("searchbox").fill("V1")
    assert len(texts(page, f"{section('Videos')} tbody tr")) == 11  # v1, v10 ... v19


# -- the numbers


def test_stored_maps_of_classes(tmp_path):
    maps = class_videos(4, ["a", "b<i>"], frames=18)
    root = write_split(tmp_path / "set", {name: own[:, 0] + 1 for name, own in maps.items()})
    (root / "classes.json").write_text('["w", "x", "y", "z"]')
    folder = write_predictions(tmp_path / "pred", {name: own[:, 1] for name, own in maps.items()})
    page = tmp_path / "out" / "report.html"
    report = run(root, folder, tmp_path / "out" / "scores.json", "--report", "--report-frames", "3", "--workers", "2")
    found = numbers_of(page)
    part = found["parts"][0]
    assert dict(part["scores"])["mIoU"] == report["mIoU"]
    assert part["confusion"]["names"] == ["w", "x", "y", "z"]
    assert [[r, c, n] for r, row in enumerate(report["confusion_matrix"]) for c, n in enumerate(row) if n] == (
        part["confusion"]["cells"]
    )
    classes, shown = part["tables"]
    assert [row[1] for row in classes["rows"]] == [row["IoU"] for row in report["per_class"]]
    assert [row[0] for row in shown["rows"]] == ["a", "b<i>"] and found["facts"]["videos"] == 2
    rows = found["frames"]["rows"]
    assert len(rows) == 3 and all(set(row) > {"image", "truth", "prediction"} for row in rows) and not found["notes"]
    lowest = min(min(curve["curves"]["mIoU"]) for curve in part["curves"])
    assert rows[0]["score"] == lowest
    evaluator = VSPWEvaluator(4)
    pickled = tmp_path / "res.pkl"
    pickled.write_bytes(__import__("pickle").dumps([m for own in maps.values() for m in own[:, 1]]))
    run(root, pickled, tmp_path / "scores.json", "--report", str(tmp_path / "other.html"), "--report-frames", "3")
    assert numbers_of(tmp_path / "other.html")["frames"] == found["frames"]
    for name, own in maps.items():
        for t, (truth, pred) in enumerate(own):
            evaluator.update(name, t, pred, truth)
    assert part["curves"][0]["curves"]["mIoU"] == pytest.approx(
        evaluator.frame_scores(part["curves"][0]["video"]).ranking, abs=1e-4
    )


def object_videos(count: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    found = {}
    for video in range(2):
        truth = np.zeros((12, *SIZE), np.uint8)
        for t in range(12):
            for number in range(1, count + 1):
                truth[t, 3 : 3 + 6 * number, 8 * number : 8 * number + 7] = number
        pred = np.stack([np.roll(frame, (t * (video + 1)) % 6, axis=1) for t, frame in enumerate(truth)])
        found[f"v{video}"] = truth, pred
    return found


def write_categories(truth: Path, maps: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[str | Path]:
    """The ``meta.json`` of YouTube-VOS, and the option that names the categories of its training set."""
    objects = {"1": {"category": "<dog>"}, "2": {"category": "cat"}}
    (truth / "meta.json").write_text(json.dumps({"videos": {name: {"objects": objects} for name in maps}}))
    (truth / "seen.txt").write_text("cat\n")
    return ["--seen", truth / "seen.txt"]


TWO = ("davis17", "davis17-unsup", "vos-benchmark", "youtube")  # protocols of several objects


@pytest.mark.parametrize(("protocol", "count"), [*((name, 2) for name in TWO), ("davis16", 1), ("vsod", 1)])
def test_stored_masks_of_objects(protocol, count, tmp_path, caplog):
    scale = 1 if count > 1 else 255
    maps = {name: (scale * truth, scale * pred) for name, (truth, pred) in object_videos(count).items()}
    truth = write_masks(tmp_path / "DAVIS" / "Annotations" / "480p", maps, 0)
    pred = write_masks(tmp_path / "pred", maps, 1)
    page = tmp_path / "report.html"
    more = write_categories(truth, maps) if protocol == "youtube" else ()
    report = run_masks(tmp_path, "--protocol", protocol, pred, truth, "--report", page, *more)
    found = numbers_of(page)
    part, rows = found["parts"][0], found["frames"]["rows"]
    assert dict(part["scores"]) == {name: report[name] for name, _ in part["scores"]} and part["scores"]
    assert part["percent"] == (protocol != "vsod") and part["confusion"] is None and part["bars"] == []
    assert len(found["notes"]) == 1 and "not found" in found["notes"][0] and found["notes"][0] in caplog.messages
    assert all({"truth", "prediction"} < set(row) and "image" not in row for row in rows) and rows
    numbers = part["curves"][0]["numbers"]
    assert numbers == list(range(12) if protocol in ("davis17-unsup", "youtube") else range(1, 11))
    if protocol == "davis17":
        assert [table["title"] for table in part["tables"]] == ["Videos", "Objects"]
        assert list(part["curves"][0]["curves"]) == ["J&F", "J", "F", "object 1", "object 2"]
        assert found["frames"]["legend"].keys() == {"1", "2"}
        images = tmp_path / "DAVIS" / "JPEGImages" / "480p"
        for name in maps:
            (images / name).mkdir(parents=True)
            for t in range(12):
                cv2.imwrite(str(images / name / f"{t:05d}.jpg"), np.full((*SIZE, 3), 10 * t, np.uint8))
        run_masks(tmp_path, "--protocol", protocol, pred, truth, "--report", page)
        beside = numbers_of(page)
        run_masks(tmp_path, "--protocol", protocol, pred, truth, "--report", page, "--images", tmp_path / "DAVIS")
        for other in (beside, numbers_of(page)):
            assert not other["notes"] and all("image" in row for row in other["frames"]["rows"])
            assert [row["score"] for row in other["frames"]["rows"]] == [row["score"] for row in rows]


@pytest.mark.parametrize("late", [False, True])
def test_a_test_run_keeps_the_worst_frames_that_count(late, tmp_path):
    """The first and the last frame of a video do not count, although the last one is the worst."""
    evaluator, path = DAVIS17Evaluator(), tmp_path / "report.html"
    writer = ReportPageWriter(path, [evaluator], {"checkpoint": "a.pth"}, palette_table(None, None), num_frames=4)
    all_videos = videos({"a": 20, "b": 12})
    writer.start(all_videos, [0, 0])
    truth = np.zeros((20, 30), np.uint8)
    truth[5:15, 5:15] = 1
    for video in all_videos:
        writer.begin_video(video)
        for number in range(video.num_frames):
            labels = np.roll(truth, 10 if number in (0, video.num_frames - 1) else (number * 3) % 8, axis=1)
            one = result(video, number, labels, truth if number % 2 == 0 or number == 11 else None)
            if late:
                image, one.frame.image = one.frame.image, None
                one.frame.reload = lambda image=image: image
            if one.frame.truth is not None:
                evaluator.update(video.name, number, labels, truth)
            writer.add(one)
        evaluator.end_video(video.name)
        writer.end_video()
    writer.finish()
    found = numbers_of(path)
    shown = [(row["video"], int(row["name"])) for row in found["frames"]["rows"]]
    scores = {
        (name, t): value
        for name in "ab"
        for t, value in zip(evaluator.frame_scores(name).numbers, evaluator.frame_scores(name).ranking)
    }
    assert ("b", 11) not in scores and ("a", 0) not in scores
    assert shown[0] == min(scores, key=lambda place: (scores[place], place)) and len(shown) == 4
    assert set(shown) <= set(scores)
    assert [row["score"] for row in found["frames"]["rows"]] == sorted(round(scores[place], 4) for place in shown)


@pytest.mark.parametrize("names", [("published", "pooled"), ("pooled", "published")])
def test_of_several_evaluators_the_first_one_ranks(names, tmp_path):
    """Also where it leaves out the first frame, and the other does not."""
    makes = {"published": DAVIS16Evaluator, "pooled": PooledFramesEvaluator}
    evaluators = [makes[name]() for name in names]
    writer = ReportPageWriter(tmp_path / "report.html", evaluators, {}, palette_table(None, 2), num_frames=3)
    (video,) = videos({"a": 6})
    truth = np.zeros((20, 30), np.uint8)
    truth[5:15, 5:15] = 1
    writer.start([video], [0])
    writer.begin_video(video)
    for number, shift in enumerate((10, 1, 2, 3, 2, 10)):
        labels = np.roll(truth, shift, axis=1)
        for evaluator in evaluators:
            evaluator.update("a", number, labels, truth)
        writer.add(result(video, number, labels, truth))
    for evaluator in evaluators:
        evaluator.end_video("a")
    writer.end_video()
    writer.finish()
    found = numbers_of(tmp_path / "report.html")["frames"]["rows"]
    expected = dict(enumerate(evaluators[0].frame_scores("a").ranking, names[0] == "published"))
    assert {int(row["name"]): row["score"] for row in found}.items() <= {
        number: round(score, 4) for number, score in expected.items()
    }.items()
    assert found[0]["score"] == round(min(expected.values()), 4) and len(found) > 1


def test_a_place_that_is_none_of_a_page(tmp_path):
    with pytest.raises(ConfigError, match=r"--report cffm.py(.|\n)*ends in .html"):
        run(tmp_path, tmp_path, tmp_path / "scores.json", "--report", "cffm.py")
    with pytest.raises(ConfigError, match="--images without --report"):
        run_masks(tmp_path, "--protocol", "davis16", tmp_path, tmp_path, "--images", tmp_path)
    with pytest.raises(ConfigError, match="--out and --report are both"):
        run(tmp_path, tmp_path, tmp_path / "report.html", "--report")
    with pytest.raises(SystemExit):
        run(tmp_path, tmp_path, tmp_path / "scores.json", "--report-frames", "51")
    assert not list(tmp_path.iterdir())
