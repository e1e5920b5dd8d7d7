"""Reading configs: overrides arrive, and what nothing reads is named together with what to write instead."""

import logging
from pathlib import Path

import pytest

from mmseg.config import check_config, load_config, override, require
from mmseg.errors import ConfigError

CONFIGS = Path(__file__).parents[1] / "local_configs"
CFFM_B1 = CONFIGS / "cffm/B1/cffm.b1.480x480.vspw2.160k.py"
TOY = CONFIGS / "toy/cffm.b0.py"


def write(path: Path, text: str) -> Path:
    path.write_text(text + "\n")
    return path


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.py")), ids=lambda p: p.stem)
def test_every_shipped_config_reads_and_says_nothing(path, caplog):
    cfg = load_config(path)
    check_config(cfg, tell=True)
    used_elsewhere = (
        {"norm_cfg", "dataset_type", "train_pipeline", "test_pipeline"} if "_base_" in path.parts else set()
    )
    assert [r.message for r in caplog.records if not any(name in r.message for name in used_elsewhere)] == []


# ---------------------------------------------------------------------- --options


def test_options_override_nested_keys_and_list_entries():
    cfg = load_config(
        CFFM_B1, {"data.train.dataset.dilation": [-6, -4, -2], "data.test.pipeline.1.img_scale": (64, 32)}
    )
    assert list(cfg.data.train.dataset.dilation) == [-6, -4, -2]
    assert cfg.data.test.pipeline[1].img_scale == (64, 32)
    assert list(cfg.data.test.dilation) == [-9, -6, -3]


def test_options_may_set_known_keys_that_the_file_leaves_out():
    cfg = load_config(
        CFFM_B1,
        {"amp.dtype": "bfloat16", "evaluation.save_best": "mIoU", "seed": 3, "optimizer_config.grad_clip.max_norm": 1},
    )
    assert (cfg.amp.dtype, cfg.evaluation.save_best, cfg.seed) == ("bfloat16", "mIoU", 3)
    assert cfg.optimizer_config.grad_clip.max_norm == 1


def test_options_override_entries_of_lists():
    cfg = load_config(
        TOY,
        {
            "data.train.dataset.dilation.0": -12,
            "data.test.pipeline.1.img_scale.1": 64,
            "data.test.pipeline.1.transforms.2.mean.0": 1,
            "data.train.dataset.pipeline.4": dict(prob=0.0),
            "optimizer.betas.1": 0.99,
        },
    )
    assert cfg.data.train.dataset.dilation == [-12, -6, -3] and cfg.data.val.dilation == [-9, -6, -3]
    assert cfg.data.test.pipeline[1].img_scale == (160, 64)
    assert cfg.data.test.pipeline[1].transforms[2].mean == [1, 116.28, 103.53]
    assert cfg.data.train.dataset.pipeline[4] == dict(type="RandomFlip", prob=0.0)
    assert cfg.optimizer.betas == (0.9, 0.99)


@pytest.mark.parametrize(
    ("option", "path", "suggestion"),
    [
        ("runner.max_itres", "runner.max_itres", "max_iters"),
        ("modle.pretrained", "modle", "model"),
        ("data.samples_per_gpus", "data.samples_per_gpus", "samples_per_gpu"),
        ("data.trian.dataset.dilation", "data.trian", "train"),
        ("data.train.datset.dilation", "data.train", "dataset"),
        ("data.test.pipeline.7.img_scale", "data.test.pipeline", "index"),
        ("data.test.pipeline.x.img_scale", "data.test.pipeline", "index"),
        ("seed.value", "seed", "an integer"),
        ("log_level.value", "log_level", "a value, not a section"),
        ("optimizer.paramwise_cfg.custom_keys.norm.decay_mlt", "optimizer.paramwise_cfg", "decay_mult"),
        ("fp16.loss_scale", "fp16", "amp=dict"),
        ("nonsense", "nonsense", "known names"),
    ],
)
def test_mistyped_option_is_named(option, path, suggestion):
    with pytest.raises(ConfigError, match=suggestion) as error:
        load_config(CFFM_B1, {option: 1})
    assert path in error.value.found


def test_options_for_a_loaded_config_are_checked_and_leave_it_alone():
    cfg = load_config(TOY)
    assert override(cfg, {"runner.max_iters": 7}).runner.max_iters == 7
    assert cfg.runner.max_iters == 600
    with pytest.raises(ConfigError, match="max_iters"):
        override(cfg, {"runner.max_itres": 7})


@pytest.mark.parametrize("place", [0, 1, 2])
def test_delete_drops_no_option_wherever_it_stands(place):
    given = [("optimizer.type", "SGD"), ("optimizer.lr", 0.1)]
    given.insert(place, ("optimizer._delete_", True))
    assert load_config(TOY, dict(given)).optimizer == dict(type="SGD", lr=0.1)


def test_a_checkpoint_in_the_place_of_the_config_is_told(tmp_path):
    path = write(tmp_path / "latest.pth", "")
    with pytest.raises(ConfigError, match=r"latest\.pth in the place of the config(.*\n)*.*CONFIG CHECKPOINT"):
        load_config(path)


# ---------------------------------------------------------------------- variables of the file


def test_a_variable_reaches_the_sections_that_were_made_of_it():
    cfg = load_config(TOY, {"crop_size": (32, 32), "dilation": [-6, -4, -2], "runner.max_iters": 3})
    pipeline = cfg.data.train.dataset.pipeline
    assert pipeline[3].crop_size == (32, 32) and pipeline[7].size == (32, 32)
    assert [cfg.data.train.dataset.dilation, cfg.data.val.dilation, cfg.data.test.dilation] == [[-6, -4, -2]] * 3
    assert cfg.runner.max_iters == 3 and cfg.filename == str(TOY)
    assert load_config(TOY).data.train.dataset.pipeline[3].crop_size == (96, 96)


def test_a_variable_that_a_child_file_uses_is_replaced_there_too(tmp_path):
    write(tmp_path / "base.py", "steps = 5\nrunner = dict(max_iters=steps)")
    child = "_base_ = './base.py'\nevaluation = dict(interval={{ _base_.steps }})"
    cfg = load_config(write(tmp_path / "child.py", child), {"steps": 9})
    assert (cfg.runner.max_iters, cfg.evaluation.interval) == (9, 9)


@pytest.mark.parametrize(
    ("option", "value", "places"),
    [
        ("img_norm_cfg.std", [1, 2, 3], ["data.train.dataset.pipeline.6.std", "data.val.pipeline.1.transforms.2.std"]),
        ("train_pipeline.3.crop_size", (3, 3), ["data.train.dataset.pipeline.3.crop_size"]),
        ("norm_cfg.type", "BN", ["model.decode_head.norm_cfg.type"]),
    ],
)  # fmt: skip
def test_a_part_of_a_variable_is_refused_with_the_keys_that_work(option, value, places):
    with pytest.raises(ConfigError, match="variable of the config file") as error:
        load_config(TOY, {option: value})
    for place in places:
        assert place in error.value.action
    assert load_config(TOY, {places[0]: value})


@pytest.mark.parametrize(
    "text",
    [
        "n = 5\nfor i in range(3):\n    n = i\nrunner = dict(max_iters=n)",  # set elsewhere, too
        "n = 5\nrunner = dict(max_iters=5)",  # used nowhere
        "n = 5\nn = 6\nrunner = dict(max_iters=n)",
    ],
)
def test_a_variable_without_certain_effect_is_refused(tmp_path, text):
    path = write(tmp_path / "config.py", text)
    with pytest.raises(ConfigError, match="'n' is a variable of the config file"):
        load_config(path, {"n": 9})


def test_an_unused_name_is_told(tmp_path, caplog):
    text = "import os\ncrop_size = (64, 64)\nmy_note = 'x'\ndata_size = crop_size\nrunner = dict(max_iters=1)"
    cfg = load_config(write(tmp_path / "config.py", text))
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        check_config(cfg, tell=True)
    assert [r.message.split(" ")[0] for r in caplog.records] == ["my_note", "data_size"]


def test_the_config_of_a_work_folder(tmp_path, caplog):
    """All values are written out there: nothing to be said about its variables, and none of them can be set."""
    path = write(tmp_path / "cffm.py", load_config(TOY, {"crop_size": (32, 32)}).dump())
    with caplog.at_level(logging.WARNING):
        check_config(load_config(path), tell=True)
    assert not caplog.records
    with pytest.raises(ConfigError, match=r"set data\.train\.dataset\.pipeline\.3\.crop_size and"):
        load_config(path, {"crop_size": (64, 64)})


# ---------------------------------------------------------------------- data_root

DATA = """
data_root = 'top'
data = dict(
    train=[
        dict(type='RepeatDataset', times=2, dataset=dict(type='VSPWDataset')),
        dict(type='VSPWDataset', data_root='own')],
    val=dict(type='VSPWDataset', split='val'),
    test=dict(type='VSPWDataset', split='val', data_root='own'))
"""


@pytest.mark.parametrize(
    ("options", "roots"),
    [
        ({}, ["top", "own", "top", "own"]),
        ({"data_root": "given"}, ["given"] * 4),
        ({"data_root": "given", "data.val.data_root": "other"}, ["given", "given", "other", "given"]),
    ],
)
def test_one_data_root_for_all_data_sets(tmp_path, options, roots):
    data = load_config(write(tmp_path / "config.py", DATA), options).data
    assert [data.train[0].dataset.data_root, data.train[1].data_root, data.val.data_root, data.test.data_root] == roots
    assert "data_root" not in data.train[0]


def test_data_root_of_files_that_have_copied_it():
    data = load_config(TOY, {"data_root": "given"}).data
    assert [data.train.dataset.data_root, data.val.data_root, data.test.data_root] == ["given"] * 3


# ---------------------------------------------------------------------- entries of data that reach all places


def leaves(data):
    return [data.train.dataset, data.val, data.test]


@pytest.mark.parametrize("by", ["file", "options"])
def test_sizes_classes_and_arguments_of_all_data_sets_are_one_entry_each(tmp_path, by):
    every = dict(reduce_zero_label=False, ignored_values=[11], data_root="mine")
    entries = dict(num_classes=5, img_scale=(64, 48), crop_size=(32, 40), every=every)
    text = f"_base_ = ['{TOY}']\n" + (f"data = {entries!r}" if by == "file" else "")
    options = {"data.val.ignored_values": [12], "data.test.pipeline.1.img_scale": (9, 9)}
    if by == "options":
        options |= {f"data.{name}": value for name, value in entries.items() if name != "every"}
        options |= {f"data.every.{name}": value for name, value in every.items()}
    cfg = load_config(write(tmp_path / "own.py", text), options)
    train, val, test = leaves(cfg.data)
    assert [train.pipeline[2].img_scale, val.pipeline[1].img_scale] == [(64, 48)] * 2
    assert [train.pipeline[3].crop_size, train.pipeline[7].size] == [(32, 40)] * 2
    assert test.pipeline[1].img_scale == (9, 9)  # what names one place wins
    assert [part.num_classes for part in (train, val, test, cfg.model.decode_head)] == [5] * 4
    assert [part.ignored_values for part in (train, val, test)] == [[11], [12], [11]]
    assert {part.reduce_zero_label for part in (train, val, test)} == {False}
    assert {part.data_root for part in (train, val, test)} == {"mine"}
    assert not {"num_classes", "img_scale", "crop_size", "every"} & set(cfg.data)
    again = load_config(write(tmp_path / "again.py", cfg.dump()))  # as work folders keep it
    assert again.data == cfg.data and again.model == cfg.model


def test_the_class_count_reaches_all_parts_of_the_models():
    for name in ("themask_1f.b0", "hfan.b0", "mrcfa.b0"):
        cfg = load_config(TOY.parent / f"{name}.py", {"data.num_classes": 3})
        assert "num_classes=8" not in cfg.pretty_text.replace(" ", "")
        assert ("num_classes" in cfg.data.test) == (name != "hfan.b0")  # whose data set counts no classes


def test_the_size_of_crops_is_that_of_sliding_windows(tmp_path, caplog):
    """The stride keeps its share of the window; what names one place wins, and a disagreement is told."""
    hfan = TOY.parents[1] / "hfan" / "hfan.small.512x512.refine.py"
    cfg = load_config(hfan, {"data.crop_size": (256, 384)})
    assert (cfg.model.test_cfg.crop_size, cfg.model.test_cfg.stride) == ((256, 384), (136, 203))
    assert cfg.data.train.dataset.pipeline[3].crop_size == (256, 384) and not caplog.records
    options = {"data.crop_size": (256, 256), "model.test_cfg.stride": (9, 9)}
    assert load_config(hfan, options).model.test_cfg == dict(mode="slide", crop_size=(256, 256), stride=(9, 9))
    apart = write(
        tmp_path / "apart.py", f"_base_ = ['{hfan}']\ntest_cfg = dict(mode='slide', crop_size=(9, 9), stride=(3, 3))"
    )
    cfg = load_config(apart, {"data.crop_size": (36, 36), "model.test_cfg.crop_size": (128, 128)})
    assert cfg.test_cfg == dict(mode="slide", crop_size=(36, 36), stride=(12, 12))
    assert cfg.model.test_cfg.stride == (271, 271)
    assert "model.test_cfg.crop_size = (128, 128), but training clips are cropped to (36, 36)" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data.num_classes": 0}, "data.num_classes = 0"),
        ({"data.img_scale": 5}, "data.img_scale = 5"),
        ({"data.crop_size": (5, 0)}, "data.crop_size"),
        ({"data.every": 3}, "data.every = 3"),
    ],
)
def test_entries_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        load_config(TOY, options)


def test_an_entry_without_a_place_is_refused():
    with pytest.raises(ConfigError, match=r"data\.crop_size = .*nothing in this config has a crop_size"):
        load_config(TOY.parent / "gsfm_stage0.py", {"data.crop_size": (64, 64)})
    with pytest.raises(ConfigError, match=r"data\.num_classes"):
        load_config(TOY.parent / "gsfm_stage0.py", {"data.num_classes": 3})


# ---------------------------------------------------------------------- broken files, foreign sections


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runner = dict(type='IterBasedRunner', max_itre=5)", r"runner\.max_itre.*\n.*\n.*did you mean 'max_iters'"),
        ("optimiser = dict(type='AdamW')", "did you mean 'optimizer'"),
        ("checkpoint_config = 4000", "checkpoint_config = 4000"),
        ("runner = dict(", "cannot be read"),
        ("import sys\nsys.exit(0)", "cannot be read: SystemExit"),
        ("_base_ = ['./missing.py']", "cannot be read"),
        ("fp16 = dict(loss_scale=512.)", r"amp=dict\(dtype='float16'\)"),
        ("optim_wrapper = dict(optimizer=dict(type='AdamW'))", r"optimizer=dict"),
        ("param_scheduler = [dict(type='PolyLR')]", "lr_config=dict"),
        ("train_dataloader = dict(batch_size=2)", "samples_per_gpu"),
        ("samples_per_gpu = 2", r"data=dict\(samples_per_gpu"),
        ("workflow = [('train', 1), ('val', 1)]", r"evaluation=dict\(interval"),
        ("log_config = dict(hooks=[dict(type='NoSuchHook')])", r"log_config\.hooks\.0 .*NoSuchHook"),
        ("model = None", "model = None"),
        ("data = None", "data = None"),
        ("data = dict(train=5)", r"data\.train = 5"),
        ("data = dict(test=dict(split='val'))", r"data\.test = .*\n.*a dict with a type"),
    ],
)
def test_broken_config_file(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path / "config.py", text))


def test_missing_config_file(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.py does not exist"):
        load_config(tmp_path / "nothing.py")


@pytest.mark.parametrize("name", ["n", "word", "pair"])
@pytest.mark.parametrize("quoted", ["'{{ _base_.%s }}'", '"{{_base_.%s}}"', "'a {{ _base_.%s }} b'"])
def test_base_values_in_quotes_are_refused(tmp_path, name, quoted):
    write(tmp_path / "base.py", "n = 5\nword = 'DEBUG'\npair = (1, 2)")
    text = f"_base_ = ['./base.py']\nlog_level = {quoted % name}"
    path = write(tmp_path / "child.py", text)
    with pytest.raises(ConfigError, match=r"child\.py, line 2.*\n.*without quotes"):
        load_config(write(tmp_path / "grandchild.py", f"_base_ = ['./{path.name}']"))
    assert load_config(write(path, text.replace(quoted % name, "{{ _base_.word }}"))).log_level == "DEBUG"


def test_require_names_the_missing_section(tmp_path):
    cfg = load_config(write(tmp_path / "config.py", "data = dict(val=dict(type='VSPWDataset'))"))
    require(cfg, "data", "data.val.type")
    for key in ("model", "data.train", "data.val.type.name"):
        with pytest.raises(ConfigError, match=rf"^{key} is missing"):
            require(cfg, key)


IN_INTEGERS = {"mean": [128, 116, 103], "std": [58, 57, 57], "to_rgb": True}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"data.train.dataset.pipeline.6.to_rgb": False}, ["data.val has Normalize", "data.test has Normalize"]),
        ({"data.test.pipeline.1.transforms.2.mean": [0, 0, 0]}, ["data.test has Normalize(mean=[0.0, 0.0, 0.0]"]),
        ({"img_norm_cfg": IN_INTEGERS, "data.test.pipeline.1.transforms.2.mean": [128.0, 116.0, 103.0]}, []),
        ({"data.train.dataset.dilation": [-6, -4, -2]}, ["data.val has dilation=[-9", "data.test has dilation=[-9"]),
        ({"dilation": [-6, -4, -2]}, []),
    ],
)
def test_other_inputs_in_a_test_than_in_the_training_are_told(options, told, caplog):
    load_config(TOY, options)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(told)
    assert all(begin in message and "data.train.dataset has" in message for begin, message in zip(told, messages))
