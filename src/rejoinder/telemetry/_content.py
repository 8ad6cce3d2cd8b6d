"""Content in spans: whether it is recorded, in which form, and its redaction."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from enum import Flag
from typing import TYPE_CHECKING, Any, Final

from rejoinder._core import jsontext
from rejoinder._core.items import AudioContent, ImageContent, parts_of
from rejoinder._options import FUNCTION, Rule, checked
from rejoinder._secrets import redacted_url

if TYPE_CHECKING:
    from rejoinder._core.chunks import FunctionToolCall
    from rejoinder._core.items import ChatContent, ChatItem, FunctionCall

__all__ = [
    "Capture",
    "captured",
    "input_messages",
    "output_message",
    "redact_content",
    "redacted",
    "set_capture",
]

logger = logging.getLogger("rejoinder")

VARIABLE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
WITHHELD: Final = "<withheld: the redaction failed>"


class Capture(Flag):
    """Where content is recorded."""

    NOWHERE = 0
    ATTRIBUTES = 1
    """In ``gen_ai.input.messages`` and the like, which today's tools read."""
    EVENTS = 2
    """In span events such as ``gen_ai.user.message``, which LiveKit Agents 1.2.17 writes."""


_MODES: Final = {
    "no_content": Capture.NOWHERE,
    "span_only": Capture.ATTRIBUTES,
    "event_only": Capture.EVENTS,
    "span_and_event": Capture.ATTRIBUTES | Capture.EVENTS,
    # The values of earlier conventions.
    **dict.fromkeys(("", "0", "false", "no", "off"), Capture.NOWHERE),
    **dict.fromkeys(("1", "true", "yes", "on"), Capture.ATTRIBUTES | Capture.EVENTS),
}
MODE: Final = Rule(
    'True, False, None, "NO_CONTENT", "SPAN_ONLY", "EVENT_ONLY" or "SPAN_AND_EVENT"',
    lambda value: value is None or isinstance(value, bool | str),
    lambda value: value is None or str(value).lower() in _MODES,
)

_capture: Capture | None = None
_redact: Callable[[str], str] | None = None
_unknown: set[str] = set()


def set_capture(on: bool | str | None) -> None:
    global _capture
    _capture = None if on is None else _MODES[str(on).lower()]


def captured() -> Capture:
    """The current setting of where content is recorded."""
    if _capture is not None:
        return _capture
    value = os.environ.get(VARIABLE, "").strip().lower()
    mode = _MODES.get(value)
    if mode is None:
        if value not in _unknown:
            _unknown.add(value)
            logger.warning(
                "%s is %r; expected NO_CONTENT, SPAN_ONLY, EVENT_ONLY or SPAN_AND_EVENT: no "
                "content is recorded",
                VARIABLE,
                value,
            )
        return Capture.NOWHERE
    return mode


@checked(hook=FUNCTION.optional)
def redact_content(hook: Callable[[str], str] | None) -> None:
    """Pass all content through `hook` before it enters a span; ``None`` removes the hook.

    `hook` gets each text separately (a message, the arguments or the output of a tool, the message or
    the traceback of an error) and returns the text to record. It runs in the thread of the event loop.
    If it raises, the text is withheld.

        telemetry.redact_content(lambda text: CARD_NUMBER.sub("<card>", text))
    """
    global _redact
    _redact = hook


def redacted(text: str) -> str:
    """`text` after redaction, in a form that exporters can encode."""
    hook = _redact
    if hook is None:
        return jsontext.heal(text)
    try:
        shown: Any = hook(text)
    except Exception as error:
        # Log neither its message nor its frames: both may hold the text.
        logger.error("the redaction of content raised %s; the text is withheld", type(error))
        return WITHHELD
    return jsontext.heal(shown) if isinstance(shown, str) else WITHHELD


def input_messages(items: Iterable[ChatItem]) -> str:
    """A conversation as the JSON of ``gen_ai.input.messages``.

    Pictures and sound are mentioned without their bytes, and URLs without their query.
    """
    messages: list[dict[str, Any]] = []

    def add(role: str, *parts: dict[str, Any]) -> None:
        # The texts and calls of one reply are one message.
        if role == "assistant" and messages and messages[-1]["role"] == role:
            messages[-1]["parts"].extend(parts)
        else:
            messages.append({"role": role, "parts": list(parts)})

    for item in items:
        if item.type == "message":
            role = "system" if item.role == "developer" else item.role
            add(role, *map(_part, parts_of(item)))
        elif item.type == "function_call":
            add("assistant", _call(item))
        elif item.type == "function_call_output":
            response = redacted(item.output)
            add("tool", {"type": "tool_call_response", "id": item.call_id, "response": response})
    return _json(messages)


def output_message(
    text: str, calls: Sequence[FunctionToolCall], thinking: str, finish_reason: str | None
) -> str:
    """A reply as the JSON of ``gen_ai.output.messages``."""
    parts: list[dict[str, Any]] = []
    if thinking:
        parts.append({"type": "reasoning", "content": redacted(thinking)})
    if text:
        parts.append({"type": "text", "content": redacted(text)})
    parts += map(_call, calls)
    reason = finish_reason or ("tool_call" if calls else "stop")
    message = {"role": "assistant", "parts": parts, "finish_reason": reason}
    return _json([message])


def _part(content: ChatContent) -> dict[str, Any]:
    match content:
        case str():
            return {"type": "text", "content": redacted(content)}
        case ImageContent(image=str(url)) if not url.startswith("data:"):
            return {"type": "uri", "modality": "image", "uri": redacted_url(url)}
        case ImageContent():
            return {"type": "blob", "modality": "image", "content": ""}
        case AudioContent(transcript=None):
            return {"type": "blob", "modality": "audio", "content": ""}
        case AudioContent(transcript=str(said)):
            return {
                "type": "blob",
                "modality": "audio",
                "content": "",
                "transcript": redacted(said),
            }
        case _:  # of a subclass, or unread
            return {"type": type(content).__name__}


def _call(call: FunctionCall | FunctionToolCall) -> dict[str, Any]:
    text = redacted(call.arguments)
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        arguments = text
    return {"type": "tool_call", "id": call.call_id, "name": call.name, "arguments": arguments}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
