"""Odd schemas, as foreign software sends them: each dialect makes a valid object of each of them."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from rejoinder._core.schema_compiler import compile_schema
from rejoinder._core.schema_rules import SCHEMA_RULES


def holding(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}}


ODD: list[Any] = [
    None, True, False, [], "object", 5, {}, {"type": "null"}, {"type": "string"},
    {"type": ["object", "null"]}, {"type": "array", "items": {"type": "string"}},
    {"type": "Object", "properties": {}}, {"type": "object", "properties": []},
    {"type": "object", "properties": None}, {"type": "object", "required": True},
    {"type": "object", "required": ["b"]}, {"properties": {"a": {}}}, {"properties": {"a": None}},
    {"anyOf": [{"type": "object"}, {"type": "null"}]}, {"anyOf": []}, {"oneOf": [{}]},
    {"allOf": [holding({"type": "string"}), holding({"minLength": 2})]},
    {"not": {}}, {"enum": []}, {"enum": [1, "a", None]}, {"const": 5},
    {"$ref": "#/$defs/X"}, {"$ref": "#"}, {"$ref": "https://example.com/x.json"}, {"$ref": 5},
    {"$ref": "#/$defs/X", "$defs": {"X": holding({"$ref": "#/$defs/X"})}},
    {"$ref": "#/definitions/X", "definitions": {"X": {"type": "string"}}},
    {"$ref": "#/$defs/X", "$defs": {"X": {"$ref": "#/$defs/X"}}},
    holding({"type": "array", "items": [{"type": "string"}, {"type": "number"}]}),
    holding({"type": "array"}), holding({"type": "array", "items": False}),
    holding({"type": "number", "minimum": 1, "exclusiveMinimum": True}),
    holding({"type": "string", "required": True}), holding({"type": "any"}),
    holding({"type": ["string", "any"]}), holding({"type": []}), holding({"type": "str"}),
    holding({"type": "string", "enum": []}), holding({"enum": ["", None, {}, [1]]}),
    holding({"type": "string", "pattern": "(?=x)("}), holding({"format": 5}),
    holding({"type": "string", "minLength": -1}), holding({"multipleOf": 0}),
    holding({"description": 5, "title": [], "default": float("nan")}),
    holding({"additionalProperties": "yes", "patternProperties": []}),
    {"type": "object", "properties": {"": {}, "a b": {}, "$ref": {"type": "string"}, "é": {}}},
    {"type": "object", "properties": {"x" * 200: {"type": "string"}}, "required": "x"},
    {"type": "object", "dependencies": {"a": ["b"]}, "if": {}, "then": {}, "$id": "x", "$schema": 1},
]  # fmt: skip


@pytest.mark.parametrize("dialect", SCHEMA_RULES)
@pytest.mark.parametrize("number", range(len(ODD)))
def test_each_dialect_makes_a_valid_object_of_it(number: int, dialect: str) -> None:
    before = repr(ODD[number])
    schema = compile_schema(ODD[number], dialect).schema
    assert schema["type"] == "object"
    jsonschema.Draft202012Validator.check_schema(schema)
    json.dumps(schema, allow_nan=False)
    assert repr(ODD[number]) == before
