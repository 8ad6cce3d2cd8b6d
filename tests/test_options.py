"""Options are checked where they are given, with one sentence that says what to write."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rejoinder._options import (
    AMOUNT,
    CONNECT,
    COUNT,
    FLAG,
    FUNCTION,
    NAME,
    NUMBER,
    SECONDS,
    SECRET,
    STRING,
    WHOLE,
    Rule,
    WrongTypeError,
    check,
    instance,
    mapping,
    one_of,
)
from rejoinder.errors import ConfigurationError
from rejoinder.types import NOT_GIVEN, APIConnectOptions


class Thing:
    pass


@pytest.mark.parametrize(
    ("rule", "good", "wrong_types", "wrong_values"),
    [
        (STRING, ["", "a"], [1, None, b"a"], []),
        (NAME, ["a"], [1, None], ["", " \n"]),
        (SECRET, ["a"], [1, None], []),
        (FLAG, [True, False], [0, 1, "true", None], []),
        (NUMBER, [0, -1.5], ["1", True, None], [math.nan, math.inf]),
        (AMOUNT, [0, math.inf], ["1", True], [-1, math.nan]),
        (SECONDS, [1, 0.5, math.inf], ["1", True], [0, -1, math.nan]),
        (WHOLE, [0, 3], [1.0, True, "1"], [-1]),
        (COUNT, [1], [1.0, True], [0, -1]),
        (FUNCTION, [len, Thing], [1, "len", None], []),
        (CONNECT, [APIConnectOptions()], [None, 3, {}], []),
        (instance(Thing), [Thing()], [Thing, None], []),
        (one_of("a", "b"), ["a"], [1, None], ["c"]),
        (mapping(), [{}, {"a": 1}], [[], "a", None], [{1: 2}]),
    ],
)
def test_rules(
    rule: Rule, good: list[Any], wrong_types: list[Any], wrong_values: list[Any]
) -> None:
    for value in good:
        check("f", option=(value, rule))
    for value in wrong_types:
        with pytest.raises(WrongTypeError, match=r"f: expected option to be "):
            check("f", option=(value, rule))
    for value in wrong_values:
        with pytest.raises(ConfigurationError) as caught:
            check("f", option=(value, rule))
        assert not isinstance(caught.value, TypeError), "the type is right"


def test_what_may_be_left_out() -> None:
    for value in (None, NOT_GIVEN, 3):
        check("f", option=(value, COUNT.optional))
    with pytest.raises(WrongTypeError):
        check("f", option=("3", COUNT.optional))
    with pytest.raises(WrongTypeError):
        check("f", option=(NOT_GIVEN, COUNT))


def test_the_sentence() -> None:
    with pytest.raises(
        ValueError, match=r"^run_turn: expected a to be a whole number of at least 1, got 0$"
    ):
        check("run_turn", b=(3, COUNT), a=(0, COUNT), c=(0, COUNT))
    with pytest.raises(TypeError, match=r"^expected a to be an APIConnectOptions, got 'x'$"):
        check("", a=("x", CONNECT))


def test_a_secret_is_not_shown() -> None:
    with pytest.raises(TypeError) as caught:
        check("LLM", api_key=(b"sk-secret", SECRET))
    assert str(caught.value) == "LLM: expected api_key to be a string, got a value of type bytes"


def test_values_that_are_long_or_cannot_be_shown() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(TypeError, match="got a value of type Odd"):
        check("f", a=(Odd(), COUNT))
    with pytest.raises(TypeError) as caught:
        check("f", a=(["x" * 10_000], COUNT))
    assert len(str(caught.value)) < 300
