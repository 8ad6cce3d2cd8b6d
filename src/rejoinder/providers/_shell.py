"""What the shells of several providers share: options read from the environment, snapshots of a
conversation, response schemas, and one second chance for stale credentials.

Functions and small values only: a provider puts them together, it does not inherit from them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlencode, urlsplit

from rejoinder._core import jsontext
from rejoinder._core.images import needs_preparing, prepare
from rejoinder._core.items import ChatItem
from rejoinder.errors import APIError, APIStatusError, ConfigurationError
from rejoinder.types import NotGiven, NotGivenOr

if TYPE_CHECKING:
    import aiohttp

    from rejoinder.providers._stream import DecodeError
    from rejoinder.transport._aiohttp import AiohttpTransport

__all__ = [
    "HttpExtras",
    "PreparedBody",
    "add_query",
    "check_base_url",
    "environment",
    "given",
    "make_transport",
    "response_schema",
    "tool_choice_name",
    "with_second_chance",
]


def environment(*names: str) -> str | None:
    """The first of these variables that is set and not blank."""
    for name in names:
        value = os.environ.get(name)
        if value is not None and value.strip():
            return value.strip()
    return None


def given(value: NotGivenOr[Any]) -> Any:
    """`value`, or ``None`` where the caller said nothing."""
    return None if isinstance(value, NotGiven) else value


def check_base_url(url: object, option: str = "base_url") -> str:
    """`url` without a slash at its end.

    Raises:
        ConfigurationError: it is no absolute http(s) URL.
    """
    text = str(url).strip()
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        sound = False
    if not sound:
        raise ConfigurationError(
            f"{option}: expected an absolute URL like 'https://host/path', got {text!r}"
        )
    return text.rstrip("/")


def make_transport(http_session: aiohttp.ClientSession | None) -> AiohttpTransport:
    """The transport of an LLM, around the caller's own session if there is one."""
    from rejoinder.transport._aiohttp import AiohttpTransport

    return AiohttpTransport(http_session)


class PreparedBody:
    """The body of a call, made once for all its attempts.

    It is made at once, so that later changes of the conversation change nothing. Where images have
    to be decoded or encoded first, which takes long enough to be heard, a copy of the items is
    taken, and the work is done in a thread at the first attempt.
    """

    __slots__ = ("_body", "_items", "_make")

    def __init__(
        self, items: Sequence[ChatItem], make: Callable[[Sequence[ChatItem]], dict[str, Any]]
    ) -> None:
        self._make = make
        self._body: bytes | None = None
        self._items: list[ChatItem] = []
        if needs_preparing(items):
            self._items = [_copied(item) for item in items]
        else:
            self._body = self._render(items)

    async def get(self) -> bytes:
        """The body as JSON.

        Raises:
            ConfigurationError: the conversation holds something that cannot be sent.
        """
        if self._body is None:
            self._body = await asyncio.to_thread(self._work)
        return self._body

    def _work(self) -> bytes:
        prepare(self._items)
        return self._render(self._items)

    def _render(self, items: Sequence[ChatItem]) -> bytes:
        try:
            return jsontext.encode(self._make(items))
        except ConfigurationError:
            raise
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"the request cannot be made: {error}") from error


def _copied(item: ChatItem) -> ChatItem:
    if item.type == "message":
        return item.model_copy(update={"content": list(item.content)})
    return item.model_copy()


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
        elif spec.get("type") not in ("json_object", "text"):
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


def with_second_chance(
    decode: DecodeError, stale: Callable[[APIStatusError], bool], renew: Callable[[], bool]
) -> DecodeError:
    """`decode`, but an error for which fresh credentials may be the cure is tried once more.

    Args:
        stale: whether the error says that the credentials are old.
        renew: forget the credentials; returns whether others can be had.
    """
    used = False

    def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        nonlocal used
        error = decode(status, headers, body)
        if not used and isinstance(error, APIStatusError) and stale(error) and renew():
            used = True
            error.retryable = True
        return error

    return decode_error
