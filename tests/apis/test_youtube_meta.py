"""Objects of ``meta.json`` beside the masks that are there."""

from __future__ import annotations

import json

import pytest

from mmseg.apis.youtube_meta import youtube_objects
from mmseg.errors import DataError

STEMS = ["00005", "00010", "00015"]


def objects_of(tmp_path, *frames: list[str] | None) -> list[list[int] | None]:
    """Where objects with these frames are annotated, of a video with masks of STEMS."""
    objects = {str(k): {"category": "dog", "frames": names} for k, names in enumerate(frames, 1)}
    path = tmp_path / "meta.json"
    path.write_text(json.dumps({"videos": {"a": {"objects": objects}, "elsewhere": {"objects": objects}}}))
    found = youtube_objects(path, {"a": STEMS, "not in the file": STEMS})
    assert list(found) == ["a"] and {category for category, _ in found["a"].values()} == {"dog"}
    return [positions for _, positions in found["a"].values()]


def test_frames_with_masks(tmp_path, caplog):
    assert objects_of(tmp_path, STEMS, STEMS[:0:-1], STEMS[1:2], [], None) == [[0, 1, 2], [2, 1], None, None, None]
    assert not caplog.text


def test_a_frame_that_gives_an_object_needs_no_mask(tmp_path, caplog):
    """All others count, one alone, too."""
    assert objects_of(tmp_path, ["00000", *STEMS], ["00003", "00005"], ["00010", "00000"]) == [
        [-1, 0, 1, 2],
        [-1, 0],
        [-1, 1],
    ]
    assert "2 frames in which it has objects are without mask" in caplog.text
    assert "the first is '00000' of video 'a'" in caplog.text


def test_later_frames_without_mask_are_told(tmp_path, caplog):
    assert objects_of(tmp_path, ["00005", "00010", "00020"]) == [[0, 1]]
    assert "1 frames in which it has objects are without mask" in caplog.text


def test_frames_of_which_none_has_a_mask_are_refused(tmp_path):
    with pytest.raises(DataError, match="object 2 of video 'a' has frames '0' to '1'"):
        objects_of(tmp_path, STEMS, ["0", "1"])
