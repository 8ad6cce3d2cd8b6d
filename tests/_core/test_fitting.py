"""Values are fitted to a schema only where their meaning is beyond doubt."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.fitting import Fitter

OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}}
TREE: dict[str, Any] = {
    "$ref": "#/$defs/Tree",
    "$defs": {
        "Tree": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "size": {"type": "integer"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
            },
            "required": ["name"],
        }
    },
}


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        # lists and objects in texts
        ({"type": "array"}, "[1]", [1]),
        ({"type": "array"}, " [1] ", [1]),
        ({"type": "array"}, "['a',]", ["a"]),
        ({"type": "array"}, json.dumps("[1]"), [1]),
        ({"type": "array"}, "x", "x"),
        ({"type": "array"}, '{"a": 1}', '{"a": 1}'),
        ({"type": "array"}, "3", "3"),
        ({"type": ["array", "string"]}, "[1]", "[1]"),
        ({}, "[1]", "[1]"),
        ({"anyOf": [{"type": "array"}, {"type": "null"}]}, "[1]", [1]),
        ({"anyOf": [{"type": "array"}, {"type": "string"}]}, "[1]", "[1]"),
        ({"allOf": [{"type": "array"}]}, "[1]", [1]),
        ({"type": "array", "items": OBJECT}, '["{}", "{\\"a\\": 1}"]', [{}, {"a": 1}]),
        ({"type": "array", "prefixItems": [{"type": "array"}]}, ["[1]", "[1]"], [[1], "[1]"]),
        ({"additionalProperties": {"type": "array"}}, {"k": "[1]"}, {"k": [1]}),
        (TREE, {"name": "[1]", "children": '[{"name": "b"}]'}, {"name": "[1]", "children": [{"name": "b"}]}),
        # null for "not given"
        (OBJECT, {"a": None}, {}),
        ({**OBJECT, "required": ["a"]}, {"a": None}, {"a": None}),
        (
            {"properties": {"a": {"type": "integer", "default": 1}}, "required": ["a"]},
            {"a": None},
            {},
        ),
        ({"properties": {"a": {"type": ["integer", "null"]}}}, {"a": None}, {"a": None}),
        ({"properties": {"a": {"enum": [1, None]}}}, {"a": None}, {"a": None}),
        ({"properties": {"a": {}}}, {"a": None}, {"a": None}),
        (TREE, {"name": "x", "size": None, "children": [{"name": "y", "size": None}]}, {"name": "x", "children": [{"name": "y"}]}),
        # names
        ({"properties": {"$filter": {"type": "string"}}}, {"filter": "x"}, {"$filter": "x"}),
        (
            {"properties": {"$filter": {"type": "string"}, "filter": {"type": "string"}}},
            {"filter": "x"},
            {"filter": "x"},
        ),
        # of several objects the one whose constants agree
        (
            {
                "oneOf": [
                    {"properties": {"k": {"const": "x"}, "v": {"type": "array"}}},
                    {"properties": {"k": {"const": "y"}, "v": {"type": "string"}}},
                ]
            },
            {"k": "x", "v": "[1]"},
            {"k": "x", "v": [1]},
        ),
        (
            {
                "oneOf": [
                    {"properties": {"k": {"const": "x"}, "v": {"type": "array"}}},
                    {"properties": {"k": {"const": "y"}, "v": {"type": "string"}}},
                ]
            },
            {"k": "y", "v": "[1]"},
            {"k": "y", "v": "[1]"},
        ),
        ({"$ref": "#/$defs/None"}, "[1]", "[1]"),
    ],
)  # fmt: skip
def test_fit(schema: dict[str, Any], value: Any, expected: Any) -> None:
    before = json.dumps(value)
    fitted, changed = Fitter(schema).fit(value)
    assert fitted == expected
    assert changed == (json.dumps(expected) != before)


def test_scalars_only_when_asked_for() -> None:
    schema = {"properties": {"n": {"type": "integer"}, "b": {"type": "boolean"}}}
    value = {"n": "7", "b": "true"}
    assert Fitter(schema).fit(dict(value)) == (value, False)
    assert Fitter(schema, scalars=True).fit(dict(value)) == ({"n": 7, "b": True}, True)
    assert Fitter(schema, scalars=True).fit({"n": "x"}) == ({"n": "x"}, False)


def test_the_work_does_not_multiply() -> None:
    """A schema whose every level says everything twice, and refers to itself."""
    names = [f"D{i}" for i in range(40)]
    definitions = {
        name: {
            "allOf": [{"$ref": f"#/$defs/{other}"} for other in (after, after, name)],
            "anyOf": [{"$ref": f"#/$defs/{name}"}, {"$ref": f"#/$defs/{after}"}],
            "properties": {"x": {"$ref": f"#/$defs/{name}"}},
            "items": {"$ref": f"#/$defs/{after}"},
        }
        for name, after in zip(names, [*names[1:], names[0]], strict=True)
    }
    fitter = Fitter({"$ref": "#/$defs/D0", "$defs": definitions})
    work = [calls_in(partial(fitter.fit, nest(depth))) for depth in (20, 20, 40)]
    assert work[2] < 2.2 * work[1] < 2.2 * work[0]


def nest(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"x": [value]}
    return value


def calls_in(action: Callable[[], object]) -> int:
    calls = 0

    def count(frame: object, event: str, arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
    return calls


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=2), values, max_size=3))
def test_a_list_or_an_object_in_a_text_is_the_list_or_the_object(value: dict[str, Any]) -> None:
    containers = {key: held for key, held in value.items() if isinstance(held, dict | list)}
    schema = {
        "properties": {
            key: {"type": "array" if isinstance(held, list) else "object"}
            for key, held in containers.items()
        }
    }
    written = {key: json.dumps(held) for key, held in containers.items()}
    assert Fitter(schema).fit(written)[0] == containers


def test_of_two_kinds_of_objects_that_have_no_constants_the_properties_tell() -> None:
    first = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "$filter": {"type": "string"}},
        "required": ["a", "$filter"],
    }
    second = {"type": "object", "properties": {"a": {"type": "integer"}}}
    schema = {"type": "object", "properties": {"b": {"anyOf": [first, second]}}}
    fitted, changed = Fitter(schema).fit({"b": {"a": "0", "filter": "0"}})
    assert changed
    assert fitted == {"b": {"a": "0", "$filter": "0"}}
    assert Fitter(schema).fit({"b": {"a": 0}}) == ({"b": {"a": 0}}, False)
    second["properties"] = {"a": {"type": "string", "minLength": 2}}
    assert Fitter(schema).fit({"b": {"a": "0", "filter": "0"}}) == (fitted, True)


def kind(name: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"k": {"enum": [name]}, **properties}}


PARTS: dict[str, Any] = {
    "Base": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
    "Cat": {"allOf": [{"$ref": "#/$defs/Base"}, {"properties": {"claws": {"type": "array"}}}]},
    "Dog": {"allOf": [{"$ref": "#/$defs/Base"}, {"properties": {"tail": {"type": "array"}}}]},
    "Long": {"$ref": "#/$defs/Base", "properties": {"$x": {"type": "array"}}, "required": ["$x"]},
}


@pytest.mark.parametrize(
    ("variants", "value", "fitted"),
    [
        # an enum of one value is a constant
        ([kind("x", v={"type": "array"}), kind("y")], {"k": "x", "v": "[1]"}, {"k": "x", "v": [1]}),
        ([kind("x", v={"type": "array"}), kind("y")], {"k": "y", "v": "[1]"}, {"k": "y", "v": "[1]"}),
        ([kind("x", v={"type": "array"}), kind("x")], {"k": "x", "v": "[1]"}, {"k": "x", "v": [1]}),
        ([{"const": True}, {"properties": {"k": {"const": 1}, "v": {"type": "array"}}}], {"k": True, "v": "[1]"}, {"k": True, "v": "[1]"}),
        # two alike: nothing is beyond doubt
        ([kind("x", v={"type": "array"}), kind("x", v={})], {"k": "x", "v": "[1]"}, {"k": "x", "v": "[1]"}),
        # what a kind takes over from another counts as its own
        ([{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}], {"id": 1, "tail": "[2]"}, {"id": 1, "tail": [2]}),
        ([{"$ref": "#/$defs/Base"}, {"$ref": "#/$defs/Long"}], {"id": 1, "x": "[2]"}, {"id": 1, "$x": [2]}),
        # nothing fits entirely: the constant tells
        ([{**kind("x", v={"type": "array"}), "required": ["w"]}, kind("y")], {"k": "x", "v": "[1]"}, {"k": "x", "v": [1]}),
    ],
)  # fmt: skip
def test_of_several_kinds_the_one_that_most_speaks_for(
    variants: list[Any], value: Any, fitted: Any
) -> None:
    for key in ("anyOf", "oneOf"):
        for ordered in (variants, variants[::-1]):
            schema = {"properties": {"it": {key: ordered}}, "$defs": PARTS}
            out, changed = Fitter(schema).fit({"it": dict(value)})
            assert out == {"it": fitted}
            assert changed == (value != fitted)


def test_what_stands_beside_a_reference_holds_too() -> None:
    schema = {"properties": {"it": {"$ref": "#/$defs/Long"}}, "$defs": PARTS}
    value = {"it": '{"id": null, "x": "[1]"}'}
    assert Fitter(schema).fit(value)[0] == {"it": {"id": None, "$x": [1]}}


@pytest.mark.parametrize("key", ["anyOf", "allOf", "oneOf"])
def test_references_in_a_long_row(key: str) -> None:
    row = {f"D{n}": {key: [{"$ref": f"#/$defs/D{n + 1}"}]} for n in range(3000)}
    schema = {
        "properties": {"near": {"$ref": "#/$defs/D2995"}, "far": {"$ref": "#/$defs/D0"}},
        "$defs": {**row, "D3000": {"type": "array"}},
    }
    value = {"near": "[1]", "far": "[1]"}
    assert Fitter(schema).fit(value)[0] == {"near": [1], "far": "[1]"}
