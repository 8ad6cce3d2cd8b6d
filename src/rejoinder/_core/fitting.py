"""Fits a JSON value to a schema where its meaning is beyond doubt.

Models write ``null`` for "use the default", a list or object as a JSON text, and names without the
characters that a provider refuses. A schema tells which of these was meant. Nothing else is
touched: whether the value is valid is decided elsewhere.

Pure. The schema is one that pydantic made or `rejoinder._core.json_schema.tidy` put in order: each
``$ref`` points to something inside. The work is linear in the value.
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
_MAX_HOPS = 32
"""References that are followed in a row."""
_MAX_SCHEMAS = 16
"""Schemas that are applied to one value."""
_MAX_VARIANTS = 64


class Fitter:
    """Fits values to one schema.

    Args:
        schema: the schema, with its ``$defs`` inside.
        scalars: unwrap numbers, booleans and null in JSON texts too. Not for pydantic, which
            converts them itself, and whose fields may have a reading of their own.
    """

    def __init__(self, schema: JsonSchema, *, scalars: bool = False) -> None:
        self._root = schema
        self._unwrapped = _ANY if scalars else _CONTAINERS
        # By the address of a node; the nodes live as long as the root.
        self._kinds: dict[int, frozenset[str]] = {}
        self._objects: dict[int, _Object] = {}
        self._targets: dict[str, JsonSchema] = {}

    def fit(self, value: Any) -> tuple[Any, bool]:
        """The fitted value, and whether anything changed. Objects and lists change in place."""
        changes: list[None] = []
        return self._fit(value, [self._root], changes), bool(changes)

    def _fit(self, value: Any, schemas: list[object], changes: list[None]) -> Any:
        """Fit `value` to all of `schemas`, each of which applies to it."""
        nodes: list[JsonSchema] = []
        seen: set[int] = set()
        while schemas and len(nodes) < _MAX_SCHEMAS:
            node = self._at(schemas.pop())
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            nodes.append(node)
            if isinstance(value, str):
                value = self._out_of_text(value, node, changes)
            for key in ("anyOf", "oneOf"):
                schemas += self._meant(value, node.get(key, ()))
            schemas += node.get("allOf", ())
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
        """Of several kinds of objects the only one whose constants agree, if it is only one; of several
        of those the only one whose properties agree, or that knows all that are given."""
        if not isinstance(value, dict | list) or len(variants) > _MAX_VARIANTS:
            return []
        fitting = [variant for variant in variants if self._could_be(variant, value)]
        if len(fitting) > 1 and isinstance(value, dict):
            given = cast("dict[str, Any]", value)
            fitting = [variant for variant in fitting if self._agrees(variant, given)]
            if len(fitting) > 1:
                fitting = [variant for variant in fitting if self._knows_all(variant, given)]
        return fitting if len(fitting) == 1 else []

    def _knows_all(self, variant: object, given: dict[str, Any]) -> bool:
        node = self._at(variant)
        if node is None:
            return False
        known = self._object(node)
        return given.keys() <= {*known.properties, *known.renamed}

    def _agrees(self, variant: object, given: dict[str, Any]) -> bool:
        """Whether `given` has what the variant requires, and no property of another kind."""
        node = self._at(variant)
        if node is None:
            return True
        known = self._object(node)
        sent = {name: other for other, name in known.renamed.items()}
        required: Any = node.get("required", ())
        if not all(name in given or sent.get(name) in given for name in required):
            return False
        for name, field in known.properties.items():
            key = name if name in given else sent.get(name)
            if key not in given:
                continue
            kinds = _kinds_of_value(given[key])
            if isinstance(given[key], str):
                kinds |= self._unwrapped
            if kinds.isdisjoint(self._kinds_of(field)):
                return False
        return True

    def _could_be(self, variant: object, value: Any) -> bool:
        node = self._at(variant)
        if node is None:
            return True
        if not (_kinds_of_value(value) & self._kinds_of(node)):
            return False
        if not isinstance(value, dict):
            return True
        given = cast("dict[str, Any]", value)
        return all(
            given.get(name, default) == constant
            for name, constant, default in self._object(node).constants
        )

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

    def _at(self, schema: object) -> JsonSchema | None:
        """The node itself, behind its references; ``None`` for what says nothing."""
        for _ in range(_MAX_HOPS):
            if not isinstance(schema, Mapping):
                return None
            node = cast("JsonSchema", schema)
            ref = node.get("$ref")
            if not isinstance(ref, str):
                return node
            try:
                schema = self._target(ref)
            except (KeyError, TypeError, ValueError):
                return None
        return None

    def _target(self, ref: str) -> JsonSchema:
        target = self._targets.get(ref)
        if target is None:
            target = self._targets[ref] = resolve_ref(root=self._root, ref=ref)
        return target

    def _kinds_of(self, schema: object) -> frozenset[str]:
        """The JSON types that a schema may allow."""
        node = self._at(schema)
        if node is None:
            return _ANY
        known = self._kinds.get(id(node))
        if known is None:
            self._kinds[id(node)] = _ANY  # what it says of itself
            known = self._kinds[id(node)] = self._read_kinds(node)
        return known

    def _read_kinds(self, node: JsonSchema) -> frozenset[str]:
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
                kinds &= frozenset[str]().union(*map(self._kinds_of, variants))
        for part in node.get("allOf", ())[:_MAX_VARIANTS]:
            kinds &= self._kinds_of(part)
        return kinds

    def _object(self, node: JsonSchema) -> _Object:
        known = self._objects.get(id(node))
        if known is None:
            properties = node.get("properties")
            known = self._objects[id(node)] = _Object(
                cast("JsonSchema", properties) if isinstance(properties, Mapping) else {}
            )
            required = frozenset(node.get("required", ()))
            for name, child in known.properties.items():
                if not isinstance(child, Mapping):
                    continue
                field = cast("JsonSchema", child)
                if (name not in required or "default" in field) and "null" not in self._kinds_of(
                    field
                ):
                    known.idle.add(name)
                if "const" in field:
                    known.constants.append((name, field["const"], field.get("default")))
        return known


class _Object:
    """What is known about the properties of an object.

    Attributes:
        renamed: the names of its properties by those that are sent instead.
        idle: properties for which null means "not given".
        constants: name, constant and default of the properties that have one value only.
    """

    __slots__ = ("constants", "idle", "properties", "renamed")

    def __init__(self, properties: JsonSchema) -> None:
        self.properties = properties
        sent = portable_keys(properties)
        self.renamed = {sent[name]: name for name in properties if sent[name] != name}
        self.idle: set[str] = set()
        self.constants: list[tuple[str, Any, Any]] = []


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
