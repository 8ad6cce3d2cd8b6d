"""Finds violations of a provider's rules for histories.

Pure. `find_violation` runs before every request and must cost less than the conversion that follows. It
may report a legal history, but never misses an illegal one. `rejoinder._core.repair` mends histories.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec

from rejoinder._core.groups import refuse_item
from rejoinder._core.images import data_of, serialize_image
from rejoinder._core.items import (
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)
from rejoinder._core.pictures import is_cut, size_of
from rejoinder._core.results import picture_of, without_pictures
from rejoinder._core.rules import STATEFUL, Rules, State, numbered_id
from rejoinder.media import picture_fault

__all__ = [
    "FOREIGN_IDS",
    "INSTRUCTIONS_AFTER",
    "find_violation",
    "image_fault",
    "images_in",
    "is_object",
    "is_sendable",
    "is_too_deep",
    "picture_fault_in",
    "result_fault",
    "sound_value",
]

_object = msgspec.json.Decoder(dict[str, Any]).decode

INSTRUCTIONS_AFTER: Final = {
    "beside_user": ("", "system", "user"),
    "first": ("", "system"),
    "user": (),
}
"""The roles after which instructions may stand, by `Rules.instructions`; empty: nothing before."""

FOREIGN_IDS: Final = "call ids are of another provider's form"
"""The only violation is that calls have ids which this provider refuses."""


def find_violation(items: Sequence[ChatItem], rules: Rules, keep: frozenset[str]) -> str | None:
    """The first possible violation of the rules; ``None`` if the history can be sent unchanged.

    Args:
        items: any history.
        rules: the provider's rules.
        keep: keys of `extra` whose state may be sent.

    Raises:
        TypeError: an element is not an item of a chat context.
    """
    reading = _Reading(rules, keep)
    message, call, output = reading.message, reading.call, reading.output
    found: str | None = None
    for item in items:
        match item.type:
            case "message":
                found = message(item)
            case "function_call":
                found = call(item)
            case "function_call_output":
                found = output(item)
            case "agent_handoff" | "agent_config_update":
                continue
            case _:
                refuse_item(item)
        if found is not None:
            return found
    last = reading.last
    if reading.pending:
        return "a call has no output"
    if reading.unsigned:
        return "a call has no signature"
    if not last:
        return "nothing is left to send"
    if rules.crowd is not None and reading.images > rules.crowd[0]:
        return "so many images may not be large"
    if rules.first_user and reading.first != "user":
        return "the user does not speak first"
    if last != "user" and last != "tool":
        if rules.last_user:
            return "the user does not speak last"
        if rules.blocks and last == "assistant":
            return "the reply to be continued may end in white space"
    return FOREIGN_IDS if reading.foreign_id else None


class _Reading:
    """The state while reading a history: what may come next.

    Each method returns the violation of an item, or ``None``.
    """

    __slots__ = (
        "first",  # role of the first message that is neither system nor folded away
        "foreign_id",  # a call has an id that this provider refuses
        "ids",  # of calls
        "images",  # that have been read
        "instructed",  # a system message has been read
        "keep",
        "key",  # of the assistant turn that is being read
        "keys",  # of all assistant turns
        "last",  # role of the last message; "tool" after an output
        "names",  # of tools, as they are accepted
        "pending",  # names of calls without output, by call id
        "rules",
        "sent_ids",  # ids of state that may be sent once
        "stateful",  # the first call of this turn carries state
        "unsigned",  # since the last user message, a step has no signature
    )

    def __init__(self, rules: Rules, keep: frozenset[str]) -> None:
        self.rules = rules
        self.keep = keep
        self.names: set[str] = set()
        self.ids: set[str] = set()
        self.keys: set[str] = set()
        self.sent_ids: set[str] = set()
        self.pending: dict[str, str] = {}
        self.key: str | None = None
        self.stateful = self.unsigned = self.instructed = self.foreign_id = False
        self.first = self.last = ""
        self.images = 0

    def message(self, item: ChatMessage) -> str | None:
        if self.pending:
            return "a call has no output before the next message"
        content = item.content
        text = content[0] if len(content) == 1 else None
        if isinstance(text, str):
            if not text or text.isspace() or not (text.isascii() or is_sendable(text)):
                return "a text is blank, or holds half a surrogate pair"
        elif not _is_sound(item, self.rules):
            return "a message has a part that cannot be sent"
        else:
            self.images += images_in(item)
        if item.extra and not self._is_sound_state(item.extra, "message_id"):
            return "state is damaged, or of another provider"
        role: str = item.role
        if self.rules.alternates and role == self.last:
            return "two messages of one role stand in a row"
        if role == "assistant":
            key = item.id
            if "/" in key:
                key = key.split("/", 1)[0]
            if key in self.keys:
                return "two assistant turns have one id"
            self.keys.add(key)
            self.key = key
            self.stateful = False
        else:
            self.key = None
            if role == "user":
                self.unsigned = False
            elif role != "system" and role != "developer":
                return "a role is unknown"
            elif (place := self._place_of_instructions(role)) is None:
                return "instructions have no place here"
            else:
                role = place
            if self.last == "tool" and self.rules.reply_after_tools:
                return "an output is not followed by the assistant"
        if role:
            self.last = role
            if not self.first and role != "system":
                self.first = role
        return None

    def _place_of_instructions(self, role: str) -> str | None:
        """The role with which a system message is sent; empty if it is sent beside the messages;
        ``None`` if it cannot be sent unchanged."""
        rules = self.rules
        again, self.instructed = self.instructed, True
        if rules.folds_instructions:
            if again or role == "developer":
                self.unsigned = False
                return "user"
            return ""
        if rules.one_instruction:
            return None if again else ""
        if not rules.developer and role == "developer":
            return None
        if (
            rules.instructions != "anywhere"
            and self.last not in INSTRUCTIONS_AFTER[rules.instructions]
        ):
            return None
        return "system"

    def call(self, item: FunctionCall) -> str | None:
        rules = self.rules
        call_id = item.call_id
        if call_id in self.ids:
            return "a call id is used twice"
        self.ids.add(call_id)
        if not self.foreign_id and not (
            call_id == numbered_id(item.name, len(self.ids) - 1)
            if rules.numbered_ids
            else rules.call_id.fullmatch(call_id)
        ):
            self.foreign_id = True
        if item.name not in self.names:
            if not rules.name.fullmatch(item.name):
                return "the name of a tool is not accepted"
            self.names.add(item.name)
        if item.arguments != "{}" and not is_object(item.arguments):
            return "arguments are not a JSON object"
        own = item.group_id or item.id.split("/", 1)[0]
        if own != self.key:
            if own in self.keys:
                return "two assistant turns have one id"
            if self.stateful and rules.state.key not in item.extra:
                return "a parallel call does not name its turn"
            if rules.alternates and self.last == "assistant" and not self.pending:
                return "two messages of one role stand in a row"
            self.keys.add(own)
            self.key = own
            self.stateful = False
            if rules.signatures and not rules.state.is_carried_by(item):
                self.unsigned = True
        elif rules.signatures and self.last == "assistant" and not self.pending:
            self.unsigned = self.unsigned or not rules.state.is_carried_by(item)
        if item.extra:
            if not self._is_sound_state(item.extra, "item_id"):
                return "state is damaged, or of another provider"
            if rules.blocks and not self.pending and rules.state.key in item.extra:
                self.stateful = True
        self.pending[call_id] = item.name
        if not self.first:
            if not self.last and not rules.calls_first:
                return "a history may not begin with a call"
            self.first = "assistant"
        return None

    def output(self, item: FunctionCallOutput) -> str | None:
        rules = self.rules
        name = self.pending.pop(item.call_id, None)
        if name is None:
            return "an output has no call before it"
        if rules.output_names and item.name != name:
            return "an output has another name than its call"
        text = item.output
        if not (text.isascii() or is_sendable(text)):
            return "an output holds half a surrogate pair"
        blank_ok = rules.blank_outputs and (rules.blank_errors or not item.is_error)
        if not (blank_ok or item.images) and (not text or text.isspace()):
            return "an output is blank"
        fault = result_fault(item, rules)
        for picture in item.images:
            fault += picture_fault_in(item, picture, rules)
        if any(fault):
            return "an output holds a picture that cannot be sent unchanged"
        self.stateful = False
        self.last = "tool"
        return None

    def _is_sound_state(self, extra: dict[str, Any], name: str) -> bool:
        for key, value in extra.items():
            if key in STATEFUL and (
                value is None
                or key not in self.keep
                or sound_value(key, value, self.rules.state, self.sent_ids, name) is not value
            ):
                return False
        return True


def images_in(message: ChatMessage) -> int:
    """The number of images in a message."""
    return sum(
        not isinstance(part, str) and part.type == "image_content" for part in message.content
    )


def _is_sound(message: ChatMessage, rules: Rules) -> bool:
    """Whether the message has content, and its role may send all of it."""
    something = rules.state.fills(message.extra)
    if isinstance(cast("object", message.content), str):
        return False
    for part in message.content:
        if isinstance(part, str):
            if not part or part.isspace():
                if rules.blocks and part:
                    return False
            elif not (part.isascii() or is_sendable(part)):
                return False
            else:
                something = True
        elif part.type == "image_content":
            if message.role != "user" and not (
                message.role == "assistant" and rules.assistant_images
            ):
                return False
            if any(image_fault(part, rules)):
                return False
            something = True
    return something


def is_sendable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# Gemini accepts no arguments nested deeper than this, and a JSON writer must not run out of stack.
_DEEPEST = 64


def is_object(arguments: str) -> bool:
    """Whether the text is a JSON object that every provider accepts."""
    try:
        value = _object(arguments)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
    return len(arguments) <= 2 * _DEEPEST or not is_too_deep(arguments, value)


def is_too_deep(text: str, value: object) -> bool:
    """Whether `value`, parsed from `text`, is nested deeper than providers accept."""
    if text.count("{") + text.count("[") <= _DEEPEST:
        return False
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for held in level
            for inner in (
                cast("dict[str, Any]", held).values()
                if isinstance(held, dict)
                else cast("list[Any]", held)
            )
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


# ---------------------------------------------------------------------------------------------
# Opaque state


def sound_value(
    key: str, value: Any, own: State, seen: set[str], name: str
) -> dict[str, Any] | None:
    """The part of a state that may be sent: `value` itself if it is all of it, ``None`` if it is empty.

    Args:
        key: the key of `extra` that holds it.
        value: the state.
        own: the description of the receiving provider's state.
        seen: the ids that were sent before and must not be sent again; those of this state are
            added.
        name: the key under which this kind of item keeps its provider's id; empty for an item of
            which only the state is sent.
    """
    if not isinstance(value, dict):
        return None
    state = cast("dict[str, Any]", value)
    part = own.part
    if key != own.key or not part or part not in state:
        return state
    held = state[part]
    rest = {name: kept for name, kept in state.items() if name != part}
    if not own.entries:
        return state if own.is_whole(held) else rest or None
    if isinstance(held, list):
        entries = cast("list[Any]", held)
        whole = [entry for entry in entries if own.is_whole(entry)]
        if own.linked and not _leads_on(whole, state.get(name), seen):
            whole = [
                {name: value for name, value in entry.items() if name != "id"}
                for entry in whole
                if entry.get("encrypted_content")
            ]
            rest.pop(name, None)
        elif len(whole) == len(entries):
            return state
        if whole:
            rest[part] = whole
    return rest or None


def _leads_on(entries: list[dict[str, Any]], led_to: Any, seen: set[str]) -> bool:
    """Whether reasoning may be sent with its id: only directly before the item that it produced, with
    that item's own id, and each only once. Otherwise only its encrypted content may be sent."""
    ids = [entry["id"] for entry in entries if "id" in entry]
    if not isinstance(led_to, str) or not led_to:
        return not ids
    if not seen.isdisjoint([*ids, led_to]):
        return False
    seen.update(ids)
    seen.add(led_to)
    return True


# ---------------------------------------------------------------------------------------------
# Images


def _excess(data: bytes, rules: Rules) -> str:
    """Why an image of the right type is refused; empty if it is accepted."""
    if is_cut(data):
        return "it is truncated"
    if rules.image_bytes is not None and len(data) * 4 > rules.image_bytes * 3:
        return f"it has {len(data)} bytes, and in Base64 more than {rules.image_bytes}"
    if rules.image_side is not None and (size := size_of(data)) is not None:
        width, height = size
        if max(size) > rules.image_side:
            return f"it has {width} x {height} pixels, more than {rules.image_side}"
    return ""


def result_fault(output: FunctionCallOutput, rules: Rules) -> tuple[str, str]:
    """Why a picture in a result cannot be sent (empty if it can, or if the result has none), and its
    real type, if the declared one differs."""
    if without_pictures(output.output) == output.output:
        return "", ""
    picture = picture_of(output) if rules.result_images else None
    return ("this model reads it as text", "") if picture is None else image_fault(picture, rules)


def picture_fault_in(
    output: FunctionCallOutput, picture: ImageContent, rules: Rules
) -> tuple[str, str]:
    """Like `result_fault`, for a picture that belongs to a result."""
    if not rules.result_images or output.is_error:
        return "this model reads it as text", ""
    source = picture.image
    if not isinstance(source, str) or not (rules.result_addresses or source.startswith("data:")):
        return "it is not a `data:` URL", ""
    return image_fault(picture, rules)


def image_fault(image: ImageContent, rules: Rules) -> tuple[str, str]:
    """Why `image` cannot be sent (empty if it can), and its real type, if the declared one differs.

    Providers refuse an image whose bytes do not have its declared type.
    """
    source = image.image
    if not rules.images:
        return "this model takes no images", ""
    if not isinstance(source, str):
        # A frame is encoded later, in a thread.
        return ("its frame holds no picture" if picture_fault(source) else ""), ""
    if source.startswith("data:"):
        try:
            data, shown, whole = data_of(image)
        except ValueError:
            return "it cannot be read", ""
        if not data:
            return "it holds no bytes", ""
        if not whole:
            return "its base64 is damaged", ""
        try:
            said = serialize_image(image).mime_type or ""
        except ValueError:
            said = ""
        if not (shown or said):
            return "it cannot be read", ""
        mime_type = shown or said
        if mime_type not in rules.image_types:
            return f"type {mime_type} is not accepted", ""
        if too_much := _excess(data, rules):
            return too_much, ""
        return "", "" if mime_type == said else mime_type
    if not source.startswith(rules.image_schemes) or not is_sendable(source):
        return "its URL is not accepted", ""
    return "", ""
