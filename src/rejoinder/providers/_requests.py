"""What the making of requests has in common in several providers.

The law of this file: values in, values out. What cannot be sent is a `ConfigurationError`, before
anything is. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import quote, urlencode

from rejoinder._core import jsontext
from rejoinder.errors import ConfigurationError
from rejoinder.types import NotGivenOr

__all__ = [
    "HttpExtras",
    "add_query",
    "rendered",
    "response_schema",
    "tool_choice_name",
    "without_limits",
]


def rendered(make: Callable[[], dict[str, Any]]) -> bytes:
    """What `make` returns, as JSON.

    Raises:
        ConfigurationError: the conversation or an option holds something that cannot be sent.
    """
    try:
        return jsontext.encode(make())
    except ConfigurationError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"the request cannot be made: {error}") from error


class HttpExtras:
    """The entries of `extra_kwargs` that are not members of the body.

    Attributes:
        body: the other entries, and the members of ``extra_body``.
        headers: ``extra_headers``.
        query: ``extra_query``.
    """

    __slots__ = ("body", "headers", "query")

    def __init__(self, extra_kwargs: NotGivenOr[dict[str, Any]] | None) -> None:
        self.body: dict[str, Any] = {}
        if extra_kwargs:
            self.body.update(cast("dict[str, Any]", extra_kwargs))
        self.headers = _texts(self.body.pop("extra_headers", None))
        self.query = _texts(self.body.pop("extra_query", None))
        extra_body = self.body.pop("extra_body", None)
        if isinstance(extra_body, Mapping):
            self.body.update(cast("Mapping[str, Any]", extra_body))


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        return {}
    return {
        str(name): str(entry)
        for name, entry in cast("Mapping[object, object]", value).items()
        if entry is not None
    }


def add_query(url: str, query: Mapping[str, str]) -> str:
    """`url` with further parameters."""
    if not query:
        return url
    joint = "&" if "?" in url else "?"
    return url + joint + urlencode(query, quote_via=quote)


def tool_choice_name(choice: object) -> str | None:
    """The function that a choice like ``{"type": "function", "function": {"name": "x"}}`` names.

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
    return name


def response_schema(response_format: object) -> tuple[str, dict[str, Any]]:
    """Name and plain JSON schema of what an answer should look like.

    Args:
        response_format: a pydantic model, a TypedDict, a dataclass, any other type that pydantic
            can describe; a JSON schema; or OpenAI's ``{"type": "json_schema", ...}``.

    Raises:
        ConfigurationError: it describes nothing.
    """
    if isinstance(response_format, Mapping):
        spec = cast("Mapping[str, Any]", response_format)
        if spec.get("type") == "json_schema" and isinstance(spec.get("json_schema"), Mapping):
            inner = cast("Mapping[str, Any]", spec["json_schema"])
            schema = inner.get("schema")
            if isinstance(schema, Mapping):
                return str(inner.get("name") or "response"), dict(cast("Mapping[str, Any]", schema))
        elif spec.get("type") not in ("json_schema", "json_object", "text"):
            return str(spec.get("title") or "response"), dict(spec)
        raise ConfigurationError(
            f"response_format: expected a type or a JSON schema, got {response_format!r}"
        )
    from pydantic import PydanticSchemaGenerationError, TypeAdapter
    from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

    try:
        schema = TypeAdapter(cast("Any", response_format)).json_schema()
    except (
        PydanticSchemaGenerationError,
        PydanticInvalidForJsonSchema,
        PydanticUserError,
    ) as error:
        raise ConfigurationError(
            "response_format: expected a pydantic model, a TypedDict, a dataclass or a JSON schema, "
            f"got {response_format!r}: {error}"
        ) from error
    return getattr(response_format, "__name__", "response"), schema


# What constrained decoding of Claude's refuses in a schema; the words of a description remain.
_LIMITS = frozenset(
    {
        "exclusiveMaximum",
        "exclusiveMinimum",
        "maxItems",
        "maxLength",
        "maximum",
        "minItems",
        "minLength",
        "minimum",
        "multipleOf",
    }
)
_NAMED = frozenset({"$defs", "definitions", "patternProperties", "properties"})


def without_limits(schema: Mapping[str, Any]) -> dict[str, Any]:
    """`schema` without limits of numbers, texts and lists."""
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _LIMITS:
            continue
        if key in _NAMED and isinstance(value, Mapping):
            members = cast("Mapping[str, Any]", value)
            out[key] = {name: _unlimited(member) for name, member in members.items()}
        elif key in ("const", "default", "enum", "examples"):
            out[key] = value
        else:
            out[key] = _unlimited(value)
    return out


def _unlimited(value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_limits(cast("Mapping[str, Any]", value))
    if isinstance(value, list):
        return [_unlimited(entry) for entry in cast("list[Any]", value)]
    return value
