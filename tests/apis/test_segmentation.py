"""``segment_video``: masks for models that follow objects, signals, full disks, and what is refused."""

import contextlib
import json
import resource
import signal
import threading
import time

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mmseg.apis import SegmentOptions, init_segmentor, segment_video
from mmseg.config import load_config
from mmseg.datasets.mask_inputs import GivenMasks
from mmseg.errors import ConfigError, DataError, WriteError
from tests.engine.tiny_vspw import SIZE, make_data, write_config
from tests.golden_cases import GOLDEN
from tests.models.gsfm_cases import network

GSFM = GOLDEN.parents[1] / "local_configs/gsfm/davis2017_val.py"


def frame(t: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(t).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    make_data(folder / "data", {"a": 1})
    torch.manual_seed(0)
    return init_segmentor(write_config(folder / "baseline.py", folder / "data", clip=False))


@pytest.fixture(scope="module")
def follower():
    model = network()
    model.cfg = load_config(GSFM)
    return model


def test_objects_from_the_first_frame_and_objects_that_come_later(tmp_path, follower):
    size = (30, 45)
    ids = np.zeros(size, np.uint8)
    ids[4:20, 5:20], ids[10:28, 25:40] = 9, 40
    Image.fromarray(ids).save(tmp_path / "first.png")
    options = SegmentOptions(("labels", "json", "probs"), masks=GivenMasks(tmp_path / "first.png"))
    done = segment_video(follower, [frame(t, size) for t in range(3)], tmp_path, options, progress=False)
    labels = [np.asarray(Image.open(done.folder / f"labels/00000{t}.png")) for t in range(3)]
    assert np.array_equal(labels[0], ids) and set(np.unique(labels[2])) <= {0, 9, 40}
    numbers = json.loads((done.folder / "frames.json").read_text())
    assert numbers["frames"][0]["labels"] == [
        {"label": 9, "area": 15 * 16, "box": [5, 4, 15, 16]},
        {"label": 40, "area": 15 * 18, "box": [25, 10, 15, 18]},
    ]
    with np.load(done.folder / "probs/000000.npz") as file:
        assert set(file["rows"]) <= {0, 9, 40}

    (tmp_path / "masks").mkdir()
    Image.fromarray(ids).save(tmp_path / "masks/1.png")
    options = SegmentOptions(("labels", "json"), masks=GivenMasks(tmp_path / "masks"))
    done = segment_video(follower, [frame(t, size) for t in range(3)], tmp_path / "later", options, progress=False)
    assert sorted(p.name for p in (done.folder / "labels").iterdir()) == ["000001.png", "000002.png"]
    numbers = json.loads((done.folder / "frames.json").read_text())
    assert [f["labels"] is None for f in numbers["frames"]] == [True, False, False]


def test_a_model_that_follows_objects_wants_some(tmp_path, follower):
    with pytest.raises(ConfigError, match="without a mask"):
        segment_video(follower, [frame(0)], tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_scores_that_are_no_probabilities(tmp_path, model, monkeypatch):
    monkeypatch.setattr(model, "score_kind", "scores")  # as THE-Mask's
    with pytest.raises(ConfigError, match=r"--save probs: probabilities of a FrameSegmentor") as refused:
        segment_video(model, [frame(0)], tmp_path / "out", SegmentOptions(("labels", "probs")), progress=False)
    assert refused.value.action == "leave probs out" and not (tmp_path / "out").exists()


def test_ctrl_c_keeps_what_is_done_of_a_single_video(tmp_path, model, caplog):
    def frames():
        for t in range(30):
            if t == 20:
                raise KeyboardInterrupt
            yield frame(t)

    everything = SegmentOptions(("labels", "overlay", "video", "json"))
    with pytest.raises(KeyboardInterrupt):
        segment_video(model, frames(), tmp_path, everything, progress=False)
    folder = tmp_path / "frames"
    record = json.loads((folder / "run.json").read_text())
    count = record["frames"]
    assert record["status"] == "interrupted" and 10 < count <= 20
    assert record["files"] == ["frames.json", "frames_overlay.part.mp4", "labels", "overlay"]
    assert len(list((folder / "labels").iterdir())) == len(list((folder / "overlay").iterdir())) == count
    assert len(json.loads((folder / "frames.json").read_text())["frames"]) == count
    video = cv2.VideoCapture(str(folder / "frames_overlay.part.mp4"))
    assert sum(video.read()[0] for _ in range(30)) == count
    assert f"interrupted after {count} frames" in caplog.text and "frames_overlay.part.mp4" in caplog.text
    with pytest.raises(KeyboardInterrupt):  # of several nothing is left, but what was there before
        segment_video(model, frames(), tmp_path / "many", everything, progress=False, several=True)
    assert not (tmp_path / "many").exists()
    segment_video(model, [frame(0)], tmp_path, SegmentOptions(("labels",)), progress=False)
    assert sorted(path.name for path in folder.iterdir()) == ["labels", "run.json"]


def test_a_signal_at_the_very_end_comes_after_it(tmp_path, model, caplog):
    closed = threading.Event()

    def frames():
        yield frame(0)
        yield frame(1)
        closed.set()

    def interrupt():
        closed.wait(60)
        places = (".frames.unfinished/frames.json", "frames/run.json")  # the first appears while outputs are closed
        while not any((tmp_path / place).exists() for place in places):
            time.sleep(0.001)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        segment_video(model, frames(), tmp_path, SegmentOptions(("json", "labels", "video")), progress=False)
        thread.join()
    thread.join()
    assert json.loads((tmp_path / "frames/run.json").read_text())["status"] == "finished"
    assert len(list((tmp_path / "frames/labels").iterdir())) == 2


@contextlib.contextmanager
def largest_file(size: int):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", ["labels", "overlay", "video", "probs", "json"])
def test_a_full_disk_is_told_and_what_was_there_stays(tmp_path, model, kind):
    segment_video(model, [frame(0)], tmp_path, SegmentOptions((kind,)), progress=False)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with largest_file(300), pytest.raises(WriteError, match="the file is larger than allowed here"):
        segment_video(model, [frame(t) for t in range(12)], tmp_path, SegmentOptions((kind,)), progress=False)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]


def test_the_numbers_of_a_video_called_run_are_not_lost(tmp_path, model):
    (tmp_path / "run").mkdir()
    cv2.imwrite(str(tmp_path / "run/0.png"), frame(0))
    done = segment_video(model, tmp_path / "run", tmp_path / "out", SegmentOptions(("json",)), progress=False)
    assert done.files == ("run_.json",)
    assert len(json.loads((done.folder / "run_.json").read_text())["frames"]) == 1
    assert json.loads((done.folder / "run.json").read_text())["status"] == "finished"


def test_frames_that_change_their_size(tmp_path, model):
    with pytest.raises(DataError, match="all frames of a video to have one size"):
        segment_video(model, [frame(0), frame(1), frame(2, (30, 40))], tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [dict(opacity=3), dict(palette=[[0, 0, 256]]), dict(masks="m.png"), dict(amp="bfloat16"), dict(save="labels")],
)
def test_options_of_other_types_or_ranges(wrong):
    with pytest.raises(ConfigError, match=f"^{next(iter(wrong))}"):
        SegmentOptions(**wrong)


def test_a_palette_has_a_colour_for_every_label(tmp_path, model, follower):
    with pytest.raises(ConfigError, match=f"a palette of 1 colours\n  expected: {model.num_classes}, one for each"):
        SegmentOptions(palette=[[1, 2, 3]]).check(model)
    Image.fromarray(np.full((8, 8), 2, np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(ConfigError, match="expected: 3, one for each"):
        SegmentOptions(palette=[[0, 0, 0], [1, 2, 3]], masks=GivenMasks(tmp_path / "m.png")).check(follower)
    SegmentOptions(palette=[[0, 0, 0]] * 3, masks=GivenMasks(tmp_path / "m.png")).check(follower)
