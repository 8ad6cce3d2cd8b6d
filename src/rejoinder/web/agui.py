"""AG-UI 1.0: its events, and its messages as items of a conversation. Pure.

Source: the schemas of the npm package ``@ag-ui/core`` 1.0.0. An event is a JSON object with a
``type``; a run begins with ``RUN_STARTED`` and ends with ``RUN_FINISHED`` or ``RUN_ERROR``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast

from rejoinder import _stamps
from rejoinder._core.items import (
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)
from rejoinder.llm._tool_runs import unmark, waiting_calls

__all__ = [
    "PROTOCOL",
    "Event",
    "InputError",
    "RunInput",
    "Writer",
    "items_of",
    "messages_of",
    "read_input",
    "sse",
]

PROTOCOL: Final = "1.0"
Event: TypeAlias = dict[str, Any]

_NO_RESULT: Final = "This call has no result"
_LONGEST_ID: Final = 200


class InputError(ValueError):
    """The body of a request is not what AG-UI describes. The text is one sentence."""


def sse(event: Event) -> bytes:
    """An event as a server-sent event."""
    return b"data: " + json.dumps(event, separators=(",", ":"), default=str).encode() + b"\n\n"


# -- what a client sends -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunInput:
    """The body of a request for a run.

    Attributes:
        thread: id of the conversation.
        run: id of the run.
        messages: the whole conversation, as the client shows it.
        tools: tools that the client runs itself: name, description, JSON schema of the parameters.
        answers: the answers to the interrupts of the previous run, by interrupt id; ``None`` if the
            user gave up.
    """

    thread: str
    run: str
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    answers: Mapping[str, Any] = field(default_factory=dict[str, Any])


def read_input(body: Any) -> RunInput:
    """The request in a parsed JSON body.

    Raises:
        InputError: it is not a ``RunAgentInput``.
    """
    data = _dict(body, "the body")
    messages = [_dict(m, "a message") for m in _list(data.get("messages"), "messages")]
    tools = [_dict(t, "a tool") for t in _list(data.get("tools") or [], "tools")]
    names: set[str] = set()
    for tool in tools:
        name = _text(tool.get("name"), "the name of a tool")
        if name in names:
            raise InputError(f"two tools are named {name!r}; give one another name")
        names.add(name)
        _text(tool.get("description") or "", f"the description of the tool {name!r}")
        _dict(tool.get("parameters") or {}, f"the parameters of the tool {name!r}")
    answers: dict[str, Any] = {}
    for entry in _list(data.get("resume") or [], "resume"):
        answer = _dict(entry, "an entry of resume")
        given = answer.get("payload") if answer.get("status") == "resolved" else None
        answers[_id(answer.get("interruptId"), "interruptId")] = given
    return RunInput(_id(data.get("threadId"), "threadId"), _id(data.get("runId"), "runId"), messages,
                    tools, answers)  # fmt: skip


def items_of(
    messages: Iterable[Mapping[str, Any]], known: Callable[[str], ChatItem | None]
) -> list[ChatItem]:
    """Convert `messages` to items. A known message keeps its item, including fields that the client
    never sees. If its text has changed, it becomes a new item.

    Args:
        known: finds an item by the id of a message, or a call or output by ``call:ID`` and
            ``output:ID`` with the id of the call.

    Raises:
        InputError: a message is not as AG-UI describes it.
    """
    items: list[ChatItem] = []
    owed: dict[str, FunctionCall] = {}
    for message in messages:
        role = message.get("role")
        if role in ("reasoning", "activity"):
            continue
        if role == "tool":
            call_id = _id(message.get("toolCallId"), "toolCallId")
            call = owed.pop(call_id, None)
            if call is None:
                raise InputError(f"the tool message for {call_id!r} has no call before it")
            items.append(_output(message, call, known))
            continue
        items += _unanswered(owed, known)
        if role == "assistant":
            items += _assistant(message, known)
            for call in _calls(message, known):
                items.append(call)
                owed[call.call_id] = call
        elif role in ("user", "system", "developer"):
            items.append(_message(message, role, known))
        else:
            raise InputError(f"expected a message with a role that AG-UI knows, got {role!r}")
    return [*items, *_unanswered(owed, known)]


def _unanswered(
    owed: dict[str, FunctionCall], known: Callable[[str], ChatItem | None]
) -> list[ChatItem]:
    """Outputs for calls whose output the client did not send: the known output, or an error text.
    Providers refuse a call without an output."""
    outputs = [
        known(f"output:{call.call_id}")
        or FunctionCallOutput(
            name=call.name, call_id=call.call_id, output=_NO_RESULT, is_error=True
        )
        for call in owed.values()
    ]
    owed.clear()
    return outputs


def _message(
    message: Mapping[str, Any], role: Any, known: Callable[[str], ChatItem | None]
) -> ChatMessage:
    id = _id(message.get("id"), "the id of a message")
    content = _content(message.get("content"))
    found = known(id)
    if isinstance(found, ChatMessage):
        if _shown(found.content) == _shown(content):
            return found
        id = _stamps.new_id("item_")
    return ChatMessage(id=id, role=role, content=content)


def _assistant(
    message: Mapping[str, Any], known: Callable[[str], ChatItem | None]
) -> list[ChatMessage]:
    if not message.get("content"):
        return []
    return [_message(message, "assistant", known)]


def _calls(
    message: Mapping[str, Any], known: Callable[[str], ChatItem | None]
) -> Iterable[FunctionCall]:
    for entry in _list(message.get("toolCalls") or [], "toolCalls"):
        call = _dict(entry, "a tool call")
        call_id = _id(call.get("id"), "the id of a tool call")
        function = _dict(call.get("function"), "the function of a tool call")
        found = known(f"call:{call_id}")
        if isinstance(found, FunctionCall):
            yield found
        else:
            yield FunctionCall(
                call_id=call_id,
                name=_text(function.get("name"), "the name of a tool call"),
                arguments=_text(function.get("arguments"), "the arguments of a tool call"),
            )


def _output(
    message: Mapping[str, Any], call: FunctionCall, known: Callable[[str], ChatItem | None]
) -> FunctionCallOutput:
    text = "".join(part for part in _content(message.get("content")) if isinstance(part, str))
    found = known(f"output:{call.call_id}")
    if isinstance(found, FunctionCallOutput):
        if waiting_calls([call, found]) and text != found.output:
            unmark(call)
            return FunctionCallOutput(
                id=found.id, name=call.name, call_id=call.call_id, output=text, is_error=False
            )
        return found
    failed = bool(message.get("error"))
    return FunctionCallOutput(name=call.name, call_id=call.call_id, output=text, is_error=failed)


def _content(content: Any) -> list[Any]:
    if isinstance(content, str):
        return [content]
    parts: list[Any] = []
    for entry in _list(content, "the content of a message"):
        part = _dict(entry, "a part of a message")
        kind = part.get("type")
        if kind == "text":
            parts.append(_text(part.get("text"), "the text of a part"))
        elif kind in ("image", "document"):
            parts.append(_picture(_dict(part.get("source"), "the source of a part")))
        else:
            raise InputError(f"expected a part of type text, image or document, got {kind!r}")
    return parts


def _picture(source: Mapping[str, Any]) -> ImageContent:
    value = _text(source.get("value"), "the value of a source")
    if source.get("type") == "url":
        if not value.startswith(("https://", "http://", "data:")):
            raise InputError("expected the URL of a picture to begin with https:, http: or data:")
        url = value
    else:
        url = f"data:{_text(source.get('mimeType'), 'the mimeType of a source')};base64,{value}"
    return ImageContent(image=url)


def _shown(content: Sequence[Any]) -> list[str]:
    """The text of a message's content, as a client shows it."""
    return [part if isinstance(part, str) else str(getattr(part, "image", "")) for part in content]


def _id(value: Any, what: str) -> str:
    text = _text(value, what)
    if not 0 < len(text) <= _LONGEST_ID or not text.isprintable():
        raise InputError(f"{what}: expected 1 to {_LONGEST_ID} printable characters")
    return text


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{what}: expected a string, got {type(value).__name__}")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{what}: expected an array, got {type(value).__name__}")
    return cast("list[Any]", value)


def _dict(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{what}: expected an object, got {type(value).__name__}")
    return cast("dict[str, Any]", value)


# -- what a client gets --------------------------------------------------------------------------


def messages_of(items: Iterable[ChatItem]) -> list[Event]:
    """The conversation as AG-UI messages. Omits items that the protocol cannot express, and the
    output of a call that waits for a decision."""
    items = list(items)
    waiting = {output.id for _, output in waiting_calls(items)}
    messages: list[Event] = []
    for item in items:
        if item.id in waiting:
            continue
        if isinstance(item, ChatMessage):
            messages.append(_as_message(item))
        elif isinstance(item, FunctionCall):
            call: Event = {
                "id": item.call_id,
                "type": "function",
                "function": {"name": item.name, "arguments": item.arguments},
            }
            last = messages[-1] if messages else None
            if last is None or last["role"] != "assistant":
                last = Event(id=item.id, role="assistant")
                messages.append(last)
            last.setdefault("toolCalls", []).append(call)
        elif isinstance(item, FunctionCallOutput):
            error = {"error": item.output} if item.is_error else {}
            messages.append(
                {"id": item.id, "role": "tool", "toolCallId": item.call_id, "content": item.output}
                | error
            )
    return messages


def _as_message(item: ChatMessage) -> Event:
    parts: list[Any] = []
    for part in item.content:
        if isinstance(part, str):
            parts.append({"type": "text", "text": part})
        elif isinstance(part, ImageContent) and isinstance(part.image, str):
            parts.append({"type": "image", "source": _source(part.image)})
    content: Any = item.text_content or ""
    if item.role == "user" and any(part["type"] != "text" for part in parts):
        content = parts
    marks = {"metadata": {"rejoinder": {"interrupted": True}}} if item.interrupted else {}
    return {"id": item.id, "role": item.role, "content": content} | marks


def _source(url: str) -> Event:
    head, comma, data = url.partition(";base64,")
    if comma and head.startswith("data:"):
        return {"type": "data", "value": data, "mimeType": head.removeprefix("data:")}
    return {"type": "url", "value": url}


@dataclass(slots=True)
class Writer:
    """Makes the events of one run, and adds the start and end events.

    Attributes:
        text: id of the message that is open; ``None`` outside of one.
        said: ids of the text messages of this run, in their order.
        known: ids of calls that the client has already.
    """

    thread: str
    run: str
    text: str | None = None
    said: list[str] = field(default_factory=list[str])
    known: set[str] = field(default_factory=set[str])
    _thinking: str | None = None
    _parent: str | None = None

    def started(self) -> Event:
        """The first event."""
        return {
            "type": "RUN_STARTED", "threadId": self.thread, "runId": self.run,
            "protocolVersion": PROTOCOL,
        }  # fmt: skip

    def say(self, delta: str, at: float | None = None) -> list[Event]:
        """A piece of the answer. `at`: seconds since the start of the run."""
        if not delta:
            return []
        events = self._end_thinking()
        if self.text is None:
            self.text = self._parent = _stamps.new_id("msg_")
            self.said.append(self.text)
            events.append(
                {"type": "TEXT_MESSAGE_START", "messageId": self.text, "role": "assistant"}
            )
        piece: Event = {"type": "TEXT_MESSAGE_CONTENT", "messageId": self.text, "delta": delta}
        if at is not None:
            piece["metadata"] = {"rejoinder": {"t": at}}
        events.append(piece)
        return events

    def think(self, delta: str) -> list[Event]:
        """A piece of the reasoning."""
        if not delta:
            return []
        events: list[Event] = []
        if self._thinking is None:
            events = self._end_text()
            id = self._thinking = _stamps.new_id("thinking_")
            events.append({"type": "REASONING_START", "messageId": id})
            events.append({"type": "REASONING_MESSAGE_START", "messageId": id, "role": "reasoning"})
        events.append(
            {"type": "REASONING_MESSAGE_CONTENT", "messageId": self._thinking, "delta": delta}
        )
        return events

    def call(self, call: FunctionCall) -> list[Event]:
        """A call with its arguments, once."""
        if call.call_id in self.known:
            return []
        self.known.add(call.call_id)
        events = self.end_message()
        if self._parent is None:
            self._parent = _stamps.new_id("msg_")
        id = call.call_id
        return [
            *events,
            {"type": "TOOL_CALL_START", "toolCallId": id, "toolCallName": call.name,
             "parentMessageId": self._parent},
            {"type": "TOOL_CALL_ARGS", "toolCallId": id, "delta": call.arguments},
            {"type": "TOOL_CALL_END", "toolCallId": id},
        ]  # fmt: skip

    def result(self, call: FunctionCall, output: FunctionCallOutput) -> list[Event]:
        """The output of a tool."""
        events = self.call(call)
        self._parent = None  # the next call belongs to the next message
        error = {"error": output.output} if output.is_error else {}
        return [
            *events,
            {"type": "TOOL_CALL_RESULT", "messageId": output.id, "toolCallId": call.call_id,
             "content": output.output, "role": "tool"} | error,
        ]  # fmt: skip

    def end_message(self) -> list[Event]:
        """End the open message and the open reasoning."""
        return [*self._end_thinking(), *self._end_text()]

    def restart(self, items: Iterable[ChatItem]) -> list[Event]:
        """Discard the text of the last message: send the conversation without it."""
        events = self.end_message()
        self._parent = None
        if self.said:
            self.said.pop()
        return [*events, {"type": "MESSAGES_SNAPSHOT", "messages": messages_of(items)}]

    def custom(self, name: str, value: Any) -> Event:
        """An event of our own."""
        return {"type": "CUSTOM", "name": f"rejoinder.{name}", "value": value}

    def finished(
        self, outcome: Event, result: Any, usage: Sequence[Event] | None = None
    ) -> list[Event]:
        """The last events of a run that did not fail."""
        last: Event = {
            "type": "RUN_FINISHED", "threadId": self.thread, "runId": self.run,
            "outcome": outcome, "result": result,
        }  # fmt: skip
        if usage:
            last["usage"] = list(usage)
        return [*self.end_message(), last]

    def failed(self, message: str, code: str) -> list[Event]:
        """The last events of a run that failed."""
        return [*self.end_message(), {"type": "RUN_ERROR", "message": message, "code": code}]

    def _end_text(self) -> list[Event]:
        id, self.text = self.text, None
        return [] if id is None else [{"type": "TEXT_MESSAGE_END", "messageId": id}]

    def _end_thinking(self) -> list[Event]:
        id, self._thinking = self._thinking, None
        if id is None:
            return []
        return [
            {"type": "REASONING_MESSAGE_END", "messageId": id},
            {"type": "REASONING_END", "messageId": id},
        ]
