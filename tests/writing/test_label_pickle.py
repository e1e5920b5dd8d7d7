"""``res.pkl``: readable without this package, one run's or another's and never a mixture, complete or not there."""

import io
import json
import pickle
import pickletools
import subprocess
import sys

import numpy as np
import pytest

from mmseg.errors import ConfigError, DataError, WriteError
from mmseg.writing.label_pickle import LabelPickleWriter, pickle_program, read_label_pickle
from tests.tools.processes import running
from tests.writing.feeding import OWNERS, expected, feed, in_two_processes, largest_file, left_in, result, videos


def same(maps, others) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(maps, others, strict=True))


def test_a_plain_list_of_maps(tmp_path):
    writer = LabelPickleWriter(tmp_path / "new folder" / "res.pkl")
    feed(writer)
    assert not (tmp_path / "new folder" / "res.pkl").exists()
    writer.finish()
    assert left_in(tmp_path) == ["new folder/res.pkl"]
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
    assert eval(out) == [("uint8", m.shape, int(m[1:].sum())) for m in expected()]


def test_the_pickle_is_valid_for_pickletools(tmp_path):
    writer = LabelPickleWriter(tmp_path / "res.pickle")
    feed(writer)
    writer.finish()
    pickletools.dis((tmp_path / "res.pickle").read_bytes(), out=io.StringIO())  # raises if malformed
    assert same(pickle.loads((tmp_path / "res.pickle").read_bytes()), expected())


def test_none_where_a_frame_has_no_result(tmp_path):
    """Frames that were not wanted, at the start, in the middle and at the end, and one without an answer."""
    missing = [(0, 0), (0, 1), (1, 9), (1, 17), (2, 3), (2, 4)]
    writer = LabelPickleWriter(tmp_path / "res.pkl")
    writer.start(videos(), [0, 0, 0])
    for video in videos():
        writer.begin_video(video)
        for number in range(video.num_frames):
            if (video.index, number) == (1, 4):
                writer.add(result(video, number, None))
            elif (video.index, number) not in missing:
                writer.add(result(video, number, np.full((4, 6), number, np.uint8)))
        writer.end_video()
    writer.finish()
    maps = pickle.loads((tmp_path / "res.pkl").read_bytes())
    frames = [(v.index, t) for v in videos() for t in range(v.num_frames)]
    assert [frames[i] for i, m in enumerate(maps) if m is None] == sorted([*missing, (1, 4)])
    assert all(m is None or m[0, 0] == t for m, (_, t) in zip(maps, frames, strict=True))
    for ours, read in zip(maps, read_label_pickle(tmp_path / "res.pkl"), strict=True):
        assert (ours is None and read is None) or np.array_equal(ours, read)


def test_a_first_frame_without_result_is_still_read_map_by_map(tmp_path):
    (tmp_path / "res.pkl").write_bytes(b"\x80\x05]Na" + pickle_program(np.ones((6, 8), np.uint8)) + b"not looked at")
    maps = read_label_pickle(tmp_path / "res.pkl")
    assert next(maps) is None and np.array_equal(next(maps), np.ones((6, 8)))


def test_results_out_of_order_are_a_mistake_of_the_program(tmp_path):
    writer = LabelPickleWriter(tmp_path / "res.pkl")
    writer.start(videos(), [0, 0, 0])
    writer.begin_video(videos()[0])
    writer.add(result(videos()[0], 2, None))
    with pytest.raises(RuntimeError, match="frame 1 after that of frame 2"):
        writer.add(result(videos()[0], 1, None))
    writer.abort()


def test_an_aborted_run_keeps_the_old_files(tmp_path):
    (tmp_path / "res.pkl").write_bytes(pickle.dumps(["old"]))
    (tmp_path / "res.json").write_text("old")
    writer = LabelPickleWriter(tmp_path / "res.pkl", report=dict)
    feed(writer)
    writer.abort()
    assert pickle.loads((tmp_path / "res.pkl").read_bytes()) == ["old"]
    assert (tmp_path / "res.json").read_text() == "old"
    assert left_in(tmp_path) == ["res.json", "res.pkl"]


def test_two_runs_with_one_name_never_mix(tmp_path):
    """Each run finds its own maps and its own scores when it reports success, whatever the other has done meanwhile."""
    path = tmp_path / "res.pkl"

    def check(run: int) -> None:
        assert same(pickle.loads(path.read_bytes()), expected(run))
        assert json.loads((tmp_path / "res.json").read_text()) == {"run": run}

    first, second = (LabelPickleWriter(path, report=lambda run=run: {"run": run}) for run in (1, 2))
    first.start(videos(), [0, 0, 0])
    feed(second, run=2)  # starts later, is faster
    second.finish()
    check(2)
    for video in videos():
        first.begin_video(video)
        for number in range(video.num_frames):
            first.add(result(video, number, expected(1)[sum(v.num_frames for v in videos()[: video.index]) + number]))
        first.end_video()
    first.finish()
    check(1)
    assert left_in(tmp_path) == ["res.json", "res.pkl"]


def test_scores_of_an_earlier_result_do_not_stay_beside_another_one(tmp_path):
    (tmp_path / "res.json").write_text("{}")
    writer = LabelPickleWriter(tmp_path / "res.pkl")
    feed(writer)
    writer.finish()
    assert left_in(tmp_path) == ["res.pkl"]


@pytest.mark.parametrize("name", ["res.txt", "res", "res.pkl.gz"])
def test_wrong_suffix(tmp_path, name):
    with pytest.raises(ConfigError, match=r"\.pkl or \.pickle"):
        LabelPickleWriter(tmp_path / name)


def test_unwritable_places_are_told_before_the_first_frame(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WriteError, match="a part of the path is a file"):
        LabelPickleWriter(tmp_path / "file" / "res.pkl").start(videos(), [0, 0, 0])
    (tmp_path / "res.json").mkdir()
    writer = LabelPickleWriter(tmp_path / "res.pkl", report=dict)
    with pytest.raises(WriteError, match="there is a folder of this name"):
        writer.start(videos(), [0, 0, 0])
    writer.abort()
    assert left_in(tmp_path) == ["file"]


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path):
    writer = LabelPickleWriter(tmp_path / "res.pkl", report=dict)
    with largest_file(1000), pytest.raises(WriteError, match=r"res\.pkl: cannot be written, the file is larger than"):
        feed(writer)
        writer.finish()
    writer.abort()
    assert left_in(tmp_path) == []


def test_what_a_killed_run_left_is_removed_by_the_next_one(tmp_path):
    code = (
        "import time; from tests.writing.feeding import feed\n"
        "from mmseg.writing.label_pickle import LabelPickleWriter\n"
        "feed(LabelPickleWriter('res.pkl', report=dict)); print('fed', flush=True); time.sleep(600)"
    )
    with running([sys.executable, "-c", code], tmp_path) as process:  # which kills it in the end
        assert next(process.stdout) == "fed\n"
        living = left_in(tmp_path)
        writer = LabelPickleWriter(tmp_path / "res.pkl")
        feed(writer)
        writer.abort()
        assert left_in(tmp_path) == living and len(living) == 2  # those of a living run stay
    assert left_in(tmp_path) == living
    feed(writer)
    writer.finish()
    assert left_in(tmp_path) == ["res.pkl"]


JOIN = """
from mmseg.writing.label_pickle import LabelPickleWriter
writer = LabelPickleWriter("out/res.pkl", {tmpdir}, {gather}, report=lambda: {{"main": rank == 0}})
feed(writer, rank=rank, owners=OWNERS, missing=[(0, 2), (1, 17)])
writer.finish()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("tmpdir", "gather"), [(None, False), ("parts of it", False), (None, True)])
def test_processes_join_their_videos_in_the_order_of_the_data(tmp_path, tmpdir, gather):
    in_two_processes(JOIN.format(tmpdir=repr(tmpdir), gather=gather), tmp_path)
    maps = pickle.loads((tmp_path / "out" / "res.pkl").read_bytes())
    wanted = expected()
    wanted[2] = wanted[7 + 17] = None
    assert [m is None for m in maps] == [m is None for m in wanted]
    assert same([m for m in maps if m is not None], [m for m in wanted if m is not None])
    assert json.loads((tmp_path / "out" / "res.json").read_text()) == {"main": True}
    assert left_in(tmp_path) == ["out/res.json", "out/res.pkl"]
    assert OWNERS == [1, 0, 1]


APART = """
from mmseg.writing.label_pickle import LabelPickleWriter
writer = LabelPickleWriter("res.pkl", f"parts {rank}")
try:
    feed(writer, rank=rank, owners=OWNERS)
    writer.finish()
except BaseException:
    writer.abort()
    raise
"""


@pytest.mark.slow
def test_parts_that_the_main_process_does_not_see(tmp_path):
    outputs = in_two_processes(APART, tmp_path, status=2)
    assert "000000.part of process 1: No such file" in outputs[0] and "--gpu-collect" in outputs[0]
    assert "Traceback" not in outputs[0] + outputs[1] and left_in(tmp_path) == []


FULL = """
from mmseg.writing.label_pickle import LabelPickleWriter
writer = LabelPickleWriter("res.pkl", gather={gather})
feed(writer, rank=rank, owners=OWNERS)
try:
    with largest_file(3500 if rank == 0 else 10**9):  # a video fits, all together do not
        writer.finish()
except BaseException:
    writer.abort()
    raise
"""


@pytest.mark.slow
@pytest.mark.parametrize("gather", [False, True])
def test_a_disk_that_is_full_when_parts_are_joined_stops_all_processes(tmp_path, gather):
    outputs = in_two_processes(FULL.format(gather=gather), tmp_path, status=2)
    assert "WriteError: res.pkl: cannot be written, the file is larger" in outputs[0]
    assert "WriteError" not in outputs[1] and "Traceback" not in outputs[0] + outputs[1]
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_pickles_of_arrays_of_any_origin_are_read(tmp_path, protocol, dtype):
    maps = [m.astype(dtype) for m in expected()]
    maps[3] = None
    (tmp_path / "res.pkl").write_bytes(pickle.dumps(maps, protocol=protocol))
    read = list(read_label_pickle(tmp_path / "res.pkl"))
    assert read[3] is None and same(read[:3] + read[4:], maps[:3] + maps[4:])


def test_an_empty_list(tmp_path):
    for content in (b"\x80\x05].", pickle.dumps([])):
        (tmp_path / "res.pkl").write_bytes(content)
        assert list(read_label_pickle(tmp_path / "res.pkl")) == []


MAP = pickle_program(np.zeros((6, 8), np.uint8))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x05]",
        b"\x80\x05]" + MAP,  # the end is missing
        b"\x80\x05]" + MAP[:-9] + b".",
        b"\x80\x05]N.",
        b"\x80\x05]" + MAP.replace(b"uint8", b"uintX") + b".",
        b"\x80\x05]" + MAP[:16] + b"\x07" + MAP[17:] + b".",  # 7 rows of 8 in 48 bytes
        b"\x80\x05]" + MAP[:16] + b"\xff\xff\xff\xff" + MAP[20:] + b".",
        b"\x80\x05]" + MAP[:34] + b"\xff" * 8 + MAP[42:] + b".",  # more bytes than any computer has
        b"\x80\x05]" + MAP[:34] + b"\xff\xff\xff\x7f\0\0\0\0" + MAP[42:] + b".",
        b"\x80\x05]cos\nsystem\n\x8c\x04true\x85Ra.",
        b"\x80\x05]cnumpy\nfromfile\n\x8c\x09/dev/zero\x85Ra.",
    ],
)
def test_damaged_pickles_are_refused(tmp_path, content):
    (tmp_path / "res.pkl").write_bytes(content)
    with pytest.raises(DataError, match=r"res\.pkl: cannot be read .*(truncated|damaged|no pickle)"):
        list(read_label_pickle(tmp_path / "res.pkl"))


def test_a_missing_pickle(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        list(read_label_pickle(tmp_path / "res.pkl"))
