"""Checks that the events of a client follow the order that Nova Sonic requires.

    grammar = SonicGrammar()
    for event in events:
        grammar.check(event)      # raises IllegalEventError where the service would refuse
    grammar.close()

Sources: AWS's user guides of Nova Sonic and Nova 2 Sonic (input events, chat history), read in
November 2026, and reported answers of the service. Written from these sources, independently of the
events that this package sends. Pure.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, cast

__all__ = ["IllegalEventError", "SonicGrammar", "SonicState"]


class IllegalEventError(Exception):
    """The service would refuse this event."""


class SonicState(Enum):
    """The state of a session."""

    NEW = "new"
    SESSION = "sessionStart was sent"
    PROMPT = "promptStart was sent"
    HISTORY = "the system prompt was sent"
    TALKING = "the container of sound is open"
    SOUND_ENDED = "the container of sound is closed"
    PROMPT_ENDED = "promptEnd was sent"
    OVER = "sessionEnd was sent"


NEXT: Final[Mapping[tuple[SonicState, str], SonicState]] = {
    (SonicState.NEW, "sessionStart"): SonicState.SESSION,
    (SonicState.SESSION, "promptStart"): SonicState.PROMPT,
    (SonicState.SESSION, "sessionEnd"): SonicState.OVER,
    (SonicState.PROMPT, "SYSTEM"): SonicState.HISTORY,
    (SonicState.HISTORY, "USER"): SonicState.HISTORY,
    (SonicState.HISTORY, "ASSISTANT"): SonicState.HISTORY,
    (SonicState.HISTORY, "AUDIO"): SonicState.TALKING,
    (SonicState.TALKING, "typed"): SonicState.TALKING,
    (SonicState.TALKING, "TOOL"): SonicState.TALKING,
    (SonicState.TALKING, "audioInput"): SonicState.TALKING,
    (SonicState.TALKING, "end of AUDIO"): SonicState.SOUND_ENDED,
    (SonicState.SOUND_ENDED, "promptEnd"): SonicState.PROMPT_ENDED,
    (SonicState.PROMPT_ENDED, "sessionEnd"): SonicState.OVER,
}
"""The allowed events of each state, and the next states. Blocks are named by their content; a
``typed`` block is a user text that expects an answer."""

_TEXT_BYTES: Final = 1024
"""Maximum bytes of one ``textInput``, according to AWS's guide."""


class SonicGrammar:
    """Checks the events of one session.

    Args:
        typed: text of the user may be sent during sound (Nova 2).
        history_bytes: maximum bytes of a history.
        history_messages: maximum number of its messages; ``None``: any number.

    Attributes:
        state: the state of the session.
        calls: ids of the calls that were made and have no result; a result for another is illegal.
        history: the messages of the history, in order.
        system: the system prompt.
        typed_texts: the typed texts.
        audio: the user's sound.
        results: results by the id of their call.
        prompt: ``promptStart``.
        session: ``sessionStart``.
    """

    def __init__(
        self,
        *,
        typed: bool = True,
        history_bytes: int = 200_000,
        history_messages: int | None = None,
    ) -> None:
        self._typed = typed
        self._history_bytes = history_bytes
        self._history_messages = history_messages
        self.state = SonicState.NEW
        self.calls: set[str] = set()
        self.history: list[tuple[str, str]] = []
        self.system = ""
        self.typed_texts: list[str] = []
        self.audio = bytearray()
        self.results: dict[str, str] = {}
        self.prompt: dict[str, Any] = {}
        self.session: dict[str, Any] = {}
        self._prompt_name = ""
        self._names: set[str] = set()
        self._sound = ""
        self._open: dict[str, Any] | None = None
        self._text = ""

    def check(self, whole: object) -> None:
        """Check one more decoded event.

        Raises:
            IllegalEventError: it is not allowed now, or its content is wrong.
        """
        kind, fields = _unwrapped(whole)
        if kind not in ("sessionStart", "sessionEnd", "promptStart"):
            self._want(fields.get("promptName") == self._prompt_name, f"{kind}: another promptName")
        match kind:
            case "sessionStart":
                self._move("sessionStart")
                self.session = fields
                tokens = fields["inferenceConfiguration"]["maxTokens"]
                self._want(0 < tokens <= 10_000, f"maxTokens {tokens}")
            case "promptStart":
                self._move("promptStart")
                self.prompt = fields
                self._prompt_name = str(fields["promptName"])
                for tool in fields.get("toolConfiguration", {}).get("tools", ()):
                    schema = tool["toolSpec"]["inputSchema"]["json"]
                    self._want(isinstance(schema, str), "a schema that is not a string")
                    self._want(
                        isinstance(json.loads(schema), dict), "a schema that is not an object"
                    )
            case "contentStart":
                self._start(fields)
            case "textInput" | "toolResult":
                self._piece(kind, fields)
            case "audioInput":
                self._want(self._open is None, "sound inside of a block of text")
                self._want(fields.get("contentName") == self._sound, "sound of another container")
                self._move("audioInput")
                try:
                    self.audio += base64.b64decode(fields["content"], validate=True)
                except binascii.Error:
                    raise IllegalEventError("sound that is not base64") from None
            case "contentEnd":
                self._end(fields)
            case "promptEnd" | "sessionEnd":
                self._want(self._open is None, f"{kind} inside of a block")
                self._move(kind)
            case _:
                raise IllegalEventError(f"unknown event {kind!r}")

    def close(self) -> None:
        """The client ended the stream.

        Raises:
            IllegalEventError: prompts were not closed.
        """
        if self.state not in (SonicState.OVER, SonicState.NEW):
            raise IllegalEventError(f"The following prompts were not closed ({self.state.value})")

    # -- inside ------------------------------------------------------------------------------

    def _start(self, fields: dict[str, Any]) -> None:
        name, kind, role = fields["contentName"], fields["type"], fields["role"]
        self._want(self._open is None, "a block inside of a block")
        self._want(name not in self._names, f"contentName {name!r} twice")
        self._names.add(name)
        if kind == "AUDIO":
            self._want(
                fields.get("interactive") is True and role == "USER",
                "sound that is not interactive sound of the user",
            )
            self._move("AUDIO")
            self._sound = name
            return
        if (
            kind == "TEXT"
            and fields.get("interactive") is True
            and self.state is SonicState.TALKING
        ):
            self._want(self._typed, "text of the user, which this model does not accept")
            self._want(role == "USER", f"typed text of {role}")
        elif kind == "TEXT":
            self._want(role in ("SYSTEM", "USER", "ASSISTANT"), f"role {role!r}")
            if role != "SYSTEM":
                self._want(
                    self.state is not SonicState.TALKING,
                    "Chat history should be sent completely before streaming audio",
                )
                before = self.history[-1][0] if self.history else "ASSISTANT"
                self._want(before != role, f"the history does not alternate: {role} again")
        else:
            self._want(kind == "TOOL" and role == "TOOL", f"a block of type {kind!r}")
            call_id = fields["toolResultInputConfiguration"]["toolUseId"]
            self._want(
                call_id in self.calls, f"a result for the call {call_id!r}, which is not open"
            )
        self._open = fields
        self._text = ""

    def _piece(self, kind: str, fields: dict[str, Any]) -> None:
        block = self._open
        if block is None or block["contentName"] != fields.get("contentName"):
            raise IllegalEventError(f"{kind} outside of its block")
        wanted = "TOOL" if kind == "toolResult" else "TEXT"
        self._want(block["type"] == wanted, f"{kind} in a block of type {block['type']}")
        content = fields["content"]
        self._want(isinstance(content, str) and content != "", f"{kind} without content")
        if kind == "toolResult":
            try:
                result: object = json.loads(content)
            except ValueError:
                result = None
            self._want(isinstance(result, dict), "a result that is not a JSON object")
        else:
            self._want(len(content.encode()) <= _TEXT_BYTES, "a textInput of more than 1 KB")
        self._text += content

    def _end(self, fields: dict[str, Any]) -> None:
        block, name = self._open, fields.get("contentName")
        if block is None:
            self._want(name == self._sound != "", "the end of a block that is not open")
            self._move("end of AUDIO")
            return
        self._want(block["contentName"] == name, "the end of another block")
        self._want(self._text != "", "an empty block")
        self._open = None
        if block["type"] == "TOOL":
            self._move("TOOL")
            call_id = block["toolResultInputConfiguration"]["toolUseId"]
            self.calls.discard(call_id)
            self.results[call_id] = self._text
        elif block.get("interactive") is True and self.state is SonicState.TALKING:
            self._move("typed")
            self.typed_texts.append(self._text)
        else:
            self._move(block["role"])
            if block["role"] == "SYSTEM":
                self.system = self._text
            else:
                self.history.append((block["role"], self._text))
                size = sum(len(text.encode()) for _, text in self.history)
                self._want(size <= self._history_bytes, f"a history of {size} bytes")
                most = self._history_messages
                self._want(most is None or len(self.history) <= most, "a history that is too long")

    def _move(self, what: str) -> None:
        following = NEXT.get((self.state, what))
        if following is None:
            raise IllegalEventError(f"{what} is not allowed now ({self.state.value})")
        self.state = following

    def _want(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise IllegalEventError(otherwise)


def _unwrapped(whole: object) -> tuple[str, dict[str, Any]]:
    if isinstance(whole, dict) and list(whole) == ["event"]:  # pyright: ignore[reportUnknownArgumentType]
        event = cast("dict[str, Any]", whole)["event"]
        if isinstance(event, dict) and len(event) == 1:  # pyright: ignore[reportUnknownArgumentType]
            ((kind, fields),) = cast("dict[str, Any]", event).items()
            if isinstance(fields, dict):
                return kind, cast("dict[str, Any]", fields)
    raise IllegalEventError(f"not an event: {repr(cast('object', whole))[:80]}")
