"""The report as a file: one file, nothing in it can leave its place, its parts are shipped with the package."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import cv2
import numpy as np

from mmseg.visualization import palette_table
from mmseg.visualization.report import ShownFrame, page, render_report

ROOT = Path(__file__).parents[2]
EMPTY = {"facts": [], "notes": [], "parts": [], "frames": {"rows": []}}


def test_names_cannot_leave_their_place():
    name = "</script><script>alert(1)</script><!--<b>&\u2028"
    text = render_report(name, {**EMPTY, "facts": [["checkpoint", name]]})
    assert name not in text and "<script>alert" not in text and "<title>&lt;/script&gt;" in text
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1]
    assert "<" not in block and json.loads(block)["facts"] == [["checkpoint", name]]
    render_report("no UTF-8: \udcff", {**EMPTY, "facts": [["checkpoint", "\udcff"]]}).encode()


def test_nothing_comes_from_elsewhere():
    text = render_report("a", EMPTY)
    assert "default-src 'none'" in text
    assert not re.search(r'(src|href)="(?!data:|#)', text) and "@import" not in text
    assert set(re.findall(r"https?://[\w./]+", text)) == {"http://www.w3.org/2000/svg"}  # the name of a language


def test_all_parts_are_shipped():
    files = {path.suffix for path in Path(page.__file__).parent.iterdir() if path.is_file()} - {".py"}
    line = re.search(r'^"mmseg\.visualization\.report" = (\[.*\])$', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert {f"*{suffix}" for suffix in files} == set(json.loads(line))


def decoded(address: str) -> np.ndarray:
    head, data = address.split(",")
    assert head == "data:image/webp;base64"
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)


def test_pictures_of_a_frame():
    image = np.random.default_rng(0).integers(0, 255, (480, 854, 3), np.uint8)
    labels = np.zeros((480, 854), np.uint8)
    labels[:, :400] = 1
    shown = ShownFrame.of("00007", image, labels, 1 - labels).embedded(palette_table(None, None))
    assert list(shown) == ["name", "present", "image", "truth", "prediction"]
    assert (shown.pop("name"), shown.pop("present")) == ("00007", [0, 1])
    assert all(decoded(picture).shape == (236, 420, 3) for picture in shown.values())
    assert sum(map(len, shown.values())) < 300_000  # of noise
    left, right = (decoded(shown[name])[40:200, 20:160].mean(axis=(0, 1)) for name in ("truth", "prediction"))
    assert left[2] - left[1] > 20 and abs(right[2] - right[1]) < 20  # red, and as in the image
    grey = ShownFrame.of("a", None, 255 * labels, 100 * labels).embedded(None)
    assert list(grey) == ["name", "present", "truth", "prediction"]
    assert abs(decoded(grey["prediction"])[100, 50].astype(int) - 100).max() < 4
