"""Masks that are given for any video: which mask belongs to which frame."""

import numpy as np
import pytest
from PIL import Image

from mmseg.datasets.mask_inputs import GivenMasks
from mmseg.errors import DataError
from mmseg.structures import Frame

SIZE = (6, 8)


def write(path, value=3, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size, np.uint8)
    mask[1:3, 2:5] = value
    Image.fromarray(mask).save(path)
    return path


def frames(*names):
    for number, name in enumerate(names):
        yield Frame(number, name, np.zeros((*SIZE, 3), np.uint8))


def given(masks, *names, **more) -> dict[str, int]:
    """The largest id in the mask of every frame that has one."""
    shown = masks.shown(frames(*names), "clip", **more)
    return {frame.name: int(frame.given.max()) for frame in shown if frame.given is not None}


def test_a_mask_for_the_first_frame(tmp_path):
    masks = GivenMasks(write(tmp_path / "first.png"))
    assert given(masks, "000010", "000020") == {"000010": 3} == given(masks, "000010")
    assert given(GivenMasks(write(tmp_path / "painted.png", 255)), "a", "b") == {"a": 1}
    assert masks.ids == [0, 3] and GivenMasks(tmp_path / "painted.png").ids == [0, 1]


def test_masks_belong_to_the_frames_of_their_names(tmp_path, caplog):
    for name, value in (("00000", 1), ("00002", 5), ("00009", 7)):
        write(tmp_path / "numbers" / f"{name}.png", value)
    masks = GivenMasks(tmp_path / "numbers")
    assert given(masks, "000000", "000001", "000002") == {"000000": 1, "000002": 5}
    assert "1 masks are for no frame and were not used: 00009.png" in caplog.text
    write(tmp_path / "names/DSC_7.png")
    assert given(GivenMasks(tmp_path / "names"), "DSC_6", "DSC_7", "DSC_07") == {"DSC_7": 3}
    assert given(GivenMasks(tmp_path / "names"), "000006", "000007") == {"000007": 3}  # of a video file
    write(tmp_path / "names/b_8.png")
    assert given(GivenMasks(tmp_path / "names"), "000007", "DSC_7", "b_8") == {"DSC_7": 3, "b_8": 3}


def test_each_video_has_its_own_folder(tmp_path):
    write(tmp_path / "clip/0.png", 2)
    write(tmp_path / "0.png", 4)
    masks = GivenMasks(tmp_path)
    assert given(masks, "000000", several=True) == {"000000": 2} == given(masks, "000000")
    (tmp_path / "clip/0.png").unlink()
    (tmp_path / "clip").rmdir()
    assert given(masks, "000000") == {"000000": 4}
    with pytest.raises(DataError, match="no masks for video 'clip'"):
        given(masks, "000000", several=True)


def test_what_is_refused(tmp_path):
    with pytest.raises(DataError, match="no mask"):
        GivenMasks(tmp_path / "gone.png")
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "colours.png")
    with pytest.raises(DataError, match="colours"):
        GivenMasks(tmp_path / "colours.png")
    with pytest.raises(DataError, match="no object in the mask"):
        given(GivenMasks(write(tmp_path / "empty.png", 0)), "a")
    with pytest.raises(DataError, match="mask of 9x9 pixels for a frame of 8x6"):
        given(GivenMasks(write(tmp_path / "large.png", size=(9, 9))), "a")
    write(tmp_path / "nothing/000000.png", 0)
    write(tmp_path / "nothing/000001.png", 0)
    with pytest.raises(DataError, match=r"no object in the 2 masks in .* that are for frames of 'clip'"):
        given(GivenMasks(tmp_path / "nothing"), "000000", "000001", "000002")
    write(tmp_path / "nothing/000001.png", 3)
    given(GivenMasks(tmp_path / "nothing"), "000000", "000001", "000002")
    write(tmp_path / "masks/7.png")
    with pytest.raises(DataError, match=r"none of the 1 masks .* is for a frame of 'clip'"):
        given(GivenMasks(tmp_path / "masks"), "000000", "000001")


def test_masks_with_soft_edges_are_told(tmp_path, caplog):
    soft = np.zeros((60, 90), np.uint8)
    soft[20:28, 20:25] = (3, 60, 130, 190, 252)
    soft[20:40, 25:60] = 255
    Image.fromarray(soft).save(tmp_path / "soft.png")
    frame = Frame(0, "0", np.zeros((60, 90, 3), np.uint8))
    next(GivenMasks(tmp_path / "soft.png").shown([frame], "clip"))
    assert "soft.png: 6 objects, most of them on few pixels" in caplog.text
