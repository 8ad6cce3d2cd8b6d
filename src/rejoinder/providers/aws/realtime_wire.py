"""The protocol of Nova Sonic: commands to events of the client, events of the service to ours. Pure.

One object serves one stream. Until the first sound, or the first request for a reply, only
``sessionStart`` is sent: settings and history may still change, and are sent once, in the order that
the service wants. Afterwards they are fixed, and a change of them needs another stream.

Two kinds of frames do not come from the service: ``{"opened": true}`` when it has accepted the
request, and ``{"leaving": seconds}`` when it will end the connection.
`rejoinder.providers.aws.realtime_stream` writes them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from rejoinder._core.items import ChatItem, ChatMessage, FunctionCall, FunctionCallOutput
from rejoinder._core.realtime import messages as m
from rejoinder._core.realtime.frames import read_frame
from rejoinder.errors import APIStatusError, ConfigurationError
from rejoinder.providers.aws.realtime_format import (
    DEFAULT_INSTRUCTIONS,
    INPUT_RATE,
    OUTPUT_RATE,
    audio_start,
    event,
    history_of,
    prompt_start,
    result_block,
    result_text,
    session_start,
    text_block,
    told_result,
)
from rejoinder.providers.aws.realtime_models import SonicFacts
from rejoinder.providers.aws.realtime_replies import Turns

__all__ = ["NovaSonicProtocol"]

_TRAITS: Final = m.Traits(
    input_rate=INPUT_RATE,
    output_rate=OUTPUT_RATE,
    confirms=False,
    names_replies=False,
    answers_move=False,
    tells_speech=False,
    paced_silence=True,
    standby=25.0,
)
_FRAME: Final = 4096
"""Maximum bytes of sound in one ``audioInput``: 128 ms."""
_LEAD: Final = 1024
"""Bytes of silence sent before a first text: 32 ms."""
_FATAL: Final = frozenset({400, 401, 403, 404})
_PASSING: Final = re.compile(
    r"RST_STREAM|NO_ERROR|System instability|Timed out waiting for input|prompts were not closed"
    r"|Invalid input request, please fix your input and try again",
    re.IGNORECASE,
)
"""Refusals with status 400 that do not recur on another stream."""
_NUDGE: Final = "Please go on."
"""Sent when a reply is requested and there is nothing to answer."""


class NovaSonicProtocol:
    """See `rejoinder._core.realtime.messages.RealtimeProtocol`.

    Args:
        model: its id, for errors.
        facts: its capabilities.
        name: a name that no other stream of the session has.
        takes_text: text of the user may be sent.
    """

    def __init__(self, model: str, facts: SonicFacts, name: str, *, takes_text: bool) -> None:
        self._model = model
        self._facts = facts
        self._name = name
        self._takes_text = takes_text and facts.text_input
        self._instructions: str | None = None
        self._tools: Sequence[Mapping[str, Any]] | None = None
        self._options: dict[str, Any] = {}
        self._items: list[ChatItem] = []
        self._had_tools = False
        self._begun = False
        self._ready = False
        self._blocks = 0
        self._known_calls: dict[str, FunctionCall] = {}
        """Calls of earlier streams that had no result when this one began."""
        self._turns = Turns(name)
        self._handlers: Mapping[str, Callable[[dict[str, Any]], Sequence[m.Event]]] = {
            "contentStart": self._turns.content_start,
            "textOutput": self._turns.text_output,
            "audioOutput": self._audio_output,
            "toolUse": self._turns.tool_use,
            "contentEnd": self._turns.content_end,
            "completionStart": _nothing,
            "completionEnd": self._turns.completion_end,
            "usageEvent": self._turns.usage,
        }
        self.skipped = 0

    @property
    def traits(self) -> m.Traits:
        return _TRAITS

    @property
    def settled(self) -> bool:
        return self._turns.settled

    # -- commands ----------------------------------------------------------------------------

    def open(self, settings: m.UpdateSession) -> Sequence[m.Frame]:
        self._update(settings)
        self._had_tools = bool(self._tools)
        return (session_start(self._options, self._facts, has_tools=bool(self._tools)),)

    def takes(self, command: m.Command) -> bool:
        if not self._begun:
            return not (isinstance(command, m.UpdateSession) and self._samples_otherwise(command))
        match command:
            case m.UpdateSession() | m.DeleteItem() | m.GiveHistory():
                return False
            case m.CreateItem(_, item, _):
                return isinstance(item, FunctionCallOutput) and (
                    item.call_id in self._turns.open_calls
                    or (self._takes_text and item.call_id in self._known_calls)
                )
            case _:
                return True

    def send(self, command: m.Command) -> Sequence[m.Frame]:
        match command:
            case m.AppendAudio(data):
                return [*self._begin(), *self._sound(data)]
            case m.UpdateSession():
                self._update(command)
                return ()
            case m.CreateItem(_, item, previous_id):
                return self._create(item, previous_id)
            case m.GiveHistory(_, items):
                self._items = list(items)
                self._turns.tail = items[-1].id if items else None
                return ()
            case m.DeleteItem(_, item_id):
                self._items = [item for item in self._items if item.id != item_id]
                return ()
            case m.CreateReply():
                return self._create_reply(command)
            case _:
                return ()  # no equivalent at this service

    def probe(self) -> Sequence[m.Frame]:
        return ()

    def farewell(self) -> Sequence[m.Frame]:
        frames = [event("sessionEnd")]
        if self._begun:
            names = {"promptName": self._name, "contentName": self._sound_name}
            frames = [
                event("contentEnd", **names),
                event("promptEnd", promptName=self._name),
                *frames,
            ]
        return frames

    def _samples_otherwise(self, command: m.UpdateSession) -> bool:
        """Whether `command` changes a setting of ``sessionStart``."""
        given = command.options or {}
        if any(
            name in given and given[name] != self._options.get(name)
            for name in ("max_tokens", "temperature", "top_p", "turn_detection")
        ):
            return True
        chosen = all(self._options.get(name) is not None for name in ("temperature", "top_p"))
        return not chosen and command.tools is not None and bool(command.tools) != self._had_tools

    def _update(self, settings: m.UpdateSession) -> None:
        if settings.instructions is not None:
            self._instructions = settings.instructions
        if settings.tools is not None:
            self._tools = settings.tools
        if settings.options is not None:
            self._options.update(settings.options)

    def _create(self, item: ChatItem, previous_id: str | None) -> Sequence[m.Frame]:
        if isinstance(item, FunctionCallOutput) and self._begun:
            owed = item.call_id in self._turns.open_calls
            content = result_text(item) if owed else ""
            self._turns.tail = item.id
            if owed:
                self._turns.open_calls.discard(item.call_id)
                return result_block(self._name, self._next("tool"), item.call_id, content)
            call = self._known_calls.pop(item.call_id, None)
            if call is None or not self._takes_text:
                return ()
            return self._say(told_result(call, item))
        place = len(self._items)
        for index, known in enumerate(self._items):
            if known.id == previous_id:
                place = index + 1
        if previous_id is None:
            place = 0
        self._items.insert(place, item)
        self._turns.tail = self._items[-1].id
        return ()

    def _create_reply(self, command: m.CreateReply) -> Sequence[m.Frame]:
        if not self._takes_text:
            hint = (
                "it was made with modalities='audio'"
                if self._facts.text_input
                else f"it answers only speech; use {self._facts.successor!r}"
            )
            raise ConfigurationError(
                f"generate_reply: {self._model!r} cannot be asked for a reply: {hint}"
            )
        said: list[ChatItem] = []
        if not self._begun:
            # An unanswered message is not history: send it as input.
            while self._items and _is_of_user(self._items[-1]):
                said.insert(0, self._items.pop())
        said += command.context
        texts = [self._told(item) for item in said]
        if command.instructions:
            texts.append(command.instructions)
        text = "\n".join(text for text in texts if text) or _NUDGE
        self._turns.asked = command.ref
        if said:
            self._turns.tail = said[-1].id
        frames = list(self._begin())
        if frames:  # text requires a running sound stream
            frames += self._sound(bytes(_LEAD))
        return frames + list(self._say(text))

    def _told(self, item: ChatItem) -> str:
        if isinstance(item, ChatMessage):
            text = item.text_content or ""
            return text if item.role == "user" else f"({item.role}: {text})" if text else ""
        if isinstance(item, FunctionCall):
            self._known_calls[item.call_id] = item
            return ""
        if isinstance(item, FunctionCallOutput):
            call = self._known_calls.pop(item.call_id, None)
            return told_result(call, item) if call is not None else ""
        return ""

    def _say(self, text: str) -> Sequence[m.Frame]:
        self._turns.typed.append(text)
        return text_block(self._name, self._next("text"), "USER", text, interactive=True)

    def _begin(self) -> Sequence[m.Frame]:
        """The frames before the first sound; empty afterwards."""
        if self._begun:
            return ()
        self._begun = True
        history = history_of(self._items, self._facts)
        self._items.clear()
        self._known_calls.update(history.unanswered)
        instructions = "\n\n".join(
            [self._instructions or DEFAULT_INSTRUCTIONS, *history.instructions]
        )
        frames = [prompt_start(self._name, self._options, self._tools)]
        frames += text_block(self._name, self._next("text"), "SYSTEM", instructions)
        for role, text in history.messages:
            frames += text_block(self._name, self._next("text"), role, text)
        frames.append(audio_start(self._name, self._sound_name))
        return frames

    def _sound(self, data: bytes | bytearray | memoryview) -> list[m.Frame]:
        view = memoryview(data).cast("B")
        names = {"promptName": self._name, "contentName": self._sound_name}
        return [
            event(
                "audioInput",
                **names,
                content=base64.b64encode(view[start : start + _FRAME]).decode("ascii"),
            )
            for start in range(0, len(view), _FRAME)
        ]

    @property
    def _sound_name(self) -> str:
        return f"{self._name}_sound"

    def _next(self, kind: str) -> str:
        self._blocks += 1
        return f"{self._name}_{kind}{self._blocks}"

    # -- events ------------------------------------------------------------------------------

    def receive(self, frame: m.Frame) -> Sequence[m.Event]:
        whole = read_frame(frame)
        if whole is None:
            self.skipped += 1
            return ()
        if "opened" in whole:
            if self._ready:
                return ()
            self._ready = True
            return (m.SessionReady(),)
        if "leaving" in whole:
            return (m.SessionEnding(float(whole["leaving"])),)
        told: object = whole.get("event")
        if not isinstance(told, dict) or not told:
            self.skipped += 1
            return ()
        kind, fields = next(iter(cast("dict[str, Any]", told).items()))
        handler = self._handlers.get(kind)
        if handler is None or not isinstance(fields, dict):
            self.skipped += 1
            return ()
        try:
            return handler(cast("dict[str, Any]", fields))
        except (TypeError, KeyError, AttributeError, ValueError):
            # A field has an unexpected type: drop the event, keep the session.
            self.skipped += 1
            return ()

    def _audio_output(self, fields: dict[str, Any]) -> Sequence[m.Event]:
        try:
            data = binascii.a2b_base64(fields["content"])
        except binascii.Error:
            self.skipped += 1
            return ()
        return self._turns.audio_output(fields, data)

    def closed(self, code: int | None, reason: str) -> m.ServiceFailed | None:
        if code is None or code == 1000:
            return None
        if code not in _FATAL or (code == 400 and _PASSING.search(reason)):
            return None
        hint = {
            400: "check `model` and the options of the session",
            404: "check `model` and `region`",
        }.get(code, "check the AWS credentials, and that the account may use the model")
        error = APIStatusError(
            f"Nova Sonic refused the session: {reason or 'no reason given'}; {hint} "
            f"(model {self._model!r})",
            status_code=code,
            retryable=False,
        )
        return m.ServiceFailed(error, fatal=True)


def _nothing(fields: dict[str, Any]) -> Sequence[m.Event]:
    return ()


def _is_of_user(item: ChatItem) -> bool:
    return isinstance(item, ChatMessage) and item.role == "user"
