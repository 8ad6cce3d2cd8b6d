"""Reads objects of other software: clients of SDKs, messages, errors, credentials.

Their classes are not imported, since their packages are optional and slow to import, and other
versions lack some attributes. `read` checks what it finds, so that a value of another type is
treated as absent instead of failing later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

__all__ = ["dump", "dumps", "has", "method", "read"]

T = TypeVar("T")


@overload
def read(value: object, path: str) -> Any: ...
@overload
def read(value: object, path: str, kind: type[T]) -> T | None: ...
def read(value: object, path: str, kind: type[Any] = object) -> Any:
    """Return an attribute of `value`, or None if it is absent or not a `kind`.

    Args:
        value: any object, including ``None``.
        path: the name of the attribute, or several joined by dots (``"response.status_code"``).
        kind: the type that the attribute must have.
    """
    for name in path.split("."):
        value = getattr(value, name, None)
    return value if isinstance(value, kind) else None


def method(value: object, name: str) -> Callable[..., Any] | None:
    """Return the method of this name of `value`, or None if it is missing."""
    found = getattr(value, name, None)
    return found if callable(found) else None


def has(value: object, *names: str) -> bool:
    """Return whether `value` has all these attributes, whatever their values."""
    return all(hasattr(value, name) for name in names)


def dumps(value: object) -> bool:
    """Return whether `value` is an object that `dump` can turn into a dictionary."""
    return method(value, "model_dump") is not None


def dump(value: object, **options: Any) -> dict[str, Any] | None:
    """Return a pydantic object of an SDK as a dictionary, or None for anything else.

    Args:
        value: the object.
        **options: passed to its ``model_dump``.
    """
    make = method(value, "model_dump")
    return dict(make(**options)) if make is not None else None
