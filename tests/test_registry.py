"""Building objects from config dicts: official names are understood, mistakes are named."""

import pytest
from mmengine.registry import Registry

from mmseg import clips
from mmseg.errors import ConfigError, SegError
from mmseg.registry import build, class_of

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


def test_names_of_a_config_import_nothing(tmp_path, monkeypatch):
    """Configs come with the checkpoints of others: what they name has been registered, or is nothing."""
    (tmp_path / "module_of_a_stranger.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("module_of_a_stranger.Square", "module_of_a_stranger.registry.Square", "os.system"):
        assert class_of(SHAPES, dict(type=name)) is None
        with pytest.raises(ConfigError, match="unknown shape type"):
            build(SHAPES, dict(type=name, command="exit 1"))
    assert class_of(SHAPES, dict(type="Square")) is Square is type(build(SHAPES, dict(type="mmseg.Square", side=1)))
    assert [class_of(SHAPES, cfg) for cfg in ("Square", None, {}, dict(type=3), dict(type=["Square"]))] == [None] * 5


@SHAPES.register_module()
class Cube(Square):
    def __init__(self, height: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.height = height


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (dict(type="Cube", height=1, side=1, colr="red"), "did you mean 'colour'"),
        (dict(type="Cube", height=1), "missing 1 required positional argument: 'side'"),
    ],
)
def test_keys_that_go_to_the_base_class_are_checked(cfg, message):
    assert build(SHAPES, dict(type="Cube", height=1, side=2)).side == 2
    with pytest.raises(ConfigError, match=message):
        build(SHAPES, cfg)


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (dict(type="Square", side="2"), r"^a\.b\.side = '2'"),
        (dict(type="Square", side=True), r"^a\.b\.side = True"),
        (dict(type="Square", side=2, colour=3), r"^a\.b\.colour = 3\n.*\n.*leave it out for 'red'"),
        (dict(type="Square", side=2, colour=None), r"^a\.b\.colour = None"),
        (dict(type="Cube", height=1, side=[]), r"^a\.b\.side = \[\]"),  # goes to the base class
        (dict(type=5), "unknown shape type 5"),
        (dict(type=None), "unknown shape type None"),
    ],
)
def test_values_are_held_against_the_annotations(cfg, message):
    with pytest.raises(ConfigError, match=message):
        build(SHAPES, cfg, where="a.b")


@SHAPES.register_module()
class Tiles:
    """Fails in its own way, and contains other shapes."""

    def __init__(self, shapes=(), count: int = 1, error=None) -> None:
        if error is not None:
            raise error
        self.shapes = [build(SHAPES, shape, f"shapes.{number}") for number, shape in enumerate(shapes)]
        self.rows = 10 // count


@pytest.mark.parametrize("kind", [TypeError, ValueError, KeyError, RuntimeError, SegError])
def test_what_goes_wrong_in_a_constructor_names_the_place(kind):
    error = kind("no")
    with pytest.raises(SegError, match=r"^a\.b") as caught:
        build(SHAPES, dict(type="Tiles", error=error), where="a.b")
    assert "no" in str(caught.value) and caught.value.__cause__ is error


def test_values_that_do_not_work_together_are_no_traceback():
    with pytest.raises(ConfigError, match=r"a\.b \(Tiles\) cannot be made: ZeroDivisionError"):
        build(SHAPES, dict(type="Tiles", count=0), where="a.b")


def test_nested_objects_are_named_by_their_path():
    shapes = [dict(type="Square", side=1), dict(type="Tiles", shapes=[dict(type="Square", side=1, colour=1)])]
    with pytest.raises(ConfigError, match=r"^a\.b\.shapes\.1\.shapes\.0\.colour = 1"):
        build(SHAPES, dict(type="Tiles", shapes=shapes), where="a.b")
    with pytest.raises(ConfigError, match=r"^c\.side = 'x'"):  # the place of the failed one is forgotten
        build(SHAPES, dict(type="Square", side="x"), where="c")


def test_arguments_given_by_code_are_not_looked_at():
    assert build(SHAPES, dict(type="Square"), side="as wide as it gets").side == "as wide as it gets"


@SHAPES.register_module()
class Plain:
    """Takes nothing."""


def test_a_class_without_constructor_takes_no_keys():
    with pytest.raises(ConfigError, match="unknown key 'side'"):
        build(SHAPES, dict(type="Plain", side=1))


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


@SHAPES.register_module()
class Tile(Square):
    """Gives its base class what that requires."""

    def __init__(self, **kwargs) -> None:
        super().__init__(3, **kwargs)


def test_what_a_constructor_gives_its_base_is_not_asked_for():
    tile = build(SHAPES, dict(type="Tile", colour="blue"))
    assert (tile.side, tile.colour) == (3, "blue")
