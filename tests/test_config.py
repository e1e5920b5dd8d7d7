"""Reading configs: overrides arrive, and keys that nothing reads are named together with the nearest known one."""

from pathlib import Path

import pytest

from mmseg.config import load_config
from mmseg.errors import ConfigError

CONFIGS = Path(__file__).parents[1] / "local_configs"
CFFM_B1 = CONFIGS / "cffm/B1/cffm.b1.480x480.vspw2.160k.py"


def test_options_override_nested_keys_and_list_entries():
    cfg = load_config(
        CFFM_B1, {"data.train.dataset.dilation": [-6, -4, -2], "data.test.pipeline.1.img_scale": (64, 32)}
    )
    assert list(cfg.data.train.dataset.dilation) == [-6, -4, -2]
    assert cfg.data.test.pipeline[1].img_scale == (64, 32)
    assert list(cfg.data.test.dilation) == [-9, -6, -3]


def test_options_may_set_known_keys_that_the_file_leaves_out():
    cfg = load_config(CFFM_B1, {"amp.dtype": "bfloat16", "evaluation.save_best": "mIoU", "seed": 3})
    assert (cfg.amp.dtype, cfg.evaluation.save_best, cfg.seed) == ("bfloat16", "mIoU", 3)


@pytest.mark.parametrize(
    ("option", "suggestion"),
    [
        ("runner.max_itres", "max_iters"),
        ("modle.pretrained", "model"),
        ("data.samples_per_gpus", "samples_per_gpu"),
        ("data.trian.dataset.dilation", "train"),
        ("data.test.pipeline.7.img_scale", "index"),
        ("seed.value", "value"),
    ],
)
def test_mistyped_option_is_named(option, suggestion):
    with pytest.raises(ConfigError, match=suggestion) as error:
        load_config(CFFM_B1, {option: 1})
    assert option.split(".")[-1] in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runner = dict(type='IterBasedRunner', max_itre=5)", "did you mean 'max_iters'"),
        ("optimiser = dict(type='AdamW')", "did you mean 'optimizer'"),
        ("checkpoint_config = 4000", "checkpoint_config"),
        ("runner = dict(", "cannot be read"),
        ("_base_ = ['./missing.py']", "cannot be read"),
    ],
)
def test_broken_config_file(tmp_path, text, message):
    path = tmp_path / "config.py"
    path.write_text(text + "\n")
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_missing_config_file(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.py does not exist"):
        load_config(tmp_path / "nothing.py")


def test_free_variables_and_imports_are_fine(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(
        "import os\ncrop_size = (64, 64)\nmy_note = 'x'\nrunner = dict(type='IterBasedRunner', max_iters=1)\n"
    )
    assert load_config(path).runner.max_iters == 1


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.py")), ids=lambda p: p.stem)
def test_every_shipped_config_reads(path):
    load_config(path)
