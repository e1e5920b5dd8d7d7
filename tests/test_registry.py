"""Building objects from config dicts: official names are understood, mistakes are named."""

import pytest
from mmengine.registry import Registry

from mmseg import clips
from mmseg.errors import ConfigError, SegError
from mmseg.registry import build

SHAPES = Registry("shape")


@SHAPES.register_module()
class Square:
    def __init__(self, side: int, colour: str = "red") -> None:
        self.side, self.colour = side, colour


def test_builds_and_extra_arguments_win():
    square = build(SHAPES, dict(type="Square", side=2), colour="blue")
    assert (square.side, square.colour) == (2, "blue")


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (dict(type="Sqare", side=1), "did you mean 'Square'"),
        (dict(type="Square", side=1, color="red"), "did you mean 'colour'"),
        (dict(type="Square"), "missing key 'side'"),
        (dict(side=1), "has no 'type'"),
        ("Square", "has no 'type'"),
    ],
)
def test_mistakes_are_named(cfg, message):
    with pytest.raises(ConfigError, match=message):
        build(SHAPES, cfg, where="a.b")


@SHAPES.register_module()
class Cube(Square):
    def __init__(self, height: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.height = height


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (dict(type="Cube", height=1, side=1, colr="red"), "did you mean 'colour'"),
        (dict(type="Cube", height=1), "missing key 'side'"),
    ],
)
def test_keys_that_go_to_the_base_class_are_checked(cfg, message):
    assert build(SHAPES, dict(type="Cube", height=1, side=2)).side == 2
    with pytest.raises(ConfigError, match=message):
        build(SHAPES, cfg)


def test_the_given_dict_is_left_alone():
    cfg = dict(type="Square", side=2)
    build(SHAPES, cfg)
    assert cfg == dict(type="Square", side=2)


def test_error_text_has_three_parts():
    text = str(SegError("found this", "that", "do so"))
    assert text == "found this\n  expected: that\n  what to do: do so"


def test_early_frames_never_look_further_back_than_nine_frames():
    for target in range(40):
        clip = clips.inference_clip(target)
        assert clip[-1] == target
        assert len(clip) == (1 if target < 3 else 4)
        assert clip == sorted(set(clip))
        assert 0 <= target - clip[0] <= 9
