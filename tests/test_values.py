"""What annotations say about values: strict scalars, ranges, and where in a value the fault is."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from mmseg import values
from mmseg.errors import ConfigError


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 3), (float, 3), (float, 0.5), (bool, False), (str, "x"), (int | None, None), (Any, object()),
        (Sequence[int], [1, 2]), (Sequence[int], (1, 2)), (Mapping[str, Any], {"a": None}),
        (str | Path, "x"), (str | Path, Path("x")), (int | Sequence[int], 3), (int | Sequence[int], [3]),
        (Literal["a", "b"], "b"), (values.Range, (0.5, 2.0)), (values.Dilation, [-9, -6, -3]), (values.Dilation, []),
        (values.Size, [480, 853]), (values.Fraction, 1), (Sequence[float], [1, 0.5]),
    ],
)  # fmt: skip
def test_what_fits_comes_back_as_it_was_given(annotation, value):
    checked = values.check(value, values.checker(annotation), "a.b")
    assert checked == value and type(checked) is type(value)
    if isinstance(value, (list, tuple)):
        assert [type(v) for v in checked] == [type(v) for v in value]


def test_a_list_becomes_a_tuple_where_the_annotation_says_so():
    pairs = values.check([[1, 2], [3, 4]], values.checker(Sequence[tuple[int, int]]), "a.b")
    assert pairs == [(1, 2), (3, 4)]


@pytest.mark.parametrize(
    ("annotation", "value", "found", "expected"),
    [
        (int, True, "a.b = True", "an integer"),
        (int, "3", "a.b = '3'", "an integer"),
        (int, 3.0, "a.b = 3.0", "an integer"),
        (float, "abc", "a.b = 'abc'", "a number"),
        (float, float("nan"), "a.b = nan", "a finite number"),
        (float, True, "a.b = True", "a number"),
        (bool, 1, "a.b = 1", "True or False"),
        (str, 1, "a.b = 1", "a text"),
        (int, None, "a.b = None", "an integer"),
        (Sequence[int], "12", "a.b = '12'", "a list"),
        (Sequence[int], 5, "a.b = 5", "a list"),
        (Sequence[int], [1, "x"], "a.b.1 = 'x'", "an integer"),
        (Mapping[str, Any], 5, "a.b = 5", "a dict"),
        (Mapping[str, Any], [], "a.b = []", "a dict"),
        (int | Sequence[int], [1, "x"], "a.b.1 = 'x'", "an integer"),
        (int | Sequence[int], "x", "a.b = 'x'", "an integer or a list"),
        (Literal["a", "b"], "c", "a.b = 'c'", "'a' or 'b'"),
        (values.PositiveInt, 0, "a.b = 0", "a number above 0"),
        (values.NonNegativeInt | None, -1, "a.b = -1", "a number of at least 0"),
        (values.Fraction, 2, "a.b = 2", "a number of at most 1"),
        (values.Dilation, [-3, -9], "a.b = [-3, -9]", "numbers in ascending order"),
        (values.Dilation, [-9, -1.5], "a.b.1 = -1.5", "an integer"),
        (values.Size, [480], "a.b = [480]", "2 values or more"),
        (values.Size, [480, 0], "a.b.1 = 0", "a number above 0"),
        (Sequence[tuple[int, int]], [[1, 2], [3]], "a.b.1", "(missing|Field required|a value)"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(annotation, value, found, expected):
    with pytest.raises(ConfigError) as error:
        values.check(value, values.checker(annotation), "a.b")
    assert error.value.found.startswith(found)
    assert re.search(expected, error.value.expected), error.value
    assert error.value.action


def test_a_long_value_is_shortened_and_the_default_told():
    with pytest.raises(ConfigError) as error:
        values.check("x" * 10_000, values.checker(int), "a.b", 7)
    assert len(str(error.value)) < 400
    assert "leave it out for 7" in error.value.action


def test_annotations_that_say_nothing_leave_the_value_alone():
    class Protocol:
        pass

    assert values.check(5, values.checker(Any), "a") == 5
    assert values.checker(Protocol) is not None  # instances of a class are told apart
    with pytest.raises(ConfigError, match="an instance of"):
        values.check(5, values.checker(Protocol), "a")
