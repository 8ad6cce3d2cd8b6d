"""The strict dialect of JSON Schema: what OpenAI (and later others) accept as ``strict: true``.

Law: a schema goes in, a new schema comes out; the input is never changed and shares nothing with
the output. Objects are closed, every property is required, a default becomes "null is allowed"
(for tools, where null means "use the default"). May raise TypeError (not a schema), ValueError and
KeyError (a ``$ref`` that leads nowhere), each naming the place.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeAlias, cast

__all__ = ["resolve_ref", "strict_schema", "why_not_strict"]

Schema: TypeAlias = dict[str, Any]

_NULL: Schema = {"type": "null"}


def strict_schema(schema: Mapping[str, Any], *, null_for_default: bool = True) -> Schema:
    """The strict form of `schema`.

    Args:
        schema: a JSON schema, with its ``$defs`` inside.
        null_for_default: let null stand for "use the default" (tools). Without it defaults are
            only dropped (response formats, where a null is not mapped back).

    Raises:
        TypeError: if something that must be a schema is not a mapping.
        ValueError: if a ``$ref`` with siblings does not start with ``#/``.
        KeyError: if a ``$ref`` with siblings names something that does not exist.
    """
    return _strict(schema, schema, null_for_default, "$", frozenset())


def _strict(
    schema: object, root: Mapping[str, Any], nulls: bool, path: str, inside: frozenset[str]
) -> Schema:
    if not isinstance(schema, Mapping):
        raise TypeError(f"JSON schema at {path}: expected an object, got {schema!r}")
    source = cast("Mapping[str, Any]", schema)

    def sub(child: object, where: str) -> Schema:
        return _strict(child, root, nulls, f"{path}.{where}", inside)

    out: Schema = {}
    for key, value in source.items():
        match key:
            case "$defs" | "definitions" if isinstance(value, Mapping):
                defs = cast("Mapping[str, Any]", value)
                out[key] = {name: sub(child, f"{key}.{name}") for name, child in defs.items()}
            case "properties" if isinstance(value, Mapping):
                properties = cast("Mapping[str, Any]", value)
                out[key] = {name: sub(child, name) for name, child in properties.items()}
            case "items" | "additionalProperties" if isinstance(value, Mapping):
                out[key] = sub(cast("object", value), key)
            case "prefixItems" | "allOf" if isinstance(value, list):
                parts = cast("list[Any]", value)
                out[key] = [sub(child, f"{key}[{i}]") for i, child in enumerate(parts)]
            case "anyOf" | "oneOf" if isinstance(value, list):
                # With both keywords the schema means "both"; one list of variants only approximates it.
                parts = cast("list[Any]", value)
                variants = [sub(child, f"{key}[{i}]") for i, child in enumerate(parts)]
                out["anyOf"] = [*out.get("anyOf", ()), *(v for v in variants if v)]
            case "title" | "discriminator" | "default":
                pass
            case _:
                out[key] = copy.deepcopy(value)

    if out.get("type") == "object":
        out.setdefault("additionalProperties", False)
    properties = out.get("properties")
    if isinstance(properties, dict):
        if properties:
            out["required"] = list(cast("Schema", properties))
        else:
            out.pop("required", None)

    all_of = out.get("allOf")
    if all_of is not None and len(all_of) == 1 and not (nulls and "default" in source):
        del out["allOf"]
        out.update(all_of[0])
    if nulls and "default" in source:
        _allow_null(out)

    ref = out.get("$ref")
    if isinstance(ref, str) and any(key != "$ref" for key in out):
        if ref in inside:
            # Expanding a recursive definition would never end, so its description is dropped.
            return {"$ref": ref}
        target = resolve_ref(root=root, ref=ref)
        merged = {**target, **{key: value for key, value in out.items() if key != "$ref"}}
        return _strict(merged, root, nulls, path, inside | {ref})

    any_of = out.get("anyOf")
    if isinstance(any_of, list):
        _simplify_union(out, cast("list[Schema]", any_of))
    return out


def _allow_null(out: Schema) -> None:
    if "const" in out or not out:
        return
    kind = out.get("type")
    any_of = out.get("anyOf")
    if "$ref" in out or "allOf" in out or ("enum" in out and kind is None):
        moved = {key: out.pop(key) for key in ("$ref", "allOf", "enum") if key in out}
        all_of = moved.get("allOf")
        if all_of is not None and len(all_of) == 1:
            moved = all_of[0]
        out["anyOf"] = [moved, dict(_NULL)]
    elif any_of:
        if not any(_takes_null(variant) for variant in any_of):
            any_of.append(dict(_NULL))
    elif kind is not None:
        _add_null_type(out)


def _add_null_type(out: Schema) -> None:
    kind: Any = out["type"]
    kinds: list[str] = cast("list[str]", kind) if isinstance(kind, list) else [kind]
    if "null" not in kinds:
        out["type"] = [*kinds, "null"]
    enum = out.get("enum")
    if isinstance(enum, list) and None not in enum:
        out["enum"] = [*cast("list[Any]", enum), None]


def _takes_null(schema: Schema) -> bool:
    kind = schema.get("type")
    return kind == "null" or (isinstance(kind, list) and "null" in kind)


def _simplify_union(out: Schema, variants: list[Schema]) -> None:
    others = [variant for variant in variants if variant != _NULL]
    if not variants:
        del out["anyOf"]
    elif not others:
        del out["anyOf"]
        out.update(_NULL)
    elif len(variants) == 1:
        del out["anyOf"]
        out.update(others[0])
    elif len(variants) == 2 and len(others) == 1:
        (other,) = others
        # Only a union can express a constant that may also be null.
        if "type" in other and "const" not in other:
            del out["anyOf"]
            out.update(other)
            _add_null_type(out)


def resolve_ref(*, root: Mapping[str, Any], ref: str) -> Schema:
    """The schema that `ref`, a pointer like ``#/$defs/Name``, leads to inside `root`.

    Raises:
        ValueError: if `ref` does not start with ``#/``.
        KeyError: if a step of the path does not exist.
        TypeError: if the path leads through or to something that is not an object.
    """
    if not ref.startswith("#/"):
        raise ValueError(f"JSON schema $ref: expected a path like '#/$defs/Name', got {ref!r}")
    node: Any = root
    for step in ref[2:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, Mapping):
            raise TypeError(f"JSON schema $ref {ref!r}: nothing lies below {name!r}")
        node = cast("Mapping[str, Any]", node)[name]
    if not isinstance(node, Mapping):
        raise TypeError(f"JSON schema $ref {ref!r}: expected an object there, got {node!r}")
    return dict(cast("Mapping[str, Any]", node))


_NOT_STRICT = (
    "patternProperties",
    "propertyNames",
    "prefixItems",
    "uniqueItems",
    "contains",
    "not",
    "if",
    "dependentRequired",
    "dependentSchemas",
)


def why_not_strict(schema: Mapping[str, Any]) -> str | None:
    """Why a provider would refuse the strict form of `schema`, or ``None`` if it would not.

    Takes the plain schema, before `strict_schema`: an "anything" inside a union is dropped there.
    """
    return _why_not(schema, "$")


def _why_not(schema: object, path: str) -> str | None:
    if not isinstance(schema, Mapping):
        return f"{path}: accepts anything"
    node = cast("Mapping[str, Any]", schema)
    for key in _NOT_STRICT:
        if key in node:
            return f"{path}: uses `{key}`"
    if len(node.get("allOf", ())) > 1:
        return f"{path}: uses `allOf`"
    if not any(key in node for key in ("type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const")):
        return f"{path}: accepts anything"
    if node.get("type") == "object" and (
        node.get("additionalProperties", False) is not False
        or (path != "$" and "properties" not in node)
    ):
        return f"{path}: an object with free keys"
    if node.get("type") == "array" and not isinstance(node.get("items"), Mapping):
        return f"{path}: an array of anything"
    children: list[tuple[str, object]] = []
    for key in ("properties", "$defs", "definitions"):
        children += [(f"{path}.{name}", child) for name, child in node.get(key, {}).items()]
    for key in ("anyOf", "oneOf", "allOf"):
        children += [(f"{path}.{key}[{i}]", child) for i, child in enumerate(node.get(key, ()))]
    if "items" in node:
        children.append((f"{path}[]", node["items"]))
    for where, child in children:
        reason = _why_not(child, where)
        if reason is not None:
            return reason
    return None
