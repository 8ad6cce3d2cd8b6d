"""Replaces call ids that a provider would refuse.

Pure. New ids depend only on the old ones, so that prompts stay cacheable.
"""

from __future__ import annotations

from collections.abc import Sequence

from rejoinder._core.items import FunctionCall
from rejoinder._core.pairing import Note
from rejoinder._core.rules import Rules, numbered_id

__all__ = ["fresh_ids"]


def fresh_ids(calls: Sequence[FunctionCall], rules: Rules, note: Note) -> dict[int, str]:
    """New call ids by position. They depend only on the old ones."""
    if rules.numbered_ids:
        return _numbered_ids(calls, note)
    is_accepted = rules.call_id.fullmatch
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
            reason = "its form is not accepted"
        else:
            reason = "used twice"
        while True:
            count = again[old] = again.get(old, 0) + 1
            new = rules.new_call_id(f"{old}\n{count}")
            if new not in taken and new not in used:
                break
        used.add(new)
        fresh[at] = new
        note("id", call.id, f"call id {old[:80]!r}: {reason}; now {new!r}")
    return fresh


def _numbered_ids(calls: Sequence[FunctionCall], note: Note) -> dict[int, str]:
    fresh: dict[int, str] = {}
    for at, call in enumerate(calls):
        new = numbered_id(call.name, at)
        if call.call_id != new:
            fresh[at] = new
            note("id", call.id, f"call id {call.call_id[:80]!r}: now {new!r}")
    return fresh
