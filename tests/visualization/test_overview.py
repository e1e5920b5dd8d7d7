"""The picture at the top of the README, and the program that draws it."""

import importlib.util

import cv2

from tests.tools.processes import ROOT

DRAWN_BY = ROOT / "docs/pictures/overview.py"


def test_the_picture_is_small_and_can_be_drawn_again(tmp_path):
    kept = DRAWN_BY.with_suffix(".jpg")
    assert kept.stat().st_size < 200_000
    assert "](docs/pictures/overview.jpg)" in (ROOT / "README.md").read_text()
    spec = importlib.util.spec_from_file_location("overview", DRAWN_BY)
    overview = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(overview)
    overview.SIZE = (54, 96)  # of the scenes: as large a picture, drawn faster
    overview.main(tmp_path / "again.jpg")
    pictures = [cv2.imread(str(path)) for path in (kept, tmp_path / "again.jpg")]
    assert pictures[0].shape == pictures[1].shape
    alike = (cv2.absdiff(*pictures) < 24).all(axis=-1)
    assert alike[185:420, :1050].mean() > 0.99 and alike.mean() > 0.7  # the boxes; scenes depend on their size
