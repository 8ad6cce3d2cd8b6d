"""Calls in the text of small models: found, refused, and never shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rejoinder.providers.local.reader import CallReader
from rejoinder.providers.local.tools import Call, ToolSpec

WEATHER = ToolSpec(
    "get_weather",
    "The weather in a city.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "unit": {"enum": ["c", "f"]},
        },
        "required": ["city"],
    },
)
NOW = ToolSpec("now", "The time.", {"type": "object", "properties": {}})
PARIS = Call("get_weather", '{"city":"Paris"}')


def read(text: str, sizes: list[int] | None = None, **options: Any) -> tuple[list[Any], CallReader]:
    """What comes of `text`, its texts joined; cut into pieces of these sizes, over and over."""
    reader = CallReader([WEATHER, NOW], **options)
    out: list[str | Call] = []
    at = 0
    number = 0
    while at < len(text):
        size = (sizes or [len(text)])[number % len(sizes or [1])]
        out += reader.feed(text[at : at + size])
        at += size
        number += 1
    out += reader.close()
    joined: list[Any] = []
    for piece in out:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined, reader


CALLS = {
    "bare": '{"name": "get_weather", "arguments": {"city": "Paris"}}',
    "spaced": '\n\n  {"name": "get_weather", "arguments": {"city": "Paris"}}\n',
    "fenced": '```json\n{\n  "name": "get_weather",\n  "arguments": {"city": "Paris"}\n}\n```',
    "fence without a language": '```\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n```',
    "tagged": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
    "tag never closed": '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}',
    "tagged in a fence": '```xml\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n'
    "</tool_call>\n```",
    "doubled braces": '{{"name": "get_weather", "arguments": {"city": "Paris"}}}',
    "doubled braces in front only": '{{"name": "get_weather", "arguments": {"city": "Paris"}}',
    "parameters": '{"name": "get_weather", "parameters": {"city": "Paris"}}',
    "function": '{"function": "get_weather", "args": {"city": "Paris"}}',
    "openai": '{"type": "function", "function": {"name": "get_weather", "arguments": '
    '"{\\"city\\": \\"Paris\\"}"}}',
    "list": '[{"name": "get_weather", "arguments": {"city": "Paris"}}]',
    "tool_calls": '{"tool_calls": [{"name": "get_weather", "arguments": {"city": "Paris"}}]}',
    "by its name": '{"get_weather": {"city": "Paris"}}',
    "Python quotes": "{'name': 'get_weather', 'arguments': {'city': 'Paris'}}",
    "trailing comma": '{"name": "get_weather", "arguments": {"city": "Paris",},}',
    "twice": '{"name": "get_weather", "arguments": {"city": "Paris"}}\n' * 2,
    "missing brackets": '{"name": "get_weather", "arguments": {"city": "Paris"',
    "a result imagined": '{"name": "get_weather", "arguments": {"city": "Paris"}}\nIt is sunny.',
    "an unknown argument": '{"name": "get_weather", "arguments": {"city": "Paris", "mood": "x"}}',
    "a fence of another language": '```python\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n```',
    "flat": '{"tool": "get_weather", "city": "Paris"}',
    "flat, with a word before": '{"thought": "hm", "name": "get_weather", "city": "Paris"}',
    "inline code": '`{"name": "get_weather", "arguments": {"city": "Paris"}}`',
    "bare keys": '{name: "get_weather", arguments: {city: "Paris"}}',
    "with a reason": '{"thought": "I need it", "action": "get_weather", "action_input": {"city": "Paris"}}',
    "a bracket missing before the mark": '<tool_call>{"name": "get_weather", "arguments": {"city": '
    '"Paris"}</tool_call>\nIt is sunny.',
    "a bracket missing before the fence": '```json\n{"name": "get_weather", "arguments": {"city": '
    '"Paris"}\n```\nIt is sunny.',
    "after a bracket of something else": '{"name": "get_weather", "arguments": {"city": "Paris"}}}',
    "a null": '{"name": "get_weather", "arguments": {"city": "Paris", "days": null}}',
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_call_in_any_dress_is_a_call(name: str, size: int) -> None:
    found, reader = read(CALLS[name], [size])
    assert found == [PARIS]
    assert not reader.dropped
    assert not reader.said


TEXTS = [
    "Hello there.",
    '{"name": "John Doe", "age": 30}',
    '{"name": "Ada"}',
    '{"name": "Ada", "city": "London"}',
    '{"tool": "hammer", "city": "London"}',
    '{"get_weather": 5, "now": {}}',
    '```json\n{"city": "Paris", "days": 3}\n```',
    'Here:\n```python\nd = {"name": "parse", "arguments": {"city": "x"}}\n```\ndone',
    '```python\nd = {"name": name, "args": args}\n```',
    '{"name": name, "age": age}',
    '{"people": [{"name": "A", "input": "b"}, {"name": "B", "input": "c"}]}',
    'call({"function": "f", "args": [1]}) and `f`',
    "see [1], {x: 1} and {name}",
    "Use the <tool_call> tags.",
    "a < b, `x` and [1] and {y} and <b>bold</b> and {",
    "```\nplain\n```\n\n```json\n[1, 2]\n```",
    "1 [2] 3",
    "{ not json",
    "Ok <tool",
    "``",
    '{"type": "person", "arguments_of": 1}',
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_what_is_no_call_is_text(text: str, size: int) -> None:
    found, reader = read(text, [size])
    assert found == [text.rstrip()]
    assert not reader.dropped


@pytest.mark.parametrize(
    ("text", "misfit"),
    [
        ('{"name": "cat joke", "arguments": {"cat": "Meow"}}', None),
        ('```json\n{"name": "hello_world", "arguments": {}}\n```', None),
        ('{"name": "get_weather", "arguments": {"town": "Paris"}}', "get_weather"),
        ('{"name": "get_weather", "arguments": {"city": 5}}', "get_weather"),
        ('{"name": "get_weather", "arguments": {"city": "A", "unit": "k"}}', "get_weather"),
        ('{"name": "get_weather", "arguments": {"city": "Pa', "get_weather"),
        ('{"name": "get_weather", "arguments": {"city": "a "quoted" one"}}', "get_weather"),
        ('<tools>\n{"function": {"name": "now", "description": "d"}}\n{"x": 1}\n</tools>', None),
        ('<tool_call>\nget_weather(city="Paris")\n</tool_call>', None),
        ('`{"name": "joke", "arguments": {}}`', None),
        ('<tool_call>{"city": "Paris"}</tool_call>', None),
        ("<tool_call>", None),
    ],
)
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_a_call_that_cannot_be_taken_is_dropped_and_told(
    text: str, misfit: str | None, size: int
) -> None:
    found, reader = read(text, [size])
    assert found == []
    assert reader.dropped
    assert reader.misfit == misfit


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("comma", [",", ", ", "\n,\n"])
def test_nothing_is_left_of_a_list_of_calls_that_cannot_be_taken(comma: str, size: int) -> None:
    rivers = [f'{{"name": "river{n}", "arguments": {{"name": "Nile"}}}}' for n in range(3)]
    out, reader = read(comma.join(rivers), [size])
    assert out == []
    assert reader.dropped
    out, _ = read(f"{comma.join(rivers)}\nThe Nile, and others.", [size])
    assert out == ["The Nile, and others."]


def test_text_around_a_call() -> None:
    found, reader = read('Let me look.\n\n{"name": "now", "arguments": {}}\nIt is five.', [1])
    assert found == ["Let me look.", Call("now", "{}")]
    assert reader.said


def test_text_comes_at_once_when_it_cannot_be_a_call() -> None:
    reader = CallReader([WEATHER])
    assert reader.feed("Hel") == ["Hel"]
    assert reader.feed("lo {wor") == ["lo {wor"]
    assert reader.feed(" `") == []
    assert reader.feed("x") == [" `x"]
    # Once a key is seen that no call has, JSON flows too.
    assert reader.feed('\n{"name": "A", "age"') == []
    assert reader.feed(":") == ['\n{"name": "A", "age":']


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_what_follows_the_fence_does_not_belong_to_the_call(size: int) -> None:
    text = '```json\n{"name": "now", "arguments": {"a": 1}\n```\n, "later": 2}'
    found, _ = read(text, [size])
    assert found == [Call("now", '{"a":1}')]


@pytest.mark.parametrize("size", range(1, 12))
def test_brackets_and_quotes_inside_a_text(size: int) -> None:
    city = 'a " } \\ {"b": ]'
    call = json.dumps({"name": "get_weather", "arguments": {"city": city}})
    found, _ = read(f"{call} It is sunny.", [size])
    assert [json.loads(call.arguments) for call in found] == [{"city": city}]


QUOTING = [
    "a </tool_call> b",
    "</tool_call>",
    "```py\n1\n```",
    "<tool_call> {",
    '"</tool_call>"',
    "`x`",
]
AROUND = [
    ("<tool_call>\n", "\n</tool_call>"),
    ("```json\n", "\n```"),
    ("</tool_call>", ""),
    ("", ""),
]


@pytest.mark.parametrize("city", QUOTING)
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_what_ends_a_call_may_stand_in_its_arguments(
    city: str, around: tuple[str, str], size: int
) -> None:
    before, after = around
    call = {"name": "get_weather", "arguments": {"city": city}}
    encoded = {**call, "arguments": json.dumps(call["arguments"])}
    broken = json.dumps(call)[:-1] + ",}"
    for written in (json.dumps(call), json.dumps(encoded), broken, json.dumps(call) * 2):
        (found,), _ = read(before + written + after, [size])
        assert isinstance(found, Call)
        assert json.loads(found.arguments) == {"city": city}


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("behind", ["", " It is sunny.", ' The "weather"}} is', "x" * 20_000])
def test_a_text_without_an_end_does_not_reach_beyond_the_call(behind: str, size: int) -> None:
    written = '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris</tool_call>'
    found, reader = read(written + behind, [size])
    assert [entry.strip() for entry in found] == [behind.strip()] * bool(behind)
    assert reader.dropped


def test_several_calls_by_their_names() -> None:
    found, _ = read('{"get_weather": {"city": "Paris", "type": "object"}, "now": {}}', [1])
    assert found == [PARIS, Call("now", "{}")]


def test_several_calls_and_one() -> None:
    text = (
        '{"name": "now", "arguments": {}}\n{"name": "get_weather", "arguments": {"city": "Paris"}}'
    )
    assert read(text)[0] == [Call("now", "{}"), PARIS]
    found, reader = read(text, single=True)
    assert found == [Call("now", "{}")]
    assert reader.full


def test_a_call_that_has_its_answer_is_not_made_again() -> None:
    found, reader = read(CALLS["bare"], answered=[Call("get_weather", '{ "city": "Paris" }')])
    assert found == []
    assert reader.dropped


def test_where_no_call_is_allowed_none_is_given_out() -> None:
    found, reader = read("Yes. " + CALLS["bare"], refuse=True)
    assert found == ["Yes."]
    assert reader.dropped


def test_arguments_take_the_shape_of_the_schema() -> None:
    found, _ = read('{"name": "get_weather", "arguments": {"city": "Rome", "days": "3"}}')
    assert [json.loads(call.arguments) for call in found] == [{"city": "Rome", "days": 3}]


def test_what_is_held_back_is_bounded() -> None:
    reader = CallReader([WEATHER])
    out = reader.feed('{"name": "get_weather", "arguments": {"city": "')
    for _ in range(400):
        out += reader.feed("x" * 100)
    assert sum(len(piece) for piece in out if isinstance(piece, str)) > 20_000
    assert not reader.called


PIECES = st.sampled_from(
    ["{", "}", "[", "]", '"name"', '"arguments"', ":", ",", '"', "```", "`", "json", "\n", " ",
     "<tool_call>", "</tool_call>", "<", "get_weather", '"get_weather"', '{"city": "Paris"}', "now",
     "Hello", "zzz", '"zzz"', '"city"', '"arguments": {', '{"name": "now", ', "\\", '{"name": "now", "arguments": {}}', "'", "{{", "}}", "é"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=30).map("".join), st.lists(st.integers(1, 9), min_size=1))
def test_the_way_it_is_cut_changes_nothing(text: str, sizes: list[int]) -> None:
    whole, whole_reader = read(text)
    cut, cut_reader = read(text, sizes)
    assert cut == whole
    assert (cut_reader.dropped, cut_reader.misfit) == (whole_reader.dropped, whole_reader.misfit)


@given(
    st.sampled_from(sorted(CALLS)),
    st.text("Helo .,\n`[({<=:", max_size=20),
    st.lists(st.integers(1, 9), min_size=1),
)
def test_the_json_of_a_call_is_never_text(name: str, before: str, sizes: list[int]) -> None:
    found, _ = read(before + "\n" + CALLS[name], sizes)
    for piece in found:
        if isinstance(piece, str):
            assert "get_weather" not in piece


def holds_a_call(text: str) -> bool:
    """Whether strict JSON of a call that fits stands in `text`, found the slow way."""
    decoder = json.JSONDecoder()
    for start, character in enumerate(text):
        if character == "{":
            try:
                value, _ = decoder.raw_decode(text, start)
            except ValueError:
                continue
            arguments = value.get("arguments")
            if value.keys() == {"name", "arguments"} and isinstance(arguments, dict):
                fits = arguments.keys() == {"city"} and isinstance(arguments["city"], str)
                if value["name"] == "now" or (value["name"] == "get_weather" and fits):
                    return True
    return False


@given(
    st.lists(PIECES | st.sampled_from(sorted(CALLS.values())), max_size=20).map("".join),
    st.lists(st.integers(1, 9), min_size=1),
)
def test_no_cut_of_no_text_shows_a_call(text: str, sizes: list[int]) -> None:
    found, _ = read(text, sizes)
    for piece in found:
        assert not isinstance(piece, str) or not holds_a_call(piece)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab {}[]`<\\\"':,", max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "city", "age", "titles"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.lists(
        JSON.map(json.dumps) | st.text("Hi <>{}[]`'\"\n:,=(", max_size=12)
        | st.sampled_from(["```python\n", "```\n", "<b>", "<tool", "name"]),
        max_size=6,
    ).map("".join),
    st.lists(st.integers(1, 9), min_size=1),
)  # fmt: skip
def test_nothing_that_is_no_call_is_lost(text: str, sizes: list[int]) -> None:
    assume("<tool_call>" not in text)
    found, reader = read(text, sizes)
    assert "".join(found) == text.lstrip("\n").rstrip()
    assert not reader.dropped


@pytest.mark.parametrize(
    "piece", ["[]", "{", "`", '"', "\\", "<", "\n", '{"name":', "name", '{"name": {"name":']
)
def test_hostile_text_is_not_judged_again_and_again(piece: str) -> None:
    """Looking at all that is held back for each character would take more than the time of a test."""
    reader = CallReader([WEATHER, NOW])
    reader.feed('{"name": "now", "arguments": [')
    for character in piece * (120_000 // len(piece)):
        reader.feed(character)
        assert len(reader._held) <= 1 << 15
    reader.close()
