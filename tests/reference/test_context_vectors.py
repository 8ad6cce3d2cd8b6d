"""Every recorded result of the conversation calls, against ours.

The first that fit either version pass. The rest are differences on purpose: each has its reason
here, and `docs/compat.md` tells it to users.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reference import oracle
from rejoinder._core.diff import compute_chat_ctx_diff
from rejoinder.llm.chat_context import ChatContext

ORPHANS = "if `truncate` cuts off a call, its output is removed too"
DIFFERENT = {f"truncate:{index}": ORPHANS for index in (11, 19, 42, 48)}
COMPAT = Path(__file__).parents[2] / "docs" / "compat.md"


def ids(context: ChatContext) -> list[str]:
    return [item.id for item in context.items]


def apply_diff(old: ChatContext, new: ChatContext) -> list[Any]:
    diff = compute_chat_ctx_diff(old, new)
    order = [item_id for item_id in ids(old) if item_id not in diff.to_remove]
    for previous, item_id in diff.to_create:
        order.insert(0 if previous is None else order.index(previous) + 1, item_id)
    return [order == ids(new), len(diff.to_remove) + len(diff.to_create)]


def run(key: str) -> Any:
    kind, index = key.split(":")
    case = oracle.cases()[int(index)]
    context = oracle.build(case["data"])
    calls: dict[str, Any] = {
        "copy": lambda: ids(context.copy(**case["copy"])),
        "truncate": lambda: ids(context.truncate(max_items=case["truncate"])),
        "merge": lambda: ids(context.merge(oracle.build(case["other"]), **case["merge"])),
        "to_dict": lambda: context.to_dict(**case["to_dict"]),
        "roundtrip": lambda: ChatContext.from_dict(everything(context)).to_dict(
            exclude_image=False, exclude_audio=False, exclude_timestamp=False
        ),
        "equiv": lambda: [
            context.is_equivalent(oracle.build(case["other"])),
            context.is_equivalent(context.copy()),
        ],
        "index": lambda: context.find_insertion_index(created_at=case["index"]),
        "diff": lambda: apply_diff(context, oracle.build(case["edited"])),
    }
    return oracle.attempt(calls[kind])


def everything(context: ChatContext) -> dict[str, Any]:
    return context.to_dict(exclude_image=False, exclude_audio=False, exclude_timestamp=False)


KEYS = oracle.keys("copy", "truncate", "merge", "to_dict", "roundtrip", "equiv", "index", "diff")


def test_all_cases_are_here() -> None:
    assert len(KEYS) == 8 * len(oracle.cases()) == 480


@pytest.mark.parametrize("key", [key for key in KEYS if key not in DIFFERENT])
def test_equals_a_recorded_version(key: str) -> None:
    assert run(key) in oracle.expected(key)


@pytest.mark.parametrize("key", DIFFERENT)
def test_differs_on_purpose(key: str) -> None:
    case = oracle.cases()[int(key.split(":")[1])]
    calls = {entry["id"]: entry["call_id"] for entry in case["data"] if entry["kind"] == "call"}
    outputs = {entry["id"]: entry["call_id"] for entry in case["data"] if entry["kind"] == "output"}
    recorded = oracle.outputs("1.7.0")[key][1]
    kept_calls = {calls[item_id] for item_id in recorded if item_id in calls}
    orphans = {
        item_id
        for item_id in recorded
        if item_id in outputs
        and outputs[item_id] not in kept_calls
        and outputs[item_id] in calls.values()
    }
    assert orphans, "no longer a difference: take it off the list"
    assert run(key) == ["ok", [item_id for item_id in recorded if item_id not in orphans]]


def test_every_difference_is_told_to_users() -> None:
    text = COMPAT.read_text()
    for reason in set(DIFFERENT.values()):
        assert reason in text
