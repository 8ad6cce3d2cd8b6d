"""Numbers as options. An error states what is expected."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

__all__ = ["count", "port", "seconds", "temperature"]


def _number(text: str, expected: str, fits: Callable[[float], bool]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not fits(value):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return value


def seconds(text: str) -> float:
    """A duration."""
    return _number(text, "seconds greater than 0", lambda value: 0 < value < math.inf)


def temperature(text: str) -> float:
    """The temperature of a model."""
    return _number(text, "a number of at least 0", lambda value: 0 <= value < math.inf)


def count(text: str) -> int:
    """A count."""
    return int(_number(text, "a whole number of at least 1",
                       lambda value: 1 <= value < math.inf and value.is_integer()))  # fmt: skip


def port(text: str) -> int:
    """A port; 0 stands for any."""
    return int(_number(text, "a port from 0 to 65535",
                       lambda value: 0 <= value <= 65535 and value.is_integer()))  # fmt: skip
