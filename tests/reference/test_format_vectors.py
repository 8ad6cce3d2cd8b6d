"""Every recorded conversion to a provider's format, against ours.

What fits either version passes; `mistralai` has only 1.2.17's form, and 1.7.0's is our
`mistralai.conversations`. The rest are differences on purpose: each has its reason here, and
`docs/compat.md` tells it to users.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from reference import oracle

MERGED = (
    "consecutive turns of one role are merged, even if a turn without content stood between them"
)
STATUS = "an output that is an error has the status `error`"
DUMMY = "the last turn that is sent decides whether a user message is added at the end"
FIRST = "a system or developer message without text does not count as the first one"

# Cases by provider, and by what is different in them.
CASES: dict[str, dict[str, tuple[int, ...]]] = {
    "anthropic": {MERGED: (3, 16, 19, 33), FIRST: (1, 3, 8, 19, 25, 28, 40, 49)},
    "google": {MERGED: (3, 16, 19, 33), FIRST: (1, 3, 8, 19, 25, 40)},
    "aws": {
        MERGED: (3, 16, 33),
        STATUS: (3, 11, 17, 25, 27, 38, 42, 47, 48, 52),
        FIRST: (3, 25, 49),
    },
}
DIFFERENT: dict[str, set[str]] = {}
for _name, _reasons in CASES.items():
    for _reason, _indexes in _reasons.items():
        for _index in _indexes:
            for _dummy in (True, False):
                DIFFERENT.setdefault(f"format:{_name}:{_dummy}:{_index}", set()).add(_reason)
for _index in (3, 25):
    del DIFFERENT[f"format:google:False:{_index}"]  # 1.2.17 gave this
for _index in (7, 9, 14, 25, 55, 58):
    DIFFERENT.setdefault(f"format:google:True:{_index}", set()).add(DUMMY)
COMPAT = Path(__file__).parents[2] / "docs" / "compat.md"

KEYS = oracle.keys("format")


def run(key: str) -> Any:
    return oracle.run_format(key)


def expected(key: str) -> list[Any]:
    if ":mistralai:" in key:
        return [oracle.outputs("1.2.17")[key]]
    return oracle.expected(key)


def test_all_cases_are_here() -> None:
    assert len(KEYS) == 5 * 2 * len(oracle.cases()) == 600


@pytest.mark.parametrize("key", [key for key in KEYS if key not in DIFFERENT])
def test_equals_a_recorded_version(key: str) -> None:
    ours = run(key)
    assert ours in expected(key) or images_first(ours) in map(images_first, expected(key))


@pytest.mark.parametrize("key", [key for key in KEYS if ":mistralai:" in key])
def test_conversations_is_what_mistralai_became(key: str) -> None:
    ours = run(key.replace(":mistralai:", ":mistralai.conversations:"))
    assert images_first(ours) == images_first(oracle.outputs("1.7.0")[key])


def images_first(result: Any) -> Any:
    """As the reference orders a message: images first, then all texts as one. We keep the order."""
    result = copy.deepcopy(result)
    for message in result[1][0] if result[0] == "ok" else ():
        content = message.get("content")
        if isinstance(content, list):
            told = [part["text"] for part in content if "text" in part]
            images = [part for part in content if "text" not in part]
            text = re.sub("\n+", "\n", "\n".join(told)).strip("\n")
            message["content"] = [*images, text]
    return result


@pytest.mark.parametrize("key", DIFFERENT)
def test_differs_on_purpose(key: str) -> None:
    _, name, dummy, index = key.split(":")
    recorded = oracle.outputs("1.7.0")[key]
    assert recorded[0] == "ok"
    assert run(key) not in expected(key), "no longer a difference: take it off the list"
    data = oracle.cases()[int(index)]["data"]
    content = "parts" if name == "google" else "content"
    bare = oracle.outputs("1.7.0")[f"format:{name}:False:{index}"]
    turns, beside = copy.deepcopy(bare[1])
    if STATUS in DIFFERENT[key]:
        turns = with_status(turns, data)
    if FIRST in DIFFERENT[key]:
        turns = with_first_instructions(turns, beside["system_messages"], data, content)
    turns = merged(turns, content)
    if dummy == "True":
        turns = with_dummy(turns, name)
    assert run(key) == ["ok", [turns, beside]]


def with_status(turns: list[Any], data: list[dict[str, Any]]) -> list[Any]:
    errors: dict[str, list[bool]] = {}
    for entry in data:
        if entry["kind"] == "output":
            errors.setdefault(entry["call_id"], []).append(entry["is_error"])
    for turn in turns:
        for block in turn["content"]:
            if result := block.get("toolResult"):
                result["status"] = "error" if errors[result["toolUseId"]].pop(0) else "success"
    return turns


def with_first_instructions(
    turns: list[Any], system: list[str], data: list[dict[str, Any]], content: str
) -> list[Any]:
    first = next(
        entry
        for entry in data
        if entry.get("role") in ("system", "developer") and texts(entry) != ""
    )
    block = f"<instructions>\n{texts(first)}\n</instructions>"
    place = next(turn for turn in turns if any(part.get("text") == block for part in turn[content]))
    at = next(i for i, part in enumerate(place[content]) if part.get("text") == block)
    if first["role"] == "developer":
        # As a first developer message is sent: its texts as they are.
        parts = [{**place[content][at], "text": text} for kind, text in first["content"] if text]
        place[content][at : at + 1] = parts
    else:
        assert system == []
        system.append(texts(first))
        del place[content][at]
    return [turn for turn in turns if turn[content]]


def texts(entry: dict[str, Any]) -> str:
    return "\n".join(value for kind, value in entry["content"] if kind == "text")


def with_dummy(turns: list[Any], name: str) -> list[Any]:
    if name == "google":
        last = turns[-1]["role"] if turns else "model"
        return turns if last == "user" else [*turns, {"role": "user", "parts": [{"text": "."}]}]
    if turns and turns[0]["role"] == "user":
        return turns
    text = {"text": "(empty)", "type": "text"} if name == "anthropic" else {"text": "(empty)"}
    return [{"role": "user", "content": [text]}, *turns]


def merged(turns: list[Any], content: str) -> list[Any]:
    found: list[Any] = []
    for turn in turns:
        last = found[-1] if found else None
        if last is not None and kind(last) == kind(turn):
            found[-1] = {**last, content: last[content] + turn[content]}
        else:
            found.append(turn)
    return found


def kind(turn: dict[str, Any]) -> str:
    """Function responses of Gemini are turns of their own."""
    return "tool" if "function_response" in turn.get("parts", [{}])[0] else turn["role"]


def test_every_difference_is_told_to_users() -> None:
    text = COMPAT.read_text()
    for reasons in DIFFERENT.values():
        for reason in reasons:
            assert reason in text
