"""Parts of making a request that several providers share.

Pure: values in, values out. Something that cannot be sent raises a `ConfigurationError` before the
request is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, cast
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from rejoinder._core.names import portable_name
from rejoinder._core.reasoning import Option, check_reasoning
from rejoinder._core.rules import TOOL_NAME
from rejoinder.errors import ConfigurationError
from rejoinder.transport._addresses import check_headers
from rejoinder.types import NotGiven

__all__ = [
    "NO_EXTRAS",
    "HttpExtras",
    "build_url",
    "checked_extras",
    "has_header",
    "merge_headers",
    "path_part",
    "string_fields",
    "tool_choice_name",
]


def checked_extras(extra_kwargs: object) -> dict[str, Any]:
    """A copy of the `extra_kwargs` of a call.

    Raises:
        ConfigurationError: `extra_kwargs`, or one of its HTTP entries, is not a mapping.
    """
    if extra_kwargs is None or isinstance(extra_kwargs, NotGiven):
        return {}
    extra = _checked_mapping("extra_kwargs", extra_kwargs)
    for name in ("extra_headers", "extra_query", "extra_body"):
        value = extra.get(name)
        if value is not None and not isinstance(value, NotGiven):
            _checked_mapping(name, value)
    return dict(extra)


def _checked_mapping(option: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{option}: expected a mapping, got {type(value).__name__}")
    return cast("Mapping[str, Any]", value)


class HttpExtras:
    """The `extra_kwargs` of a call, separated by purpose.

    Attributes:
        headers: ``extra_headers``.
        query: ``extra_query``.
        extra_body: ``extra_body``.
        reasoning: ``reasoning`` in the portable form of the LLM option. A mapping stays a member of
            the body.
        fields: all other entries.
        body: the members of the body: `fields`, with ``extra_body`` merged over them.

    Raises:
        ConfigurationError: see `checked_extras`, or the value of `reasoning` is unknown.
    """

    __slots__ = ("body", "extra_body", "fields", "headers", "query", "reasoning")

    def __init__(self, extra_kwargs: object = None) -> None:
        self.fields: dict[str, Any] = {}
        self.extra_body: dict[str, Any] = {}
        self.headers: dict[str, str] = {}
        self.query: dict[str, str] = {}
        self.body: Mapping[str, Any] = {}
        self.reasoning: Option | None = None
        if extra_kwargs is None or isinstance(extra_kwargs, NotGiven):
            return
        self.fields = checked_extras(extra_kwargs)
        self.headers = string_fields("extra_headers", self.fields.pop("extra_headers", None))
        if self.headers:
            check_headers(self.headers)
        self.query = string_fields("extra_query", self.fields.pop("extra_query", None))
        option = self.fields.get("reasoning")
        if isinstance(option, str | int) and not isinstance(option, bool):
            del self.fields["reasoning"]
            check_reasoning(option)
            self.reasoning = cast("Option", option)
        extra_body = self.fields.pop("extra_body", None)
        if isinstance(extra_body, Mapping):
            self.extra_body = dict(cast("Mapping[str, Any]", extra_body))
        self.body = {**self.fields, **self.extra_body}


NO_EXTRAS: Final = HttpExtras()
"""The value for a call without `extra_kwargs`. It is shared and must not be changed."""


def string_fields(option: str, value: object) -> dict[str, str]:
    """Names and values of header fields or of a query; ``None`` values are omitted.

    Raises:
        ConfigurationError: a value is neither a string nor a number.
    """
    if not isinstance(value, Mapping):
        return {}
    fields: dict[str, str] = {}
    for name, entry in cast("Mapping[object, object]", value).items():
        if isinstance(entry, str | int | float):
            fields[str(name)] = str(entry)
        elif entry is not None and not isinstance(entry, NotGiven):
            raise ConfigurationError(
                f"{option}[{name!r}]: expected a string, got {type(entry).__name__}"
            )
    return fields


@lru_cache(maxsize=256)  # a request has the same parts as the one before
def path_part(option: str, text: str, *, safe: str = "") -> str:
    """`text`, escaped as a part of a URL's path so that it cannot change the path.

    Args:
        option: name of the option, for errors.
        safe: characters that are not escaped; with ``/``, `text` may be several parts.

    Raises:
        ConfigurationError: a part is empty, ``.`` or ``..``.
    """
    for part in text.split("/") if "/" in safe else [text]:
        if part in ("", ".", ".."):
            raise ConfigurationError(
                f"{option}: {text[:100]!r} cannot be part of a URL: {part!r} is not a name"
            )
    return quote(text, safe=safe)


def build_url(base: str, path: str = "", query: Mapping[str, str] | None = None) -> str:
    """`base` with `path` and `query` added; a query that `base` has stays."""
    if not path and not query:
        return base
    parts = urlsplit(base)
    whole = f"{parts.path.rstrip('/')}/{path}" if path else parts.path
    text = urlencode(query or {}, quote_via=quote)
    if parts.query:
        text = f"{parts.query}&{text}" if text else parts.query
    return urlunsplit((parts.scheme, parts.netloc, whole, text, ""))


def merge_headers(*many: Mapping[str, str]) -> dict[str, str]:
    """Merge header fields; later ones win, and names are case-insensitive."""
    found: dict[str, tuple[str, str]] = {}
    for headers in many:
        for name, value in headers.items():
            found[name.lower()] = (name, value)
    return dict(found.values())


def has_header(headers: Mapping[str, str], name: str) -> bool:
    """Whether `headers` has a field of this name; names are case-insensitive."""
    return name.lower() in map(str.lower, headers)


def tool_choice_name(choice: object, accepted: re.Pattern[str] = TOOL_NAME) -> str | None:
    """The function named by a choice like ``{"type": "function", "function": {"name": "x"}}``, in the
    form that `accepted` allows.

    Raises:
        ConfigurationError: the choice names no function.
    """
    if not isinstance(choice, Mapping):
        return None
    function = cast("Mapping[str, Any]", choice).get("function")
    name = cast("Mapping[str, Any]", function).get("name") if isinstance(function, Mapping) else ""
    if not isinstance(name, str) or not name:
        raise ConfigurationError(
            "tool_choice: expected 'auto', 'required', 'none' or "
            "{'type': 'function', 'function': {'name': ...}}, got " + repr(cast("object", choice))
        )
    return portable_name(name, accepted)
