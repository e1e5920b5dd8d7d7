"""Objects in data of one's own: other folders and names, masks of some frames, ignored values, colours."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from mmseg.datasets import build_dataset
from mmseg.datasets.davis_vos import DAVISDataset
from mmseg.datasets.static_images import StaticImageDataset
from mmseg.datasets.vos_clips import VOSClipDataset
from mmseg.datasets.vos_pairs import VOSDataset
from mmseg.datasets.youtube_vos import YouTubeVOSDataset
from mmseg.errors import ConfigError, DataError
from mmseg.writing.base import ResultOptions

GIVEN = dict(frames_dir="rgb", masks_dir="gt", frame_suffix="_c.png", mask_suffix="_m.bmp", resolution="")
COLOURS = [[0, 0, 0], [200, 0, 0], [0, 200, 0]]


def mask(t: int) -> np.ndarray:
    """Objects 1 and 2, and a border of 7, (24, 36)."""
    labels = np.zeros((24, 36), np.uint8)
    labels[4:12, 4 + t : 12 + t], labels[14:20, 20:30], labels[:2] = 1, 2, 7
    return labels


def write(root, name="my video", labelled=range(0, 12, 3), colours=False):
    for t in range(12):
        frame = np.random.default_rng(t).integers(0, 256, (24, 36, 3), np.uint8)
        labels = mask(t)
        if colours:
            labels = np.array([*COLOURS, *[[255, 255, 255]] * 5], np.uint8)[labels]
        for folder, end, picture in (("rgb", "_c.png", frame), ("gt", "_m.bmp", labels)):
            (root / folder / name).mkdir(parents=True, exist_ok=True)
            if folder == "rgb" or t in labelled:
                Image.fromarray(picture).save(root / folder / name / f"{t}{end}")
    return root


@pytest.mark.parametrize("colours", [False, True])
def test_clips_are_made_of_the_labelled_frames(tmp_path, colours):
    root = write(tmp_path, colours=colours)
    given = (
        dict(colour_masks=True, palette=COLOURS, ignored_values=[[255] * 3]) if colours else dict(ignored_values=[7])
    )
    with pytest.raises(DataError, match=r"4 masks for 12 frames(.|\n)*unlabelled='keep'"):
        VOSClipDataset(root, crop_size=24, **GIVEN, **given)
    dataset = VOSClipDataset(root, crop_size=24, unlabelled="keep", **GIVEN, **given)
    [video] = dataset.videos
    assert [path.split("/")[-1] for path in video.frames] == ["0_c.png", "3_c.png", "6_c.png", "9_c.png"]
    assert np.array_equal(dataset.load_label(0, 2), np.where(mask(6) == 7, 0, mask(6)))
    sample = dataset[0, (0,)]
    assert set(np.unique(sample["gt_semantic_seg"])) <= {0, 1, 2} and sample["img"].shape == (3, 3, 24, 24)
    assert set(sample["img_metas"]["frames"]) <= {0, 3, 6, 9}  # as the files are called
    plain = dict(given, ignored_values=[])
    if colours:
        with pytest.raises(DataError, match=r"colour \[255, 255, 255\]"):
            VOSClipDataset(root, crop_size=24, unlabelled="keep", **GIVEN, **plain).label_counts()
        with pytest.raises(ConfigError, match="colour_masks=True without a palette"):
            VOSClipDataset(root, unlabelled="keep", colour_masks=True, **GIVEN)
    else:
        counts = VOSClipDataset(root, crop_size=24, unlabelled="keep", **GIVEN, **plain).label_counts()
        assert counts[7] and not dataset.label_counts()[7]


def test_objects_are_scored_by_the_labelled_frames(tmp_path, caplog):
    root = write(tmp_path / "a")
    bare = DAVISDataset(root, ignored_values=[7], **GIVEN)
    with pytest.raises(DataError, match="unlabelled='keep'"):
        bare.metrics(ResultOptions())
    dataset = DAVISDataset(root, unlabelled="keep", ignored_values=[7], palette=COLOURS, **GIVEN)
    assert "my video: 4 of 12" in caplog.text and dataset.palette[:3].tolist() == COLOURS
    [evaluator] = dataset.metrics(ResultOptions())
    for frame in dataset.frames(0):
        assert (frame.truth is not None) == (frame.number % 3 == 0) and (frame.given is not None) == (frame.number == 0)
        if frame.truth is not None:
            assert frame.truth.max() == 2
            evaluator.update("my video", frame.number, frame.truth, frame.truth)
    found = evaluator.compute()
    assert found["J-Mean"] == found["F-Mean"] == 1
    only_first = write(tmp_path / "b", labelled=[0])
    assert DAVISDataset(only_first, unlabelled="keep", **GIVEN).videos[0].labels is None  # there is nothing to score by
    with pytest.raises(DataError, match=r"no mask for its first frame .*0_c.png; the first one is .*6_m.bmp"):
        DAVISDataset(write(tmp_path / "c", labelled=[6]), **GIVEN)


def test_several_roots_and_a_flat_folder(tmp_path):
    one, two = write(tmp_path / "one", labelled=range(12)), write(tmp_path / "two", "other", range(12))
    for root in (one, two):
        for folder in ("rgb", "gt"):
            for path in (root / folder).glob("*/*"):
                path.rename(path.parents[1] / f"{path.parent.name}_{path.name}")
            for inner in (root / folder).iterdir():
                if inner.is_dir():
                    shutil.rmtree(inner)
    for cls in (DAVISDataset, VOSClipDataset):
        dataset = cls([one, two], **GIVEN)
        assert [(video.name, video.num_frames) for video in dataset.videos] == [("one/my video", 12), ("two/other", 12)]


def test_youtube_vos_with_other_names(tmp_path):
    root = write(tmp_path, labelled=[2, 5])
    given = {key: value for key, value in GIVEN.items() if key not in ("frames_dir", "resolution")}
    dataset = YouTubeVOSDataset(root, "rgb", all_frames=True, ignored_values=[7], **given)
    shown = {frame.number: np.unique(frame.given).tolist() for frame in dataset.frames(0) if frame.given is not None}
    assert shown == {2: [0, 1, 2], 5: [0, 1, 2]} and dataset.result_size(0) == (24, 36)


@pytest.mark.parametrize("layout", ["flat", "classes"])
def test_still_images_and_masks_in_folders_of_their_own(tmp_path, layout):
    write(tmp_path, labelled=range(12))
    given = dict(frames_dir="rgb", masks_dir="gt") if layout == "classes" else {}
    if layout == "flat":
        given = dict(frames_dir="rgb/my video", masks_dir="gt/my video")
    given |= dict(layout=layout, frame_suffix="_c.png", mask_suffix="_m.bmp", crop_size=16)
    dataset = StaticImageDataset(tmp_path, **given)
    assert [video.name for video in dataset.videos][:2] == (
        ["0", "1"] if layout == "flat" else ["my video/0", "my video/1"]
    )
    assert dataset[0, (1,)]["gt"].shape == (3, 1, 16, 16)
    (tmp_path / "gt/my video/3_m.bmp").unlink()
    with pytest.raises(DataError, match=r"1 images without mask: .*3_c.png"):
        StaticImageDataset(tmp_path, **given)


# ---------------------------------------------------------------------- frames with flow


def write_pairs(root, colours=False):
    """As :func:`write`, with flow of every frame."""
    write(root, "a", labelled=range(0, 12, 2), colours=colours)
    for t in range(12):
        flow = root / "flow" / "a" / f"{t}_f.webp"
        flow.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (36, 24), (255, 200, t)).save(flow)
    folders = dict(data_root=root, img1_dir="rgb", img2_dir="flow", ann_dir="gt")
    return dict(folders, img_suffix="_c.png", flow_suffix="_f.webp", seg_map_suffix="_m.bmp")


PIPELINE = [
    dict(type="LoadFrames"),
    dict(type="LoadLabels"),
    dict(type="PackClip"),
    dict(type="Collect", keys=["img", "gt_semantic_seg"]),
]


def test_frames_with_flow_and_masks_of_some(tmp_path):
    given = write_pairs(tmp_path)
    with pytest.raises(DataError, match="6 of 12 frames without mask"):
        VOSDataset(**given, pipeline=PIPELINE, mask_values="objects").label_counts()
    own = dict(given, mask_values="objects", ignored_values=[7], pipeline=PIPELINE, unlabelled="keep")
    train = VOSDataset(**own)
    assert [frame.split("/")[-1] for frame, _, _ in train.pairs] == [f"{t}_c.png" for t in range(0, 12, 2)]
    expected = np.where(mask(4) == 7, 255, mask(4) > 0)
    assert np.array_equal(train.load_label(0, 2), expected) and np.flatnonzero(train.label_counts()).tolist() == [
        0,
        1,
        255,
    ]
    assert set(np.unique(train[2, (0,)]["gt_semantic_seg"])) == {0, 1, 255}
    with pytest.raises(DataError, match="no masks in"):
        VOSDataset(**{**own, "seg_map_suffix": ".png"})


@pytest.mark.parametrize("kind", ["values", "labels", "colours"])
def test_ignored_pixels_do_not_count_in_scores(tmp_path, kind):
    given = write_pairs(tmp_path, colours=kind == "colours")
    if kind == "colours":
        given |= dict(colour_masks=True, palette=COLOURS[:2], ignored_values=[COLOURS[2], [255] * 3])
    else:
        given |= dict(ignored_values=[2, 7]) if kind == "values" else dict(mask_values="labels")
    if kind == "labels":  # 255 as it is in training, which testing without a word takes for the object
        for path in (tmp_path / "gt" / "a").iterdir():
            labels = mask(int(path.name.split("_")[0]))
            Image.fromarray(np.where(labels > 1, np.uint8(255), labels)).save(path)
    dataset = VOSDataset(**given, test_mode=True)
    evaluators = dataset.metrics(ResultOptions(metrics=("VOS", "DAVIS16")))
    for frame in dataset.frames(0):
        if frame.truth is not None:
            assert np.array_equal(frame.truth, np.where(mask(frame.number) > 1, 255, mask(frame.number)))
            for evaluator in evaluators:
                evaluator.update(
                    "a", frame.number, np.where(frame.truth == 255, frame.number % 4 // 2, frame.truth), frame.truth
                )
    for evaluator in evaluators:
        evaluator.end_video()
        assert evaluator.compute()["J-Mean"] == 1


@pytest.mark.parametrize("kind", ["YouTubeVOSDataset", "StaticImageDataset", "VOSDataset"])
def test_data_sets_that_take_one_root_say_so(tmp_path, kind):
    """Training takes a list of data sets."""
    cfg = dict(type=kind, data_root=[str(tmp_path), str(tmp_path)])
    cfg |= dict(img1_dir="a", img2_dir="b") if kind == "VOSDataset" else {}
    with pytest.raises(ConfigError, match=r"data\.x\.data_root = \["):
        build_dataset(cfg, "data.x", test_mode=kind == "YouTubeVOSDataset")
