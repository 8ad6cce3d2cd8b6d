"""The strict dialect, rule by rule."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.strict import resolve_ref, strict_schema, why_not_strict

# As recorded of LiveKit Agents 1.2.17, or of 1.7.0 where it mended something.
RECORDED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"type": "object"}, {"type": "object", "additionalProperties": False}),
    (
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {}, "additionalProperties": False},
    ),
    (
        {"type": "object", "additionalProperties": True, "properties": {"a": {"type": "string"}}},
        {
            "type": "object",
            "additionalProperties": True,
            "properties": {"a": {"type": "string"}},
            "required": ["a"],
        },
    ),
    (
        {
            "type": "object",
            "properties": {
                "a": {"type": "string", "title": "A", "default": "x"},
                "b": {"type": ["string", "null"], "default": None},
                "c": {"default": 1},
                "d": {"enum": ["a"], "default": "a"},
            },
        },
        {
            "type": "object",
            "properties": {
                "a": {"type": ["string", "null"]},
                "b": {"type": ["string", "null"]},
                "c": {},
                "d": {"anyOf": [{"enum": ["a"]}, {"type": "null"}]},
            },
            "additionalProperties": False,
            "required": ["a", "b", "c", "d"],
        },
    ),
    (
        {"properties": {"a": {"type": "string"}}},
        {"properties": {"a": {"type": "string"}}, "required": ["a"]},
    ),
    (
        {"type": "array", "items": {"type": "object"}},
        {"type": "array", "items": {"type": "object", "additionalProperties": False}},
    ),
    ({"type": "array", "items": True}, {"type": "array", "items": True}),
    ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": ["string", "null"]}),
    (
        {"anyOf": [{"type": "null"}, {"type": "string"}], "description": "d", "default": None},
        {"description": "d", "type": ["string", "null"]},
    ),
    (
        {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "outer", "type": "x"},
        {"description": "outer", "type": ["string", "null"]},
    ),
    (
        {
            "anyOf": [{"type": "string", "description": "inner"}, {"type": "null"}],
            "description": "outer",
        },
        {"description": "inner", "type": ["string", "null"]},
    ),
    (
        {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
        {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
    ),
    ({"anyOf": [{"type": "null", "title": "N"}, {"type": "string"}]}, {"type": ["string", "null"]}),
    (
        {"anyOf": [{"$ref": "#/$defs/X"}, {"type": "null"}], "$defs": {"X": {"type": "object"}}},
        {
            "$defs": {"X": {"type": "object", "additionalProperties": False}},
            "anyOf": [{"$ref": "#/$defs/X"}, {"type": "null"}],
        },
    ),
    (
        {"anyOf": [{"enum": ["a", "b"], "type": "string"}, {"type": "null"}]},
        {"enum": ["a", "b", None], "type": ["string", "null"]},
    ),
    ({"anyOf": [{}, {"type": "null"}]}, {"type": "null"}),
    ({"anyOf": [{}, {"type": "string"}]}, {"type": "string"}),
    ({"oneOf": [{"type": "string"}, {"type": "null"}]}, {"type": ["string", "null"]}),
    (
        {"oneOf": [{"type": "object"}, {"type": "object"}], "discriminator": {"propertyName": "k"}},
        {
            "anyOf": [
                {"type": "object", "additionalProperties": False},
                {"type": "object", "additionalProperties": False},
            ]
        },
    ),
    (
        {"oneOf": [{"type": "object"}, {"type": "integer"}, {"type": "null"}], "discriminator": {}},
        {
            "anyOf": [
                {"type": "object", "additionalProperties": False},
                {"type": "integer"},
                {"type": "null"},
            ]
        },
    ),
    (
        {"allOf": [{"type": "object", "properties": {"a": {}}}], "description": "x"},
        {
            "description": "x",
            "type": "object",
            "properties": {"a": {}},
            "additionalProperties": False,
            "required": ["a"],
        },
    ),
    (
        {"allOf": [{"type": "object"}, {"type": "object"}]},
        {
            "allOf": [
                {"type": "object", "additionalProperties": False},
                {"type": "object", "additionalProperties": False},
            ]
        },
    ),
    (
        {
            "allOf": [{"$ref": "#/$defs/X"}],
            "default": 1,
            "$defs": {"X": {"type": "object", "properties": {"z": {"type": "integer"}}}},
        },
        {
            "$defs": {
                "X": {
                    "type": "object",
                    "properties": {"z": {"type": "integer"}},
                    "additionalProperties": False,
                    "required": ["z"],
                }
            },
            "anyOf": [{"$ref": "#/$defs/X"}, {"type": "null"}],
        },
    ),
    (
        {
            "$ref": "#/$defs/X",
            "description": "d",
            "$defs": {
                "X": {
                    "type": "object",
                    "description": "base",
                    "properties": {"z": {"type": "integer"}},
                }
            },
        },
        {
            "description": "d",
            "$defs": {
                "X": {
                    "type": "object",
                    "description": "base",
                    "properties": {"z": {"type": "integer"}},
                    "additionalProperties": False,
                    "required": ["z"],
                }
            },
            "type": "object",
            "properties": {"z": {"type": "integer"}},
            "additionalProperties": False,
            "required": ["z"],
        },
    ),
    (
        {
            "type": "object",
            "properties": {"p": {"$ref": "#/$defs/X", "description": "d"}},
            "$defs": {
                "X": {"type": "object", "properties": {"z": {"type": "integer", "title": "Z"}}}
            },
        },
        {
            "type": "object",
            "properties": {
                "p": {
                    "description": "d",
                    "type": "object",
                    "properties": {"z": {"type": "integer"}},
                    "additionalProperties": False,
                    "required": ["z"],
                }
            },
            "$defs": {
                "X": {
                    "type": "object",
                    "properties": {"z": {"type": "integer"}},
                    "additionalProperties": False,
                    "required": ["z"],
                }
            },
            "additionalProperties": False,
            "required": ["p"],
        },
    ),
    (
        {
            "type": "object",
            "properties": {"p": {"$ref": "#/$defs/X", "default": {}}},
            "$defs": {
                "X": {"type": "object", "properties": {"z": {"type": "integer", "title": "Z"}}}
            },
        },
        {
            "type": "object",
            "properties": {"p": {"anyOf": [{"$ref": "#/$defs/X"}, {"type": "null"}]}},
            "$defs": {
                "X": {
                    "type": "object",
                    "properties": {"z": {"type": "integer"}},
                    "additionalProperties": False,
                    "required": ["z"],
                }
            },
            "additionalProperties": False,
            "required": ["p"],
        },
    ),
    (
        {
            "type": "object",
            "properties": {"p": {"$ref": "#/$defs/X", "title": "only"}},
            "$defs": {"X": {"type": "object"}},
        },
        {
            "type": "object",
            "properties": {"p": {"$ref": "#/$defs/X"}},
            "$defs": {"X": {"type": "object", "additionalProperties": False}},
            "additionalProperties": False,
            "required": ["p"],
        },
    ),
    (
        {
            "type": "object",
            "properties": {"p": {"$ref": "#/definitions/X"}},
            "definitions": {"X": {"type": "object", "title": "T"}},
        },
        {
            "type": "object",
            "properties": {"p": {"$ref": "#/definitions/X"}},
            "definitions": {"X": {"type": "object", "additionalProperties": False}},
            "additionalProperties": False,
            "required": ["p"],
        },
    ),
    (
        {"type": "object", "required": ["q"], "properties": {"a": {"type": "string"}}},
        {
            "type": "object",
            "required": ["a"],
            "properties": {"a": {"type": "string"}},
            "additionalProperties": False,
        },
    ),
    (
        {
            "type": "object",
            "properties": {"a": {"type": "object", "additionalProperties": {"type": "integer"}}},
        },
        {
            "type": "object",
            "properties": {"a": {"type": "object", "additionalProperties": {"type": "integer"}}},
            "additionalProperties": False,
            "required": ["a"],
        },
    ),
    (
        {"type": "string", "minLength": 1, "format": "x", "pattern": "y", "examples": [1]},
        {"type": "string", "minLength": 1, "format": "x", "pattern": "y", "examples": [1]},
    ),
    ({"type": "null", "default": None}, {"type": "null"}),
    ({"type": ["null"], "default": None}, {"type": ["null"]}),
    ({"const": "a", "default": "a", "type": "string"}, {"const": "a", "type": "string"}),
]


@pytest.mark.parametrize(("schema", "expected"), RECORDED)
def test_recorded(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    before = copy.deepcopy(schema)
    assert strict_schema(schema) == expected
    assert schema == before, "the input was changed"


NULL = {"type": "null"}
R = {"type": "object", "properties": {"k": {"$ref": "#/$defs/R", "description": "d"}}}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        # Two kinds and null keep all three.
        (
            {"anyOf": [{"type": ["string", "integer"]}, NULL]},
            {"type": ["string", "integer", "null"]},
        ),
        ({"anyOf": [NULL, NULL]}, NULL),
        ({"anyOf": [{"const": "c", "type": "string"}, NULL]},) * 2,
        # Schemas in places that were skipped.
        (
            {"type": "array", "prefixItems": [{"type": "object", "title": "T"}]},
            {
                "type": "array",
                "prefixItems": [{"type": "object", "additionalProperties": False}],
            },
        ),
        (
            {"type": "object", "additionalProperties": {"type": "object", "title": "T"}},
            {
                "type": "object",
                "additionalProperties": {"type": "object", "additionalProperties": False},
            },
        ),
        # A default of a closed list of values: null has to be one of them.
        (
            {"enum": ["a"], "type": "string", "default": "a"},
            {"enum": ["a", None], "type": ["string", "null"]},
        ),
        # Names with characters that a pointer escapes.
        (
            {
                "$ref": "#/$defs/A~1B",
                "description": "d",
                "$defs": {"A/B": {"type": "string"}},
            },
            {"type": "string", "description": "d", "$defs": {"A/B": {"type": "string"}}},
        ),
    ],
)
def test_mended(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    assert strict_schema(schema) == expected


def test_definition_that_contains_itself_with_a_description() -> None:
    strict = strict_schema({"$ref": "#/$defs/R", "$defs": {"R": R}})
    assert strict["$defs"]["R"]["properties"]["k"]["properties"]["k"] == {"$ref": "#/$defs/R"}


@pytest.mark.parametrize(
    ("schema", "error", "says"),
    [
        ({"properties": {"p": {"$ref": "X", "description": "a"}}}, ValueError, "'X'"),
        ({"properties": {"p": {"$ref": "#/nope/X", "description": "a"}}}, KeyError, "nope"),
        ({"properties": {"p": True}}, TypeError, r"\$\.p"),
        ({"anyOf": [3]}, TypeError, r"anyOf\[0\]"),
        (5, TypeError, "at \\$"),
    ],
)
def test_refused(schema: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        strict_schema(schema)


def test_response_formats_have_no_null_for_a_default() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "default": "x"}}}
    strict = strict_schema(schema, null_for_default=False)
    assert strict["properties"] == {"a": {"type": "string"}}
    assert strict["required"] == ["a"]


def test_resolve_ref() -> None:
    root = {"a": {"b": {"c": {}}}, "d": 5}
    assert resolve_ref(root=root, ref="#/a/b") == {"c": {}}
    for ref in ("#/d", "#/d/e"):
        with pytest.raises(TypeError, match=ref):
            resolve_ref(root=root, ref=ref)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}}}, None),
        ({"type": "object", "properties": {}}, None),
        ({"type": "object"}, None),
        ({"type": "object", "properties": {"a": {}}}, "$.a: accepts anything"),
        ({"type": "object", "properties": {"a": {"type": "object"}}}, "free keys"),
        ({"properties": {"a": {"type": "object", "additionalProperties": {}}}}, "free keys"),
        ({"properties": {"a": {"type": "array", "items": {}}}}, "$.a[]: accepts anything"),
        ({"properties": {"a": {"type": "array"}}}, "array of anything"),
        ({"properties": {"a": {"anyOf": [{}, {"type": "null"}]}}}, "accepts anything"),
        (
            {"$defs": {"X": {"type": "array", "uniqueItems": True, "items": {"type": "null"}}}},
            "uniqueItems",
        ),
    ],
)
def test_why_not_strict(schema: dict[str, Any], reason: str | None) -> None:
    found = why_not_strict({"type": "object", **schema})
    assert (found is None) == (reason is None)
    if reason is not None:
        assert found is not None
        assert reason in found


names = st.sampled_from(["a", "title", "default", "properties", "$ref", "anyOf"])
leaves = st.sampled_from(
    [
        {"type": "string"},
        {"type": "integer", "default": 1},
        {"enum": ["x", "y"]},
        {"const": 1},
        {"type": "null"},
        {},
        {"$ref": "#/$defs/D"},
        {"$ref": "#/$defs/D", "description": "d"},
        {"$ref": "#/$defs/E", "default": 1},
    ]
)


def grow(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(lambda p: {"type": "object", "properties": p}, st.dictionaries(names, inner)),
        st.builds(lambda i: {"type": "array", "items": i}, inner),
        st.builds(lambda v: {"anyOf": v}, st.lists(inner, max_size=3)),
        st.builds(lambda v: {"oneOf": v, "default": None}, st.lists(inner, max_size=3)),
        st.builds(lambda v: {"allOf": v}, st.lists(inner, max_size=2)),
    )


schemas = st.recursive(leaves, grow, max_leaves=12)


@given(schemas, schemas, schemas)
def test_any_schema(root: Any, d: Any, e: Any) -> None:
    """Whatever it is given, it ends, changes nothing, shares nothing, and closes every object."""
    schema = {"type": "object", "properties": {"p": root}, "$defs": {"D": d, "E": e}}
    before = json.dumps(schema)
    strict = strict_schema(schema)
    assert json.dumps(schema) == before
    check_closed(strict)
    wreck(strict)
    assert json.dumps(schema) == before


def check_closed(node: Any) -> None:
    if isinstance(node, list):
        for part in node:
            check_closed(part)
        return
    if not isinstance(node, dict):
        return
    if isinstance(node.get("properties"), dict):
        assert node.get("required", []) == list(node["properties"])
        for child in node["properties"].values():
            check_closed(child)
    if node.get("type") == "object":
        assert node["additionalProperties"] is False
    assert "oneOf" not in node
    for key in ("items", "anyOf", "allOf"):
        check_closed(node.get(key))


def wreck(node: Any) -> None:
    if isinstance(node, dict):
        for child in list(node.values()):
            wreck(child)
        node.clear()
    elif isinstance(node, list):
        for child in node:
            wreck(child)
        node.clear()
