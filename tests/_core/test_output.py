"""A structured reply is read into the type that was asked for, or the model is told why not."""

from __future__ import annotations

import dataclasses
import enum
import json
from datetime import date
from typing import Any, Literal, NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from rejoinder._core.json_values import MAX_VALUES
from rejoinder._core.output import OutputError, OutputSpec, PartialOutput, output_type
from rejoinder.errors import ConfigurationError
from rejoinder.types import NOT_GIVEN


class Ticket(BaseModel):
    title: str
    urgent: bool = False
    tags: list[str] = []


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


class Booking(TypedDict):
    seats: int
    note: NotRequired[str]


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Colour(enum.Enum):
    RED = "red"


class Record(dict[str, Any]):
    name: str
    size: int


def spec_of(response_format: object) -> OutputSpec:
    spec = output_type(response_format)
    assert spec is not None
    return spec


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (Ticket, '{"title": "x", "urgent": true}', Ticket(title="x", urgent=True)),
        (Ticket, '{"title": "x", "tags": "[\\"a\\"]"}', Ticket(title="x", tags=["a"])),
        (Ticket, '{"title": "x", "urgent": null}', Ticket(title="x")),
        (Ticket, '"{\\"title\\": \\"x\\"}"', Ticket(title="x")),
        (Ticket, "{'title': 'x',}", Ticket(title="x")),
        (Ticket, '```json\n{"title": "x"}\n```', Ticket(title="x")),
        (Ticket, 'Here it is:\n```json\n{"title": "x"}\n```\nDone.', Ticket(title="x")),
        (Ticket, 'Sure! {"title": "```"} Bye.', Ticket(title="```")),
        (Tree, '{"name": "a", "children": [{"name": "b"}]}', Tree(name="a", children=[Tree(name="b")])),
        (Booking, '{"seats": 2, "note": null}', {"seats": 2}),
        (Booking, '{"seats": 2, "note": "n"}', {"seats": 2, "note": "n"}),
        (Point, '{"x": 1}', Point(1)),
        (Record, '{"name": "a", "size": 1}', Record(name="a", size=1)),
        (list[int], '{"value": [1, 2]}', [1, 2]),
        (list[int], "[1, 2]", [1, 2]),
        (int, '{"value": 3}', 3),
        (str, '{"value": "5"}', "5"),
        (Ticket | Point, '{"value": {"x": 1}}', Point(1)),
        (Colour, '{"value": "red"}', Colour.RED),
        (Literal["a", "b"], '"a"', "a"),
        (date | None, '{"value": "2026-01-02"}', date(2026, 1, 2)),
        (date | None, '{"value": null}', None),
        ({"type": "json_object"}, '{"a": 1}', {"a": 1}),
        ({"properties": {"a": {"type": "integer"}}, "type": "object"}, '{"a": "1"}', {"a": 1}),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}},
            '{"value": [1]}',
            [1],
        ),
        ({"type": "json_schema", "name": "n", "schema": {"type": "object"}}, "{}", {}),
    ],
)  # fmt: skip
def test_parse(kind: object, text: str, expected: object) -> None:
    value = spec_of(kind).parse(text)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        (Ticket, "", "not valid JSON, it is empty"),
        (Ticket, "I cannot do that.", "not valid JSON: I cannot do that."),
        (Ticket, '{"title": "x', "not valid JSON"),
        (Ticket, "{}", "$.title: expected a value (string), got nothing"),
        (Ticket, '{"title": 5}', "$.title: expected a valid string, got number 5"),
        (Ticket, "[]", "got array []"),
        (Ticket, '```\n{"title": "a"}\n``` or ```\n{"title": "b"}\n```', "not valid JSON"),
        (list[int], '{"value": ["x"]}', "$[0]: expected a valid integer"),
        (Colour, '{"value": "blue"}', "expected 'red', got text"),
        ({"type": "json_object"}, "[]", "$: expected object, got array []"),
        ({"type": "object", "required": ["a"]}, "{}", "$.a: expected a value, got nothing"),
        (
            {"type": "object", "properties": {"a": {"enum": ["x"]}}},
            '{"a": "y"}',
            '$.a: expected one of ["x"], got text "y"',
        ),
    ],
)
def test_what_does_not_fit_is_told_to_the_model(kind: object, text: str, told: str) -> None:
    with pytest.raises(OutputError) as caught:
        spec_of(kind).parse(text)
    assert told in caught.value.for_model
    assert "Answer" in caught.value.for_model
    assert caught.value.text == text


def test_validators_of_the_type_speak_too() -> None:
    class Even(BaseModel):
        n: int = Field(multiple_of=2)

    with pytest.raises(OutputError, match="multiple of 2, got number 3"):
        spec_of(Even).parse('{"n": 3}')


def test_schemas_are_objects_at_the_root() -> None:
    assert spec_of(Ticket).schema["properties"].keys() == {"title", "urgent", "tags"}
    assert not spec_of(Tree).wrapped  # its root is a reference
    spec = spec_of(list[Ticket])
    assert spec.wrapped
    assert spec.schema["properties"]["value"]["items"] == {"$ref": "#/$defs/Ticket"}
    assert spec.schema["$defs"].keys() == {"Ticket"}
    assert spec_of(Ticket | Point).wrapped


@pytest.mark.parametrize("nothing", [None, NOT_GIVEN, {"type": "text"}])
def test_nothing_asked_for(nothing: object) -> None:
    assert output_type(nothing) is None


def test_a_spec_is_taken_as_it_is() -> None:
    spec = output_type(Ticket)
    assert output_type(spec) is spec


@pytest.mark.parametrize("wrong", [5, "text", {"a": 1}, {"type": "json_schema"}, [Ticket]])
def test_what_describes_nothing_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="response_format: expected"):
        output_type(wrong)


def test_names_are_taken_by_every_provider() -> None:
    assert spec_of({"title": "My schema!", "type": "object"}).name == "My_schema_"
    assert spec_of(Ticket).name == "Ticket"
    assert spec_of(list[int]).name == "response"


def test_more_values_than_can_be_read_at_once_are_refused_and_not_read_in_part() -> None:
    spec = spec_of({"type": "json_object"})
    text = '{"a":[' + "7," * MAX_VALUES + "7]}"
    with pytest.raises(OutputError, match="more than 65536 values"):
        spec.parse(text)
    partial = PartialOutput(spec)
    known = [partial.feed(text[at : at + 1000]) for at in range(0, len(text), 1000)]
    sizes = [len(value["a"]) for value in known if value]
    assert 55_000 < max(sizes) <= MAX_VALUES
    assert known[-1] is None
    told = {"a": "7," * MAX_VALUES}  # one text
    assert spec.parse(json.dumps(told)) == told


def test_partial() -> None:
    spec = spec_of(Ticket)
    assert spec.partial("") is None
    assert spec.partial("Here: ") is None
    assert spec.partial("{") == {}
    assert spec.partial('{"title": "Hel') == {"title": "Hel"}
    assert spec.partial('{"n": 12') == {}
    assert spec.partial('{"n": 12,') == {"n": 12}
    assert spec.partial('```json\n{"title": "a: 12 b') == {"title": "a: 12 b"}
    assert spec_of(list[str]).partial('{"value": ["a", "b') == ["a", "b"]
    assert spec.partial("{]") is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(), json_values, max_size=3), st.data())
def test_partial_values_are_part_of_the_whole(value: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(value)
    cut = text[: data.draw(st.integers(1, len(text)))]
    assert is_start_of(spec_of({"type": "json_object"}).partial(cut), value)


def is_start_of(part: Any, whole: Any) -> bool:
    match part:
        case dict():
            return all(key in whole and is_start_of(held, whole[key]) for key, held in part.items())
        case list():
            return len(part) <= len(whole) and all(map(is_start_of, part, whole))
        case str():
            return part.rstrip("\ufffd") == whole[: len(part.rstrip("\ufffd"))]
        case _:
            return bool(part == whole)


def test_reading_while_it_arrives_is_linear() -> None:
    spec = spec_of(Ticket)
    text = json.dumps({"title": "x" * 200_000})
    reader, read = PartialOutput(spec), 0
    for at in range(0, len(text), 10):
        value = reader.feed(text[at : at + 10])
        if value is not None:
            read += at
    assert 0 < read < 40 * len(text)
    assert value is None or value["title"].startswith("x")


def test_a_short_text_is_read_at_each_piece() -> None:
    reader = PartialOutput(spec_of(Ticket))
    seen = [reader.feed(piece) for piece in '{"title": "abc"}']
    assert seen[0] == {}
    assert seen[-1] == {"title": "abc"}
    assert {"title": "ab"} in seen
