"""Mends a history so that a provider accepts it.

Law: pure and linear; the given items are never changed, changed ones are copies. Every text that
can be sent is sent exactly once: a message or an output without a legal place becomes a user
message. Every change is reported as data, a list of `Change`. The formats themselves move outputs
behind their calls and merge turns of one role; this is reported here only if it moves something
across a message.

A history that is already legal is recognized in one quick pass and returned unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from rejoinder._core import dialects, jsontext
from rejoinder._core.call_ids import fresh_ids
from rejoinder._core.changes import Change, ChangeKind
from rejoinder._core.dialects import Dialect
from rejoinder._core.groups import group_key, instructions_block, reject_non_items
from rejoinder._core.items import (
    ChatContent,
    ChatItem,
    ChatMessage,
    ChatRole,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
    with_fields,
)
from rejoinder._core.legality import (
    FOREIGN_IDS,
    INSTRUCTIONS_AFTER,
    find_violation,
    image_fault,
    images_in,
    is_object,
    is_sendable,
    is_too_deep,
    picture_fault_in,
    result_fault,
    sound_value,
)
from rejoinder._core.names import portable_name
from rejoinder._core.pairing import Grouping, Pair, Turn, user_message
from rejoinder._core.results import picture_of, told_instead, without_pictures
from rejoinder._core.rules import STATEFUL, Rules
from rejoinder._core.unread import is_output_as_read, joined_unread, unread_in

__all__ = ["Change", "ChangeKind", "repair"]

_NO_RESULT = "No result was recorded for this call."
_BRIDGE = "OK."
_SPOKEN = ("assistant", "user")


def repair(
    items: Sequence[ChatItem],
    provider: str | Dialect,
    *,
    state: Sequence[str] = (),
    prefill: bool = False,
    signatures: bool = False,
) -> tuple[list[ChatItem], list[Change]]:
    """`items` so that `provider` accepts them once its format has converted them.

    The result is meant for the format of that name with its defaults. If nothing had to change and
    a list was given, it is that list.

    * A call without output gets an output that states this; an output without call becomes a user message;
      a second output of one call is joined to the first. Both stand where the call stands.
    * Call ids are replaced where they are used twice or the provider would refuse them; so are
      names of tools. New ids depend only on the old ones, so that prompts stay cacheable.
    * Arguments that are not a JSON object become one. A content that is a string becomes a list.
    * Messages without text or image are omitted, unless they hold state that the provider accepts
      alone (a compaction). Blank text is omitted if blocks may not be blank.
    * Images move to a user message if only the user may show them, get the type that their bytes
      show, and become text if they cannot be read or sent.
    * Opaque state is kept only for its own provider, and only if it is complete.
    * The history begins and ends with the user if the provider demands it.

    Args:
        items: any history.
        provider: the name of a format that has rules, or its dialect.
        state: further keys of `extra` whose state may be sent, for servers that clone an API
            (the ``openai`` format sends ``google``, ``livekit`` and ``xai``).
        prefill: the last message may be the assistant's, for the model to continue it.
        signatures: the model refuses calls without a thought signature (Gemini 3 and later).

    Returns:
        The history to send, and what was changed, in the order in which it was noticed.

    Raises:
        ValueError: no dialect has the name `provider`, or it has no rules.
        TypeError: an element of `items` is not an item of a chat context, or has a field of a wrong
            type; the message names it.
    """
    dialect = dialects.find(provider) if isinstance(provider, str) else provider
    rules = dialect.rules
    if rules is None:
        raise ValueError(f"repair: the dialect {dialect.name!r} has no rules for histories")
    if prefill and rules.last_user:
        rules = replace(rules, last_user="")
    if signatures and rules.no_signature:
        rules = replace(rules, signatures=True)
    keep = frozenset((rules.state.key, *state))
    try:
        violation = find_violation(items, rules, keep)
        if violation is None:
            return (items if isinstance(items, list) else list(items)), []
        work = _Repair(rules, dialect.name, keep)
        if violation is FOREIGN_IDS:
            return work.rename(items), work.changes
        return work.run(items), work.changes
    except (AttributeError, TypeError):
        reject_non_items(items)
        raise


class _Unit(msgspec.Struct):
    """Repaired items that stay together, and the roles with which they begin and end. Both roles are
    empty if the provider does not send the items as messages."""

    start: str
    end: str
    items: list[ChatItem]


class _Repair:
    def __init__(self, rules: Rules, provider: str, keep: frozenset[str]) -> None:
        self.rules = rules
        self.provider = provider
        self.keep = keep
        self.changes: list[Change] = []
        self.sent_ids: set[str] = set()
        self.added: set[str] = set()
        self.names: set[str] = set()  # of tools, as they are accepted

    def note(self, kind: ChangeKind, item_id: str, detail: str) -> None:
        self.changes.append(Change(kind, item_id, detail))

    def run(self, items: Sequence[ChatItem]) -> list[ChatItem]:
        turns = Grouping(self.rules, self.note).turns(items)
        if (crowd := self.rules.crowd) is not None:
            images = sum(images_in(item) for item in items if item.type == "message")
            if images > crowd[0]:
                self.rules = replace(self.rules, image_side=crowd[1])
        if self.rules.one_instruction:
            turns = self.join_instructions(turns)
        new_ids = self.call_ids(turns)
        units: list[_Unit] = []
        instructed = False
        for turn in turns:
            if isinstance(turn, Turn):
                self.assistant(turn, new_ids, units)
            elif turn.role == "user":
                self.user(turn, units)
            elif turn.role == "assistant":
                if _is_plain(turn):
                    units.append(_Unit("assistant", "assistant", [turn]))
                else:
                    self.assistant(Turn(group_key(turn), 0, turn), new_ids, units)
            elif turn.role in ("developer", "system"):
                instructed = self.instructions(turn, instructed, units)
            else:
                reject_non_items(items)
        if self.rules.signatures:
            self.sign(units)
        if self.rules.reply_after_tools:
            units = self.bridged(units)
        self.edges(units)
        if self.rules.alternates:
            units = self.alternated(units)
        return [item for unit in units for item in unit.items]

    def call_ids(self, turns: list[ChatMessage | Turn]) -> dict[int, str]:
        """New call ids by the identity of the pair, for calls whose own cannot be sent."""
        pairs = [pair for turn in turns if isinstance(turn, Turn) for pair in turn.pairs]
        fresh = fresh_ids([pair.call for pair in pairs], self.rules, self.note)
        return {id(pairs[at]): call_id for at, call_id in fresh.items()}

    def rename(self, items: Sequence[ChatItem]) -> list[ChatItem]:
        """The history with call ids of the right form, if nothing else has to be repaired."""
        calls = [item for item in items if item.type == "function_call"]
        fresh = {
            calls[at].call_id: new for at, new in fresh_ids(calls, self.rules, self.note).items()
        }
        found: list[ChatItem] = []
        for item in items:
            if item.type == "function_call" or item.type == "function_call_output":
                new = fresh.get(item.call_id)
                found.append(item if new is None else with_fields(item, call_id=new))
            else:
                found.append(item)
        return found

    def join_instructions(self, turns: list[ChatMessage | Turn]) -> list[ChatMessage | Turn]:
        found: list[ChatMessage | Turn] = []
        texts: list[str] = []
        at = -1
        for turn in turns:
            if isinstance(turn, Turn) or turn.role not in ("system", "developer"):
                found.append(turn)
                continue
            text = turn.text_content
            if text and not text.isspace():
                if texts:
                    self.note("merged", turn.id, "joined to the instructions at the beginning")
                else:
                    at = len(found)
                    found.append(turn)
                texts.append(text)
            images = [part for part in turn.content if not isinstance(part, str)]
            if images:
                self.note("role", turn.id, "its images move to a user message")
                found.append(user_message(images, turn))
            elif not text or text.isspace():
                self.note("dropped", turn.id, "a message without text or image")
        if texts:
            first = cast("ChatMessage", found[at])
            if len(texts) > 1 or len(first.content) > 1:
                found[at] = with_fields(first, content=["\n\n".join(texts)])
        return found

    # -- one turn

    def user(self, message: ChatMessage, units: list[_Unit]) -> None:
        if _is_plain(message):
            units.append(_Unit("user", "user", [message]))
            return
        content, _ = self.content(message, shows_images=True)
        if _holds_something(content) or self.rules.state.fills(message.extra):
            units.append(_Unit("user", "user", [self.updated(message, content, "user")]))
        else:
            self.note("dropped", message.id, "a message without text or image")

    def instructions(self, message: ChatMessage, instructed: bool, units: list[_Unit]) -> bool:
        rules = self.rules
        content, images = self.content(message, shows_images=False)
        if _holds_something(content) or rules.state.fills(message.extra):
            role: ChatRole = message.role
            start = "system"
            if rules.one_instruction:
                start = ""
            elif rules.folds_instructions:
                start = "user" if instructed or role == "developer" else ""
            else:
                if not rules.developer:
                    role = "system"
                last = next((unit.end for unit in reversed(units) if unit.end), "")
                if (
                    rules.instructions != "anywhere"
                    and last not in INSTRUCTIONS_AFTER[rules.instructions]
                ):
                    # Here, only a user message can carry instructions.
                    start = role = "user"
                    text = "\n".join(part for part in content if isinstance(part, str) and part)
                    quoted: list[ChatContent] = [instructions_block(text)]
                    content = quoted
            if role != message.role:
                self.note("role", message.id, f"{message.role} has become {role}")
            units.append(_Unit(start, start, [self.updated(message, content, role)]))
            instructed = True
        elif not images:
            self.note("dropped", message.id, "a message without text or image")
        if images:
            self.note("image", message.id, f"only the user may show images, not {message.role}")
            units.append(_Unit("user", "user", [user_message(images, message)]))
        return instructed

    def assistant(self, turn: Turn, new_ids: dict[int, str], units: list[_Unit]) -> None:
        message = turn.message
        items: list[ChatItem] = []
        images: list[ImageContent] = []
        if message is not None:
            content, images = self.content(message, shows_images=self.rules.assistant_images)
            if _holds_something(content) or self.rules.state.fills(message.extra):
                items.append(self.updated(message, content, "assistant", key=turn.key))
            elif message.extra and self.carries(
                carrier := self.updated(message, content, "assistant", key=turn.key),
                before_calls=bool(turn.pairs),
            ):
                items.append(carrier)
            elif not images:
                self.note("dropped", message.id, "a message without text or image")
        pairs = turn.pairs
        if len(pairs) == 1:
            (pair,) = pairs
            call = self.call(pair.call, new_ids.get(id(pair)), turn.key)
            items += (call, self.output(pair, call))
        elif pairs:
            outputs: list[tuple[int, FunctionCallOutput]] = []
            for pair in pairs:
                call = self.call(pair.call, new_ids.get(id(pair)), turn.key)
                items.append(call)
                outputs.append((pair.position, self.output(pair, call)))
            # Outputs keep their order; those that were added come last.
            outputs.sort(key=lambda entry: (entry[1].id in self.added, entry[0]))
            items.extend(output for _, output in outputs)
        if items:
            units.append(_Unit("assistant", "tool" if pairs else "assistant", items))
        if images and message is not None:
            self.note("image", message.id, "only the user may show images, not the assistant")
            units.append(_Unit("user", "user", [user_message(images, message)]))

    def carries(self, message: ChatMessage, *, before_calls: bool) -> bool:
        """Whether a message without text is kept for its state: because the state must precede its
        calls, or because the provider accepts it alone."""
        own = self.rules.state
        state = message.extra.get(own.key)
        if not isinstance(state, dict):
            return False
        held = cast("dict[str, Any]", state)
        return (before_calls and own.entries and own.part in held) or own.stands_alone(held)

    def call(self, call: FunctionCall, new_id: str | None, key: str) -> FunctionCall:
        update: dict[str, Any] = {}
        if new_id is not None:
            update["call_id"] = new_id
        if call.name not in self.names:
            if self.rules.name.fullmatch(call.name):
                self.names.add(call.name)
            else:
                update["name"] = self.tool_name(call)
        arguments = call.arguments
        if arguments != "{}" and not is_object(arguments):
            update["arguments"] = _object_text(arguments)
            self.note("arguments", call.id, "they were not a JSON object")
        if call.extra:
            self.restate(call, update, "item_id")
        if group_key(call) != key:
            update["group_id"] = key
        return with_fields(call, **update) if update else call

    def tool_name(self, call: FunctionCall) -> str:
        name = portable_name(call.name or "unnamed_tool", self.rules.name)
        self.note("name", call.id, f"{call.name[:80]!r} is not accepted; now {name!r}")
        return name

    def output(self, pair: Pair, call: FunctionCall) -> FunctionCallOutput:
        output = pair.output
        if output is None:
            self.note("added", call.id, "there was no output for it")
            added = FunctionCallOutput(
                name=call.name,
                call_id=call.call_id,
                output=_NO_RESULT,
                is_error=True,
                created_at=call.created_at,
            )
            self.added.add(added.id)
            return added
        update: dict[str, Any] = {}
        if output.call_id != call.call_id:
            update["call_id"] = call.call_id
        if self.rules.output_names and output.name != call.name:
            update["name"] = call.name
            self.note("name", output.id, f"{output.name[:80]!r} is not the name of its call")
        text, images = self.shown(output, call, alone=not pair.more)
        blank_ok = self.rules.blank_outputs and (self.rules.blank_errors or not output.is_error)
        if not (blank_ok or images) and (not text or text.isspace()):
            text = "(empty)"
            self.note("text", output.id, "blank text is not accepted here")
        if pair.more:
            texts = [text]
            for further in pair.more:
                said = further.output
                if not said or said.isspace() or said == output.output:
                    self.note("dropped", further.id, "repeats the one before")
                else:
                    texts.append(self.shown(further, call, alone=False)[0])
                    self.note("merged", further.id, "joined to the output before it")
            text = "\n\n".join(texts)
        if text != output.output:
            update["output"] = text
        if images != output.images:
            update["images"] = images
        return with_fields(output, **update) if update else output

    def shown(
        self, output: FunctionCallOutput, call: FunctionCall, *, alone: bool
    ) -> tuple[str, list[ImageContent]]:
        """The text of an output, and the pictures that belong to it, see `result`."""
        images: list[ImageContent] = []
        descriptions: list[str] = []
        for picture in output.images:
            problem, mime_type = picture_fault_in(output, picture, self.rules)
            if problem or not alone:
                why = problem or "it is not the only output"
                self.note("image", output.id, f"a picture in a result became text: {why}")
                descriptions.append(self.text(told_instead(picture), output.id))
            elif mime_type:
                self.note("image", output.id, f"an image is really of type {mime_type}")
                images.append(_retyped(picture, mime_type))
            else:
                images.append(picture)
        text = self.result(output, call, alone=alone, whole=not descriptions)
        return "\n".join(filter(None, [text, *descriptions])), images

    def result(
        self, output: FunctionCallOutput, call: FunctionCall, *, alone: bool, whole: bool
    ) -> str:
        """The text of an output. Pictures stay where they can be shown, and otherwise become words.

        Args:
            output: the output.
            call: the call that it answers.
            alone: it is the whole output of the call.
            whole: none of its pictures became text.
        """
        own = self.rules.state
        if call.extra and own.unread and alone and whole:
            kept = unread_in(call.extra, own.key, own.unread)
            if is_output_as_read(kept, output):
                return output.output  # sent unchanged
        problem, mime_type = result_fault(output, self.rules)
        picture = picture_of(output) if alone and self.rules.result_images else None
        if picture is not None and not problem:
            if not mime_type:
                return output.output
            self.note("image", output.id, f"an image is really of type {mime_type}")
            return str(_retyped(picture, mime_type).image)
        text = without_pictures(output.output)
        if text != output.output:
            why = problem or "it is not the only output"
            self.note("image", output.id, f"a picture in a result became text: {why}")
        return self.text(text, output.id)

    # -- one text, one image, one state

    def text(self, text: str, item_id: str) -> str:
        if text.isascii() or is_sendable(text):
            return text
        self.note("text", item_id, "half a surrogate pair cannot be sent")
        return jsontext.heal(text)

    def content(
        self, message: ChatMessage, *, shows_images: bool
    ) -> tuple[list[ChatContent], list[ImageContent]]:
        """The content that stays in the message, and the images that must move to another one."""
        kept: list[ChatContent] = []
        images: list[ImageContent] = []
        speech: list[str] = []
        for part in message.content:
            if isinstance(part, str):
                if self.rules.blocks and part and part.isspace():
                    self.note("text", message.id, "a blank text was left out")
                else:
                    kept.append(self.text(part, message.id))
            elif part.type == "image_content":
                problem, mime_type = image_fault(part, self.rules)
                if mime_type:
                    part = _retyped(part, mime_type)
                    self.note("image", message.id, f"an image is really of type {mime_type}")
                if problem:
                    kept.append(_image_text(part, problem))
                    self.note("image", message.id, f"an image became text: {problem}")
                elif shows_images:
                    kept.append(part)
                else:
                    images.append(part)
            elif part.transcript and not part.transcript.isspace():
                speech.append(part.transcript)
        if speech and not _holds_something(kept):
            self.note("to_text", message.id, "the sound is sent as its transcript")
            kept.extend(self.text(said, message.id) for said in speech)
        return kept, images

    def updated(
        self, message: ChatMessage, content: list[ChatContent], role: ChatRole, *, key: str = ""
    ) -> ChatMessage:
        update: dict[str, Any] = {}
        if len(content) != len(message.content) or any(
            new is not old for new, old in zip(content, message.content, strict=True)
        ):
            update["content"] = content
        if role != message.role:
            update["role"] = role
        if key and group_key(message) != key:
            update["id"] = key
        if message.extra:
            self.restate(message, update, "message_id" if _holds_something(content) else "")
        return with_fields(message, **update) if update else message

    def restate(self, item: ChatMessage | FunctionCall, update: dict[str, Any], name: str) -> None:
        """Omit state that belongs to another provider or is damaged."""
        extra: dict[str, Any] = {}
        changed = False
        for key, value in item.extra.items():
            if key not in STATEFUL:
                extra[key] = value
                continue
            sound = None
            if key in self.keep:
                sound = sound_value(key, value, self.rules.state, self.sent_ids, name)
            if sound is None or sound is not value:
                changed = True
                self.note(
                    "state",
                    item.id,
                    f"state of {key} is not for {self.provider}"
                    if key not in self.keep
                    else f"state of {key} is damaged",
                )
            if sound is not None:
                extra[key] = sound
        if changed:
            update["extra"] = extra

    # -- the whole

    def sign(self, units: list[_Unit]) -> None:
        rules = self.rules
        own = rules.state
        for unit in reversed(units):
            if unit.start == "user":
                return
            for at, item in enumerate(unit.items):
                if item.type == "function_call":
                    if not own.is_carried_by(item):
                        kept: Any = item.extra.get(own.key)
                        held = cast("dict[str, Any]", kept) if isinstance(kept, dict) else {}
                        signed = {**held, own.part: rules.no_signature}
                        extra = {**item.extra, own.key: signed}
                        unit.items[at] = with_fields(item, extra=extra)
                        self.note("state", item.id, "its thought signature is missing")
                    break

    def bridged(self, units: list[_Unit]) -> list[_Unit]:
        found: list[_Unit] = []
        for unit in units:
            if found and found[-1].end == "tool" and unit.start in ("user", "system"):
                before = found[-1].items[-1]
                self.note("added", before.id, "after an output comes the assistant")
                reply = ChatMessage(
                    role="assistant", content=[_BRIDGE], created_at=before.created_at
                )
                found.append(_Unit("assistant", "assistant", [reply]))
            found.append(unit)
        return found

    def edges(self, units: list[_Unit]) -> None:
        rules = self.rules
        spoken = [at for at, unit in enumerate(units) if unit.start]
        if not spoken:
            if rules.lone_user:
                self.add_user(units, len(units), rules.lone_user, "there was nothing to send")
            return
        if rules.last_user and units[spoken[-1]].end not in ("user", "tool"):
            self.add_user(units, len(units), rules.last_user, "the user speaks last")
        elif units[spoken[-1]].end == "assistant" and rules.blocks:
            self.trim(units[spoken[-1]])
        first = next((at for at in spoken if units[at].start != "system"), None)
        if rules.first_user and first is not None and units[first].start != "user":
            self.add_user(units, first, rules.first_user, "the user speaks first")
        elif not rules.calls_first and units[spoken[0]].end == "tool":
            self.add_user(units, spoken[0], rules.lone_user, "calls may not come first")

    def alternated(self, units: list[_Unit]) -> list[_Unit]:
        """Merge consecutive messages of one role, and separate turns that cannot be merged."""
        found: list[_Unit] = []
        for unit in units:
            before = found[-1] if found else None
            if before is not None and unit.start == before.end and unit.start in _SPOKEN:
                (*_, first), (second, *more) = before.items, unit.items
                if isinstance(first, ChatMessage) and isinstance(second, ChatMessage) and not more:
                    self.note("merged", second.id, f"two messages of role {unit.start} in a row")
                    own = self.rules.state
                    extra = joined_unread(first, second, own.key, own.unread)
                    content = [*first.content, *second.content]
                    joined = with_fields(first, content=content, extra=extra)
                    found[-1] = _Unit(before.start, unit.end, [*before.items[:-1], joined])
                    continue
                self.note("added", second.id, "the user speaks between two turns of the assistant")
                found.append(_Unit("user", "user", [user_message(".", second)]))
            found.append(unit)
        return found

    def add_user(self, units: list[_Unit], at: int, text: str, why: str) -> None:
        beside = units[min(at, len(units) - 1)].items[0] if units else None
        message = (
            ChatMessage(role="user", content=[text])
            if beside is None
            else user_message(text, beside)
        )
        self.note("added", message.id, why)
        units.insert(at, _Unit("user", "user", [message]))

    def trim(self, unit: _Unit) -> None:
        """Remove white space at the end of a reply that the model should continue."""
        last = unit.items[-1]
        if last.type != "message":
            return
        at = next((i for i in reversed(range(len(last.content))) if last.content[i]), -1)
        text = last.content[at] if at >= 0 else ""
        if isinstance(text, str) and text != text.rstrip():
            content = [*last.content[:at], text.rstrip()]
            unit.items[-1] = with_fields(last, content=content)
            self.note("text", last.id, "white space at the end was left out")


def _is_plain(message: ChatMessage) -> bool:
    """Whether the message is one valid text without state, as most messages are."""
    content = message.content
    if message.extra or len(content) != 1:
        return False
    text = content[0]
    return (
        isinstance(text, str)
        and bool(text)
        and not text.isspace()
        and (text.isascii() or is_sendable(text))
    )


def _holds_something(content: list[ChatContent]) -> bool:
    return any(
        part.type == "image_content" if not isinstance(part, str) else part and not part.isspace()
        for part in content
    )


def _object_text(arguments: str) -> str:
    """`arguments` as the text of an equal JSON object."""
    try:
        value = jsontext.decode(arguments)
        for _ in range(3):
            if not isinstance(value, str) or not value.lstrip().startswith(("{", '"')):
                break
            value = jsontext.decode(value)
    except ValueError:
        if not arguments or arguments.isspace():
            return "{}"
        value = {"invalid_json": arguments}
    if value is None:
        return "{}"
    found = cast("dict[str, Any]", value) if isinstance(value, dict) else {"value": value}
    if is_too_deep(arguments, found):
        found = {"invalid_json": arguments}
    try:
        return jsontext.encode(found).decode()
    except (ValueError, OverflowError, RecursionError):
        return jsontext.encode({"invalid_json": arguments}).decode()


def _retyped(image: ImageContent, mime_type: str) -> ImageContent:
    payload = str(image.image).partition(",")[2]
    new = with_fields(image, image=f"data:{mime_type};base64,{payload}", mime_type=mime_type)
    new._cache = {}  # the original keeps its own cache
    return new


def _image_text(image: ImageContent, problem: str) -> str:
    source = image.image
    if isinstance(source, str) and not source.startswith("data:") and len(source) <= 500:
        return f"[image: {jsontext.heal(source)}]"
    return f"[an image that could not be sent: {problem}]"
