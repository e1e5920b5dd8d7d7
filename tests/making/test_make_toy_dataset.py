"""The command that writes the toy data set."""


def test_command(tmp_path, call):
    numbers = "--videos 2 --val-videos 1 --test-videos 1 --frames 3 --size 32 48 --classes 4 --seed 5".split()
    assert "2 + 1 + 1 videos" in call("make_toy_dataset.py", tmp_path / "toy", *numbers)
    assert (tmp_path / "toy" / "train.txt").read_text() == "train_000\ntrain_001\n"
    assert len(list((tmp_path / "toy" / "data" / "val_000" / "origin").iterdir())) == 3
    call("make_toy_dataset.py", tmp_path / "toy", *numbers)  # there already
    assert "--force" in call("make_toy_dataset.py", tmp_path / "toy", *numbers, "--seed", 6, status=2)


def test_flags_of_another_layout_are_refused(tmp_path, call):
    for flag, layout in ((["--flow", "dis"], "vspw"), (["--classes", 3], "davis"), (["--test-videos", 1], "davis2seg")):
        output = call("make_toy_dataset.py", tmp_path / "toy", "--layout", layout, *flag, status=2)
        assert f"{flag[0]} has no effect with --layout {layout}" in output and not (tmp_path / "toy").exists()
