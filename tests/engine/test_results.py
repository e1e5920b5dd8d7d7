"""Result files: readable without this package, complete or not there."""

import io
import pickle
import pickletools
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mmseg.distributed import share_videos
from mmseg.errors import ConfigError, DataError
from mmseg.structures import Frame, Result, Video
from mmseg.visualization import palette_table
from mmseg.writing.results import PickleWriter, PngWriter, write_json

VIDEOS = [Video(0, "first", 3), Video(1, "second", 2)]


def label_maps(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 124, (9 + i, 14), np.uint8) for i in range(5)]


def feed(writer, maps: list[np.ndarray]) -> None:
    writer.start(VIDEOS, [0, 0])
    maps = iter(maps)
    for video in VIDEOS:
        writer.begin_video(video)
        for number in range(video.num_frames):
            labels = next(maps)
            frame = Frame(number, f"{number:08d}", np.zeros((*labels.shape, 3), np.uint8))
            writer.add(Result(video, frame, labels))
        writer.end_video()


def test_pickle_is_a_plain_list_of_maps(tmp_path):
    maps = label_maps()
    writer = PickleWriter(tmp_path / "new folder" / "res.pkl")
    feed(writer, maps)
    assert not (tmp_path / "new folder" / "res.pkl").exists()
    writer.finish()
    assert [p.name for p in (tmp_path / "new folder").iterdir()] == ["res.pkl"]
    # a bare interpreter: no path to this package, no site customisation
    code = (
        "import pickle, sys; maps = pickle.load(open(sys.argv[1], 'rb'));"
        "assert type(maps) is list and 'mmseg' not in sys.modules;"
        "maps[0][0, 0] += 1;"  # writeable
        "print([(m.dtype.name, m.shape, int(m[1:].sum())) for m in maps])"
    )
    out = subprocess.run(
        [sys.executable, "-I", "-c", code, tmp_path / "new folder" / "res.pkl"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    ).stdout  # fmt: skip
    assert eval(out) == [("uint8", m.shape, int(m[1:].sum())) for m in maps]


def test_pickle_program_is_valid_for_pickletools(tmp_path):
    writer = PickleWriter(tmp_path / "res.pickle")
    feed(writer, label_maps())
    writer.finish()
    pickletools.dis((tmp_path / "res.pickle").read_bytes(), out=io.StringIO())  # raises if malformed
    loaded = pickle.loads((tmp_path / "res.pickle").read_bytes())
    assert all(np.array_equal(a, b) for a, b in zip(loaded, label_maps(), strict=True))


def test_an_aborted_run_keeps_the_old_pickle(tmp_path):
    path = tmp_path / "res.pkl"
    path.write_bytes(pickle.dumps(["old"]))
    writer = PickleWriter(path)
    feed(writer, label_maps())
    writer.abort()
    assert pickle.loads(path.read_bytes()) == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["res.pkl"]


@pytest.mark.parametrize("name", ["res.txt", "res", "res.pkl.gz"])
def test_wrong_suffix(tmp_path, name):
    with pytest.raises(ConfigError, match=r"\.pkl or \.pickle"):
        PickleWriter(tmp_path / name)


def test_unwritable_places(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write"):
        PickleWriter(tmp_path / "file" / "res.pkl").start(VIDEOS, [0, 0])
    with pytest.raises(DataError, match="cannot write"):
        write_json(tmp_path / "file" / "res.json", {})


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path):
    writer = PickleWriter(tmp_path / "res.pkl")
    writer.start(VIDEOS, [0, 0])
    writer._file.close()
    writer._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    writer.begin_video(VIDEOS[0])
    with pytest.raises(DataError, match="No space left"):
        writer.add(Result(VIDEOS[0], Frame(0, "0", np.zeros((4, 4, 3), np.uint8)), np.zeros((4, 4), np.uint8)))
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_submission_pngs(tmp_path):
    palette = [[i, 2 * i % 256, 255 - i] for i in range(124)]
    maps = label_maps()
    writer = PngWriter(tmp_path / "result_submission", palette_table(palette, 124))
    feed(writer, maps)
    writer.finish()
    picture = Image.open(tmp_path / "result_submission" / "second" / "00000001.png")
    assert picture.mode == "P"
    assert np.array_equal(np.asarray(picture), maps[4])
    assert np.array_equal(np.asarray(picture.getpalette()).reshape(-1, 3)[:124], palette)


def test_videos_are_shared_out_by_frames():
    owners = share_videos([100, 10, 60, 50, 5, 5], 2)
    frames = [sum(n for n, o in zip([100, 10, 60, 50, 5, 5], owners) if o == rank) for rank in (0, 1)]
    assert sorted(frames) == [115, 115]
    assert share_videos([3, 2], 4).count(0) == 1
    assert share_videos([7, 7, 7], 1) == [0, 0, 0]
