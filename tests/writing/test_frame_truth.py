"""The truth and the scores of single frames beside submission PNGs, and texts that appear at the end of a run."""

import json

import numpy as np
import pytest

from mmseg.errors import WriteError
from mmseg.visualization import palette_table
from mmseg.writing.frame_truth import FrameScoreWriter, TruthPngWriter
from mmseg.writing.label_png import LabelPngFolder
from mmseg.writing.text import ReportWriter
from tests.writing.feeding import LENGTHS, feed, in_two_processes, left_in, result, videos

TABLE = palette_table([[i, 2 * i, 255 - i] for i in range(124)], 124)
PRED = np.array([[0, 0, 1, 1], [2, 2, 2, 2]], np.uint8)
TRUTH = np.array([[0, 0, 0, 1], [2, 2, 255, 255]], np.uint8)


def test_truth_and_scores_of_frames(tmp_path):
    truths, scores = TruthPngWriter(tmp_path / "gts", TABLE), FrameScoreWriter(tmp_path / "miou.txt")
    (video, *_) = videos()
    for writer in (truths, scores):
        writer.start([video], [0])
        writer.begin_video(video)
        writer.add(result(video, 0, PRED, TRUTH))
        writer.add(result(video, 1, np.full_like(PRED, 7), TRUTH))  # a class that is not in the truth
        writer.add(result(video, 2, PRED, np.full_like(TRUTH, 255)))
        writer.add(result(video, 3, PRED))  # no truth: neither file nor line
        writer.end_video()
        writer.finish()
    pngs = [f"gts/first/{t:08d}.png" for t in range(3)]
    assert left_in(tmp_path) == [*pngs, "miou.txt"]
    folder = LabelPngFolder(tmp_path / "gts", {"first": ["00000000"]})
    assert np.array_equal(folder.read("first", "00000000"), TRUTH)
    lines = [line.split(":") for line in (tmp_path / "miou.txt").read_text().splitlines()]
    assert [name for name, _ in lines] == [f"first/{t:08d}.jpg" for t in range(3)]
    # classes 0 (2 of 3 pixels), 1 (1 of 2) and 2; what is predicted where nothing is labelled does not count
    assert float(lines[0][1]) == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert float(lines[1][1]) == 0 and lines[2][1] == "nan"


def test_scores_of_several_processes_are_in_the_order_of_the_data(tmp_path):
    program = """
    from mmseg.writing.frame_truth import FrameScoreWriter
    writer = FrameScoreWriter("miou.txt")
    feed(writer, rank=rank, owners=OWNERS)
    writer.finish()
    """
    in_two_processes("\n".join(line[4:] for line in program.splitlines()), tmp_path)
    lines = (tmp_path / "miou.txt").read_text().splitlines()
    assert lines == [f"{name}/{t:08d}.jpg:1.0" for name, length in LENGTHS.items() for t in range(length)]


def test_a_report_appears_at_the_end_or_not_at_all(tmp_path):
    content = {}
    writer = ReportWriter(tmp_path / "x" / "res.json", lambda: content)
    feed(writer)
    writer.abort()
    assert left_in(tmp_path) == []
    feed(writer)
    content["mIoU"] = 0.5  # complete only now
    writer.finish()
    assert json.loads((tmp_path / "x" / "res.json").read_text()) == {"mIoU": 0.5}
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file"):
        feed(ReportWriter(tmp_path / "file" / "res.json", dict))  # before any frame
