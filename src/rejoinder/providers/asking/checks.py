"""What the shells of several providers share: options read from the environment, the transport, and
one second chance for stale credentials.

Functions and small values only: a provider puts them together, it does not inherit from them.
"""

from __future__ import annotations

import os
from math import isfinite
from typing import Any
from urllib.parse import urlsplit

from rejoinder._secrets import redacted_url
from rejoinder.errors import ConfigurationError
from rejoinder.types import NotGiven, NotGivenOr

__all__ = [
    "check_base_url",
    "check_numbers",
    "check_strings",
    "environment",
    "or_none",
]


def environment(*names: str) -> str | None:
    """The first of these variables that is set and not blank."""
    for name in names:
        value = os.environ.get(name)
        if value is not None and value.strip():
            return value.strip()
    return None


def or_none(value: NotGivenOr[Any]) -> Any:
    """`value`, or ``None`` if it is `NOT_GIVEN`."""
    return None if isinstance(value, NotGiven) else value


def check_strings(model: object, **keys: object) -> None:
    """Refuse a `model` that is not a name, and `keys` that are not strings; ``None`` passes.

    Raises:
        ConfigurationError: one of them; a key is not shown.
    """
    if not isinstance(model, str) or not model.strip():
        raise ConfigurationError(f"model: expected the name of a model, got {model!r}")
    for option, key in keys.items():
        if key is not None and not isinstance(key, str):
            raise ConfigurationError(f"{option}: expected a text, got {type(key).__name__}")


def check_numbers(**options: object) -> None:
    """Refuse options that are given and no finite numbers; those that begin with ``max_`` count
    something, so they are whole and at least 1.

    Raises:
        ConfigurationError: naming the option.
    """
    for option, value in options.items():
        if value is None or isinstance(value, NotGiven):
            continue
        sound = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
        if option.startswith("max_"):
            if not (sound and isinstance(value, int) and value >= 1):
                raise ConfigurationError(
                    f"{option}: expected a whole number of at least 1, got {value!r}"
                )
        elif not sound:
            raise ConfigurationError(f"{option}: expected a number, got {value!r}")


def check_base_url(
    url: object, option: str = "base_url", *, endpoints: tuple[str, ...] = ()
) -> str:
    """`url` without a slash at its end.

    Args:
        endpoints: what is cut off the end, because it is added to every address.

    Raises:
        ConfigurationError: it is no absolute http(s) URL.
    """
    text = url.strip() if isinstance(url, str) else ""
    if not _is_address(text):
        guess = f"http://{text}"
        hint = f"; did you mean {redacted_url(guess)!r}?" if text and "://" not in text else ""
        if hint and not _is_address(guess):
            hint = ""
        shown = redacted_url(url) if isinstance(url, str) else url
        raise ConfigurationError(
            f"{option}: expected an absolute URL like 'https://host/path', got {shown!r}{hint}"
        )
    # Portals show the whole address of an endpoint, query included, to be copied.
    path, mark, query = text.partition("?")
    path = path.rstrip("/")
    for endpoint in endpoints:
        if path.endswith(endpoint):
            path = path[: -len(endpoint)].rstrip("/")
            break
    return f"{path}{mark}{query}"


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    sound = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    return sound and not any(character.isspace() for character in text)
