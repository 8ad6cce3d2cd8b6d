"""JSON schemas as the ``Schema`` object of the Gemini API, its first way to describe arguments and
replies, and the only one of its Live API. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from rejoinder._core.strict import Schema, resolve_ref

__all__ = ["gemini_schema"]

_KEYS: Final = {
    "description": "description",
    "pattern": "pattern",
    "minimum": "minimum",
    "maximum": "maximum",
    "minItems": "min_items",
    "maxItems": "max_items",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minProperties": "min_properties",
    "maxProperties": "max_properties",
}
_FORMATS: Final = frozenset(
    {"date-time", "enum", "float", "double", "int32", "int64"}
)  # every other one is refused by the API


def gemini_schema(schema: Mapping[str, Any]) -> Schema | None:
    """The ``Schema`` object of the Gemini API for a plain JSON schema, or ``None`` for an object
    without properties.

    Raises:
        ValueError: the dialect cannot express it: recursion, free keys, "anything".
    """
    out = _schema(schema, schema, "$", frozenset())
    return out if out.get("type") != "OBJECT" or "properties" in out else None


def _schema(node: object, root: Mapping[str, Any], path: str, inside: frozenset[str]) -> Schema:
    if not isinstance(node, Mapping):
        raise ValueError(f"JSON schema at {path}: Gemini cannot express {node!r}")
    source = dict(cast("Mapping[str, Any]", node))
    all_of = source.pop("allOf", None)
    if all_of is not None:
        if len(all_of) != 1:
            raise ValueError(f"JSON schema at {path}: Gemini has no `allOf`")
        source = {**all_of[0], **source}
    ref = source.pop("$ref", None)
    if ref is not None:
        if ref in inside:
            raise ValueError(f"JSON schema at {path}: Gemini cannot express the recursion of {ref}")
        target = resolve_ref(root=root, ref=ref)
        return _schema({**target, **source}, root, path, inside | {ref})

    out: Schema = {}
    for key, name in _KEYS.items():
        if key in source:
            out[name] = source[key]
    kinds = source.get("type")
    if isinstance(kinds, list):
        kinds = list(cast("list[str]", kinds))
        if "null" in kinds:
            out["nullable"] = True
            kinds.remove("null")
        if len(kinds) != 1:
            out["any_of"] = [{"type": kind.upper()} for kind in kinds]
            return out
        kinds = kinds[0]

    variants = source.get("anyOf", source.get("oneOf"))
    if isinstance(variants, list):
        return _union(cast("list[Any]", variants), out, root, path, inside)

    values = [source["const"]] if "const" in source else source.get("enum")
    if isinstance(values, list):
        return _enum(cast("list[Any]", values), out)
    if kinds is None:
        raise ValueError(f"JSON schema at {path}: Gemini cannot express a value of any type")
    out["type"] = kinds.upper()
    if source.get("format") in _FORMATS:
        out["format"] = source["format"]
    if kinds == "integer":
        if isinstance(above := source.get("exclusiveMinimum"), int):
            out["minimum"] = above + 1
        if isinstance(below := source.get("exclusiveMaximum"), int):
            out["maximum"] = below - 1
    if kinds == "array":
        if "items" not in source or "prefixItems" in source:
            raise ValueError(f"JSON schema at {path}: Gemini requires one type for all items")
        out["items"] = _schema(source["items"], root, f"{path}[]", inside)
    if kinds == "object":
        properties = source.get("properties")
        if properties:
            out["properties"] = {
                name: _schema(child, root, f"{path}.{name}", inside)
                for name, child in properties.items()
            }
            required = [name for name in source.get("required", ()) if name in properties]
            if required:
                out["required"] = required
        elif path != "$" or source.get("additionalProperties"):
            raise ValueError(f"JSON schema at {path}: Gemini cannot express free keys")
    return out


def _union(
    variants: list[Any], out: Schema, root: Mapping[str, Any], path: str, inside: frozenset[str]
) -> Schema:
    others = [variant for variant in variants if variant.get("type") != "null"]
    if len(others) < len(variants):
        out["nullable"] = True
    parts = [_schema(v, root, f"{path}.anyOf[{i}]", inside) for i, v in enumerate(others)]
    if len(parts) == 1:
        return {**parts[0], **out}
    if parts:
        out["any_of"] = parts
    else:
        out["type"] = "NULL"
    return out


def _enum(values: list[Any], out: Schema) -> Schema:
    if None in values:
        out["nullable"] = True
        values = [value for value in values if value is not None]
    if "" in values:
        raise ValueError("JSON schema: Gemini accepts no empty string in an enum")
    if all(isinstance(value, str) for value in values):
        out["type"] = "STRING"
        out["enum"] = values
        return out
    # The API accepts only enums of strings; other values are listed in the description.
    kind = "INTEGER" if all(isinstance(value, int) for value in values) else "NUMBER"
    if all(isinstance(value, bool) for value in values):
        kind = "BOOLEAN"
    elif any(isinstance(value, str) for value in values):
        raise ValueError("JSON schema: Gemini cannot express an enum of mixed types")
    out["type"] = kind
    allowed = "One of " + ", ".join(str(value) for value in values) + "."
    out["description"] = f"{out['description']} {allowed}" if "description" in out else allowed
    return out
