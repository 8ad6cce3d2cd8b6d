"""Checks whether a JSON value fits a JSON schema, for schemas without a Python type.

Pure. The schema must come from `rejoinder._core.json_schema.tidy`. Supports the keywords that providers
and models support: types, enums, limits, properties, items, unions and references. Unknown keywords are
ignored, as the standard demands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from rejoinder._core.feedback import MAX_ERRORS, kind_of, path_of, shown
from rejoinder._core.strict import resolve_ref

__all__ = ["misfits"]

JsonSchema = Mapping[str, Any]
Path = tuple[int | str, ...]

_MAX_HOPS = 32


def misfits(schema: JsonSchema, value: Any) -> list[str]:
    """One line for each of the first places where `value` does not fit; empty if it does."""
    check = _Check(schema)
    check.value(schema, value, ())
    lines = [f"- {line}" for line in check.lines[:MAX_ERRORS]]
    if len(check.lines) > MAX_ERRORS:
        lines.append("- and more")
    return lines


class _Check:
    def __init__(self, root: JsonSchema) -> None:
        self._root = root
        self.lines: list[str] = []
        # Unions check the same value and schema repeatedly.
        self._known: dict[tuple[int, int], bool] = {}

    def value(self, schema: object, value: Any, path: Path) -> None:
        """Add a line for each misfit, until there are enough."""
        node = self._at(schema)
        if node is None or len(self.lines) > MAX_ERRORS:
            return
        if not self._type(node, value, path):
            return
        for part in node.get("allOf", ()):
            self.value(part, value, path)
        self._unions(node, value, path)
        match value:
            case bool() | None:
                pass
            case int() | float():
                self._limits(_NUMBERS, node, value, value, path)
            case str():
                self._limits(_TEXTS, node, value, len(value), path)
                pattern = node.get("pattern")
                if isinstance(pattern, str) and not _matches(pattern, value):
                    self._add(path, f"a text that matches {pattern}", value)
            case list():
                self._list(node, cast("list[Any]", value), path)
            case dict():
                self._object(node, cast("dict[str, Any]", value), path)
            case _:
                pass

    def _fits(self, schema: object, value: Any) -> bool:
        key = (id(schema), id(value))
        known = self._known.get(key)
        if known is None:
            lines, self.lines = self.lines, []
            self._known[key] = True  # a schema that refers to itself demands nothing more
            self.value(schema, value, ())
            known = self._known[key] = not self.lines
            self.lines = lines
        return known

    def _add(self, path: Path, expected: str, value: Any) -> None:
        got = "null" if value is None else f"{kind_of(value)} {shown(value)}"
        self.lines.append(f"{path_of(path)}: expected {expected}, got {got}")

    def _at(self, schema: object) -> JsonSchema | None:
        """The node at the end of its references; ``None`` if it demands nothing."""
        for _ in range(_MAX_HOPS):
            if schema is False:
                return {"not": {}}
            if not isinstance(schema, Mapping):
                return None
            node = cast("JsonSchema", schema)
            ref = node.get("$ref")
            if not isinstance(ref, str):
                return node
            try:
                schema = resolve_ref(root=self._root, ref=ref)
            except (KeyError, TypeError, ValueError):
                return None
        return None

    def _type(self, node: JsonSchema, value: Any, path: Path) -> bool:
        kinds: Any = node.get("type")
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if isinstance(kinds, list) and not any(_is(value, k) for k in cast("list[str]", kinds)):
            self._add(path, " or ".join(cast("list[str]", kinds)), value)
            return False
        if "const" in node and _frozen(node["const"]) != _frozen(value):
            self._add(path, shown(node["const"]), value)
            return False
        allowed = node.get("enum")
        if isinstance(allowed, list):
            members = cast("list[Any]", allowed)
            if _frozen(value) not in map(_frozen, members):
                self._add(path, f"one of {shown(members)}", value)
                return False
        return True

    def _unions(self, node: JsonSchema, value: Any, path: Path) -> None:
        for key in ("anyOf", "oneOf"):
            variants: Any = node.get(key)
            if not isinstance(variants, list) or not variants:
                continue
            forms = cast("list[object]", variants)
            if any(self._fits(form, value) for form in forms):
                continue
            if len(forms) == 1:
                self.value(forms[0], value, path)
            else:
                self._add(path, f"one of the {len(forms)} forms of the schema", value)
        if "not" in node and self._fits(node["not"], value):
            self._add(path, "something else" if node["not"] else "no value", value)

    def _limits(
        self,
        table: Mapping[str, tuple[str, Callable[[Any, Any], bool]]],
        node: JsonSchema,
        value: Any,
        size: Any,
        path: Path,
    ) -> None:
        for key, (words, holds) in table.items():
            limit: Any = node.get(key)
            if isinstance(limit, int | float) and not holds(size, limit):
                self._add(path, words.format(limit), value)

    def _list(self, node: JsonSchema, value: list[Any], path: Path) -> None:
        self._limits(_LISTS, node, value, len(value), path)
        if node.get("uniqueItems") is True and len(set(map(_frozen, value))) < len(value):
            self._add(path, "items that all differ", value)
        heads: Any = node.get("prefixItems", ())
        rest = node.get("items", True)
        for index, item in enumerate(value):
            self.value(heads[index] if index < len(heads) else rest, item, (*path, index))
            if len(self.lines) > MAX_ERRORS:
                return

    def _object(self, node: JsonSchema, value: dict[str, Any], path: Path) -> None:
        self._limits(_OBJECTS, node, value, len(value), path)
        for name in node.get("required", ()):
            if name not in value:
                self.lines.append(f"{path_of((*path, name))}: expected a value, got nothing")
                if len(self.lines) > MAX_ERRORS:
                    return
        properties: JsonSchema = node.get("properties", {})
        patterns: JsonSchema = node.get("patternProperties", {})
        rest = node.get("additionalProperties", True)
        for name, held in value.items():
            known = False
            if name in properties:
                known = True
                self.value(properties[name], held, (*path, name))
            for pattern, child in patterns.items():
                if _matches(pattern, name):
                    known = True
                    self.value(child, held, (*path, name))
            if not known and rest is False:
                self.lines.append(f"{path_of((*path, name))}: unknown property")
            elif not known:
                self.value(rest, held, (*path, name))
            if len(self.lines) > MAX_ERRORS:
                return


_NUMBERS: Final[dict[str, tuple[str, Callable[[Any, Any], bool]]]] = {
    "minimum": ("a number of at least {}", lambda n, limit: n >= limit),
    "maximum": ("a number of at most {}", lambda n, limit: n <= limit),
    "exclusiveMinimum": ("a number greater than {}", lambda n, limit: n > limit),
    "exclusiveMaximum": ("a number less than {}", lambda n, limit: n < limit),
    "multipleOf": ("a multiple of {}", lambda n, limit: not limit or _divides(limit, n)),
}
_TEXTS: Final[dict[str, tuple[str, Callable[[Any, Any], bool]]]] = {
    "minLength": ("at least {} characters", lambda n, limit: n >= limit),
    "maxLength": ("at most {} characters", lambda n, limit: n <= limit),
}
_LISTS: Final[dict[str, tuple[str, Callable[[Any, Any], bool]]]] = {
    "minItems": ("at least {} items", lambda n, limit: n >= limit),
    "maxItems": ("at most {} items", lambda n, limit: n <= limit),
}
_OBJECTS: Final[dict[str, tuple[str, Callable[[Any, Any], bool]]]] = {
    "minProperties": ("at least {} properties", lambda n, limit: n >= limit),
    "maxProperties": ("at most {} properties", lambda n, limit: n <= limit),
}


def _divides(step: float, number: float) -> bool:
    try:
        quotient = number / step
    except (OverflowError, ZeroDivisionError):
        return True
    return abs(quotient - round(quotient)) < 1e-9


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:  # another dialect of patterns
        return True


def _is(value: Any, kind: str) -> bool:
    match kind:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            return whole and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
        case _:
            return True


def _frozen(value: Any) -> str | float:
    """A key that is equal for equal JSON values: 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return json.dumps(value, sort_keys=True, default=repr)
