"""Strict checkers of the schemas that each maker takes, written from the published rules and from
recorded refusals, and from nothing in the package.

Each returns the first thing that would be refused, or an empty text.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema

NINE = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
NAMED = ("properties", "patternProperties", "dependentSchemas", "$defs")
SINGLE = ("items", "additionalProperties", "not", "if", "then", "else", "contains")
SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")
UNIONS = ("anyOf", "oneOf", "allOf", "enum", "not")


def nodes(schema: Any, path: str = "$") -> Iterator[tuple[str, Any]]:
    """Every schema inside `schema`, itself first."""
    yield path, schema
    if not isinstance(schema, dict):
        return
    for key in NAMED:
        for name, child in schema.get(key, {}).items():
            yield from nodes(child, f"{path}.{key}.{name}")
    for key in SINGLE:
        if key in schema:
            yield from nodes(schema[key], f"{path}.{key}")
    for key in SEVERAL:
        for index, child in enumerate(schema.get(key, ())):
            yield from nodes(child, f"{path}.{key}[{index}]")


def apart(schema: Any) -> tuple[Any, list[Any]]:
    """The schema with ``True`` in the place of each schema inside it, and those."""
    if not isinstance(schema, dict):
        return schema, []
    alone, inner = dict(schema), list[Any]()
    for key, value in schema.items():
        if key in NAMED and isinstance(value, dict):
            inner += value.values()
            alone[key] = dict.fromkeys(value, True)
        elif key in SEVERAL and isinstance(value, list):
            inner += value
            alone[key] = [True] * len(value)
        elif key in SINGLE:
            inner.append(value)
            alone[key] = True
    return alone, inner


@functools.lru_cache(maxsize=20_000)
def wrong_alone(schema: str) -> str:
    """What 2020-12 says against one schema without those inside it. A cycle that is unrolled holds the
    same few thousands of times, and the check takes a millisecond."""
    try:
        jsonschema.Draft202012Validator.check_schema(json.loads(schema))
    except jsonschema.SchemaError as error:
        return str(error)
    return ""


def valid(schema: Any) -> str:
    """2020-12, and each reference leads to a definition of the root."""
    waiting = [schema]
    while waiting:
        alone, inner = apart(waiting.pop())
        if wrong := wrong_alone(json.dumps(alone)):
            return wrong
        waiting += inner
    for path, node in nodes(schema):
        if isinstance(node, dict) and "$ref" in node:
            start, _, name = node["$ref"].rpartition("/")
            if start != "#/$defs" or name not in schema.get("$defs", {}):
                return f"{path}: {node['$ref']} leads nowhere"
        if isinstance(node, dict) and path != "$" and "$defs" in node:
            return f"{path}: $defs below the root"
    return ""


def object_root(schema: Any) -> str:
    if schema.get("type") != "object":
        return "schema must have type 'object'"
    if any(key in schema for key in UNIONS):
        return "unions at the root"
    return "" if isinstance(schema.get("properties"), dict) else "object schema missing properties"


def each(schema: Any, rule: Callable[[dict[str, Any]], str]) -> str:
    for path, node in nodes(schema):
        if isinstance(node, dict) and (wrong := rule(node)):
            return f"{path}: {wrong} in {node}"
    return ""


def has(node: dict[str, Any], kind: str) -> bool:
    kinds = node.get("type", ())
    return kind in ([kinds] if isinstance(kinds, str) else kinds)


def items(node: dict[str, Any]) -> str:
    missing = has(node, "array") and not {"items", "prefixItems"} & node.keys()
    return "array schema missing items" if missing else ""


def openai(schema: Any) -> str:
    return valid(schema) or object_root(schema) or each(schema, items)


def openai_strict(schema: Any) -> str:
    known = {"type", "description", "properties", "required", "items", "enum", "const", "anyOf"}
    known |= {"additionalProperties", "$ref", "$defs", "pattern", "format", "minItems", "maxItems"}
    known |= {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}

    def rule(node: dict[str, Any]) -> str:
        if strange := node.keys() - known:
            return f"{strange} is not permitted"
        if "$ref" in node and node.keys() - {"$ref", "$defs"}:
            return "$ref cannot have keywords beside it"
        if "properties" in node or has(node, "object"):
            if node.get("additionalProperties") is not False:
                return "additionalProperties is required to be false"
            if set(node.get("required", ())) != set(node.get("properties", {})):
                return "required is required to include every key"
        if node.get("format", "date") not in NINE:
            return "not a valid format"
        if re.search(r"\(\?[=!<]", node.get("pattern", "")):
            return "lookaround is not supported"
        return ""

    return openai(schema) or each(schema, rule)


def anthropic(schema: Any) -> str:
    def rule(node: dict[str, Any]) -> str:
        for name in node.get("properties", {}):
            if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", name):
                return f"property keys should match the pattern, got {name!r}"
        return ""

    return valid(schema) or object_root(schema) or each(schema, rule)


def anthropic_strict(schema: Any) -> str:
    known = {"type", "description", "title", "properties", "required", "items", "enum", "const"}
    known |= {"anyOf", "additionalProperties", "$ref", "$defs", "pattern", "format", "default"}
    known |= {"examples"}

    def rule(node: dict[str, Any]) -> str:
        if strange := node.keys() - known:
            return f"{strange} is not supported"
        if has(node, "object") and node.get("additionalProperties") is not False:
            return "additionalProperties must be false"
        if node.get("format", "date") not in NINE | {"uri"}:
            return "format is not supported"
        return ""

    return anthropic(schema) or each(schema, rule) or recursion(schema)


def recursion(schema: Any) -> str:
    """The definition that leads back to itself."""
    edges = {
        name: {
            node["$ref"].rpartition("/")[2]
            for _, node in nodes(body)
            if isinstance(node, dict) and "$ref" in node
        }
        for name, body in schema.get("$defs", {}).items()
    }
    for start in edges:
        reached, waiting = set[str](), [start]
        while waiting:
            for other in edges.get(waiting.pop(), ()):
                if other == start:
                    return f"{start} is recursive"
                if other not in reached:
                    reached.add(other)
                    waiting.append(other)
    return ""


def gemini(schema: Any) -> str:
    known = {"$ref", "$defs", "type", "format", "title", "description", "enum", "items", "default"}
    known |= {"prefixItems", "minItems", "maxItems", "minimum", "maximum", "anyOf", "properties"}
    known |= {"additionalProperties", "required"}
    passed_over = {"pattern", "minLength", "maxLength", "exclusiveMinimum", "exclusiveMaximum"}
    passed_over |= {"multipleOf"}

    def rule(node: dict[str, Any]) -> str:
        if strange := node.keys() - known - passed_over:
            return f"{strange} is not known"
        if "$ref" in node and node.keys() - {"$ref", "description", "default"}:
            return "beside $ref"
        for member in node.get("enum", ()):
            if (
                member == ""
                or isinstance(member, bool)
                or not isinstance(member, str | int | float)
            ):
                return f"enum holds {member!r}"
        if any(name not in node["properties"] for name in node.get("required", ())):
            return "required: property is not defined"
        return ""

    return valid(schema) or object_root(schema) or each(schema, rule)


def kimi(schema: Any) -> str:
    known = {"$ref", "$defs", "type", "description", "default", "enum", "items", "anyOf"}
    known |= {"properties", "additionalProperties", "required"}

    def rule(node: dict[str, Any]) -> str:
        if strange := node.keys() - known:
            return f"{strange} is not supported"
        if "anyOf" in node and "type" in node:
            return "type should be defined in anyOf items instead of the parent schema"
        if "$ref" in node:
            return "conflicting keywords after $ref" if len(node) > 1 else ""
        if "anyOf" not in node and not isinstance(node.get("type"), str):
            return "type is not defined"
        members = node.get("enum", ())
        if len({type(member) for member in members} - {int, float}) > 1 or any(
            not isinstance(member, str | int | float) or isinstance(member, bool)
            for member in members
        ):
            return "enum members must be of one type"
        return ""

    return valid(schema) or object_root(schema) or each(schema, rule)


CHECKERS: dict[str, Callable[[Any], str]] = {
    "plain": openai,
    "openai": openai,
    "openai.strict": openai_strict,
    "mistral": openai,
    "mistral.strict": openai_strict,
    "anthropic": anthropic,
    "anthropic.strict": anthropic_strict,
    "bedrock": anthropic,
    "bedrock.strict": anthropic_strict,
    "gemini": gemini,
    "kimi": kimi,
}
