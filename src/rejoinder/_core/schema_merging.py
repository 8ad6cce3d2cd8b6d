"""Combines schemas: one of several, all of them, or null in addition.

Pure. The schemas must be valid, see `rejoinder._core.json_schema`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from rejoinder._core.json_schema import Schema

__all__ = ["ANNOTATIONS", "any_of", "conjoin", "open_for", "or_null"]

JsonSchema = Mapping[str, Any]

ANNOTATIONS: Final = ("description", "title", "default", "examples", "deprecated")
"""Keywords that demand nothing."""


def any_of(kinds: list[Any]) -> Any:
    if len(kinds) == 1:
        return kinds[0]
    if all(isinstance(kind, Mapping) and "const" in kind for kind in kinds):
        values = [kind["const"] for kind in kinds]
        if all(isinstance(value, str) for value in values):
            return {"type": "string", "enum": list(dict.fromkeys(values))}
    return {"anyOf": kinds}


def open_for(node: Schema, values: Iterable[Any]) -> None:
    """Allow further keys with values of `values` in an object that allows none."""
    rest = node.get("additionalProperties", True)
    if rest is True or rest == {}:
        return
    if rest is False or rest == {"not": {}}:
        kinds = list(values)
    else:
        kinds = [*values, rest]
    if kinds:
        node["additionalProperties"] = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def or_null(child: Any) -> Any:
    """`child`, or null."""
    if not isinstance(child, Mapping):
        return child
    node = dict(cast("JsonSchema", child))
    kind: Any = node.get("type")
    if not node or kind == "null" or (isinstance(kind, list) and "null" in kind):
        return node
    if isinstance(node.get("anyOf"), list):
        members = cast("list[JsonSchema]", node["anyOf"])
        if not any(member.get("type") == "null" for member in members):
            node["anyOf"] = [*members, {"type": "null"}]
        return node
    if isinstance(kind, str | list) and "const" not in node:
        node["type"] = [*([kind] if isinstance(kind, str) else cast("list[str]", kind)), "null"]
        if isinstance(node.get("enum"), list) and None not in node["enum"]:
            node["enum"] = [*node["enum"], None]
        return node
    annotations = {key: node.pop(key) for key in ANNOTATIONS if key in node}
    return {**annotations, "anyOf": [node, {"type": "null"}]}


_TIGHTER: Final = {
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
}


def conjoin(node: Schema, other: JsonSchema) -> Iterable[str]:
    """Add the constraints of `other` to `node`. Returns the keywords that could not be added."""
    lost: list[str] = []
    for key, value in other.items():
        if key not in node:
            node[key] = value
        elif node[key] == value or key in ANNOTATIONS:
            continue
        elif key == "properties":
            children = dict(cast("JsonSchema", node[key]))
            for name, child in cast("JsonSchema", value).items():
                children[name] = _both(children[name], child) if name in children else child
            node[key] = children
        elif key == "required":
            node[key] = list(dict.fromkeys([*node[key], *value]))
        elif key == "type":
            kinds = _common_types(node[key], value)
            if kinds:
                node[key] = kinds
            else:
                lost.append(key)
        elif key == "items":
            node[key] = _both(node[key], value)
        elif key == "additionalProperties":
            # Each part of an `allOf` would forbid the properties of the others.
            node.pop(key)
        elif key == "enum":
            common = [m for m in node[key] if m in value]
            if common:
                node[key] = common
            else:
                lost.append(key)
        elif key in _TIGHTER and all(isinstance(n, int | float) for n in (value, node[key])):
            node[key] = _TIGHTER[key](node[key], value)
        else:
            lost.append(key)
    return lost


def _both(a: object, b: object) -> object:
    if not isinstance(a, Mapping) or not isinstance(b, Mapping) or a == b:
        return cast("object", a)
    mine = cast("JsonSchema", a)
    parts: list[object] = list(mine["allOf"]) if mine.keys() == {"allOf"} else [mine]
    return {"allOf": [*parts, cast("object", b)]}


def _common_types(a: Any, b: Any) -> Any:
    mine = [a] if isinstance(a, str) else cast("list[str]", a)
    theirs = [b] if isinstance(b, str) else cast("list[str]", b)
    common = [kind for kind in mine if kind in theirs or (kind == "integer" and "number" in theirs)]
    if "number" in mine and "integer" in theirs and "integer" not in common:
        common.append("integer")
    return common[0] if len(common) == 1 else common
