"""Differences of conversations: the documented results, the laws, and no quadratic time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.diff import DiffOps, _compute_lcs, _unique_lcs, compute_chat_ctx_diff
from rejoinder.llm.chat_context import (
    ChatContext,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)
from work import steps


def context(*entries: str | tuple[str, str]) -> ChatContext:
    pairs = [(entry, "") if isinstance(entry, str) else entry for entry in entries]
    return ChatContext([ChatMessage(id=i, role="user", content=[text]) for i, text in pairs])


def diff(old: list[Any], new: list[Any]) -> DiffOps:
    return compute_chat_ctx_diff(context(*old), context(*new))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([], [], DiffOps([], [], [])),
        (["a"], [], DiffOps(["a"], [], [])),
        ([], ["a", "b", "c"], DiffOps([], [(None, "a"), ("a", "b"), ("b", "c")], [])),
        (["a", "b", "c"], ["a", "c"], DiffOps(["b"], [], [])),
        (["a", "b"], ["b", "a"], DiffOps(["a"], [("b", "a")], [])),
        (["a", "b", "c"], ["c", "b", "a"], DiffOps(["a", "b"], [("c", "b"), ("b", "a")], [])),
        (["a", "b", "c", "d"], ["d", "a", "b", "c"], DiffOps(["d"], [(None, "d")], [])),
        (
            ["a", "b", "c"],
            ["x", "a", "y", "c", "z"],
            DiffOps(["b"], [(None, "x"), ("a", "y"), ("c", "z")], []),
        ),
        (
            ["a", "x", "b", "y", "c"],
            ["a", "b", "c", "x", "y"],
            DiffOps(["x", "y"], [("c", "x"), ("x", "y")], []),
        ),
        ([("a", "1")], [("a", "2")], DiffOps([], [], [(None, "a")])),
        ([("a", "1"), "b"], ["b", ("a", "2")], DiffOps(["a"], [("b", "a")], [])),
        (["a"], ["a", "a"], DiffOps([], [], [])),
        (["a", "a"], ["a"], DiffOps([], [], [])),
    ],
)
def test_documented_results(old: list[Any], new: list[Any], expected: DiffOps) -> None:
    assert diff(old, new) == expected


def test_lcs_with_repetitions() -> None:
    assert _compute_lcs(list("abcbdab"), list("bdcaba")) == ["b", "d", "a", "b"]


def table_lcs(old: list[str], new: list[str]) -> list[str]:
    """The textbook table; when going back, on a tie one step back in the new list."""
    table = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i, a in enumerate(old, 1):
        for j, b in enumerate(new, 1):
            best = max(table[i - 1][j], table[i][j - 1])
            table[i][j] = table[i - 1][j - 1] + 1 if a == b else best
    i, j, found = len(old), len(new), []
    while i and j:
        if old[i - 1] == new[j - 1]:
            found.append(old[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found[::-1]


ID_LISTS = st.lists(st.sampled_from("abcdefghij"), unique=True)


@given(ID_LISTS, ID_LISTS)
def test_patience_chooses_what_the_table_chooses(old: list[str], new: list[str]) -> None:
    assert _unique_lcs(old, new) == table_lcs(old, new)


@given(ID_LISTS, ID_LISTS)
def test_applying_it_gives_the_new_order(old: list[str], new: list[str]) -> None:
    ops = diff(old, new)
    order = [item_id for item_id in old if item_id not in ops.to_remove]
    for previous, item_id in ops.to_create:
        order.insert(0 if previous is None else order.index(previous) + 1, item_id)
    assert order == new
    assert ops.to_update == []


CALL = FunctionCall(id="x", call_id="c", name="n", arguments="{}")
OUTPUT = FunctionCallOutput(id="x", call_id="c", output="1", is_error=False)
MESSAGE = ChatMessage(id="x", role="user", content=["t"])
PICTURE = ChatMessage(id="x", role="user", content=[ImageContent(id="i", image="http://a")])


@pytest.mark.parametrize(
    ("old", "new", "differ"),
    [
        (MESSAGE, MESSAGE.model_copy(update={"role": "assistant"}), True),
        (MESSAGE, MESSAGE.model_copy(update={"interrupted": True}), True),
        (MESSAGE, MESSAGE.model_copy(update={"created_at": 1.0, "extra": {"a": 1}}), False),
        (MESSAGE, PICTURE, True),
        (PICTURE, PICTURE.model_copy(deep=True), False),
        (
            PICTURE,
            ChatMessage(id="x", role="user", content=[ImageContent(id="i", image="http://b")]),
            True,
        ),
        (CALL, CALL.model_copy(update={"arguments": "{ }"}), True),
        (CALL, CALL.model_copy(update={"name": "m"}), True),
        (CALL, MESSAGE, True),
        (OUTPUT, OUTPUT.model_copy(update={"output": "2"}), True),
        (OUTPUT, OUTPUT.model_copy(update={"is_error": True}), True),
    ],
)
def test_every_payload_counts(old: Any, new: Any, differ: bool) -> None:
    ops = compute_chat_ctx_diff(ChatContext([old]), ChatContext([new]))
    assert ops == DiffOps([], [], [(None, "x")] if differ else [])


def test_not_quadratic() -> None:
    def cost(size: int) -> int:
        old = context(*map(str, range(size)))
        new = context(*map(str, reversed(range(size))))
        return steps(lambda: compute_chat_ctx_diff(old, new))

    assert cost(4000) < 10 * cost(500)  # 64 times as much, were it quadratic
