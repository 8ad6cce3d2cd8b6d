"""What is broken around the values of a JSON text is mended; what they say stays."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.mending import BROKEN, read_json, repair_json, unwrapped

SAYINGS = [
    "<|im_end|>",
    "a <|tool_call|> b",
    "</tool_call>",
    "<s>old</s>",
    "```json\n{}\n```",
    "[TOOL_CALLS]",
    '<|"|>',
    "\ufeff",
    "True, None",
    "{x: 1,}",
]
BREAKS = {
    "comma": lambda text: text[:-1] + ",}",
    "fence": lambda text: f"```json\n{text[:-1]},}}\n```",
    "stray tag": lambda text: f"{text}</tool_call>",
    "stray tag, comma": lambda text: f"{text[:-1]},}}</tool_call>",
    "twice": lambda text: text + text,
    "twice, apart": lambda text: f"{text}\n{text}",
    "mark behind": lambda text: f"{text}<|im_end|>",
    "mark before": lambda text: f"<|python_tag|>{text}",
    "mark within": lambda text: f"{{<|x|>{text[1:]}",
    "bracket": lambda text: text[:-1],
}


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("said", SAYINGS)
def test_texts_stay_as_they_are(said: str, how: str) -> None:
    value = {"a": said, "b": [said]}
    assert repair_json(BREAKS[how](json.dumps(value, ensure_ascii=False))) == value


@given(st.text(), st.sampled_from(sorted(BREAKS)))
def test_any_text_stays_as_it_is(said: str, how: str) -> None:
    value = {"a": said}
    assert repair_json(BREAKS[how](json.dumps(value))) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{a:<|"|>it\'s <|x|> "so"<|"|>}', {"a": 'it\'s <|x|> "so"'}),
        ('{<|"|>a<|"|>: 1}', {"a": 1}),
        ('{"a": <|"|>open}', BROKEN),
        ('{"a": "\\u12 4",}', BROKEN),
        ('{"a": "\\u0041",}', {"a": "A"}),
    ],
)
def test_reader(text: str, expected: object) -> None:
    assert repair_json(text) == expected


def test_wrapped() -> None:
    assert unwrapped(json.dumps(json.dumps([1]))) == [1]
    assert unwrapped("plain") == "plain"
    assert unwrapped(5) == 5
    deep: object = 1
    for _ in range(8):
        deep = json.dumps(deep)
    assert isinstance(unwrapped(deep), str)
    assert read_json(b"{'a': 1}") == {"a": 1}
    assert read_json("nothing") is BROKEN
