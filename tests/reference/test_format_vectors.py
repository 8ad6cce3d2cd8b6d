"""Every recorded conversion to a provider's format, against ours.

What fits either version passes; `mistralai` has only 1.2.17's form, and 1.7.0's is our
`mistralai.conversations`. The rest are differences on purpose: each has its reason here, and
`docs/compat.md` tells it to users.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from reference import oracle

MERGED = "turns of one role are one, also when a turn without content stood between them"
STATUS = "an output that is an error has the status `error`"
DUMMY = "whether a user message is added at the end is decided by the turn that is last there"

DIFFERENT: dict[str, list[str]] = {
    **{
        f"format:anthropic:{dummy}:{index}": [MERGED]
        for dummy in (True, False)
        for index in (3, 16, 19, 33)
    },
    **{
        f"format:google:{dummy}:{index}": [MERGED]
        for dummy in (True, False)
        for index in (3, 16, 19, 33)
    },
    **{f"format:google:True:{index}": [DUMMY] for index in (7, 9, 14, 25, 55, 58)},
    **{
        f"format:aws:{dummy}:{index}": [MERGED, STATUS]
        for dummy in (True, False)
        for index in (3, 11, 16, 17, 25, 27, 33, 38, 42, 47, 48, 52)
    },
}
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
    assert run(key) in expected(key)


@pytest.mark.parametrize("key", [key for key in KEYS if ":mistralai:" in key])
def test_conversations_is_what_mistralai_became(key: str) -> None:
    ours = run(key.replace(":mistralai:", ":mistralai.conversations:"))
    assert ours == oracle.outputs("1.7.0")[key]


@pytest.mark.parametrize("key", DIFFERENT)
def test_differs_on_purpose(key: str) -> None:
    _, name, dummy, index = key.split(":")
    recorded = oracle.outputs("1.7.0")[key]
    assert recorded[0] == "ok"
    turns, data = copy.deepcopy(recorded[1])
    if name == "aws":
        turns = with_status(turns, oracle.cases()[int(index)]["data"])
    if name == "google" and dummy == "True":
        turns, data = without_dummy(key)
    turns = merged(turns, "parts" if name == "google" else "content")
    if name == "google" and dummy == "True" and (not turns or turns[-1]["role"] == "model"):
        turns = [*turns, {"role": "user", "parts": [{"text": "."}]}]
    assert [turns, data] != recorded[1], "no longer a difference: take it off the list"
    assert run(key) == ["ok", [turns, data]]


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


def without_dummy(key: str) -> Any:
    return oracle.outputs("1.7.0")[key.replace(":True:", ":False:")][1]


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
