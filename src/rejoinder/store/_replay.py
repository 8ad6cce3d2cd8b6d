"""Computes the current state of a conversation from its log. Pure.

The log is a tree: each item names its parent, and the conversation is the path from its head to the
root. Everything is derived from the records, in their order; nothing else is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from rejoinder.store.records import Record

__all__ = ["Asked", "State", "replay", "same_call"]

Asked: TypeAlias = tuple[str, str]
"""Name and arguments of a call, in a comparable form."""


def same_call(name: str, arguments: str) -> Asked:
    """A key that is equal for calls with the same name and arguments."""
    try:
        arguments = json.dumps(json.loads(arguments), sort_keys=True)
    except (ValueError, RecursionError):
        pass
    return name, arguments


@dataclass(slots=True)
class State:
    """The state of a conversation, as derived from its log.

    Attributes:
        count: the number of records.
        head: the item after which the conversation continues.
        parents: the parent of each item, on all branches.
        data: the newest content of each item.
        heard: for spoken messages, the text that was heard.
        turn: the last turn.
        owner: who runs the last turn; ``None`` when it is over.
        planned: outputs of tools that have not finished.
        started: keys of the calls that were started.
        partial: the received part of a reply that is not an item yet.
        about: facts about the conversation.
        seen: wall time of the last record.
    """

    count: int = 0
    head: str | None = None
    parents: dict[str, str | None] = field(default_factory=dict[str, str | None])
    data: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    heard: dict[str, str] = field(default_factory=dict[str, str])
    turn: str | None = None
    owner: Mapping[str, Any] | None = None
    planned: set[str] = field(default_factory=set[str])
    started: set[str] = field(default_factory=set[str])
    partial: list[str] = field(default_factory=list[str])
    about: dict[str, Any] = field(default_factory=dict[str, Any])
    seen: float = 0.0
    _starts: dict[str, tuple[int, str | None]] = field(
        default_factory=dict[str, tuple[int, str | None]]
    )
    _written: dict[str, int] = field(default_factory=dict[str, int])

    def path(self) -> list[str]:
        """The items of the conversation, in their order."""
        found: list[str] = []
        known: set[str] = set()
        item = self.head
        while item is not None and item in self.data and item not in known:
            known.add(item)
            found.append(item)
            item = self.parents.get(item)
        return found[::-1]

    def tips(self) -> list[str]:
        """The last item of each branch."""
        inner = {parent for parent in self.parents.values() if parent is not None}
        return [item for item in self.data if item not in inner]

    def open_calls(self) -> dict[str, tuple[str, bool]]:
        """Outputs on the path that are not final: the item of the call, and whether it started."""
        calls: dict[Any, str] = {}
        found: dict[str, tuple[str, bool]] = {}
        for item in self.path():
            data = self.data[item]
            match data.get("type"):
                case "function_call":
                    calls[data.get("call_id")] = item
                case "function_call_output":
                    call = calls.get(data.get("call_id"))
                    if call is None:
                        continue
                    started, _ = self._starts.get(call, (0, None))
                    if item in self.planned or started > self._written[item]:
                        found[item] = (call, started > 0)
                case _:
                    pass
        return found

    def unsure(self) -> set[Asked]:
        """The calls that were started in the last turn and have no final output."""
        asked: set[Asked] = set()
        for call, started in self.open_calls().values():
            if started and self._starts[call][1] == self.turn:
                data = self.data[call]
                asked.add(same_call(str(data.get("name")), str(data.get("arguments"))))
        return asked

    def add(self, record: Record) -> None:
        """Apply the next record."""
        self.count += 1
        self.seen = record.at
        item = record.item
        match record.kind:
            case "item" | "change" if item is not None and record.data is not None:
                if record.kind == "item":
                    self.parents[item] = record.parent
                    self.head = item
                    self.partial.clear()
                if not record.planned:
                    self._written[item] = self.count
                    self.planned.discard(item)
                elif record.data.get("type") == "function_call_output":
                    self._written.setdefault(item, self.count)
                    self.planned.add(item)
                self.data[item] = record.data
                self.heard.pop(item, None)
            case "place" if item is not None:
                self.parents[item] = record.parent
            case "head":
                self.head = item
            case "turn":
                self.turn = record.turn
                self.owner = record.data or {}
                self.partial.clear()
            case "text" if record.data is not None:
                if record.data.get("begins"):
                    self.partial.clear()
                self.partial.append(str(record.data.get("text") or ""))
            case "start" if item is not None:
                self._starts[item] = (self.count, record.turn)
                if record.key is not None:
                    self.started.add(record.key)
            case "end":
                self.owner = None
                self.partial.clear()
            case "heard" if item is not None and record.data is not None:
                self.heard[item] = str(record.data.get("text") or "")
            case "about" if record.data is not None:
                self.about.update(record.data)
            case _:
                pass


def replay(records: Iterable[Record], state: State | None = None) -> State:
    """The state after these records."""
    state = state or State()
    for record in records:
        state.add(record)
    return state
