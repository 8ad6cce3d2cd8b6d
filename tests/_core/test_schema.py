"""Plans of functions, and Gemini's dialect."""

# ruff: noqa: UP007, UP045  both spellings of optional are tested

from __future__ import annotations

import copy
import enum
import functools
import inspect
from math import inf, nan
from typing import Annotated, Any, Optional, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, WithJsonSchema
from typing_extensions import TypedDict

from rejoinder._core import schema as schema_module
from rejoinder._core.arguments import bind_arguments
from rejoinder._core.schema import (
    Frozen,
    build_plan,
    describe,
    gemini_schema,
    is_context_type,
    is_optional_type,
)
from rejoinder._core.tools import RunContext

# -- plans ----------------------------------------------------------------------------------

Short = Annotated[str, Field(max_length=3)]


def test_a_shared_annotation_is_not_changed() -> None:
    """A description and default given to one function stay with that function."""

    def one(a: Short = "x") -> None:
        """One.

        Args:
            a: of one
        """

    def two(a: Short) -> None:
        """Two.

        Args:
            a: of two
        """

    first, second = build_plan(one).schema["properties"]["a"], build_plan(two).schema
    assert first == {
        "default": "x",
        "description": "of one",
        "maxLength": 3,
        "title": "A",
        "type": "string",
    }
    assert second["properties"]["a"] == {
        "description": "of two",
        "maxLength": 3,
        "title": "A",
        "type": "string",
    }
    assert second["required"] == ["a"]


def test_kinds_of_parameters() -> None:
    def mixed(a: int, /, b: int, *rest: int, c: int, d: int = 4, **more: str) -> None: ...

    plan = build_plan(mixed)
    assert list(plan.schema["properties"]) == ["a", "b", "rest", "c", "d", "more"]
    assert plan.schema["required"] == ["a", "b", "c"]
    assert plan.schema["properties"]["rest"]["items"] == {"type": "integer"}
    assert plan.schema["properties"]["more"]["additionalProperties"] == {"type": "string"}
    assert plan.why_not_strict is not None


def test_names_that_pydantic_keeps_for_itself() -> None:
    def reserved(copy: int, model_config: str, _private: int, __dunder: int = 3) -> None: ...

    plan = build_plan(reserved)
    assert list(plan.schema["properties"]) == ["copy", "model_config", "_private", "__dunder"]
    assert plan.schema["properties"]["copy"] == {"title": "Copy", "type": "integer"}


def test_defaults_that_json_cannot_write() -> None:
    def odd(
        a: Any = object(),  # noqa: B008  on purpose
        b: float = nan,
        c: float = -inf,
        d: float = 3.5,
    ) -> None: ...

    properties = build_plan(odd).schema["properties"]
    assert [name for name in properties if "default" in properties[name]] == ["d"]
    assert build_plan(odd).schema.get("required") is None


def test_functions_without_a_signature() -> None:
    with pytest.raises(TypeError, match="signature"):
        build_plan(type)


def test_recursion_is_known() -> None:
    class Tree(BaseModel):
        children: list[Tree] = []

    class Flat(BaseModel):
        a: int

    def trees(t: Tree) -> None: ...
    def flats(a: Flat, b: Flat) -> None: ...

    Tree.model_rebuild()
    local = {"Tree": Tree, "Flat": Flat}
    assert build_plan(trees, localns=local).recursive
    assert build_plan(trees, localns=local).gemini is None
    assert not build_plan(flats, localns=local).recursive


def test_describe() -> None:
    def documented() -> None:
        "Words."

    assert describe(documented) == ("Words.", {})
    assert describe(functools.partial(documented)) == ("Words.", {})
    assert describe(lambda: None) == (None, {})


def test_context_types() -> None:
    class Mine(RunContext[int]): ...

    class Theirs:
        """As a class of a LiveKit session would be."""

        __module__ = "livekit.agents.voice.events"
        __qualname__ = "RunContext"

    Theirs.__name__ = "RunContext"
    assert is_context_type(RunContext)
    assert is_context_type(RunContext[int])
    for other in (Mine, int, Optional[RunContext], "RunContext", Annotated[RunContext, 1], Theirs):
        assert not is_context_type(other)
    assert is_context_type(Mine, allow_subclasses=True)
    assert is_context_type(Theirs, allow_subclasses=True)
    assert not is_context_type(int, allow_subclasses=True)
    assert not is_context_type("RunContext", allow_subclasses=True)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (int, False),
        (Optional[int], True),
        (int | None, True),
        (Union[int, str], False),
        (Any, False),
        (None, False),
        (type(None), False),
        (Annotated[int | None, 1], True),
        (Optional[RunContext], True),
    ],
)
def test_optional(hint: Any, expected: bool) -> None:
    assert is_optional_type(hint) is expected


def test_frozen_gives_copies() -> None:
    class Colour(enum.Enum):
        RED = 1

    for value in ({"a": [1, {"b": None}]}, {"a": [Colour.RED]}):
        before = copy.deepcopy(value)
        frozen = Frozen(value)
        frozen.copy()["a"].append(3)
        value["a"].append(4)
        assert frozen.copy() == before


def test_docstrings_are_read_only_when_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import docstring_parser

    monkeypatch.setattr(docstring_parser, "parse_from_object", None)
    build_plan(lambda a: a)


def test_a_default_that_json_cannot_write_may_be_asked_for() -> None:
    class Handle:
        pass

    def f(
        a: float = inf,
        b: Annotated[object, WithJsonSchema({"type": "string"})] = Handle(),
        c: int = 1,
        *more: int,
    ) -> None: ...

    plan = build_plan(f)
    assert "default" not in plan.schema["properties"]["a"]
    strict = plan.strict.copy()["properties"]
    assert strict["a"]["type"] == ["number", "null"]
    assert strict["b"]["type"] == ["string", "null"]
    assert strict["c"]["type"] == ["integer", "null"]
    assert strict["more"]["type"] == "array"
    args, _ = bind_arguments(plan, '{"a": null, "b": null, "c": null}')
    assert args[0] == inf
    assert isinstance(args[1], Handle)


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
    plan = build_plan(everything)
    assert plan.gemini is not None
    found = plan.gemini.copy()
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
    plan = build_plan(everything)
    assert plan.gemini is not None
    parameters = plan.gemini.copy()
    declared = types.FunctionDeclaration.model_validate(
        {"name": "n", "parameters": parameters}, by_alias=False, by_name=True
    )
    assert declared.parameters.properties["count"].maximum == 5


def test_the_room_calls_nothing() -> None:
    """Building a plan looks at functions without calling them."""

    def never(a: int = 1) -> None:
        raise AssertionError("called")

    build_plan(never)
    assert inspect.ismodule(schema_module)
