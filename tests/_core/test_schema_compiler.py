"""Whatever schema goes in, what comes out is taken; and it accepts what the given one accepted."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from _core.schema_checkers import CHECKERS, nodes, valid
from examples import examples
from rejoinder._core.fitting import Fitter
from rejoinder._core.json_schema import MAX_DEPTH, MAX_SCHEMAS, Changes, tidy
from rejoinder._core.schema_compiler import compile_schema
from rejoinder._core.schema_rules import SCHEMA_RULES
from rejoinder._core.schema_shape import cycles, too_large_for_strict

DIALECTS = sorted(CHECKERS)

# -- arbitrary schemas

names = st.sampled_from(["a", "b", "$filter", "kind", "x y", "naïve", "required", "type", "1"])
leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
json_values = st.recursive(
    leaf,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
kinds = st.sampled_from(
    ["object", "array", "string", "integer", "number", "boolean", "null", "any", "int", "STRING", 5]
)
refs = st.sampled_from(
    [
        *("#", "#/$defs/A", "#/$defs/B", "#/definitions/C", "#/properties/a", "#/nowhere"),
        *("other.json", "#anchor", "", "#/items/0", "#/anyOf/0", 7),
    ]
)


def schemas_of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    named = st.dictionaries(names, inner, max_size=3)
    several = st.lists(inner, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": kinds | st.lists(kinds, max_size=3),
            "properties": named | st.just([]),
            "required": st.lists(names, max_size=2) | st.booleans(),
            "items": inner | several,
            "additionalItems": inner,
            "prefixItems": several,
            "additionalProperties": inner | st.booleans(),
            "patternProperties": named,
            "anyOf": several,
            "oneOf": several,
            "allOf": several,
            "not": inner,
            "if": inner,
            "$ref": refs,
            "$defs": st.dictionaries(st.sampled_from("AB"), inner, max_size=2),
            "definitions": st.dictionaries(st.sampled_from("CD"), inner, max_size=2),
            "$anchor": st.just("anchor"),
            "enum": st.lists(json_values, max_size=3),
            "const": json_values,
            "default": json_values,
            "minimum": st.integers() | st.booleans() | st.text(max_size=2),
            "exclusiveMinimum": st.booleans() | st.integers(),
            "minLength": st.integers(-1, 5) | st.floats(),
            "pattern": st.sampled_from(["^a", "(?=x)", "["]),
            "format": st.sampled_from(["uri", "date", "date-time", "path"]),
            "uniqueItems": st.booleans(),
            "minItems": st.integers(0, 3),
            "description": st.text(max_size=5) | st.integers(),
            "title": st.text(max_size=3),
            "nullable": st.booleans(),
            "dependencies": st.dictionaries(names, st.lists(names, max_size=2) | inner, max_size=2),
            "x-extra": json_values,
            "discriminator": json_values,
        },
    )


hostile = st.recursive(
    st.booleans() | st.just({}) | leaf | refs.map(lambda ref: {"$ref": ref}), schemas_of, max_leaves=12
)  # fmt: skip


# Drawing a schema takes longer than compiling it for all dialects.
@examples(180)
@given(schema=hostile)
@example({"items": {"$ref": "#", "type": "array"}})
@example({"items": {"$ref": "#", "properties": {"$a": {"$ref": "#/$defs/A"}}}, "$defs": {"A": {}}})
def test_what_is_sent_is_taken(schema: Any) -> None:
    for dialect in DIALECTS:
        compiled = compile_schema(schema, dialect)
        assert CHECKERS[dialect](compiled.schema) == "", dialect
        json.dumps(compiled.schema, allow_nan=False)


@examples(100)
@given(hostile)
def test_tidy_is_valid(schema: Any) -> None:
    before = repr(schema)
    assert valid(tidy(schema, Changes())) == ""
    assert repr(schema) == before


# -- schemas that mean something

plain_names = st.sampled_from(["a", "b", "kind", "$filter"])


def sound_of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(
            lambda properties, required, closed: {
                "type": "object",
                "properties": properties,
                "required": [name for name in properties if name in required],
                **({"additionalProperties": False} if closed else {}),
            },
            st.dictionaries(plain_names, inner, max_size=3),
            st.sets(plain_names),
            st.booleans(),
        ),
        st.builds(lambda items, n: {"type": "array", "items": items, "maxItems": n}, inner, st.integers(1, 3)),
        st.builds(lambda members: {"anyOf": members}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda values: {"type": "object", "additionalProperties": values}, inner),
        st.builds(lambda head, rest: {"type": "array", "items": [head], "additionalItems": rest}, inner, inner),
    )  # fmt: skip


sound = st.recursive(
    st.sampled_from(
        [
            {"type": "string"},
            {"type": "string", "minLength": 1, "format": "uri"},
            {"type": "integer", "minimum": 1, "exclusiveMinimum": True},
            {"type": ["integer", "null"]},
            {"enum": ["x", "", 1, None]},
            {"enum": ["x", "y"]},
            {"const": "x"},
            {"type": "boolean"},
            {},
            {"$ref": "#/$defs/Node"},
        ]
    ),
    sound_of,
    max_leaves=8,
)
ROOT = st.builds(
    lambda properties, required: {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name in required],
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {"n": {"type": "integer"}, "next": {"$ref": "#/$defs/Node"}},
            }
        },
    },
    st.dictionaries(plain_names, sound, max_size=4),
    st.sets(plain_names),
)

# What is closed or demands every key accepts less on purpose; those dialects are for replies and for
# schemas that say the same in them.
LOOSE = [name for name in DIALECTS if not SCHEMA_RULES[name].closed]


def draw_value(data: st.DataObject, schema: Any, root: Any, depth: int = 0) -> Any:
    """A value that `schema` accepts."""
    if "$ref" in schema:
        schema = root["$defs"]["Node"]
    if "anyOf" in schema:
        return draw_value(data, data.draw(st.sampled_from(schema["anyOf"])), root, depth + 1)
    if "enum" in schema:
        return data.draw(st.sampled_from(schema["enum"]))
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = data.draw(st.sampled_from(kind))
    match kind:
        case "string":
            return data.draw(st.text(min_size=1, max_size=3))
        case "integer":
            return data.draw(st.integers(2, 9))
        case "boolean":
            return data.draw(st.booleans())
        case "null":
            return None
        case "object":
            value: dict[str, Any] = {}
            for name, child in schema.get("properties", {}).items():
                if name in schema.get("required", ()) or (depth < 5 and data.draw(st.booleans())):
                    value[name] = draw_value(data, child, root, depth + 1)
            rest = schema.get("additionalProperties")
            if isinstance(rest, dict) and depth < 5:
                value["free"] = draw_value(data, rest, root, depth + 1)
            return value
        case "array":
            items = schema["items"]
            head = [draw_value(data, items[0], root, depth + 1)] if isinstance(items, list) else []
            if depth < 5 and not head and data.draw(st.booleans()):
                head = [draw_value(data, items, root, depth + 1)]
            return head
        case _:
            return data.draw(json_values.filter(lambda held: held == held))


@examples(150)
@given(schema=ROOT, data=st.data())
def test_what_was_accepted_still_is_and_comes_back(schema: Any, data: st.DataObject) -> None:
    """A value for the given schema, as a model writes it by the one that is sent, is the value."""
    value = draw_value(data, schema, schema)
    tidied = tidy(schema, Changes())
    for dialect in LOOSE:
        compiled = compile_schema(schema, dialect).schema
        assert CHECKERS[dialect](compiled) == "", dialect
        written = as_sent(value, schema, schema, compiled)
        jsonschema.Draft202012Validator(compiled).validate(written)
        fitted, _ = Fitter(tidied).fit(json.loads(json.dumps(written)))
        if "[" not in json.dumps(written).replace("[]", "") and "{}" not in json.dumps(written):
            jsonschema.Draft202012Validator(tidied).validate(fitted)


def as_sent(value: Any, schema: Any, root: Any, compiled: Any) -> Any:
    """The value under the names of the compiled schema."""
    if isinstance(value, dict):
        renamed = "$filter" not in json.dumps(compiled)
        return {
            ("filter" if key == "$filter" and renamed else key): as_sent(
                held, schema, root, compiled
            )
            for key, held in value.items()
        }
    if isinstance(value, list):
        return [as_sent(held, schema, root, compiled) for held in value]
    return value


# -- what is known of real schemas


def compiled(schema: Any, dialect: str) -> Any:
    return compile_schema(schema, dialect).schema


@pytest.mark.parametrize(
    ("given", "tidied"),
    [
        # older drafts, and none
        ({"items": [{"type": "string"}], "additionalItems": False}, {"prefixItems": [{"type": "string"}], "items": {"not": {}}}),
        ({"minimum": 1, "exclusiveMinimum": True}, {"exclusiveMinimum": 1}),
        ({"minimum": 1, "exclusiveMinimum": False}, {"minimum": 1}),
        ({"properties": {"a": {"type": "string", "required": True}}}, {"properties": {"a": {"type": "string"}}, "required": ["a"]}),
        ({"type": "object", "properties": []}, {"type": "object", "properties": {}}),
        ({"type": "any"}, {}),
        ({"type": ["string", "any"]}, {}),
        ({"type": "STRING"}, {"type": "string"}),
        ({"type": ["string", "string"]}, {"type": "string"}),
        ({"type": ["string", {"type": "object"}]}, {"anyOf": [{"type": "string"}, {"type": "object"}]}),
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "string", "enum": ["a"], "nullable": True}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"divisibleBy": 2}, {"multipleOf": 2}),
        ({"extends": {"type": "object"}}, {"allOf": [{"type": "object"}]}),
        ({"dependencies": {"a": ["b"], "c": {"minProperties": 1}}}, {"dependentRequired": {"a": ["b"]}, "dependentSchemas": {"c": {"minProperties": 1}}}),
        ({"required": "a"}, {"required": ["a"]}),
        ({"enum": []}, {}),
        ({"enum": ["a", "a", 1, 1.0, True]}, {"enum": ["a", 1, 1.0, True]}),
        ({"minLength": "3"}, {"minLength": 3}),
        ({"minLength": -1, "pattern": "[", "minimum": float("nan")}, {}),
        ({"default": float("inf"), "title": 5}, {}),
        (True, {}),
        (False, {"not": {}}),
        (None, {}),
        # references
        ({"items": {"$ref": "#/definitions/A"}, "definitions": {"A": {"type": "string"}}}, {"items": {"$ref": "#/$defs/A"}, "$defs": {"A": {"type": "string"}}}),
        ({"items": {"$ref": "#here"}, "not": {"$anchor": "here", "type": "null"}}, {"items": {"$ref": "#/$defs/here"}, "not": {"type": "null"}, "$defs": {"here": {"type": "null"}}}),
        ({"items": {"$ref": "https://e.com/x"}}, {"items": {}}),
        ({"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#/$defs/Root"}}, "$defs": {"Root": {"properties": {"a": {"$ref": "#/$defs/Root"}}}}}),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}}, {"$ref": "#/$defs/A", "$defs": {"A": {}, "B": {"$ref": "#/$defs/A"}}}),
        ({"items": {"$ref": "#/$defs/a%20b"}, "$defs": {"a b": {"type": "null"}}}, {"items": {"$ref": "#/$defs/a_b"}, "$defs": {"a_b": {"type": "null"}}}),
    ],
)  # fmt: skip
def test_tidy(given: Any, tidied: Any) -> None:
    out = tidy(given, Changes())
    assert list_order_free(out) == list_order_free(tidied)
    assert valid(out) == ""


def list_order_free(schema: Any) -> str:
    return json.dumps(schema, sort_keys=True)


UNION = {
    "type": "object",
    "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
    "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_union_at_the_root_becomes_an_object_and_is_told(dialect: str) -> None:
    out = compile_schema(UNION, dialect)
    assert out.schema["properties"].keys() == {"a", "b"}
    assert out.schema["description"] == "(give one of: a | b)"
    assert "anyOf" in str(out)


def test_objects_of_a_union_at_the_root_are_united() -> None:
    variants = [
        {"type": "object", "properties": {"kind": {"const": "x"}, "n": {"type": "integer"}}, "required": ["kind", "n"]},
        {"type": "object", "properties": {"kind": {"const": "y"}, "n": {"type": "string"}}, "required": ["kind"]},
    ]  # fmt: skip
    out = compiled({"oneOf": variants}, "openai")
    assert out["properties"] == {
        "kind": {"type": "string", "enum": ["x", "y"]},
        "n": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    }
    assert out["required"] == ["kind"]


@pytest.mark.parametrize(
    ("dialect", "given", "property_a"),
    [
        ("openai", {"type": "array"}, {"type": "array", "items": {}}),
        ("openai.strict", {"type": "string", "format": "uri"}, {"type": ["string", "null"], "description": "(format: uri)"}),
        ("openai.strict", {"type": "string", "format": "date"}, {"type": ["string", "null"], "format": "date"}),
        ("openai.strict", {"type": "string", "minLength": 1, "description": "d"}, {"type": ["string", "null"], "description": "d (minLength: 1)"}),
        ("openai.strict", {"type": "string", "pattern": "(?=a)"}, {"type": ["string", "null"], "description": "(pattern: (?=a))"}),
        ("anthropic.strict", {"type": "integer", "minimum": 1}, {"type": "integer", "description": "(minimum: 1)"}),
        ("gemini", {"enum": ["", "x"]}, {"type": "string", "description": '(one of "", "x")'}),
        ("gemini", {"const": "x"}, {"type": "string", "enum": ["x"]}),
        ("gemini", {"enum": ["x", 1, None]}, {"anyOf": [{"type": "string", "enum": ["x"]}, {"type": "integer", "enum": [1]}, {"type": "null"}]}),
        ("gemini", {"oneOf": [{"type": "string"}, {"type": "null"}]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ("gemini", {"allOf": [{"type": "integer", "minimum": 1}, {"minimum": 3, "maximum": 5}]}, {"type": "integer", "minimum": 3, "maximum": 5}),
        ("kimi", {"description": "d"}, None),
        ("kimi", {"type": ["string", "null"], "minLength": 1}, {"anyOf": [{"type": "string", "description": "(minLength: 1)"}, {"type": "null"}]}),
        ("kimi", {"type": "object", "properties": {"x": {"type": "string"}}, "anyOf": [{"required": ["x"]}]}, {"anyOf": [{"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}]}),
    ],
)  # fmt: skip
def test_what_a_dialect_cannot_say(dialect: str, given: Any, property_a: Any) -> None:
    out = compiled({"type": "object", "properties": {"a": given}}, dialect)
    assert CHECKERS[dialect](out) == ""
    if property_a is not None:
        assert out["properties"]["a"] == property_a


def test_references_with_something_beside_them() -> None:
    schema = {
        "properties": {
            "told": {"$ref": "#/$defs/A", "description": "d"},
            "limited": {"$ref": "#/$defs/A", "maxLength": 3},
        },
        "$defs": {"A": {"type": "string", "description": "an A"}},
    }
    told = {"$ref": "#/$defs/A", "description": "d"}
    limited = {"type": "string", "description": "an A", "maxLength": 3}
    assert compiled(schema, "gemini")["properties"] == {"told": told, "limited": limited}
    assert compiled(schema, "openai")["properties"] == schema["properties"]
    inlined = {"type": "string", "description": "d"}
    assert compiled(schema, "kimi")["properties"]["told"] == inlined


def test_a_reference_and_what_stands_beside_it_both_hold() -> None:
    a = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}
    beside = {"properties": {"y": {"type": "integer"}}, "required": ["y"]}
    both = {"properties": {**a["properties"], **beside["properties"]}, "required": ["x", "y"]}
    at_root = {"$ref": "#/$defs/A", **beside, "$defs": {"A": a}}
    below = {"properties": {"p": {"$ref": "#/$defs/A", **beside}}, "$defs": {"A": a}}
    for dialect in DIALECTS:
        root = compiled(at_root, dialect)
        assert {key: root[key] for key in both} == both
        inside = compiled(below, dialect)
        for accepted, value in ((True, {"x": "", "y": 1}), (False, {"y": 1}), (False, {"x": ""})):
            assert jsonschema.Draft202012Validator(inside).is_valid({"p": value}) is accepted
    contrary = {"$ref": "#/$defs/A", "enum": ["y"], "$defs": {"A": {"enum": ["x"]}}}
    out = compile_schema({"properties": {"p": contrary}, **contrary}, "openai.strict")
    assert "left out `enum`, which stands beside a reference" in str(out)


def test_recursion() -> None:
    node = {
        "type": "object",
        "properties": {"next": {"$ref": "#/$defs/Node"}, "value": {"type": "integer"}},
        "required": ["next", "value"],
    }
    schema = {
        "properties": {"head": {"$ref": "#/$defs/Node"}},
        "required": ["head"],
        "$defs": {"Node": node},
    }
    for dialect in DIALECTS:
        head = compiled(schema, dialect)["properties"]["head"]
        if SCHEMA_RULES[dialect].recursion:
            assert head == {"$ref": "#/$defs/Node"}
        else:
            inner = head["properties"]["next"]["properties"]["next"]
            assert inner["properties"]["next"]["properties"] == {}
            assert inner["properties"]["value"] == {"type": "integer"}
    # Gemini unrolls cycles, and only through properties that may be left out.
    out = compile_schema(schema, "gemini")
    assert out.schema["$defs"]["Node"]["required"] == ["value"]
    assert out.schema["required"] == ["head"]
    assert "optional" in str(out)


END = {"type": "object", "properties": {}, "additionalProperties": False}


@pytest.mark.parametrize(
    ("node", "end"),
    [
        # optional, or one kind among others: left out
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/N"}, "v": {"type": "string"}}}, {"type": "object", "properties": {"v": {"type": "string"}}}),
        ({"anyOf": [{"type": "string"}, {"type": "array", "items": {"$ref": "#/$defs/N"}}, {"$ref": "#/$defs/N"}]}, {"anyOf": [{"type": "string"}, {"type": "array", "items": END}]}),
        # a list of them: an empty one
        ({"type": "object", "properties": {"c": {"type": "array", "items": {"$ref": "#/$defs/N"}}}, "required": ["c"]}, {"type": "object", "properties": {"c": {"type": "array", "items": END}}, "required": ["c"]}),
        ({"type": "object", "properties": {"c": {"anyOf": [{"$ref": "#/$defs/N"}, {"type": "null"}]}}, "required": ["c"]}, {"type": "object", "properties": {"c": {"anyOf": [{"type": "null"}]}}, "required": ["c"]}),
        # demanded
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/N"}}, "required": ["a"]}, END),
    ],
)  # fmt: skip
def test_where_recursion_ends(node: Any, end: Any) -> None:
    """What a value without end needs is left out; the rest may still be said."""
    schema = {"properties": {"n": {"$ref": "#/$defs/N"}}, "$defs": {"N": node}}
    out = compile_schema(schema, "anthropic.strict")
    assert CHECKERS["anthropic.strict"](out.schema) == ""
    wanted = compiled({"properties": {"n": end}}, "anthropic.strict")["properties"]["n"]
    found = [part for _, part in nodes(out.schema["properties"]["n"]) if part == wanted]
    assert found
    assert "ends here" in str(out)


@pytest.mark.parametrize("dialect", LOOSE)
def test_keys_that_follow_a_pattern_can_still_be_given(dialect: str) -> None:
    texts, numbers = {"type": "string"}, {"type": "number"}
    for schema, wanted in (
        ({"patternProperties": {"^s": texts}, "additionalProperties": False}, {"s": "x"}),
        ({"patternProperties": {"^s": texts, "^n": numbers}, "additionalProperties": False}, {"n": 1}),
        ({"patternProperties": {"^s": texts}, "additionalProperties": numbers}, {"s": "x", "n": 1}),
        ({"patternProperties": {"^s": texts}}, {"s": "x", "b": True}),
    ):  # fmt: skip
        out = compiled({"type": "object", **schema}, dialect)
        assert CHECKERS[dialect](out) == ""
        assert jsonschema.Draft202012Validator(out).is_valid(wanted)


def test_names_of_properties() -> None:
    schema = {
        "properties": {"$filter": {"type": "string"}, "filter": {"type": "string"}, "ok": {}},
        "required": ["$filter"],
    }
    out = compiled(schema, "anthropic")
    (renamed,) = out["required"]
    assert renamed.startswith("filter_")
    assert out["properties"].keys() == {renamed, "filter", "ok"}
    fitted, _ = Fitter(tidy(schema, Changes())).fit({renamed: "a", "filter": "b"})
    assert fitted == {"$filter": "a", "filter": "b"}


# -- sizes and work


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"enum": [str(n) for n in range(1000)]}, None),
        ({"enum": [str(n) for n in range(1001)]}, "more than 1000 enum values"),
        (
            {"enum": ["x" * 61 + str(n) for n in range(251)]},
            "more than 15000 characters in one enum",
        ),
        ({"enum": ["x" * 100 + str(n) for n in range(250)]}, None),
        ({"properties": {str(n): {} for n in range(5001)}}, "more than 5000 properties"),
        ({"properties": {"x" * 120_001: {}}}, "more than 120000 characters in names and values"),
    ],
)
def test_published_sizes(schema: Any, why: str | None) -> None:
    assert too_large_for_strict(schema) == why


def test_published_depth() -> None:
    def nested(levels: int) -> Any:
        schema: Any = {"type": "string"}
        for _ in range(levels):
            schema = {"type": "object", "properties": {"x": schema}}
        return schema

    assert too_large_for_strict(nested(9)) is None
    assert too_large_for_strict(nested(11)) == "more than 10 levels"
    recursive = {
        "properties": {"a": {"$ref": "#/$defs/A"}},
        "$defs": {"A": {"properties": {"b": {"items": {"$ref": "#/$defs/A"}}}}},
    }
    assert too_large_for_strict(recursive) is None


def wide(n: int) -> Any:
    return {"properties": {str(i): {"type": "string"} for i in range(n)}}


def deep(n: int) -> Any:
    schema: Any = {}
    for _ in range(n):
        schema = {"items": schema}
    return {"properties": {"x": schema}}


def chained(n: int) -> Any:
    """Each definition refers to the next one twice, with something beside."""
    definitions = {
        str(i): {
            "properties": {
                side: {"$ref": f"#/$defs/{(i + 1) % n}", "maxProperties": 5} for side in "ab"
            }
        }
        for i in range(n)
    }
    return {"$ref": "#/$defs/0", "$defs": definitions}


def conjoined(n: int) -> Any:
    part = {"$ref": "#/$defs/P"}
    properties = {"x": {"allOf": [part, {"properties": {"y": {"allOf": [part] * 3}}}]}}
    return {
        "allOf": [{"properties": properties}] * n,
        "$defs": {"P": {"allOf": [{"properties": properties}]}},
    }


def united(n: int) -> Any:
    return {
        "properties": {
            "x": {
                "properties": {str(i): {} for i in range(n)},
                "anyOf": [{"required": [str(i)]} for i in range(n)],
            }
        }
    }


def many_values(n: int) -> Any:
    return {"properties": {"x": {"enum": list(range(n)), "default": [[i] for i in range(n)]}}}


SHAPES = [wide, deep, chained, conjoined, united, many_values]


@pytest.mark.parametrize("dialect", ["openai", "anthropic.strict", "gemini", "kimi"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_work_is_bounded(shape: Callable[[int], Any], dialect: str) -> None:
    """Twice the schema is at most twice the work, up to a limit that is told."""
    small, large, huge = (events(shape(n), dialect) for n in (200, 400, 5000))
    assert large < 2.6 * small + 20_000
    assert huge < 2_500_000


def events(schema: Any, dialect: str) -> int:
    count = 0

    def see(frame: object, event: str, arg: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(see)
    try:
        compile_schema(schema, dialect)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_these_shapes_are_taken(shape: Callable[[int], Any], dialect: str) -> None:
    assert CHECKERS[dialect](compiled(shape(12), dialect)) == ""


def test_limits_name_themselves() -> None:
    assert f"{MAX_SCHEMAS} schemas at most" in str(compile_schema(wide(MAX_SCHEMAS + 5), "openai"))
    assert f"the limit is {MAX_DEPTH} levels" in str(compile_schema(deep(100), "openai"))
    twice = {
        "properties": {str(i): {"$ref": "#/$defs/A", "default": {}} for i in range(100)},
        "$defs": {"A": wide(60)},
    }
    assert "5000 schemas at most are written" in str(compile_schema(twice, "kimi").changes[-1])


def test_a_schema_that_holds_itself() -> None:
    schema: dict[str, Any] = {"properties": {}}
    schema["properties"]["me"] = schema
    for dialect in DIALECTS:
        assert CHECKERS[dialect](compiled(schema, dialect)) == ""


def test_cycles_are_found() -> None:
    def refers(*others: str) -> Any:
        return {"anyOf": [{"$ref": f"#/$defs/{other}"} for other in others]}

    ring = {
        "a": refers("b", "x"),
        "b": refers("c"),
        "c": refers("a", "x"),
        "x": refers("y"),
        "y": {},
    }
    found = cycles({**ring, "self": refers("self", "a")})
    assert found.keys() == {"a", "b", "c", "self"}
    assert found["a"] == found["b"] == found["c"] != found["self"]
