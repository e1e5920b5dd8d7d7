"""The table of sections: what it says about keys, types and ranges."""

import pytest

from mmseg import sections
from mmseg.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("runner", {}, r"^runner\.max_iters is missing"),
        ("runner", {"max_iters": 1, "max_itres": 1}, r"^runner\.max_itres: unknown key.*\n.*\n.*'max_iters'"),
        ("data", {"train": {"split": "x"}}, r"^data\.train = .*\n.*a dict with a type"),
        ("data", {"train": [{"type": "A"}, 5]}, r"^data\.train\.1 = 5"),
        ("optimizer_config", {"grad_clip": {"max_norm": "x"}}, r"^optimizer_config\.grad_clip\.max_norm = 'x'"),
        ("log_config", {"hooks": [{"type": "X"}]}, r"^log_config\.hooks\.0 = .*\n.*TextLoggerHook"),
        ("compile", {"mode": "x"}, r"^compile\.mode = 'x'"),
        ("compile", 1, r"^compile = 1\n.*True or False or a dict"),
        ("seed", 2**64, r"^seed = .*\n.*at most"),
        ("cudnn_benchmark", "yes", r"^cudnn_benchmark = 'yes'\n.*True or False"),
    ],
)
def test_what_a_section_cannot_be(name, value, message):
    with pytest.raises(ConfigError, match=message):
        sections.check(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer_config", None),
        ("optimizer_config", {"grad_clip": {"max_norm": float("inf"), "norm_type": 2}}),
        ("compile", True),
        ("data", {"samples_per_gpu": 1, "train": [{"type": "A"}], "val": None}),
        ("optimizer", {"type": "SGD", "lr": "looked at when it is built"}),
        ("seed", 0),
        ("workflow", [("train", 1)]),
        ("checkpoint_config", {"interval": -1, "max_keep_ckpts": -1}),
    ],
)
def test_what_a_section_can_be(name, value):
    sections.check(name, value)
