"""The folder of a video's results: whole or absent."""

import json

import pytest

from mmseg.errors import DataError, WriteError
from mmseg.writing.result_folder import ResultFolder, finished_record


def make(out, name="a/clip", files=("labels/0.png", "clip.json"), record=None):
    with ResultFolder(out, name) as folder:
        for file in files:
            (folder.path / file).parent.mkdir(parents=True, exist_ok=True)
            (folder.path / file).write_text(file)
        if record is not None:
            assert folder.publish(record) == sorted({file.split("/")[0] for file in files})


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_whole_or_absent(tmp_path):
    make(tmp_path)
    assert list(tmp_path.iterdir()) == [] and finished_record(tmp_path / "a/clip") is None
    make(tmp_path / "new/out")
    assert list(tmp_path.iterdir()) == []  # what was there stays, what was made for nothing goes
    make(tmp_path, record={"frames": 1})
    assert files_in(tmp_path) == ["a/clip/clip.json", "a/clip/labels/0.png", "a/clip/run.json"]
    assert finished_record(tmp_path / "a/clip") == {"frames": 1, "files": ["clip.json", "labels"]}


def test_what_an_earlier_run_has_made_goes_and_other_files_stay(tmp_path):
    make(tmp_path, record={})
    (tmp_path / "a/clip/mine.txt").touch()
    make(tmp_path, files=("labels/1.png",), record={})
    assert files_in(tmp_path) == ["a/clip/labels/1.png", "a/clip/mine.txt", "a/clip/run.json"]


def test_a_record_that_cannot_be_written_changes_nothing(tmp_path):
    make(tmp_path, record={"frames": 1})
    with pytest.raises(TypeError):
        make(tmp_path, files=("labels/1.png",), record={"frames": object()})
    assert files_in(tmp_path) == ["a/clip/clip.json", "a/clip/labels/0.png", "a/clip/run.json"]
    assert finished_record(tmp_path / "a/clip") == {"frames": 1, "files": ["clip.json", "labels"]}


def test_a_record_cannot_name_files_elsewhere(tmp_path):
    make(tmp_path, record={})
    for name in ("keep.txt", "a/keep.txt"):
        (tmp_path / name).touch()
    record = {"files": ["../keep.txt", "../../keep.txt", str(tmp_path / "keep.txt"), "..", "", 3]}
    (tmp_path / "a/clip/run.json").write_text(json.dumps(record))
    make(tmp_path, files=("labels/1.png",), record={})
    assert {"keep.txt", "a/keep.txt"} <= set(files_in(tmp_path))
    (tmp_path / "a/clip/run.json").write_text("[1]")
    assert finished_record(tmp_path / "a/clip") is None


def test_refused(tmp_path):
    with pytest.raises(DataError, match="name of a result"):
        ResultFolder(tmp_path, "../elsewhere")
    (tmp_path / "clip").touch()
    with pytest.raises(WriteError, match="a part of the path is a file"):
        ResultFolder(tmp_path, "clip")
    with ResultFolder(tmp_path, "b"), pytest.raises(WriteError, match="in use by a segmentation of 'b'"):
        ResultFolder(tmp_path, "b")
