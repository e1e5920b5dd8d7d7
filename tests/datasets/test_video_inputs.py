"""What a user gives becomes one video or many, named and never mixed."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmseg.datasets.sources import FrameSource, video_sources
from mmseg.datasets.video_inputs import find_videos
from mmseg.errors import DataError
from tests.datasets.made_videos import NTSC, write_video


def tree(root: Path, *names: str) -> Path:
    """Files, of which pictures hold their number as grey."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".jpg", ".png")):
            cv2.imwrite(str(root / name), np.full((8, 8, 3), number, np.uint8))
        else:
            (root / name).touch()
    return root


def names(given) -> list[str]:
    return [video.name for video in find_videos(given)]


def files(video) -> list[str]:
    return [Path(path).name for path in video.source]


def test_one_video(tmp_path):
    root = tree(tmp_path, "v/10.jpg", "v/9.jpg", "v/.1.jpg", "v/notes.txt", "v/sub/notes.txt")
    (video,) = find_videos(root / "v")
    assert (video.name, video.place, files(video)) == ("v", str(root / "v"), ["9.jpg", "10.jpg"])
    for given in (f"{root}/v/*.jpg", f"{root}/**/*.jpg", [root / "v/9.jpg", root / "v/10.jpg"]):
        (video,) = find_videos(given)
        assert (video.name, files(video)) == ("v", ["9.jpg", "10.jpg"])
    (picture,) = find_videos(root / "v/9.jpg")
    assert (picture.name, files(picture)) == ("9", ["9.jpg"])


def test_many_videos_of_a_folder_come_in_natural_order(tmp_path, caplog):
    root = tree(tmp_path, "v10/1.jpg", "v2/1.jpg", "v2/2.png", ".v1/1.jpg", "README.md", "empty/notes.txt", "v3/a.mp4")
    assert names(root) == ["v2", "a", "v10"]
    assert caplog.messages == [f"{root}: no pictures in 1 of its folders: empty"]
    assert names([root / "v10", root / "v2"]) == ["v10", "v2"]
    clips = tree(tmp_path / "clips", "b.MP4", "a10.mkv", "a9.webm", ".c.mp4", "notes.txt")
    assert names(clips) == ["a9", "a10", "b"] == names(f"{clips}/*") == names(f"{clips}/**")
    assert names(f"{clips}/*.mkv") == ["a10"] and names(f"{clips}/a[9]*") == ["a9"]
    assert names(f"{root}/v*") == ["v2", "a", "v10"]


def test_vspw_keeps_frames_beside_masks(tmp_path):
    root = tree(tmp_path / "data", *(f"{v}/{k}/{n}" for v in "ab" for k, n in (("origin", "1.jpg"), ("mask", "1.png"))))
    found = find_videos(root)
    assert [(video.name, files(video)) for video in found] == [("a", ["1.jpg"]), ("b", ["1.jpg"])]
    assert names(root / "b") == ["b"] and names(root / "b" / "origin") == ["origin"]
    assert names(f"{root}/*/origin") == ["a/origin", "b/origin"]


@pytest.mark.parametrize(
    ("there", "given", "words"),
    [
        (["v/1.jpg", "v/a.mp4"], "v", "v: 1 pictures and 1 videos"),
        (["v/1.jpg", "v/sub/1.jpg"], "v", "v: pictures and folders of pictures \\(sub\\)"),
        (["v/a.mp4", "v/sub/1.jpg"], "v", "v: videos and folders of pictures \\(sub\\)"),
        (["v/1.jpg", "v/a.mp4"], "v/*", "1 pictures and 1 videos"),
        (["v/a.mp4", "v/sub/1.jpg"], "v/*", "1 files and 1 folders"),
        (["v/1.jpg", "v/a.mp4"], ["v/1.jpg", "v/a.mp4"], "1 pictures and 1 videos"),
        (["v/sub/a.mp4", "v/sub/1.jpg"], "v", "v/sub: 1 pictures and 1 videos"),
        (["v/1.jpg", "v/1.png"], "v/*", "v/1\\.\\*"),
        (["v/1.jpg", "v/1.png"], "v", "have the same stem"),
        (["v/deep/er/1.jpg"], "v", "holds no pictures and no videos"),
        ([], "no/*.mp4", "nothing matches the pattern"),
        ([], "gone.mp4", "'gone.mp4' does not exist"),
        ([], [], "no video is given"),
    ],
)
def test_what_is_not_clear(tmp_path, monkeypatch, there, given, words):
    monkeypatch.chdir(tree(tmp_path, *there))
    with pytest.raises(DataError, match=words) as caught:
        find_videos(given)
    assert caught.value.expected and caught.value.action


def test_a_list_names_videos_in_its_order(tmp_path, monkeypatch):
    root = tree(tmp_path, "in/b.mp4", "in/a.mp4", "in/v/1.jpg", "here.mp4", "w/2.jpg", "w/1.jpg", "x/1.jpg")
    monkeypatch.chdir(root)
    (root / "in" / "list.txt").write_text("\ufeffb.mp4\n\n# a comment\n  a.mp4 \nhere.mp4\nrtsp://u:p@host//1\nv\n")
    found = find_videos("in/list.txt")
    assert [video.name for video in found] == ["b", "a", "here", "stream", "v"]
    assert found[3].source == "rtsp://u:p@host//1" and found[3].place == "rtsp://u:***@host//1"
    (root / "frames.txt").write_text("w/2.jpg\nx/1.jpg\nw/1.jpg\n")
    assert [(video.name, files(video)) for video in find_videos("frames.txt")] == [
        ("w", ["2.jpg", "1.jpg"]),
        ("x", ["1.jpg"]),
    ]
    with pytest.raises(DataError, match=r"frames\.txt: 2 videos \(w, x\)"):
        FrameSource("frames.txt")
    (root / "w.txt").write_text("w/2.jpg\nw/1.jpg\n")
    assert [frame.image[0, 0, 0] for frame in FrameSource("w.txt")] == [4, 5]
    (root / "in" / "more.txt").write_text("w\n")
    assert names("in/*.txt") == ["b", "a", "here", "stream", "v", "w"]
    assert [frame.image[0, 0, 0] for frame in FrameSource(["w/2.jpg", "w/1.jpg"])] == [4, 5]


def test_the_home_folder(tmp_path, monkeypatch):
    root = tree(tmp_path, "in/a.mp4", "in/b.mp4", "~/c.mp4")
    monkeypatch.setenv("HOME", str(root))
    (root / "l.txt").write_text("~/in/a.mp4\n")
    assert [video.place for video in find_videos([root / "l.txt", "~/in/*.mp4"])] == [
        str(root / "in/a.mp4"),
        str(root / "in/b.mp4"),
    ]
    monkeypatch.chdir(root)
    assert find_videos("~/c.mp4")[0].source == "~/c.mp4"  # what is there under this name is meant


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (b"a.mp4\ngone.mp4", r"l\.txt, line 2: 'gone.mp4' does not exist"),
        (b"a.mp4\nl.txt", r"l\.txt, line 2: a list in a list"),
        (b"a.mp4\n*.txt", r"l\.txt, line 2: a list in a list"),
        (b"a.mp4\nv/1.jpg", r"l\.txt: 1 pictures and 1 videos"),
        (b"\xff\xfe\x00", r"l\.txt is no UTF-8 text"),
        (b"# nothing\n", r"list .*l\.txt names nothing"),
    ],
)
def test_bad_lists(tmp_path, lines, words):
    root = tree(tmp_path, "a.mp4", "v/1.jpg")
    (root / "l.txt").write_bytes(lines)
    with pytest.raises(DataError, match=words):
        find_videos(root / "l.txt")


def test_names_are_unique_and_each_video_comes_once(tmp_path):
    root = tree(tmp_path, "x/clip.mp4", "y/clip.mp4", "y/clip.avi", "y/other.mp4")
    assert names([root / "x/clip.mp4", root / "y/other.mp4", root / "y/clip.mp4"]) == ["x/clip", "other", "y/clip"]
    assert names([root / "y/clip.mp4", root / "y/clip.avi", root / "x/clip.mp4"]) == ["clip_mp4", "clip_avi", "x/clip"]
    assert names([root / "x/clip.mp4", os.path.relpath(root / "x/clip.mp4")]) == ["clip"]
    assert names([0, 1, 0, "rtsp://a", "rtsp://b"]) == ["camera0", "camera1", "stream", "stream_2"]
    tree(root, "stream_2.mp4", ".hidden.mp4", "...mp4")
    assert names(["rtsp://a", root / "stream_2.mp4", "rtsp://b"]) == ["stream", "stream_2", "stream_3"]
    assert names([root / ".hidden.mp4", root / "...mp4"]) == ["hidden", "video"]


def test_results_beside_their_videos_are_no_videos(tmp_path):
    root = tree(tmp_path, "clips/a.mp4", "clips/a/run.json", "clips/a/a_overlay.mp4", "dog/1.jpg", "dog/dog/run.json")
    tree(root, "dog/dog/dog_overlay.mp4", "clips/b/1.mp4")
    assert names(root / "clips") == ["a", "1"] and names(root / "dog") == ["dog"]
    assert names(root / "clips/a") == ["a_overlay"]  # named by itself
    with pytest.raises(DataError, match=r"a \[ that belongs to a name is written \[\[\]"):
        find_videos(root / "x[1]/*.mp4")


def test_sources_are_opened_when_their_turn_comes(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    write_video(tmp_path / "b.mp4")
    broken, whole = video_sources(tmp_path, every=2, max_frames=4)
    assert (broken.name, whole.place) == ("a", str(tmp_path / "b.mp4"))
    with pytest.raises(DataError, match=r"a\.mp4 cannot be opened"):
        broken.open()
    source = whole.open()
    assert (source.name, source.fps, source.length, len(list(source))) == ("b", NTSC / 2, 4, 4)
