"""The hidden folder of a run: its own, gone with the run, and removed by the next one if the run was killed."""

import sys

import pytest

from mmseg.errors import WriteError
from mmseg.writing.parts import PartFolder
from tests.tools.processes import finish
from tests.writing.feeding import left_in


def folders(path) -> set[str]:
    return {str(entry.relative_to(path)) for entry in path.rglob("*") if entry.is_dir()}


def test_two_runs_have_two_folders(tmp_path):
    first, second = PartFolder(tmp_path / "new" / "res.pkl"), PartFolder(tmp_path / "new" / "res.pkl")
    first.make()
    second.make()
    assert first.path != second.path and first.path.is_dir() and second.path.is_dir()
    (first.path / "part").write_text("x")
    first.remove()
    assert folders(tmp_path) == {"new", f"new/{second.path.name}"}
    first.remove()  # once more, without effect
    second.remove()
    assert folders(tmp_path) == {"new"} and left_in(tmp_path) == []


def test_what_killed_runs_have_left_is_removed(tmp_path):
    code = (
        "import os; from mmseg.writing.parts import PartFolder; parts = PartFolder('res.pkl'); parts.make();"
        "(parts.path / 'part').write_text('x'); os.kill(os.getpid(), 9)"
    )
    finish([sys.executable, "-c", code], tmp_path, status=-9)
    (dead,) = folders(tmp_path)
    living, other = PartFolder(tmp_path / "res.pkl"), PartFolder(tmp_path / "other.pkl")
    assert set(left_in(tmp_path)) == {f"{dead}.writing", f"{dead}/part"}
    other.make()
    assert folders(tmp_path) == {dead, other.path.name}
    living.make()
    assert folders(tmp_path) == {living.path.name, other.path.name}
    PartFolder(tmp_path / "res.pkl").sweep()
    assert folders(tmp_path) == {living.path.name, other.path.name}
    living.remove()
    other.remove()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    parts = PartFolder(tmp_path / "file" / "res.pkl", advice="give another folder")
    with pytest.raises(WriteError, match=r"a part of the path is a file(.|\n)*give another folder"):
        parts.make()
    parts.remove()
    assert left_in(tmp_path) == ["file"]
