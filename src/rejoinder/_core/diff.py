"""Computes the steps that turn one conversation into another.

Pure. Items are matched by id; the first of several items with one id counts. The items that stay in
place are a longest common subsequence, found in n log n steps by patience sorting. If there
are several, it is the one that the textbook table finds when it prefers steps back in the new list.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress, count
from operator import ne
from typing import Protocol

from rejoinder._core.items import ChatItem, same_payload

__all__ = ["DiffOps", "compute_chat_ctx_diff"]


class HasItems(Protocol):
    """A conversation."""

    @property
    def items(self) -> list[ChatItem]: ...


@dataclass
class DiffOps:
    """The steps from one conversation to another.

    Remove first, then create and update from left to right: the item named before an item is
    already in its place.
    """

    to_remove: list[str]
    """Ids, in the old order. An item that moves is removed and created."""
    to_create: list[tuple[str | None, str]]
    """Id of the item before it (``None`` at the head) and its own id, in the new order."""
    to_update: list[tuple[str | None, str]]
    """Items that stay where they are with another payload, in the same form."""


def compute_chat_ctx_diff(old_ctx: HasItems, new_ctx: HasItems) -> DiffOps:
    """The items to remove, create and update in `old_ctx` to get `new_ctx`.

    An item needs an update when its payload differs: role, content, `interrupted`, name, arguments,
    output, type. Times and `extra` do not count.
    """
    old, new = _by_id(old_ctx.items), _by_id(new_ctx.items)
    new_ids = list(new)
    common = _unique_lcs(list(old), new_ids)
    kept = set(common)
    # Usually it is the same object or completely equal, and both checks are cheap.
    changed = {
        item_id
        for item_id in common
        if (before := old[item_id]) is not (after := new[item_id])
        and before.__dict__ != after.__dict__
        and not same_payload(before, after)
    }
    placed = list(zip([None, *new_ids], new_ids, strict=False))
    return DiffOps(
        to_remove=[item_id for item_id in old if item_id not in kept],
        to_create=[pair for pair in placed if pair[1] not in kept],
        to_update=[pair for pair in placed if pair[1] in changed] if changed else [],
    )


def _by_id(items: Sequence[ChatItem]) -> dict[str, ChatItem]:
    found = {item.id: item for item in items}
    if len(found) != len(items):
        found.clear()
        for item in items:
            found.setdefault(item.id, item)
    return found


def _unique_lcs(old: list[str], new: list[str]) -> list[str]:
    """Longest common subsequence of two lists without repeated elements."""
    # A common beginning and end always stay, even with the table.
    old_end, new_end = len(old), len(new)
    start = next(compress(count(), map(ne, old, new)), min(old_end, new_end))
    while old_end > start and new_end > start and old[old_end - 1] == new[new_end - 1]:
        old_end -= 1
        new_end -= 1
    position = {item_id: index for index, item_id in enumerate(new[start:new_end])}
    # Lengths of the longest increasing subsequences of positions, by patience sorting. The rank of
    # an item is the value that the table would have in its cell.
    ends: list[int] = []
    ranks: list[int] = []
    for item_id in old[start:old_end]:
        place = position.get(item_id)
        if place is None:
            ranks.append(-1)
            continue
        rank = bisect_left(ends, place)
        if rank == len(ends):
            ends.append(place)
        else:
            ends[rank] = place
        ranks.append(rank)
    wanted = len(ends) - 1
    middle: list[str] = []
    for offset in range(len(ranks) - 1, -1, -1):
        if wanted >= 0 and ranks[offset] == wanted:
            middle.append(old[start + offset])
            wanted -= 1
    return [*old[:start], *reversed(middle), *old[old_end:]]


def _compute_lcs(  # pyright: ignore[reportUnusedFunction]  # one of the reference's names
    old_ids: list[str], new_ids: list[str]
) -> list[str]:
    """Longest common subsequence of two lists, by the table; quadratic only if entries repeat."""
    if len(set(old_ids)) == len(old_ids) and len(set(new_ids)) == len(new_ids):
        return _unique_lcs(old_ids, new_ids)
    rows, columns = len(old_ids), len(new_ids)
    table = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            table[i][j] = (
                table[i - 1][j - 1] + 1
                if old_ids[i - 1] == new_ids[j - 1]
                else max(table[i - 1][j], table[i][j - 1])
            )
    common: list[str] = []
    i, j = rows, columns
    while i and j:
        if old_ids[i - 1] == new_ids[j - 1]:
            common.append(old_ids[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    common.reverse()
    return common
