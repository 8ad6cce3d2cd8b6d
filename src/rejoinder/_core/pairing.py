"""Groups the calls, outputs and texts of a history into turns.

Law: pure and linear. A turn of the assistant holds its text, its calls and their outputs, in the order
in which the formats send them. Every move is reported.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

from rejoinder import _stamps
from rejoinder._core.changes import ChangeKind
from rejoinder._core.groups import group_key, refuse_item
from rejoinder._core.items import (
    ChatContent,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    with_fields,
)
from rejoinder._core.rules import Rules

__all__ = ["Grouping", "Note", "Pair", "Turn", "user_message"]

Note: TypeAlias = Callable[[ChangeKind, str, str], None]
"""Records a change: its kind, the id of the item, and what was done."""


class Pair:
    """A call and its outputs."""

    __slots__ = ("call", "more", "output", "position")

    def __init__(self, call: FunctionCall) -> None:
        self.call = call
        self.output: FunctionCallOutput | None = None
        self.position = -1  # where the output stood, for the order among the outputs of a turn
        self.more: list[FunctionCallOutput] | None = None


class Turn:
    """An assistant turn with calls, while it is built."""

    __slots__ = ("epoch", "key", "message", "pairs")

    def __init__(self, key: str, epoch: int, message: ChatMessage | None = None) -> None:
        self.key = key
        self.epoch = epoch
        self.message = message
        self.pairs: list[Pair] = []


class _Matcher:
    """Finds the call of each output; several may have the same id."""

    def __init__(self) -> None:
        self._open: dict[str, list[tuple[int, deque[Pair]]]] = {}
        self._early: dict[str, deque[tuple[int, FunctionCallOutput]]] = {}
        self._latest: dict[str, Pair] = {}

    def called(self, pair: Pair, epoch: int) -> tuple[int, FunctionCallOutput] | None:
        """Add a call. Returns the output that preceded it, with its place, if any."""
        call_id = pair.call.call_id
        self._latest[call_id] = pair
        if early := self._early.get(call_id):
            return early.popleft()
        steps = self._open.setdefault(call_id, [])
        if not steps or steps[-1][0] != epoch:
            steps.append((epoch, deque()))
        steps[-1][1].append(pair)
        return None

    def answered(self, call_id: str) -> tuple[Pair, int] | None:
        """The call that an output with this id answers, and its epoch: among the calls without an
        output, the first of the newest step."""
        steps = self._open.get(call_id)
        if not steps:
            return None
        epoch, pairs = steps[-1]
        pair = pairs.popleft()
        if not pairs:
            steps.pop()
        return pair, epoch

    def latest(self, call_id: str) -> Pair | None:
        return self._latest.get(call_id)

    def came_early(self, output: FunctionCallOutput, place: int) -> None:
        self._early.setdefault(output.call_id, deque()).append((place, output))


class Grouping:
    """Builds the turns of one history.

    Args:
        rules: the provider's rules.
        note: called for each change.
    """

    def __init__(self, rules: Rules, note: Note) -> None:
        self.rules = rules
        self.note = note

    def turns(self, items: Sequence[ChatItem]) -> list[ChatMessage | Turn]:
        """The messages and turns of `items`, in order."""
        turns: list[ChatMessage | Turn | FunctionCallOutput | None] = []
        # The newest turn of each key. Most messages never get a call, and need no more than their
        # place and epoch.
        newest: dict[str, Turn | tuple[int, int]] = {}
        calls = _Matcher()
        epoch = 0  # grows with each message; what lies between two messages is one step
        current: Turn | None = None
        for position, item in enumerate(items):
            match item.type:
                case "message":
                    epoch += 1
                    if isinstance(cast("object", item.content), str):
                        self.note("text", item.id, "its content was a text, not a list")
                        item = with_fields(item, content=[item.content])
                    if item.role != "assistant":
                        turns.append(item)
                        current = None
                        continue
                    key = group_key(item)
                    turn = newest.get(key)
                    if isinstance(turn, Turn) and turn.message is None:
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
                        turn = turns[place] = newest[key] = Turn(key, said_in, message)
                    if turn is None:
                        if current is not None and self.belongs(current, item):
                            self.note("id", item.id, "grouped with the calls before it")
                            turn = current
                        else:
                            turn = Turn(key, epoch)
                            turns.append(turn)
                        newest[key] = turn
                    elif turn is not current and turn.epoch != epoch:
                        self.note("moved", item.id, "to the rest of its turn")
                    current = turn
                    pair = Pair(item)
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
                    refuse_item(item)
        return self.distinct(turns)

    def belongs(self, turn: Turn, call: FunctionCall) -> bool:
        """Whether `call` is a parallel call of the previous turn, although its key does not show it.

        Only the first call of a turn carries the turn's state; a later call would have none if it
        stood alone.
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
        self, turns: list[ChatMessage | Turn | FunctionCallOutput | None]
    ) -> list[ChatMessage | Turn]:
        """Give turns with the same key new keys, and turn outputs without a call into messages."""
        keys: set[str] = set()
        found: list[ChatMessage | Turn] = []
        for turn in turns:
            if isinstance(turn, Turn):
                # A call that was grouped here needs a key to refer to its turn.
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
                        found.append(Turn(key, 0, turn))
                        keys.add(key)
                        continue
                    keys.add(key)
                found.append(turn)
            elif not turn.output or turn.output.isspace():
                self.note("dropped", turn.id, "an output without text, and its call is not here")
            else:
                self.note("to_text", turn.id, f"its call {turn.call_id[:80]!r} is not here")
                tool = f"tool {turn.name}" if turn.name else "a tool"
                found.append(user_message(f"Result of {tool}: {turn.output}", turn))
        return found


def user_message(content: str | Sequence[ChatContent], beside: ChatItem) -> ChatMessage:
    """A user message that replaces `beside`."""
    parts: list[ChatContent] = [content] if isinstance(content, str) else list(content)
    return ChatMessage(role="user", content=parts, created_at=beside.created_at)
