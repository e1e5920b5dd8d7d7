"""A data set in the VSPW layout is built beside its place and put there whole, whoever else does the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mmseg.errors import DataError, WriteError
from mmseg.making.vspw_layout import new_folder
from tests.tools.processes import running


def write_set(folder: Path, mark: str) -> None:
    (folder / "content").write_text(mark)
    (folder / "recipe.json").write_text(json.dumps({"mark": mark}))


def made(root: Path, mark: str, **options: bool) -> Path:
    with new_folder(root, **options) as building:
        write_set(building, mark)
    return root


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failing_source_keeps_the_old_data_set(tmp_path):
    root = made(tmp_path / "set", "old")
    for error in (DataError("a damaged frame"), KeyboardInterrupt()):
        with pytest.raises(type(error)), new_folder(root, overwrite=True) as building:
            write_set(building, "half")
            raise error
    assert (root / "content").read_text() == "old" and names(tmp_path) == ["set"]
    made(root, "new", overwrite=True)
    assert (root / "content").read_text() == "new" and names(tmp_path) == ["set"]
    assert names(root) == ["content", "recipe.json"]


def test_the_same_set_made_twice_at_once(tmp_path):
    """The second to finish finds it done."""
    with new_folder(tmp_path / "set") as slow:
        write_set(slow, "same")
        made(tmp_path / "set", "same")
        before = (tmp_path / "set").stat().st_ino
    assert (tmp_path / "set").stat().st_ino == before and names(tmp_path) == ["set"]


def test_another_set_that_appears_meanwhile_is_not_replaced(tmp_path):
    with pytest.raises(DataError, match="holds a data set already"), new_folder(tmp_path / "set") as slow:
        write_set(slow, "slow")
        made(tmp_path / "set", "fast")
    assert (tmp_path / "set" / "content").read_text() == "fast" and names(tmp_path) == ["set"]
    with new_folder(tmp_path / "set", overwrite=True) as slow:
        write_set(slow, "slow")
        made(tmp_path / "set", "faster", overwrite=True)
    assert (tmp_path / "set" / "content").read_text() == "slow" and names(tmp_path) == ["set"]


BUILD = """
import json, sys, time
from pathlib import Path
from mmseg.making.vspw_layout import new_folder
with new_folder(Path(sys.argv[1]), overwrite=True) as building:
    (building / "content").write_text("half")
    print(building, flush=True)
    time.sleep(60)
"""


def test_the_folder_of_a_living_builder_is_left_alone_and_a_killed_ones_is_removed(tmp_path):
    root = made(tmp_path / "set", "old")
    with running([sys.executable, "-c", BUILD, root], tmp_path) as process:  # which kills it in the end
        building = Path(next(process.stdout).strip())
        made(root, "new", overwrite=True)
        assert (building / "content").read_text() == "half"
    assert building.exists()
    made(root, "newer", overwrite=True)
    assert names(tmp_path) == ["set"] and (root / "content").read_text() == "newer"


def test_a_set_that_a_killed_run_had_moved_aside_is_put_back(tmp_path):
    root = made(tmp_path / "set", "old")
    root.rename(tmp_path / ".set.making.01234567.writing.old")
    with pytest.raises(DataError, match="holds a data set already"):
        made(root, "new")
    assert (root / "content").read_text() == "old" and names(tmp_path) == ["set"]


def test_a_link_to_a_larger_disk_stays_one(tmp_path):
    (tmp_path / "large disk").mkdir()
    (tmp_path / "set").symlink_to(tmp_path / "large disk" / "set")
    made(tmp_path / "set", "new")
    assert (tmp_path / "set").is_symlink() and (tmp_path / "large disk" / "set" / "content").read_text() == "new"


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="a part of the path is a file"):
        made(tmp_path / "file" / "set", "new")
    with pytest.raises(WriteError, match="set: cannot be written, the disk is full"), new_folder(tmp_path / "set"):
        Path("/dev/full").write_bytes(b"x")
    assert names(tmp_path) == ["file"]
