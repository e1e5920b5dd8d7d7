"""From a JPEGImages/Annotations tree to a data set, by the command."""

import json
import os
import pathlib
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg.datasets import VSPWDataset
from mmseg.errors import ConfigError, DataError, SegError
from mmseg.making.convert import ConvertOptions, convert_to_vspw
from mmseg.making.mask_values import ClassMap, read_class_map
from mmseg.visualization.palette import default_palette

TOOL = "convert_to_vspw.py"


def write_tree(root, resolution="480p", values=(0, 255), lengths=None):
    """Three sequences at 40x24; each mask is `values` in equal columns."""
    rng = np.random.default_rng(0)
    for name, length in (lengths or dict(dog=10, car=12, swan=11)).items():
        folders = [root / part / resolution / name for part in ("JPEGImages", "Annotations")]
        for folder in folders:
            folder.mkdir(parents=True)
        for t in range(length):
            frame = cv2.blur(rng.integers(0, 256, (24, 40, 3), dtype=np.uint8), (5, 5))
            cv2.imwrite(str(folders[0] / f"{t:05d}.jpg"), frame)
            mask = np.repeat(np.array(values, np.uint8), 40 // len(values))[None].repeat(24, 0)
            Image.fromarray(mask).save(folders[1] / f"{t:05d}.png")
        (folders[0] / "._00000.jpg").touch()
    return root


@pytest.mark.parametrize("resolution", ["480p", ""])
def test_command_with_a_class_per_sequence(tmp_path, resolution, call):
    tree, root = write_tree(tmp_path / "davis", resolution), tmp_path / "out" / "set"
    classes = ["--classes", "dog=animal", "car=vehicle", "*=animal"]
    output = call(TOOL, tree, root, *classes, "--val", "swan", "--hold-out-time", 0.3)
    assert "train.txt: 15 frames of 2 videos: car (8), dog (7)" in output
    assert "val.txt: 18 frames of 3 videos: car_late (4), dog_late (3), swan (11)" in output
    assert "num_classes=3" in output
    dataset = VSPWDataset(root, "val", test_mode=True)
    assert dataset.CLASSES == ("background", "animal", "vehicle")
    assert [[0, 0, 0], *default_palette(2)] == dataset.PALETTE  # pictures leave the background as it is
    assert [video.name for video in dataset.videos] == ["car_late", "dog_late", "swan"]
    late = dataset.videos[0].frames
    assert [pathlib.Path(f).stem for f in late] == ["00008", "00009", "00010", "00011"]
    assert all(pathlib.Path(f).is_symlink() for f in late)
    source = tree / "JPEGImages" / resolution / "car" / "00008.jpg"
    np.testing.assert_array_equal(dataset.load_frame(0, 0), cv2.imread(str(source)))
    for index, label in enumerate([2, 1, 1]):
        assert np.unique(dataset.load_label(index, 0)).tolist() == [0, label]


def test_a_class_per_mask_value_and_void_background(tmp_path):
    tree = write_tree(tmp_path / "tree", values=(0, 1, 2, 255))
    (tmp_path / "map.json").write_text(json.dumps({"swan": {"1": "swan", "2": "water"}}))
    entries = read_class_map(["1=person", "2=horse", str(tmp_path / "map.json")])
    convert_to_vspw(tree, tmp_path / "set", ClassMap(entries, background=None), ConvertOptions(val=("swan",)))
    train = VSPWDataset(tmp_path / "set", "train", test_mode=True)
    val = VSPWDataset(tmp_path / "set", "val", test_mode=True)
    assert train.CLASSES == ("person", "horse", "swan", "water")
    assert train.load_label(0, 0)[0, [0, 10, 20, 30]].tolist() == [255, 0, 1, 255]
    assert val.load_label(0, 0)[0, [0, 10, 20, 30]].tolist() == [255, 2, 3, 255]


def test_any_values_are_void(tmp_path, call):
    """Named ones, all that are not named, and 0; a sequence may have its own."""
    tree = write_tree(tmp_path / "tree", values=(0, 1, 2, 7, 11, 255, 0, 0), lengths=dict(dog=3, car=3))
    (tmp_path / "car.json").write_text(json.dumps({"car": {"0": "road", "1": "void", "*": "car"}}))
    classes = ["1=person", "11=void", "*=void", tmp_path / "car.json", "2=horse"]
    out = call("convert_to_vspw.py", tree, tmp_path / "set", "--classes", *classes, "--background", "void")
    assert "classes: person, horse, road, car" in out and "data.num_classes=4" in out
    dataset = VSPWDataset(tmp_path / "set", "train", test_mode=True)
    car, dog = (dataset.load_label(index, 0)[0, :30:5].tolist() for index in range(2))
    assert dog == [255, 0, 1, 255, 255, 255]
    assert car == [2, 255, 3, 3, 3, 255]
    with pytest.raises(DataError, match=r"7=CLASS, or 7=void to ignore it, or '\*=void'"):
        convert_to_vspw(tree, tmp_path / "b", ClassMap(read_class_map(["1=a", "2=b", "11=void"])))


def test_classes_without_a_pixel_are_told(tmp_path, caplog):
    """255 is no 'other value': the masks of 0 and 255 of most sequences would be ignored without a word."""
    tree = write_tree(tmp_path / "tree", lengths=dict(dog=2, car=2))
    convert_to_vspw(tree, tmp_path / "set", ClassMap(read_class_map(["dog=dog", "11=void", "*=thing"])))
    assert "no pixel of thing" in caplog.text and "255=CLASS" in caplog.text
    caplog.clear()
    convert_to_vspw(tree, tmp_path / "b", ClassMap(read_class_map(["dog=dog", "11=void", "255=thing"])))
    assert not caplog.text


def test_void_values_are_no_objects_of_sequences_with_a_class(tmp_path):
    """`11=void` holds for all sequences; `*=thing` beside it is the class of all other values of all other ones."""
    tree = write_tree(tmp_path / "tree", values=(0, 3, 11, 255), lengths=dict(dog=2, car=2))
    convert_to_vspw(tree, tmp_path / "set", ClassMap(read_class_map(["dog=dog", "11=void", "*=thing"])))
    dataset = VSPWDataset(tmp_path / "set", "train", test_mode=True)
    names = [
        ["ignored" if v == 255 else dataset.CLASSES[v] for v in dataset.load_label(index, 0)[0, ::10]]
        for index in (0, 1)
    ]
    assert names == [["background", "thing", "ignored", "ignored"], ["background", "dog", "ignored", "dog"]]


@pytest.mark.parametrize("kind", ["RGB", "P"])
def test_masks_of_colours(tmp_path, kind):
    tree = write_tree(tmp_path / "tree", lengths=dict(dog=2))
    colours = [(0, 0, 0), (128, 64, 0), (0, 0, 255), (9, 9, 9)]
    picture = np.repeat(np.array(colours, np.uint8), 10, axis=0)[None].repeat(24, 0)
    for path in (tree / "Annotations" / "480p" / "dog").iterdir():
        mask = Image.fromarray(picture)
        mask.convert(kind, **(dict(palette=Image.Palette.ADAPTIVE) if kind == "P" else {})).save(path)
    entries = read_class_map(["#804000=dog", "0,0,255=cat", "*=void"])
    convert_to_vspw(tree, tmp_path / "set", ClassMap(entries))
    dataset = VSPWDataset(tmp_path / "set", "train", test_mode=True)
    assert dataset.CLASSES == ("background", "dog", "cat")
    assert dataset.PALETTE == [[0, 0, 0], [128, 64, 0], [0, 0, 255]]
    assert dataset.load_label(0, 1)[7, ::10].tolist() == [0, 1, 2, 255]
    with pytest.raises(DataError, match=r"colour #090909 in 240 pixels.*\n.*\n.*'#090909=CLASS'"):
        convert_to_vspw(tree, tmp_path / "b", ClassMap(read_class_map(["#804000=dog", "#0000FF=cat"])))


def test_masks_of_some_frames_and_folders_of_other_names(tmp_path, call):
    """One flat folder of frames with sparse masks beside them; test sequences need none."""
    tree = write_tree(tmp_path / "tree", lengths=dict(dog=12, swan=3))
    (tmp_path / "all").mkdir()
    for path in sorted(tree.rglob("0*.*")):
        number = int(path.stem)
        if path.suffix == ".jpg":
            path.rename(tmp_path / "all" / f"{path.parent.name}-{number}.jpg")
        elif path.parent.name == "dog" and number % 5 == 0:
            path.rename(tmp_path / "all" / f"{path.parent.name}-{number}_gt.png")
    where = ["--frames-dir", "all", "--masks-dir", "all", "--frame-suffix", ".jpg", "--mask-suffix", "_gt.png"]
    root = tmp_path / "my set"
    command = [tmp_path, root, "--classes", "*=thing", *where, "--max-side", 20]
    assert "9 of 12 frames" in call("convert_to_vspw.py", *command, "--test", "swan", status=2)
    bare = call("convert_to_vspw.py", *command, "--unlabelled", "keep", status=2)
    assert f"masks like {tmp_path}/all/swan-0_gt.png" in bare and "--test" in bare
    out = call("convert_to_vspw.py", *command, "--test", "swan", "--unlabelled", "keep")
    assert f"--options 'data_root={root}' data.num_classes=2 data.every.unlabelled=keep" in out  # as a shell reads it
    dataset = VSPWDataset(root, "train", test_mode=True, unlabelled="keep")
    [video] = dataset.videos
    assert [pathlib.Path(path).stem for path in video.frames] == [f"dog-{n}" for n in range(12)]
    assert [n for n, mask in enumerate(video.labels) if mask] == [0, 5, 10]
    assert dataset.load_frame(0, 1).shape == (12, 20, 3) and set(np.unique(dataset.load_label(0, 5))) == {0, 1}
    assert VSPWDataset(root, "test", test_mode=True).videos[0].labels is None


@pytest.mark.parametrize(
    ("options", "size"), [(dict(max_side=20), (12, 20)), (dict(size=(32, 64)), (32, 64)), (dict(max_side=99), (24, 40))]
)
def test_resizing(tmp_path, options, size):
    tree = write_tree(tmp_path / "tree")
    convert_to_vspw(tree, tmp_path / "set", ClassMap({"*": "thing"}), ConvertOptions(frames="copy", **options))
    dataset = VSPWDataset(tmp_path / "set", "train", test_mode=True)
    assert dataset.load_frame(0, 0).shape == (*size, 3)
    labels = dataset.load_label(0, 0)
    assert labels.shape == size and set(np.unique(labels)) == {0, 1}
    assert (labels[:, : size[1] // 2] == 0).all() and (labels[:, size[1] // 2 :] == 1).all()
    assert not pathlib.Path(dataset.videos[0].frames[0]).is_symlink()


@pytest.mark.parametrize("size", [(12, 20), (31, 53), (48, 80)])
def test_resized_masks_hold_no_label_between_two_others(tmp_path, size):
    """Far-apart labels in a checkerboard: anything but nearest neighbour makes labels of its own along the edges."""
    tree = write_tree(tmp_path / "tree", lengths=dict(dog=1))
    board = np.where(np.add.outer(np.arange(24) // 4, np.arange(40) // 4) % 2, np.uint8(7), np.uint8(0))
    Image.fromarray(board).save(tree / "Annotations" / "480p" / "dog" / "00000.png")
    names = {str(value): f"class {value}" for value in range(1, 8)}
    convert_to_vspw(tree, tmp_path / "set", ClassMap({"*": names}), ConvertOptions(size=size))
    labels = VSPWDataset(tmp_path / "set", "train", test_mode=True).load_label(0, 0)
    assert set(np.unique(labels).tolist()) == {0, 7}
    rows, columns = ((np.arange(n) + 0.5) * old // n for n, old in zip(size, board.shape))
    expected = board[np.ix_(rows.astype(int), columns.astype(int))]
    assert (labels == expected).mean() > 0.95  # ties of odd ratios may go either way


def test_frames_and_sequences_come_in_natural_order(tmp_path):
    """Made in scrambled order, with names that are not zero-padded; masks may end in .PNG."""
    tree, numbers = tmp_path / "tree", range(1, 13)
    for sequence in ("shot10", "shot9"):
        for part, suffix in (("Annotations", "PNG"), ("JPEGImages", "JPG")):
            (tree / part / sequence).mkdir(parents=True)
            for number in np.random.default_rng(0).permutation(numbers):
                value = 1 if part == "Annotations" else 20 * number
                Image.fromarray(np.full((24, 40), value, np.uint8)).save(tree / part / sequence / f"{number}.{suffix}")
    convert_to_vspw(tree, tmp_path / "set", ClassMap({"*": "thing"}), ConvertOptions(hold_out_time=0.25))
    assert (tmp_path / "set" / "train.txt").read_text().split() == ["shot9", "shot10"]
    train = VSPWDataset(tmp_path / "set", "train", test_mode=True)
    assert [round(train.load_frame(1, i).mean() / 20) for i in range(9)] == list(numbers)[:9]
    late = VSPWDataset(tmp_path / "set", "val", test_mode=True)
    assert [round(late.load_frame(0, i).mean() / 20) for i in range(3)] == [10, 11, 12]


@pytest.mark.parametrize("name", ["../outside", "dog/../../outside"])
def test_no_video_is_written_outside(tmp_path, name):
    tree, root = write_tree(tmp_path / "tree"), tmp_path / "set"
    for part in ("JPEGImages", "Annotations"):
        shutil.copytree(tree / part / "480p" / "dog", tree / part / "outside")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SegError) as caught:
        convert_to_vspw(tree, root, ClassMap({"*": "thing"}), sequences=[name])
    assert name in str(caught.value) and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("fault", ["damaged mask", "no class", "no source"])
def test_a_source_that_fails_leaves_the_old_data_set(tmp_path, fault):
    tree, root = write_tree(tmp_path / "tree"), tmp_path / "set"
    convert_to_vspw(tree, root, ClassMap({"*": "thing"}), ConvertOptions(frames="copy"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and root in path.parents}
    if fault == "damaged mask":
        mask = tree / "Annotations" / "480p" / "swan" / "00009.png"  # near the end
        mask.write_bytes(mask.read_bytes()[:40])
    elif fault == "no class":
        write_tree(tmp_path / "tree", values=(0, 9), lengths=dict(zebra=2))
    class_map = ClassMap({"*": {"1": "x", "255": "y"}}) if fault == "no class" else ClassMap({"*": "other"})
    with pytest.raises(DataError):
        convert_to_vspw(tree if fault != "no source" else tmp_path, root, class_map, overwrite=True)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and root in path.parents}
    assert after == before and sorted(p.name for p in tmp_path.iterdir()) == ["set", "tree"]


def expect(message, error, tree, root, class_map, *options, **kwargs):
    """The error, and that nothing is left behind."""
    with pytest.raises(error) as caught:
        convert_to_vspw(tree, root, class_map, *options, **kwargs)
    assert message in str(caught.value) and caught.value.action
    assert not root.exists() and not list(root.parent.glob(f".{root.name}*"))


def test_bad_input_leaves_nothing_behind(tmp_path):
    tree, root, every = write_tree(tmp_path / "tree"), tmp_path / "set", ClassMap({"*": "thing"})
    expect("no class for sequence 'car'", ConfigError, tree, root, ClassMap({"dog": "dog"}))
    expect("did you mean 'dog'", ConfigError, tree, root, ClassMap({"*": "x", "dgo": "dog"}))
    expect("did you mean 'swan'", ConfigError, tree, root, every, ConvertOptions(val=("swam",)))
    expect("did you mean 'car'", DataError, tree, root, every, sequences=["carr"])
    expect("JPEGImages", DataError, tmp_path, root, every)
    masks = tree / "Annotations" / "480p" / "dog"
    Image.fromarray(np.full((24, 40), 7, np.uint8)).save(masks / "00003.png")
    expect("mask values [7] without a class", DataError, tree, root, ClassMap({"*": {"255": "thing"}}))
    Image.new("RGB", (40, 24)).save(masks / "00003.png")
    expect("00003.png", DataError, tree, root, every)
    Image.new("L", (39, 24)).save(masks / "00003.png")
    expect("mask of 39x24", DataError, tree, root, every)
    (masks / "00003.png").unlink()
    expect("1 of 10 frames", DataError, tree, root, every)
    convert_to_vspw(tree, root, every, ConvertOptions(unlabelled="drop"))
    assert [len(video.frames) for video in VSPWDataset(root, "train", test_mode=True).videos] == [12, 9, 11]


def test_command_reports_errors_without_a_traceback(tmp_path, call):
    for classes, message in (("dog=dog", "JPEGImages is no folder"), ("none.json", "none.json")):
        assert message in call(TOOL, tmp_path, tmp_path / "set", "--classes", classes, status=2)


def test_only_data_sets_made_here_are_replaced(tmp_path):
    tree, root = write_tree(tmp_path / "tree"), tmp_path / "set"
    convert_to_vspw(tree, root, ClassMap({"*": "thing"}))
    with pytest.raises(DataError, match="holds a data set already"):
        convert_to_vspw(tree, root, ClassMap({"*": "other"}))
    convert_to_vspw(tree, root, ClassMap({"*": "other"}), overwrite=True)
    assert VSPWDataset(root, "train").CLASSES == ("background", "other")
    (root / "recipe.json").unlink()
    with pytest.raises(DataError, match="no data set made here"):
        convert_to_vspw(tree, root, ClassMap({"*": "thing"}), overwrite=True)


@pytest.mark.parametrize(
    "entry",
    [
        "",
        3,
        {"a": "b"},
        {"300": "b"},
        {"1": 2},
        {"²": "b"},
        {"7": "b", "07": "c"},
        {"1" * 5000: "b"},
        {"#12": "b"},
        {"1,2,300": "b"},
        {"#010203": "b", "1,2,3": "c"},
        {"#010203": "b", "7": "c"},
    ],
)
def test_class_maps_that_make_no_sense(entry):
    with pytest.raises(ConfigError, match="class map"):
        ClassMap({"dog": entry})


def test_class_map_files_that_make_no_sense(tmp_path):
    for name, text in {"deep": "[" * 100_000, "cut": '{"a":', "list": "[1]", "bytes": "\udc80"}.items():
        (tmp_path / name).write_text(text, errors="surrogateescape")
        with pytest.raises(ConfigError, match=f"class map .*{name}"):
            read_class_map([str(tmp_path / name)])
    os.mkfifo(tmp_path / "pipe")
    for argument in (tmp_path / "pipe", tmp_path, tmp_path / "none", "a\0b"):
        with pytest.raises(ConfigError, match="class map"):
            read_class_map([str(argument)])


@pytest.mark.parametrize(
    "options",
    [
        dict(hold_out_time=1.0),
        dict(frames="link"),
        dict(unlabelled="x"),
        dict(size=(4, 4), max_side=3),
        dict(max_side=0),
    ],
)
def test_options_that_make_no_sense(options):
    with pytest.raises(ConfigError):
        ConvertOptions(**options)
