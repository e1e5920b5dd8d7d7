"""The table of sections: what stands in it is read, with the types that it says."""

import ast
from pathlib import Path

import pytest

from mmseg import sections
from mmseg.errors import ConfigError
from mmseg.values import Section

PACKAGE = Path(sections.__file__).parent


def words() -> set[str]:
    """Every attribute, text and keyword of the package besides the table itself."""
    found = set()
    for path in [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "tools").glob("*.py")]:
        if path.name in ("sections.py", "update_sections.py", "compat.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 80:
                found.update(node.value.split("."))
            elif isinstance(node, ast.keyword | ast.arg) and node.arg:
                found.add(node.arg)
    return found


def subclasses(cls: type) -> set[type]:
    return {kind for sub in cls.__subclasses__() for kind in (sub, *subclasses(sub))}


# Keys that only confirm what is done anyway, or that are handed on as they are.
CONFIRMED = {"by_epoch", "warmup_by_epoch", "bypass_duplicate", "workflow", "type", "policy", "save_optimizer"}
HANDED_ON = {"Optimizer", "GradClip", "Compilation", "MovingAverage", "EarlyStopping", "EMAHook", "EarlyStoppingHook"}


def test_every_section_and_key_is_read_somewhere():
    read = words()
    named = {key for key in sections.TABLE if key not in read}
    for section in subclasses(Section):
        if section.__name__ not in HANDED_ON:
            named |= {f"{section.__name__}.{key}" for key in section.model_fields if key not in read}
    assert {name for name in named if name.split(".")[-1] not in CONFIRMED} == set()


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
        ("optimizer", {"type": "SGD", "lr": 0.1, "nesterov": "looked at when it is built"}),
        ("seed", 0),
        ("workflow", [("train", 1)]),
        ("checkpoint_config", {"interval": -1, "max_keep_ckpts": -1}),
    ],
)
def test_what_a_section_can_be(name, value):
    sections.check(name, value)
