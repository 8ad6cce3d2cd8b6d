"""Fits a JSON value to a schema, where its meaning is unambiguous.

Models write ``null`` for "use the default", a list or object as a JSON string, and names without the
characters that a provider refuses. The schema shows which of these was meant. Nothing else is changed;
other code decides whether the value is valid.

Pure. The schema comes from pydantic or from `rejoinder._core.json_schema.tidy`: each ``$ref`` points to
a place inside it. Takes time linear in the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from rejoinder._core.mending import unwrapped
from rejoinder._core.names import portable_keys
from rejoinder._core.strict import resolve_ref

__all__ = ["Fitter"]

JsonSchema = Mapping[str, Any]

_ANY: Final = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_CONTAINERS: Final = frozenset({"array", "object"})
_MAX_SCHEMAS = 32
"""Maximum number of schemas applied to one value, and of references followed in a row."""
_MAX_VARIANTS = 64


class Fitter:
    """Fits values to one schema.

    Args:
        schema: the schema, with its ``$defs`` inside.
        scalars: also unwrap numbers, booleans and null in JSON strings. Not for pydantic, which
            converts them itself, and whose fields may interpret strings in their own way.
    """

    def __init__(self, schema: JsonSchema, *, scalars: bool = False) -> None:
        self._root = schema
        self._unwrapped = _ANY if scalars else _CONTAINERS
        # Keyed by the id of a node; the nodes live as long as the root.
        self._kinds: dict[int, frozenset[str]] = {}
        self._objects: dict[int, _Object] = {}
        self._wholes: dict[int, _Object] = {}
        self._targets: dict[str, JsonSchema | None] = {}

    def fit(self, value: Any) -> tuple[Any, bool]:
        """The fitted value, and whether anything changed. Changes objects and lists in place."""
        changes: list[None] = []
        return self._fit(value, [self._root], changes), bool(changes)

    def _fit(self, value: Any, schemas: list[object], changes: list[None]) -> Any:
        """Fit `value` to all of `schemas`, each of which applies to it."""
        nodes: list[JsonSchema] = []
        seen: set[int] = set()
        while schemas and len(seen) < _MAX_SCHEMAS:
            schema = schemas.pop()
            if not isinstance(schema, Mapping) or id(cast("object", schema)) in seen:
                continue
            node = cast("JsonSchema", schema)
            seen.add(id(node))
            nodes.append(node)
            if isinstance(value, str):
                value = self._out_of_text(value, node, changes)
            for key in ("anyOf", "oneOf"):
                schemas += self._meant(value, node.get(key, ()))
            schemas += self._parts(node)
        if isinstance(value, dict):
            self._fit_object(cast("dict[str, Any]", value), nodes, changes)
        elif isinstance(value, list):
            self._fit_items(cast("list[Any]", value), nodes, changes)
        return cast("Any", value)

    def _out_of_text(self, text: str, node: JsonSchema, changes: list[None]) -> Any:
        kinds = self._kinds_of(node)
        if "string" in kinds or kinds.isdisjoint(self._unwrapped):
            return text
        inner = unwrapped(text)
        if isinstance(inner, str) or not (_kinds_of_value(inner) & kinds & self._unwrapped):
            return text
        changes.append(None)
        return inner

    def _meant(self, value: Any, variants: list[object]) -> list[object]:
        """The variant of a union with the most evidence; ``None`` if two have the same."""
        if not isinstance(value, dict | list) or len(variants) > _MAX_VARIANTS:
            return []
        scores = [self._score(variant, value) for variant in variants]
        best = max(scores, default=0)
        if not best or scores.count(best) > 1:
            return []
        return [variants[scores.index(best)]]

    def _score(self, variant: object, value: Any) -> int:
        """The evidence for `variant`.

        0: the type or a constant differs. 1: these agree. 2: all required members are present, and
        none has another type. 3: also, the variant has each name of the value.
        """
        if _kinds_of_value(value).isdisjoint(self._kinds_of(variant)):
            return 0
        if not isinstance(value, dict) or not isinstance(variant, Mapping):
            return 1
        known = self._whole(cast("JsonSchema", variant))
        given = known.by_name(cast("dict[str, Any]", value))
        if any(
            name in given and not any(_same(given[name], value) for value in values)
            for name, values in known.values.items()
        ):
            return 0
        if not given.keys() >= known.required or not all(
            self._may_be(given[name], field)
            for name, field in known.properties.items()
            if name in given
        ):
            return 1
        return 2 + (given.keys() <= known.properties.keys())

    def _may_be(self, value: Any, schema: object) -> bool:
        kinds = _kinds_of_value(value)
        if isinstance(value, str):
            kinds |= self._unwrapped
        return not kinds.isdisjoint(self._kinds_of(schema))

    def _fit_object(
        self, given: dict[str, Any], nodes: list[JsonSchema], changes: list[None]
    ) -> None:
        children: dict[str, list[object]] = {}
        for node in nodes:
            known = self._object(node)
            for sent, name in known.renamed.items():
                if sent in given and name not in given:
                    given[name] = given.pop(sent)
                    changes.append(None)
            for name in known.idle & given.keys():
                if given[name] is None:
                    del given[name]
                    changes.append(None)
            rest: object = node.get("additionalProperties")
            free = isinstance(rest, Mapping)
            for name in given if free else known.properties.keys() & given.keys():
                children.setdefault(name, []).append(known.properties.get(name, rest))
        for name, schemas in children.items():
            if name in given:
                given[name] = self._fit(given[name], schemas, changes)

    def _fit_items(self, given: list[Any], nodes: list[JsonSchema], changes: list[None]) -> None:
        nodes = [node for node in nodes if "items" in node or "prefixItems" in node]
        if not nodes:
            return
        for index, item in enumerate(given):
            schemas: list[object] = []
            for node in nodes:
                heads: Any = node.get("prefixItems", ())
                schemas.append(heads[index] if index < len(heads) else node.get("items"))
            given[index] = self._fit(item, schemas, changes)

    def _parts(self, node: JsonSchema) -> list[object]:
        """The schemas that apply together with `node`: its ``$ref`` and ``allOf``."""
        parts: list[object] = list(node.get("allOf", ()))
        if isinstance(ref := node.get("$ref"), str):
            parts.append(self._target(ref))
        return parts

    def _together(self, schema: object) -> list[JsonSchema]:
        """`schema`, its parts, and their parts."""
        found: dict[int, JsonSchema] = {}
        waiting = [schema]
        while waiting and len(found) < _MAX_SCHEMAS:
            node = waiting.pop()
            if isinstance(node, Mapping) and id(cast("object", node)) not in found:
                found[id(cast("object", node))] = cast("JsonSchema", node)
                waiting += self._parts(cast("JsonSchema", node))
        return list(found.values())

    def _target(self, ref: str) -> JsonSchema | None:
        if ref not in self._targets:
            try:
                self._targets[ref] = resolve_ref(root=self._root, ref=ref)
            except (KeyError, TypeError, ValueError):
                self._targets[ref] = None
        return self._targets[ref]

    def _kinds_of(self, schema: object, depth: int = 0) -> frozenset[str]:
        """The JSON types that a schema may allow."""
        if not isinstance(schema, Mapping) or depth > _MAX_SCHEMAS:
            return _ANY
        node = cast("JsonSchema", schema)
        known = self._kinds.get(id(node))
        if known is None:
            self._kinds[id(node)] = _ANY  # the node's own constraints
            known = self._kinds[id(node)] = self._read_kinds(node, depth + 1)
        return known

    def _read_kinds(self, node: JsonSchema, depth: int) -> frozenset[str]:
        kinds = _ANY
        declared = node.get("type")
        if isinstance(declared, str):
            kinds = frozenset({declared})
        elif isinstance(declared, list):
            kinds = frozenset(cast("list[str]", declared))
        if "number" in kinds:
            kinds |= {"integer"}
        values: Any = [node["const"]] if "const" in node else node.get("enum")
        if isinstance(values, list):
            kinds &= frozenset[str]().union(*map(_kinds_of_value, cast("list[Any]", values)))
        for key in ("anyOf", "oneOf"):
            variants = cast("list[object]", node.get(key, ()))
            if 0 < len(variants) <= _MAX_VARIANTS:
                kinds &= frozenset[str]().union(*(self._kinds_of(v, depth) for v in variants))
        for part in self._parts(node)[:_MAX_VARIANTS]:
            kinds &= self._kinds_of(part, depth)
        return kinds

    def _object(self, node: JsonSchema) -> _Object:
        """The constraints of `node` itself on properties."""
        known = self._objects.get(id(node))
        if known is None:
            known = self._objects[id(node)] = self._read_object([node])
        return known

    def _whole(self, node: JsonSchema) -> _Object:
        """The constraints of `node` and its parts on properties."""
        known = self._wholes.get(id(node))
        if known is None:
            known = self._wholes[id(node)] = self._read_object(self._together(node))
        return known

    def _read_object(self, nodes: list[JsonSchema]) -> _Object:
        properties: dict[str, Any] = {}
        required: set[str] = set()
        for node in nodes:
            children = node.get("properties")
            if isinstance(children, Mapping):
                properties = {**cast("JsonSchema", children), **properties}
            required.update(node.get("required", ()))
        known = _Object(properties, required)
        for name, child in properties.items():
            fields = self._together(child)
            has_default = any("default" in field for field in fields)
            if (name not in required or has_default) and "null" not in self._kinds_of(child):
                known.idle.add(name)
            for field in fields:
                values = [field["const"]] if "const" in field else field.get("enum")
                if isinstance(values, list):
                    known.values.setdefault(name, cast("list[Any]", values))
        return known


class _Object:
    """Constraints on the properties of an object.

    Attributes:
        renamed: the names of its properties, by the names that are sent instead.
        idle: properties for which null means "not given".
        values: the values of the properties that have a constant or an enum.
    """

    __slots__ = ("idle", "properties", "renamed", "required", "values")

    def __init__(self, properties: JsonSchema, required: set[str]) -> None:
        self.properties = properties
        self.required = required
        sent = portable_keys(properties)
        self.renamed = {sent[name]: name for name in properties if sent[name] != name}
        self.idle: set[str] = set()
        self.values: dict[str, list[Any]] = {}

    def by_name(self, given: dict[str, Any]) -> dict[str, Any]:
        """`given` under the names of the properties."""
        if self.renamed.keys().isdisjoint(given):
            return given
        return {self.renamed.get(name, name): value for name, value in given.items()} | {
            name: value for name, value in given.items() if name not in self.renamed
        }


def _same(a: Any, b: Any) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _kinds_of_value(value: Any) -> frozenset[str]:
    match value:
        case None:
            return frozenset({"null"})
        case bool():
            return frozenset({"boolean"})
        case int():
            return frozenset({"integer", "number"})
        case float():
            return frozenset({"number", "integer"} if value.is_integer() else {"number"})
        case str():
            return frozenset({"string"})
        case list():
            return frozenset({"array"})
        case dict():
            return frozenset({"object"})
        case _:
            return _ANY
