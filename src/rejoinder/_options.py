"""Checks options where they are given, so that a wrong one cannot wait for the moment of need.

Pure::

    check("run_turn", max_steps=(max_steps, COUNT), tool_timeout=(tool_timeout, SECONDS.optional))

A wrong type or value raises at once, with a message that names the option, what was expected and
what was got. Values of options that may hold a secret are shown by their type only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from rejoinder.errors import ConfigurationError
from rejoinder.types import APIConnectOptions, NotGiven

__all__ = [
    "AMOUNT",
    "CONNECT",
    "COUNT",
    "FLAG",
    "FUNCTION",
    "NAME",
    "NUMBER",
    "SECONDS",
    "SECRET",
    "STRING",
    "WHOLE",
    "Rule",
    "WrongTypeError",
    "check",
    "instance",
    "mapping",
    "one_of",
]

_MAX_SHOWN: Final = 100

Test: TypeAlias = Callable[[Any], bool]


class WrongTypeError(ConfigurationError, TypeError):
    """An option has a value of the wrong type."""


def _always(_: object) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Rule:
    """What an option may be.

    Attributes:
        expected: completes the sentence "expected ...".
        type_fits: whether a value has the right type.
        value_fits: whether a value of the right type is in range.
        may_lack: whether ``None`` and ``NOT_GIVEN`` are accepted too.
        shown: whether a wrong value may be quoted.
    """

    expected: str
    type_fits: Test
    value_fits: Test = _always
    may_lack: bool = False
    shown: bool = True

    @property
    def optional(self) -> Rule:
        """The same rule, which also accepts ``None`` and ``NOT_GIVEN``."""
        return replace(self, may_lack=True)


def check(where: str, /, **options: tuple[object, Rule]) -> None:
    """Refuse the first of `options`, each a value and its rule, that does not fit.

    Raises:
        ConfigurationError: a value is out of range; a `WrongTypeError` if its type is wrong.
    """
    for name, (value, rule) in options.items():
        if rule.type_fits(value):
            if rule.value_fits(value):
                continue
            error: type[ConfigurationError] = ConfigurationError
        elif rule.may_lack and (value is None or isinstance(value, NotGiven)):
            continue
        else:
            error = WrongTypeError
        place = f"{where}: " if where else ""
        raise error(f"{place}expected {name} to be {rule.expected}, got {_shown(value, rule)}")


def _shown(value: object, rule: Rule) -> str:
    if not rule.shown:
        return f"a value of type {type(value).__name__}"
    try:
        text = repr(value)
    except Exception:  # of a foreign `__repr__`
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_string(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


STRING: Final = Rule("a string", _is_string)
NAME: Final = Rule("a string that is not blank", _is_string, lambda text: bool(text.strip()))
SECRET: Final = Rule("a string", _is_string, shown=False)
FLAG: Final = Rule("True or False", _is_flag)
NUMBER: Final = Rule("a finite number", _is_number, math.isfinite)
AMOUNT: Final = Rule("a number of at least 0", _is_number, lambda number: number >= 0)
SECONDS: Final = Rule("seconds greater than 0", _is_number, lambda number: number > 0)
WHOLE: Final = Rule("a whole number of at least 0", _is_whole, lambda number: number >= 0)
COUNT: Final = Rule("a whole number of at least 1", _is_whole, lambda number: number >= 1)
FUNCTION: Final = Rule("a function", callable)


def instance(*classes: type[Any], expected: str | None = None) -> Rule:
    """An instance of one of `classes`."""
    names = " or ".join(cls.__name__ for cls in classes)
    article = "an" if names[0] in "AEIO" else "a"
    return Rule(expected or f"{article} {names}", lambda value: isinstance(value, classes))


def one_of(*values: object) -> Rule:
    """One of `values`."""
    kinds = tuple({type(value) for value in values})
    return Rule(
        f"one of {', '.join(map(repr, values))}",
        lambda value: isinstance(value, kinds),
        lambda value: value in values,
    )


def mapping(expected: str = "a dict with strings as keys") -> Rule:
    """A mapping with text keys."""
    return Rule(
        expected,
        lambda value: isinstance(value, Mapping),
        lambda value: all(isinstance(key, str) for key in value),
    )


CONNECT: Final = instance(APIConnectOptions)
