"""JSON schemas in the words of Google's `Schema` object."""

from __future__ import annotations

import copy
import enum
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from typing_extensions import TypedDict

from rejoinder._core.schema import build_plan
from rejoinder.providers.google.schema import gemini_schema

# -- Gemini ---------------------------------------------------------------------------------


class Point(TypedDict):
    x: float
    y: float


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Colour(enum.Enum):
    RED = "red"


def everything(
    text: Annotated[str, Field(min_length=1, max_length=9, pattern="^a")],
    count: Annotated[int, Field(gt=0, le=5)],
    number: float,
    flag: bool,
    colour: Colour,
    level: Level,
    point: Point,
    points: list[Point],
    maybe: int | None,
    either: int | str,
    any_of_three: int | str | None = None,
    constant: Colour = Colour.RED,
) -> None:
    """All kinds.

    Args:
        level: How loud.
    """


POINT = {
    "type": "OBJECT",
    "properties": {"x": {"type": "NUMBER"}, "y": {"type": "NUMBER"}},
    "required": ["x", "y"],
}


def test_gemini() -> None:
    found = gemini_schema(build_plan(everything).schema)
    assert found is not None
    assert found["type"] == "OBJECT"
    assert found["required"] == list(found["properties"])[:10]
    assert found["properties"] == {
        "text": {"type": "STRING", "min_length": 1, "max_length": 9, "pattern": "^a"},
        "count": {"type": "INTEGER", "minimum": 1, "maximum": 5},
        "number": {"type": "NUMBER"},
        "flag": {"type": "BOOLEAN"},
        "colour": {"type": "STRING", "enum": ["red"]},
        "level": {"type": "INTEGER", "description": "How loud. One of 1, 2."},
        "point": POINT,
        "points": {"type": "ARRAY", "items": POINT},
        "maybe": {"type": "INTEGER", "nullable": True},
        "either": {"any_of": [{"type": "INTEGER"}, {"type": "STRING"}]},
        "any_of_three": {
            "nullable": True,
            "any_of": [{"type": "INTEGER"}, {"type": "STRING"}],
        },
        "constant": {"type": "STRING", "enum": ["red"]},
    }


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "object", "properties": {}}, None),
        ({"type": "object"}, None),
        ({"type": ["string", "null"]}, {"type": "STRING", "nullable": True}),
        (
            {"type": ["string", "integer"]},
            {"any_of": [{"type": "STRING"}, {"type": "INTEGER"}]},
        ),
        ({"const": "c"}, {"type": "STRING", "enum": ["c"]}),
        ({"enum": ["a", None]}, {"type": "STRING", "enum": ["a"], "nullable": True}),
        ({"enum": [1.5, 2]}, {"type": "NUMBER", "description": "One of 1.5, 2."}),
        ({"enum": [True]}, {"type": "BOOLEAN", "description": "One of True."}),
        ({"anyOf": [{"type": "null"}]}, {"type": "NULL", "nullable": True}),
        ({"type": "string", "format": "uuid"}, {"type": "STRING"}),
        ({"type": "string", "format": "date-time"}, {"type": "STRING", "format": "date-time"}),
        (
            {
                "allOf": [{"$ref": "#/$defs/A"}],
                "description": "d",
                "$defs": {"A": {"type": "string"}},
            },
            {"type": "STRING", "description": "d"},
        ),
        (
            {
                "oneOf": [{"$ref": "#/$defs/A"}, {"type": "integer"}],
                "discriminator": {},
                "$defs": {"A": {"type": "string"}},
            },
            {"any_of": [{"type": "STRING"}, {"type": "INTEGER"}]},
        ),
    ],
)
def test_gemini_of(schema: dict[str, Any], expected: dict[str, Any] | None) -> None:
    before = copy.deepcopy(schema)
    assert gemini_schema(schema) == expected
    assert schema == before


TREE = {"type": "object", "properties": {"t": {"$ref": "#/$defs/T"}}}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"$ref": "#/$defs/T", "$defs": {"T": TREE}}, r"\$\.t.*recursion"),
        ({"properties": {"a": {}}, "type": "object"}, r"\$\.a.*any type"),
        ({"properties": {"a": True}, "type": "object"}, r"\$\.a"),
        ({"properties": {"a": {"type": "object"}}, "type": "object"}, r"\$\.a.*free keys"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "free keys"),
        ({"type": "array"}, "one type"),
        ({"type": "array", "prefixItems": [], "items": {"type": "string"}}, "one type"),
        ({"allOf": [{}, {}]}, "allOf"),
        ({"enum": ["a", 1]}, "mixed"),
        ({"enum": ["", "a"]}, "empty string"),
    ],
)
def test_gemini_cannot_say(schema: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        gemini_schema(schema)


KEYS = {
    "type", "format", "description", "nullable", "enum", "max_items", "min_items", "properties",
    "required", "min_properties", "max_properties", "min_length", "max_length", "pattern",
    "any_of", "items", "minimum", "maximum",
}  # fmt: skip

json_schemas = st.recursive(
    st.sampled_from(
        [
            {"type": "string", "title": "T", "default": "d", "examples": []},
            {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 3.5},
            {"const": 1},
            {"enum": ["a", None]},
            {"type": "null"},
            {"type": ["number", "null"], "multipleOf": 2},
            {},
            {"$ref": "#/$defs/D"},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(
            lambda p: {"type": "object", "properties": p, "required": ["a", "zz"]},
            st.dictionaries(st.sampled_from(["a", "type", "enum"]), inner),
        ),
        st.builds(lambda i: {"type": "array", "items": i, "uniqueItems": True}, inner),
        st.builds(lambda v: {"anyOf": v}, st.lists(inner, max_size=3)),
    ),
    max_leaves=10,
)


@given(json_schemas, json_schemas)
def test_gemini_of_any_schema(root: Any, d: Any) -> None:
    """Only words that the API knows, or a ValueError."""
    try:
        found = gemini_schema({**root, "$defs": {"D": d}})
    except ValueError:
        return
    if found is not None:
        check_gemini(found)


def check_gemini(node: dict[str, Any]) -> None:
    assert set(node) <= KEYS
    assert ("type" in node) != ("any_of" in node)
    assert node.get("type", "STRING").isupper()
    assert all(isinstance(value, str) for value in node.get("enum", ()))
    for child in (*node.get("properties", {}).values(), *node.get("any_of", ())):
        check_gemini(child)
    assert set(node.get("required", ())) <= set(node.get("properties", {}))
    if "items" in node:
        check_gemini(node["items"])


def test_gemini_agrees_with_the_vendors_type() -> None:
    types = pytest.importorskip("google.genai.types")
    parameters = gemini_schema(build_plan(everything).schema)
    declared = types.FunctionDeclaration.model_validate(
        {"name": "n", "parameters": parameters}, by_alias=False, by_name=True
    )
    assert declared.parameters.properties["count"].maximum == 5
