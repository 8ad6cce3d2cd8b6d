"""The body of a chat completions request, from its parts. Pure.

No empty field is sent: no choice without tools, no null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from rejoinder._core.names import portable_name
from rejoinder._core.rules import TOOL_NAME
from rejoinder.errors import ConfigurationError

__all__ = ["named_choice", "request_body"]


def request_body(
    messages: Sequence[Mapping[str, Any]],
    data: object,
    tools: Sequence[Mapping[str, Any]],
    tool_choice: object,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The body of a streaming request.

    Args:
        messages: from `to_messages`.
        data: further output of the format; this dialect has none.
        tools: specs in OpenAI's envelope.
        tool_choice: ``"auto"``, ``"required"``, ``"none"``, one function by name, or ``None``.
        options: the other fields, including ``model``. ``extra_body`` overrides all of them; ``None``
            in it removes a field.
    """
    whole: list[Mapping[str, Any]] = []
    for message in messages:
        # Strict servers require this key, although the specification allows its absence ("required
        # key [content] not found": LongCat, xiaozhi-esp32-server #2433).
        whole.append(message if "content" in message else {**message, "content": None})  # noqa: PERF401  a comprehension would be called anew
    body: dict[str, Any] = {
        "messages": whole,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    extra: Mapping[str, Any] = {}
    for name, value in options.items():
        if name == "extra_body":
            extra = value or {}
        elif name == "parallel_tool_calls":
            if tools:
                body[name] = value
        else:
            body[name] = value
    if tools:
        body["tools"] = tools
        if tool_choice is not None:
            body["tool_choice"] = named_choice(tool_choice)
    body.update(extra)
    for name, value in extra.items():
        if value is None:
            del body[name]
    return body


def named_choice(choice: object, *, flat: bool = False) -> str | dict[str, Any] | None:
    """`choice` in OpenAI's words; `flat`: in those of the Responses API.

    Raises:
        ConfigurationError: it is not one of the known choices.
    """
    if choice is None or isinstance(choice, str):
        if choice in (None, "auto", "required", "none"):
            return choice
    elif isinstance(choice, Mapping):
        named = cast("Mapping[str, Any]", choice)
        inner: Any = named.get("function")
        function = cast("Mapping[str, Any]", inner) if isinstance(inner, Mapping) else named
        name: Any = function.get("name")
        if isinstance(name, str) and name:
            name = portable_name(name, TOOL_NAME)
            if flat:
                return {"type": "function", "name": name}
            return {"type": "function", "function": {"name": name}}
    raise ConfigurationError(
        "tool_choice: expected 'auto', 'required', 'none' or "
        f"{{'type': 'function', 'function': {{'name': ...}}}}, got {choice!r}"
    )
