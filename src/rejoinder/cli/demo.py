"""The two demo tools: a clock and a calculator."""

from __future__ import annotations

import ast
import asyncio
import math
import operator
import zoneinfo
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from rejoinder.llm.tool_context import ToolError, function_tool

__all__ = ["DEMO_TOOLS", "calculate", "evaluate", "find_zone", "time_in"]

# Common places whose names are not time zone names.
_PLACES: Final[dict[str, str]] = {
    "bangalore": "Asia/Kolkata", "barcelona": "Europe/Madrid", "beijing": "Asia/Shanghai",
    "boston": "America/New_York", "brazil": "America/Sao_Paulo", "california": "America/Los_Angeles",
    "canada": "America/Toronto", "china": "Asia/Shanghai", "delhi": "Asia/Kolkata",
    "england": "Europe/London", "florida": "America/New_York", "france": "Europe/Paris",
    "geneva": "Europe/Zurich", "germany": "Europe/Berlin", "gmt": "UTC",
    "hamburg": "Europe/Berlin", "hawaii": "Pacific/Honolulu", "houston": "America/Chicago",
    "india": "Asia/Kolkata", "italy": "Europe/Rome", "japan": "Asia/Tokyo", "korea": "Asia/Seoul",
    "las vegas": "America/Los_Angeles", "manchester": "Europe/London", "mexico": "America/Mexico_City",
    "miami": "America/New_York", "milan": "Europe/Rome", "montreal": "America/Toronto",
    "mumbai": "Asia/Kolkata", "munich": "Europe/Berlin", "new delhi": "Asia/Kolkata",
    "new york city": "America/New_York", "new zealand": "Pacific/Auckland", "nyc": "America/New_York",
    "osaka": "Asia/Tokyo", "philadelphia": "America/New_York", "rio de janeiro": "America/Sao_Paulo",
    "san francisco": "America/Los_Angeles", "scotland": "Europe/London", "seattle": "America/Los_Angeles",
    "shenzhen": "Asia/Shanghai", "south africa": "Africa/Johannesburg", "spain": "Europe/Madrid",
    "st petersburg": "Europe/Moscow", "sweden": "Europe/Stockholm", "texas": "America/Chicago",
    "uk": "Europe/London", "united kingdom": "Europe/London", "utc": "UTC",
    "washington": "America/New_York", "washington dc": "America/New_York",
}  # fmt: skip


def find_zone(place: str) -> str | None:
    """The name of the time zone of a city, country or zone, if it is known."""
    names = [part.strip() for part in place.split(",")]
    zones = zoneinfo.available_timezones()
    by_city = {zone.rpartition("/")[2].lower(): zone for zone in sorted(zones)}
    for name in (place.strip(), *names):
        key = name.lower().replace(".", "")
        if key in _PLACES:
            return _PLACES[key]
        if name in zones:
            return name
        city = by_city.get(key.replace(" ", "_"))
        if city is not None:
            return city
    return None


@function_tool
async def time_in(place: str) -> str:
    """Tell what time it is in a city now.

    Args:
        place: name of the city
    """
    return await asyncio.to_thread(_clock, place)  # zones are files


def _clock(place: str) -> str:
    zone = find_zone(place)
    try:
        if zone is None and zoneinfo.available_timezones():
            raise ToolError(f"the time zone of {place!r} is not known; name a larger city")
        now = datetime.now(zoneinfo.ZoneInfo(zone or "UTC"))
    except zoneinfo.ZoneInfoNotFoundError:
        raise ToolError(
            "this machine has no time zone data (pip install 'rejoinder[cli]')"
        ) from None
    return f"{now:%A, %d %B %Y, %H:%M} in {zone}"


@function_tool
async def calculate(expression: str) -> str:
    """Compute an arithmetic expression.

    Args:
        expression: numbers and operators, like 12 * 34 or sqrt(2)
    """
    try:
        return str(evaluate(expression))
    except ValueError as error:
        raise ToolError(f"cannot compute {expression!r}: {error}") from None


DEMO_TOOLS: Final[list[Any]] = [calculate, time_in]


# ---------------------------------------------------------------------------------------------

_MAX_LENGTH: Final = 500
_MAX_BITS: Final = 4096
_OPERATORS: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: operator.mod,
}
_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "abs": abs, "round": round, "min": min, "max": max, "sqrt": math.sqrt, "exp": math.exp,
    "log": math.log, "log2": math.log2, "log10": math.log10, "sin": math.sin, "cos": math.cos,
    "tan": math.tan, "floor": math.floor, "ceil": math.ceil, "radians": math.radians,
    "degrees": math.degrees,
}  # fmt: skip
_CONSTANTS: Final = {"pi": math.pi, "e": math.e}


def evaluate(expression: str) -> int | float:
    """The value of an arithmetic expression: numbers, ``+ - * / // % **``, brackets and a few
    functions. Nothing else is accepted, and no code is executed.

    Raises:
        ValueError: it is another expression, or its value is not a number or is too large.
    """
    if len(expression) > _MAX_LENGTH:
        raise ValueError(f"longer than {_MAX_LENGTH} characters")
    text = expression.strip().rstrip("=").rstrip()
    for written, meant in (("^", "**"), ("×", "*"), ("÷", "/"), ("−", "-")):
        text = text.replace(written, meant)
    try:
        tree = ast.parse(text, mode="eval")
        value = _value(tree.body)
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError("it is not an arithmetic expression") from None
    except ZeroDivisionError:
        raise ValueError("division by zero") from None
    except (OverflowError, TypeError) as error:
        raise ValueError(str(error)) from None
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("the result is too large")
        return round(value, 12)
    return value


def _value(node: ast.expr) -> int | float:
    match node:
        case ast.Constant(value=bool()):
            raise ValueError("it is not an arithmetic expression")
        case ast.Constant(value=int() | float() as value):
            return _small(value)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _small(_OPERATORS[type(op)](_value(left), _value(right)))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _small(_FUNCTIONS[name](*(_value(argument) for argument in arguments)))
        case ast.Name(id=name):
            raise ValueError(f"{name!r} is not known")
        case _:
            raise ValueError("it is not an arithmetic expression")


def _power(base: float, exponent: float) -> int | float:
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and exponent > 0 and int(base).bit_length() * exponent > _MAX_BITS:
        raise ValueError("the result is too large")
    value = base**exponent
    if isinstance(value, complex):
        raise ValueError("the result is not a real number")
    return _small(value)


def _small(value: float) -> int | float:
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise ValueError("the result is too large")
    return value
