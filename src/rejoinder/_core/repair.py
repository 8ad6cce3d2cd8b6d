"""From any history a legal one: what a provider would refuse is mended before it is sent.

Law: pure and linear; the given items are never changed, changed ones are copies. Every text that
can be sent is sent exactly once: a message or an output that has no legal place becomes a user
message, it is never lost. Everything that was done is told as data, a list of `Change`. What the
formats do anyway (moving an output behind its call, merging turns of one role) is not repeated
here, only told when it moves something across a message.

A history that is already legal is recognised in one quick pass and returned as it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from rejoinder import _stamps
from rejoinder._core import dialects, jsontext
from rejoinder._core.changes import Change, ChangeKind
from rejoinder._core.dialects import Dialect
from rejoinder._core.groups import group_key, instructions_block, refuse_item, reject_non_items
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
    sound_value,
)
from rejoinder._core.names import portable_name
from rejoinder._core.rules import STATEFUL, Rules, numbered_id

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

    The result is meant for the format of that name with its defaults. It is the given list itself
    when nothing had to be changed and a list was given.

    * A call without output gets one that says so; an output without call becomes a user message;
      a second output of one call is joined to the first. Both stand where the call stands.
    * Call ids are replaced where they are used twice or the provider would refuse them; so are
      names of tools. New ids depend only on the old ones, so that prompts stay cacheable.
    * Arguments that are not a JSON object become one, and a content that is one text and no list
      a list of it.
    * Messages without text or image are left out; blank text is, where blocks may not be blank.
    * Images go to the user where only the user may show them, are given the type that their bytes
      show, and become text where they cannot be read or sent.
    * Opaque state stays for its own provider only, and only when it is whole.
    * The user speaks first and last where the provider demands it.

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
        TypeError: an element of `items` is no item of a chat context, or holds what an item may
            not hold; it is named.
    """
    dialect = dialects.find(provider) if isinstance(provider, str) else provider
    rules = dialect.rules
    if rules is None:
        raise ValueError(f"repair knows no rules of {dialect.name!r}: its dialect has none")
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


class _Pair:
    """A call with what came of it."""

    __slots__ = ("call", "more", "output", "position")

    def __init__(self, call: FunctionCall) -> None:
        self.call = call
        self.output: FunctionCallOutput | None = None
        self.position = -1  # where the output stood, for the order among the outputs of a turn
        self.more: list[FunctionCallOutput] | None = None


class _Turn:
    """An assistant turn with calls that is being put together."""

    __slots__ = ("epoch", "key", "message", "pairs")

    def __init__(self, key: str, epoch: int, message: ChatMessage | None = None) -> None:
        self.key = key
        self.epoch = epoch
        self.message = message
        self.pairs: list[_Pair] = []


@dataclass(slots=True)
class _Unit:
    """Repaired items that stay together, and the roles with which they begin and end; both are
    empty where the items are not among the messages of the provider."""

    start: str
    end: str
    items: list[ChatItem]


class _Matcher:
    """Finds the call of each output; several may have the same id."""

    def __init__(self) -> None:
        self._open: dict[str, list[tuple[int, deque[_Pair]]]] = {}
        self._early: dict[str, deque[tuple[int, FunctionCallOutput]]] = {}
        self._latest: dict[str, _Pair] = {}

    def called(self, pair: _Pair, epoch: int) -> tuple[int, FunctionCallOutput] | None:
        """A new call; the answer is the output that came before it, with its place."""
        call_id = pair.call.call_id
        self._latest[call_id] = pair
        if early := self._early.get(call_id):
            return early.popleft()
        steps = self._open.setdefault(call_id, [])
        if not steps or steps[-1][0] != epoch:
            steps.append((epoch, deque()))
        steps[-1][1].append(pair)
        return None

    def answered(self, call_id: str) -> tuple[_Pair, int] | None:
        """The call that an output with this id means: of those without output, the first of the
        newest step. With it the epoch in which it was made."""
        steps = self._open.get(call_id)
        if not steps:
            return None
        epoch, pairs = steps[-1]
        pair = pairs.popleft()
        if not pairs:
            steps.pop()
        return pair, epoch

    def latest(self, call_id: str) -> _Pair | None:
        return self._latest.get(call_id)

    def came_early(self, output: FunctionCallOutput, place: int) -> None:
        self._early.setdefault(output.call_id, deque()).append((place, output))


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
        turns = self.turns(items)
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
            if isinstance(turn, _Turn):
                self.assistant(turn, new_ids, units)
            elif turn.role == "user":
                self.user(turn, units)
            elif turn.role == "assistant":
                if _is_plain(turn):
                    units.append(_Unit("assistant", "assistant", [turn]))
                else:
                    self.assistant(_Turn(group_key(turn), 0, turn), new_ids, units)
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

    # -- what belongs together, in the order that the formats give it

    def turns(self, items: Sequence[ChatItem]) -> list[ChatMessage | _Turn]:
        turns: list[ChatMessage | _Turn | FunctionCallOutput | None] = []
        # The newest turn of each key. Most messages never get a call, and need no more than their
        # place and epoch.
        newest: dict[str, _Turn | tuple[int, int]] = {}
        calls = _Matcher()
        epoch = 0  # grows with each message; what lies between two messages is one step
        current: _Turn | None = None
        for position, item in enumerate(items):
            match item.type:
                case "message":
                    epoch += 1
                    if isinstance(cast("object", item.content), str):
                        self.note("text", item.id, "its content was a text and no list")
                        item = with_fields(item, content=[item.content])
                    if item.role != "assistant":
                        turns.append(item)
                        current = None
                        continue
                    key = group_key(item)
                    turn = newest.get(key)
                    if isinstance(turn, _Turn) and turn.message is None:
                        self.note("moved", item.id, "before the calls of its turn")
                        turn.message = item
                        current = turn
                    else:
                        newest[key] = (len(turns), epoch)
                        turns.append(item)
                        current = None
                case "function_call":
                    key = group_key(item)
                    turn = newest.get(key)
                    if isinstance(turn, tuple):
                        place, said_in = turn
                        message = cast("ChatMessage", turns[place])
                        turn = turns[place] = newest[key] = _Turn(key, said_in, message)
                    if turn is None:
                        if current is not None and self.belongs(current, item):
                            self.note("id", item.id, "grouped with the calls before it")
                            turn = current
                        else:
                            turn = _Turn(key, epoch)
                            turns.append(turn)
                        newest[key] = turn
                    elif turn is not current and turn.epoch != epoch:
                        self.note("moved", item.id, "to the rest of its turn")
                    current = turn
                    pair = _Pair(item)
                    turn.pairs.append(pair)
                    if (early := calls.called(pair, epoch)) is not None:
                        place, pair.output = early
                        turns[place] = None
                        self.note("moved", pair.output.id, "behind its call")
                case "function_call_output":
                    meant = calls.answered(item.call_id)
                    if meant is not None:
                        pair, called_in = meant
                        pair.output, pair.position = item, position
                        if called_in != epoch:
                            self.note("moved", item.id, "behind its call")
                    elif (answered := calls.latest(item.call_id)) is not None:
                        if answered.more is None:
                            answered.more = []
                        answered.more.append(item)
                    else:
                        calls.came_early(item, len(turns))
                        turns.append(item)
                case "agent_handoff" | "agent_config_update":
                    pass
                case _:
                    refuse_item(item, getattr(item, "type", None))
        return self.distinct(turns)

    def belongs(self, turn: _Turn, call: FunctionCall) -> bool:
        """Whether `call` is a parallel call of the turn before it, though it does not say so.

        Only the first call of a turn carries the turn's state; on its own, another would stand
        without any.
        """
        state = self.rules.state.key
        return (
            self.rules.blocks
            and bool(turn.pairs)
            and turn.pairs[0].output is turn.pairs[-1].output is None
            and state in turn.pairs[0].call.extra
            and state not in call.extra
        )

    def distinct(
        self, turns: list[ChatMessage | _Turn | FunctionCallOutput | None]
    ) -> list[ChatMessage | _Turn]:
        """Give turns that share a key new ones, and outputs without a call a message."""
        keys: set[str] = set()
        found: list[ChatMessage | _Turn] = []
        for turn in turns:
            if isinstance(turn, _Turn):
                # Without a key of its own, a call that was grouped here could not name its turn.
                nameless = not turn.key and any(group_key(pair.call) for pair in turn.pairs)
                if turn.key in keys or nameless:
                    first = turn.message or turn.pairs[0].call
                    self.note("id", first.id, f"its turn had the key {turn.key[:80]!r} of another")
                    turn.key = _stamps.new_id("item_")
                keys.add(turn.key)
                found.append(turn)
            elif turn is None:
                continue
            elif turn.type == "message":
                if turn.role == "assistant":
                    key = group_key(turn)
                    if key in keys:
                        self.note("id", turn.id, f"its turn had the key {key[:80]!r} of another")
                        key = _stamps.new_id("item_")
                        found.append(_Turn(key, 0, turn))
                        keys.add(key)
                        continue
                    keys.add(key)
                found.append(turn)
            elif not turn.output or turn.output.isspace():
                self.note("dropped", turn.id, "an output without text, and its call is not here")
            else:
                self.note("to_text", turn.id, f"its call {turn.call_id[:80]!r} is not here")
                tool = f"tool {turn.name}" if turn.name else "a tool"
                found.append(_user(f"Result of {tool}: {turn.output}", turn))
        return found

    def call_ids(self, turns: list[ChatMessage | _Turn]) -> dict[int, str]:
        """New call ids by the identity of the pair, for calls whose own cannot be sent."""
        pairs = [pair for turn in turns if isinstance(turn, _Turn) for pair in turn.pairs]
        fresh = self.fresh_ids([pair.call for pair in pairs])
        return {id(pairs[at]): call_id for at, call_id in fresh.items()}

    def fresh_ids(self, calls: Sequence[FunctionCall]) -> dict[int, str]:
        """New call ids by position. They depend on the old ones alone."""
        if self.rules.numbered_ids:
            return self.numbered_ids(calls)
        is_accepted = self.rules.call_id.fullmatch
        taken = {call.call_id for call in calls}
        used: set[str] = set()
        again: dict[str, int] = {}
        fresh: dict[int, str] = {}
        for at, call in enumerate(calls):
            old = call.call_id
            if old not in used:
                used.add(old)
                if is_accepted(old):
                    continue
                reason = "not of the form that is accepted"
            else:
                reason = "used twice"
            while True:
                count = again[old] = again.get(old, 0) + 1
                new = self.rules.new_call_id(f"{old}\n{count}")
                if new not in taken and new not in used:
                    break
            used.add(new)
            fresh[at] = new
            self.note("id", call.id, f"call id {old[:80]!r}: {reason}; now {new!r}")
        return fresh

    def numbered_ids(self, calls: Sequence[FunctionCall]) -> dict[int, str]:
        fresh: dict[int, str] = {}
        for at, call in enumerate(calls):
            new = numbered_id(call.name, at)
            if call.call_id != new:
                fresh[at] = new
                self.note("id", call.id, f"call id {call.call_id[:80]!r}: now {new!r}")
        return fresh

    def rename(self, items: Sequence[ChatItem]) -> list[ChatItem]:
        """The same history with call ids of the right form; each is used once, and nothing else
        needs to be done."""
        calls = [item for item in items if item.type == "function_call"]
        fresh = {calls[at].call_id: new for at, new in self.fresh_ids(calls).items()}
        found: list[ChatItem] = []
        for item in items:
            if item.type == "function_call" or item.type == "function_call_output":
                new = fresh.get(item.call_id)
                found.append(item if new is None else with_fields(item, call_id=new))
            else:
                found.append(item)
        return found

    def join_instructions(self, turns: list[ChatMessage | _Turn]) -> list[ChatMessage | _Turn]:
        found: list[ChatMessage | _Turn] = []
        texts: list[str] = []
        at = -1
        for turn in turns:
            if isinstance(turn, _Turn) or turn.role not in ("system", "developer"):
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
                self.note("role", turn.id, "its images are shown by the user")
                found.append(_user(images, turn))
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
        if _holds_something(content):
            units.append(_Unit("user", "user", [self.updated(message, content, "user")]))
        else:
            self.note("dropped", message.id, "a message without text or image")

    def instructions(self, message: ChatMessage, instructed: bool, units: list[_Unit]) -> bool:
        rules = self.rules
        content, images = self.content(message, shows_images=False)
        if _holds_something(content):
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
                    # There is no place for instructions here but in the user's mouth.
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
            units.append(_Unit("user", "user", [_user(images, message)]))
        return instructed

    def assistant(self, turn: _Turn, new_ids: dict[int, str], units: list[_Unit]) -> None:
        message = turn.message
        items: list[ChatItem] = []
        images: list[ImageContent] = []
        if message is not None:
            content, images = self.content(message, shows_images=self.rules.assistant_images)
            if _holds_something(content):
                items.append(self.updated(message, content, "assistant", key=turn.key))
            elif turn.pairs and self.carries(
                carrier := self.updated(message, content, "assistant", key=turn.key)
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
            self.note("image", message.id, "only the user may show images, not assistant")
            units.append(_Unit("user", "user", [_user(images, message)]))

    def carries(self, message: ChatMessage) -> bool:
        """Whether a message without text is still wanted, for the state that precedes its calls."""
        own = self.rules.state
        state = message.extra.get(own.key)
        return own.entries and isinstance(state, dict) and own.part in state

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

    def output(self, pair: _Pair, call: FunctionCall) -> FunctionCallOutput:
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
        text = self.text(output.output, output.id)
        blank_ok = self.rules.blank_outputs and (self.rules.blank_errors or not output.is_error)
        if not blank_ok and (not text or text.isspace()):
            text = "(empty)"
            self.note("text", output.id, "blank text is not accepted here")
        if pair.more:
            texts = [text]
            for further in pair.more:
                said = further.output
                if not said or said.isspace() or said == output.output:
                    self.note("dropped", further.id, "says nothing that the one before does not")
                else:
                    texts.append(self.text(said, further.id))
                    self.note("merged", further.id, "joined to the output before it")
            text = "\n\n".join(texts)
        if text != output.output:
            update["output"] = text
        return with_fields(output, **update) if update else output

    # -- one text, one image, one state

    def text(self, text: str, item_id: str) -> str:
        if text.isascii() or is_sendable(text):
            return text
        self.note("text", item_id, "half a surrogate pair cannot be sent")
        return jsontext.heal(text)

    def content(
        self, message: ChatMessage, *, shows_images: bool
    ) -> tuple[list[ChatContent], list[ImageContent]]:
        """What stays in the message, and the images that somebody else has to show."""
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
            self.note("to_text", message.id, "what was said is sent as its transcript")
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
        """Leave out what is not this provider's state, or no longer whole."""
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
                        extra = {**item.extra, own.key: {own.part: rules.no_signature}}
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
        """Join messages of one role that stand in a row, and part turns that cannot be joined."""
        found: list[_Unit] = []
        for unit in units:
            before = found[-1] if found else None
            if before is not None and unit.start == before.end and unit.start in _SPOKEN:
                (*_, first), (second, *more) = before.items, unit.items
                if isinstance(first, ChatMessage) and isinstance(second, ChatMessage) and not more:
                    self.note("merged", second.id, f"two messages of role {unit.start} in a row")
                    joined = with_fields(first, content=[*first.content, *second.content])
                    found[-1] = _Unit(before.start, unit.end, [*before.items[:-1], joined])
                    continue
                self.note("added", second.id, "the user speaks between two turns of the assistant")
                found.append(_Unit("user", "user", [_user(".", second)]))
            found.append(unit)
        return found

    def add_user(self, units: list[_Unit], at: int, text: str, why: str) -> None:
        beside = units[min(at, len(units) - 1)].items[0] if units else None
        message = (
            ChatMessage(role="user", content=[text]) if beside is None else _user(text, beside)
        )
        self.note("added", message.id, why)
        units.insert(at, _Unit("user", "user", [message]))

    def trim(self, unit: _Unit) -> None:
        """A reply that the model shall continue may not end in white space."""
        last = unit.items[-1]
        if last.type != "message":
            return
        at = next((i for i in reversed(range(len(last.content))) if last.content[i]), -1)
        text = last.content[at] if at >= 0 else ""
        if isinstance(text, str) and text != text.rstrip():
            content = [*last.content[:at], text.rstrip()]
            unit.items[-1] = with_fields(last, content=content)
            self.note("text", last.id, "white space at the end was left out")


def _user(content: str | Sequence[ChatContent], beside: ChatItem) -> ChatMessage:
    parts: list[ChatContent] = [content] if isinstance(content, str) else list(content)
    return ChatMessage(role="user", content=parts, created_at=beside.created_at)


def _is_plain(message: ChatMessage) -> bool:
    """Most messages are: one sound text, and no state."""
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
    """`arguments` as the text of a JSON object that says the same."""
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
    new._cache = {}  # that of the original goes on to hold the original
    return new


def _image_text(image: ImageContent, problem: str) -> str:
    source = image.image
    if isinstance(source, str) and not source.startswith("data:") and len(source) <= 500:
        return f"[image: {jsontext.heal(source)}]"
    return f"[an image that could not be sent: {problem}]"
