"""What the making of requests has in common in several providers.

Pure: values in, values out. What cannot be sent is a `ConfigurationError`, before
anything is. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from rejoinder._core.dialects import Dialect
from rejoinder._core.names import portable_name
from rejoinder._core.reasoning import Option, check_reasoning
from rejoinder._core.rules import TOOL_NAME
from rejoinder.errors import ConfigurationError
from rejoinder.llm import _tool_specs
from rejoinder.llm.tool_context import ToolContext
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
    "tool_specs",
]


def checked_extras(extra_kwargs: object) -> dict[str, Any]:
    """A copy of the `extra_kwargs` of a call.

    Raises:
        ConfigurationError: they, or what HTTP itself gets of them, are no mapping.
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
    """The `extra_kwargs` of a call, sorted.

    Attributes:
        headers: ``extra_headers``.
        query: ``extra_query``.
        extra_body: ``extra_body``.
        reasoning: ``reasoning`` in portable words, as the option of an LLM; a mapping is a member of
            the body.
        fields: all other entries.

    Raises:
        ConfigurationError: see `checked_extras`; `reasoning` means nothing.
    """

    __slots__ = ("extra_body", "fields", "headers", "query", "reasoning")

    def __init__(self, extra_kwargs: object = None) -> None:
        self.fields: dict[str, Any] = {}
        self.extra_body: dict[str, Any] = {}
        self.headers: dict[str, str] = {}
        self.query: dict[str, str] = {}
        self.reasoning: Option | None = None
        if extra_kwargs is None or isinstance(extra_kwargs, NotGiven):
            return
        self.fields = checked_extras(extra_kwargs)
        self.headers = string_fields("extra_headers", self.fields.pop("extra_headers", None))
        self.query = string_fields("extra_query", self.fields.pop("extra_query", None))
        option = self.fields.get("reasoning")
        if isinstance(option, str | int) and not isinstance(option, bool):
            del self.fields["reasoning"]
            check_reasoning(option)
            self.reasoning = cast("Option", option)
        extra_body = self.fields.pop("extra_body", None)
        if isinstance(extra_body, Mapping):
            self.extra_body = dict(cast("Mapping[str, Any]", extra_body))

    @property
    def body(self) -> dict[str, Any]:
        """The members of the body: the other entries, and ``extra_body`` laid over them."""
        return {**self.fields, **self.extra_body}


NO_EXTRAS: Final = HttpExtras()
"""Those of a call without `extra_kwargs`. Shared, so nothing may be added to it."""


def string_fields(option: str, value: object) -> dict[str, str]:
    """Names and values of header fields or of a query; ``None`` is left out.

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


def path_part(option: str, text: str, *, safe: str = "") -> str:
    """`text` as a part of the path of a URL, in which it can lead nowhere else.

    Args:
        option: names what `text` is.
        safe: characters that stay as they are; with ``/`` in it, `text` may be several parts.

    Raises:
        ConfigurationError: a part is empty, ``.`` or ``..``.
    """
    for part in text.split("/") if "/" in safe else [text]:
        if part in ("", ".", ".."):
            raise ConfigurationError(
                f"{option}: {text[:100]!r} cannot be part of an address: {part!r} is no name"
            )
    return quote(text, safe=safe)


def tool_specs(tools: object, dialect: Dialect, **options: Any) -> list[dict[str, Any]]:
    """The descriptions of `tools` that are sent.

    Args:
        dialect: of the API they are sent to.
        options: see `rejoinder.llm.ToolContext.parse_function_tools`.

    Raises:
        ConfigurationError: they are no list.
        ValueError: one of them is no tool, or two have one name.
    """
    if not tools:
        return []
    if not isinstance(tools, (list, tuple)):
        raise ConfigurationError(
            "tools: expected a list of functions decorated with @function_tool, got "
            f"{type(tools).__name__}"
        )
    context = ToolContext.of(cast("list[Any]", tools))
    return _tool_specs.tool_specs(
        context.function_tools, context.provider_tools, dialect, **options
    )


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
    """Header fields laid over each other, the later ones win; names are case-insensitive."""
    found: dict[str, tuple[str, str]] = {}
    for headers in many:
        for name, value in headers.items():
            found[name.lower()] = (name, value)
    return dict(found.values())


def has_header(headers: Mapping[str, str], name: str) -> bool:
    """Whether `headers` has a field of this name; names are case-insensitive."""
    return name.lower() in map(str.lower, headers)


def tool_choice_name(choice: object, accepted: re.Pattern[str] = TOOL_NAME) -> str | None:
    """The function that a choice like ``{"type": "function", "function": {"name": "x"}}`` names, as
    it is sent where names have to be `accepted`.

    Raises:
        ConfigurationError: it names none.
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
