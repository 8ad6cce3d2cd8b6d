"""Messages of chat completions as items. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from rejoinder._core.items import ChatItem
from rejoinder._core.reading import ItemReader, mappings
from rejoinder._core.unread import with_unread
from rejoinder.providers.completions.parts import (
    arguments_of,
    fields_of,
    read_content,
    read_output,
)

__all__ = ["from_messages"]

_ROLES = {"function": "tool"}
_STATE = ("reasoning_content", "reasoning_details")
_EXTRA_CONTENT = frozenset({"google", "livekit", "xai"})

_MESSAGE = frozenset({"role", "content", "extra_content"})
_ASSISTANT = _MESSAGE | {"tool_calls", "function_call", "refusal"}
_OUTPUT = frozenset({"role", "content", "tool_call_id"})


def from_messages(
    messages: object, system: Any = None, *, key: str = "openai", form: str = "openai"
) -> list[ChatItem]:
    """Convert messages of the chat completions API to items.

    Args:
        messages: as they are sent.
        system: not used; this API has no system text beside the messages.
        key: the key of `extra` that keeps unknown fields.
        form: the name of the format that sends them back.

    Raises:
        ValueError: an entry is not a message of this API; the message names the place.
    """
    return _Reading(key, form).items(messages)


class _Reading:
    def __init__(self, key: str, form: str) -> None:
        self._reader = ItemReader()
        self._key = key
        self._form = form

    def items(self, messages: object) -> list[ChatItem]:
        for place, message in mappings(messages, "messages"):
            role = message.get("role")
            role = _ROLES.get(str(role), role)
            if role == "tool":
                self._output(message, place)
            elif role == "assistant":
                self._assistant(message, place)
            elif role in ("system", "developer", "user"):
                content, kept = read_content(message.get("content"), f"{place}.content")
                extra = self._extra(message, kept, _MESSAGE)
                self._reader.message(role, content, extra)
            else:
                raise ValueError(f"{place}.role: expected a role of chat completions, got {role!r}")
        return self._reader.finish()

    def _extra(
        self, message: Mapping[str, Any], kept: list[dict[str, Any]], known: frozenset[str]
    ) -> dict[str, Any]:
        fields = fields_of(message, known)
        foreign = _foreign_content(message)
        if foreign:
            fields["extra_content"] = foreign
        return with_unread(
            _state(message), self._key, self._form, {"content": kept, "fields": fields}
        )

    def _output(self, message: Mapping[str, Any], place: str) -> None:
        given = message.get("content")
        found = read_output(given, f"{place}.content", pictures=False)
        output = dict(found.kept)
        if fields := fields_of(message, _OUTPUT):
            output["fields"] = fields
        self._reader.output(
            message.get("tool_call_id"),
            found.text,
            name=message.get("name"),
            images=found.images,
            keep=lambda extra: with_unread(extra, self._key, self._form, {"output": output}),
        )

    def _assistant(self, message: Mapping[str, Any], place: str) -> None:
        reader = self._reader
        reader.turn()
        content, kept = read_content(message.get("content"), f"{place}.content")
        refusal = message.get("refusal")
        if refusal is not None and not isinstance(refusal, str):
            raise ValueError(f"{place}.refusal: expected a text, got {type(refusal).__name__}")
        if refusal:
            content = [*(content if any(content) else ()), refusal]
        extra = self._extra(message, kept, _ASSISTANT)
        extra = with_unread(extra, self._key, self._form, {"refusal": refusal})
        calls = message.get("tool_calls") or ()
        legacy = message.get("function_call")
        if content or extra or not (calls or legacy):
            reader.message("assistant", content, extra)
        for where, call in mappings(calls, f"{place}.tool_calls") if calls else ():
            self._call(call, where)
        if isinstance(legacy, Mapping):
            called = cast("Mapping[str, Any]", legacy)
            reader.call(None, called.get("name"), called.get("arguments"))
        elif legacy is not None:
            raise ValueError(
                f"{place}.function_call: expected an object with name and arguments, "
                f"got {type(legacy).__name__}"
            )

    def _call(self, call: Mapping[str, Any], where: str) -> None:
        inner: Any = call.get("function") or call.get("custom")
        if not isinstance(inner, Mapping):
            raise ValueError(f"{where}: expected `function` with name and arguments")
        called = cast("Mapping[str, Any]", inner)
        raw: dict[str, Any] = {}
        foreign = _foreign_content(call)
        if (
            foreign
            or call.get("type", "function") != "function"
            or fields_of(call, frozenset({"id", "type", "function", "extra_content"}))
            or fields_of(called, frozenset({"name", "arguments"}))
        ):
            raw = fields_of(call, frozenset({"id", "extra_content"}))
            if foreign:
                raw["extra_content"] = foreign
        extra = with_unread(_state(call), self._key, self._form, {"call": raw})
        self._reader.call(call.get("id"), called.get("name"), arguments_of(called), extra)


def _state(entry: Mapping[str, Any]) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    held = {key: entry[key] for key in _STATE if entry.get(key)}
    if held:
        extra["openai"] = held
    more = entry.get("extra_content")
    if isinstance(more, Mapping):
        state = cast("Mapping[str, Any]", more)
        extra |= {key: state[key] for key in sorted(_EXTRA_CONTENT) if key in state}
    return extra


def _foreign_content(entry: Mapping[str, Any]) -> dict[str, Any]:
    """State in `extra_content` of a provider that we do not know."""
    more = entry.get("extra_content")
    return (
        fields_of(cast("Mapping[str, Any]", more), _EXTRA_CONTENT)
        if isinstance(more, Mapping)
        else {}
    )
