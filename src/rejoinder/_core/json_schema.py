"""Converts any foreign JSON schema to valid JSON Schema 2020-12.

Tool servers send schemas of every draft, and invalid ones: PHP's ``properties: []``, OpenAPI's
``nullable``, Gemini's ``STRING``, references to any place, and handwritten ones. A schema that a
provider refuses fails the whole request, so each is brought into one form: valid, and every ``$ref``
points to an entry of the root's own ``$defs``. Constraints that cannot be kept are dropped, so the
schema accepts more than before, never less. A `Change` names each place.

Pure. Takes linear time, bounded by `MAX_SCHEMAS`, `MAX_DEPTH` and `MAX_VALUES`.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias, cast
from urllib.parse import unquote

import msgspec

__all__ = ["MAX_DEPTH", "MAX_SCHEMAS", "MAX_VALUES", "Change", "Changes", "Schema", "tidy"]

Schema: TypeAlias = dict[str, Any]

MAX_SCHEMAS: Final = 5000
"""Maximum number of schemas inside one schema. Further ones accept anything."""
MAX_DEPTH: Final = 32
"""Maximum depth of nested schemas. Deeper ones accept anything."""
MAX_VALUES: Final = 20_000
"""Maximum number of values in enums, defaults, examples and lists of names. Further ones are dropped."""
_MAX_CHANGES = 50


class Change(msgspec.Struct, frozen=True):
    """One place where a schema differs from what its author wrote.

    Attributes:
        path: the place in the schema, e.g. ``$.properties.url``.
        what: the change as a phrase, e.g. ``"left out `format: uri`"``.
    """

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


class Changes(msgspec.Struct):
    """The first changes, and the number of all."""

    listed: list[Change] = msgspec.field(default_factory=list[Change])
    count: int = 0

    def add(self, path: str, what: str) -> None:
        self.count += 1
        if len(self.listed) < _MAX_CHANGES:
            self.listed.append(Change(path, what))


def tidy(schema: object, changes: Changes) -> Schema:
    """`schema` as valid JSON Schema 2020-12; a new object.

    Args:
        schema: any value; if it is not a mapping, the result accepts every value.
        changes: receives the changes.
    """
    return _Tidy(schema, changes).run()


_TYPES: Final = ("array", "boolean", "integer", "null", "number", "object", "string")
_OTHER_TYPES: Final = {
    **dict.fromkeys(("int", "int32", "int64", "long"), "integer"),
    **dict.fromkeys(("float", "double", "decimal"), "number"),
    **dict.fromkeys(("str", "text", "date", "date-time", "datetime", "uuid", "file"), "string"),
    **dict.fromkeys(("bool",), "boolean"),
    **dict.fromkeys(("list", "tuple", "set"), "array"),
    **dict.fromkeys(("dict", "map", "struct", "record"), "object"),
    **dict.fromkeys(("none", "nil", "nonetype"), "null"),
}
_ANYTHING: Final = frozenset({"any", "unknown", "mixed", "*", "type_unspecified"})

_SILENTLY_DROPPED: Final = frozenset(
    {"$schema", "$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$vocabulary"}
    | {"$defs", "definitions", "discriminator", "xml", "externalDocs", "nullable", "example"}
    | {"additionalItems", "propertyOrdering"}
)
_PLAIN: Final[dict[str, type]] = {
    **dict.fromkeys(("title", "description", "format", "pattern", "$comment"), str),
    **dict.fromkeys(("contentEncoding", "contentMediaType"), str),
    **dict.fromkeys(("uniqueItems", "deprecated", "readOnly", "writeOnly"), bool),
}
_NAMED: Final = frozenset({"properties", "patternProperties", "dependentSchemas"})
_LISTS: Final = frozenset({"anyOf", "oneOf", "allOf", "prefixItems", "extends"})
_CHILDREN: Final = frozenset(
    {"additionalProperties", "propertyNames", "contains", "not", "if", "then", "else"}
    | {"unevaluatedItems", "unevaluatedProperties", "contentSchema"}
)
_CONTRARY: Final = frozenset({"not", "if", "contains"})
_VALUES: Final = frozenset({"const", "default", "examples"})
_LIMITS: Final = {
    **{key: key for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")},
    "multipleOf": "multipleOf",
    "divisibleBy": "multipleOf",
}
_SIZES: Final = frozenset(
    {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
    | {"minContains", "maxContains"}
)
_STRANGE: Final = re.compile(r"[^A-Za-z0-9_.-]+")


class _Tidy:
    def __init__(self, root: object, changes: Changes) -> None:
        self._root = root
        self._changes = changes
        self._schemas = MAX_SCHEMAS
        self._values = MAX_VALUES
        self._names: dict[str, str] = {}
        self._taken: set[str] = set()
        self._waiting: list[tuple[str, object]] = []
        self._anchors: dict[str, object] | None = None

    def run(self) -> Schema:
        out = self._schema(self._root, "$", 0)
        definitions: dict[str, Schema] = {}
        while self._waiting:
            name, target = self._waiting.pop(0)
            definitions[name] = self._schema(target, f"$.$defs.{name}", 0)
        if definitions:
            self._end_circles(definitions)
            out["$defs"] = definitions
        return out

    def _end_circles(self, definitions: dict[str, Schema]) -> None:
        """Let definitions that only refer to themselves accept anything, because they demand nothing."""
        settled: set[str] = set()
        for start in definitions:
            way: list[str] = []
            name = start
            while name not in settled and name not in way:
                way.append(name)
                ref = definitions[name].get("$ref")
                if not isinstance(ref, str):
                    break
                name = ref.removeprefix("#/$defs/")
            else:
                if name in way:
                    self._changes.add(
                        f"$.$defs.{name}", "it refers to itself: anything is accepted"
                    )
                    definitions[name] = {}
            settled.update(way)

    # -- one schema

    def _schema(self, source: object, path: str, depth: int) -> Schema:
        if source is True:
            return {}
        if source is False:
            return {"not": {}}
        if not isinstance(source, Mapping):
            self._changes.add(path, f"accepts anything: expected a schema, got {_short(source)}")
            return {}
        if not self._schemas:
            self._changes.add(
                path, f"accepts anything: the limit is {MAX_SCHEMAS} schemas inside one"
            )
            return {}
        if depth > MAX_DEPTH:
            self._changes.add(path, f"accepts anything: the limit is {MAX_DEPTH} levels")
            return {}
        self._schemas -= 1
        given = cast("Mapping[Any, Any]", source)
        out: Schema = {}
        for key, value in given.items():
            if isinstance(key, str):
                self._keyword(key, value, given, out, path, depth)
        if given.get("nullable") is True:
            _allow_null(out)
        return out

    def _keyword(
        self, key: str, value: Any, given: Mapping[Any, Any], out: Schema, path: str, depth: int
    ) -> None:
        if key in _PLAIN:
            if isinstance(value, _PLAIN[key]) and (key != "pattern" or _is_pattern(value)):
                out[key] = value
            elif key == "pattern":
                self._changes.add(path, f"left out `pattern`: {_short(value)} cannot be read")
        elif key == "type":
            self._type(path, value, depth, out)
        elif key in _NAMED:
            self._properties(key, value, out, path, depth)
        elif key == "items":
            self._items(key, value, given, out, path, depth)
        elif key == "required":
            self._required(value, out, path)
        elif key in _LISTS:
            self._union(key, value, out, path, depth)
        elif key in _CHILDREN:
            self._child(key, value, out, path, depth)
        elif key == "enum":
            self._enum(value, out, path)
        elif key in _VALUES:
            self._annotation(key, value, out, path)
        elif key in _LIMITS:
            self._limit(_LIMITS[key], value, given, out, path)
        elif key in _SIZES:
            self._size(key, value, out, path)
        elif key in ("$ref", "$dynamicRef", "$recursiveRef"):
            self._ref("#" if key == "$recursiveRef" else value, out, path)
        elif key in ("dependencies", "dependentRequired"):
            self._dependencies(value, out, path, depth)
        elif key not in _SILENTLY_DROPPED and not key.startswith("x-"):
            self._changes.add(path, f"left out the unknown keyword `{_short(key)}`")

    def _child(self, key: str, value: object, out: Schema, path: str, depth: int) -> None:
        before = self._changes.count
        if key == "additionalProperties" and isinstance(value, bool):
            out.setdefault(key, value)
        elif isinstance(value, Mapping | bool):
            out[key] = self._schema(cast("object", value), f"{path}.{key}", depth + 1)
        if key in _CONTRARY and self._changes.count > before:
            # Inside `not`, accepting more would make the whole schema accept less.
            self._changes.add(path, f"left out `{key}`")
            out.pop(key, None)

    def _union(self, key: str, value: object, out: Schema, path: str, depth: int) -> None:
        before = self._changes.count
        members = self._several(f"{path}.{key}", value, depth)
        name = "allOf" if key == "extends" else key
        if key == "oneOf" and self._changes.count > before:
            name = "anyOf"  # looser members may overlap
        if members and name == "anyOf" and "anyOf" in out:
            out.setdefault("allOf", []).append({name: members})
        elif members:
            out[name] = [*out.get(name, ()), *members]

    def _type(self, path: str, value: object, depth: int, out: Schema) -> None:
        kinds: list[str] = []
        schemas: list[Schema] = []
        several = isinstance(value, list | tuple)
        for kind in cast("list[object]", value) if several else [value]:
            if isinstance(kind, Mapping):
                schemas.append(self._schema(cast("object", kind), f"{path}.type", depth + 1))
                continue
            name = kind.lower() if isinstance(kind, str) else ""
            if name in _ANYTHING:
                return
            name = _OTHER_TYPES.get(name, name)
            if name not in _TYPES:
                self._changes.add(path, f"left out the unknown type {_short(kind)}")
                return
            if name not in kinds:
                kinds.append(name)
            if len(kinds) + len(schemas) > 64:
                break
        if schemas:
            out["anyOf"] = [*({"type": kind} for kind in kinds), *schemas]
        elif kinds:
            out["type"] = kinds if len(kinds) > 1 else kinds[0]

    def _properties(self, key: str, value: object, out: Schema, path: str, depth: int) -> None:
        if value in (None, [], ()):
            value = {}  # PHP writes an empty object as an empty list
        if not isinstance(value, Mapping):
            self._changes.add(path, f"left out `{key}`: expected an object, got {_short(value)}")
            return
        children: Schema = {}
        needed: list[str] = []
        for name, child in cast("Mapping[Any, Any]", value).items():
            if not self._schemas:
                self._changes.add(
                    path,
                    f"left out `{_short(name)}` and what follows: {MAX_SCHEMAS} schemas at most",
                )
                out["additionalProperties"] = True
                break
            if _is_needed(child):
                needed.append(str(name))
            children[str(name)] = self._schema(child, f"{path}.{key}.{name}", depth + 1)
        out[key] = children
        if needed:
            out["required"] = [*out.get("required", ()), *needed]

    def _required(self, value: object, out: Schema, path: str) -> None:
        if isinstance(value, bool) or value is None:
            return  # draft 3: already read with the containing object
        names: Iterable[object] = (
            cast("list[object]", value) if isinstance(value, list | tuple) else [value]
        )
        kept = [name for name in self._counted(names, path) if isinstance(name, str)]
        out["required"] = list(dict.fromkeys([*out.get("required", ()), *kept]))

    def _items(
        self, key: str, value: object, given: Mapping[Any, Any], out: Schema, path: str, depth: int
    ) -> None:
        if not isinstance(value, list | tuple):
            out["items"] = self._schema(value, f"{path}.{key}", depth + 1)
            return
        heads = self._several(f"{path}.{key}", cast("list[object]", value), depth)
        if heads:
            out["prefixItems"] = heads
        if "additionalItems" in given:
            out["items"] = self._schema(
                given["additionalItems"], f"{path}.additionalItems", depth + 1
            )

    def _several(self, path: str, value: object, depth: int) -> list[Schema]:
        members: object = value
        if isinstance(value, Mapping):
            members = [cast("object", value)]
        if not isinstance(members, list | tuple):
            self._changes.add(path, f"left out: expected a list of schemas, got {_short(members)}")
            return []
        out: list[Schema] = []
        for index, child in enumerate(cast("list[object]", members)):
            if not self._schemas:
                self._changes.add(path, f"left out what follows: {MAX_SCHEMAS} schemas at most")
                # A union with fewer members would accept less.
                out.append({})
                break
            out.append(self._schema(child, f"{path}[{index}]", depth + 1))
        return out

    def _dependencies(self, value: object, out: Schema, path: str, depth: int) -> None:
        if not isinstance(value, Mapping):
            return
        for name, needs in cast("Mapping[Any, object]", value).items():
            if not self._schemas:
                return
            if isinstance(needs, Mapping):
                child = self._schema(
                    cast("object", needs), f"{path}.dependencies.{name}", depth + 1
                )
                out.setdefault("dependentSchemas", {})[str(name)] = child
            else:
                names = cast("list[object]", needs if isinstance(needs, list | tuple) else [needs])
                kept = [other for other in self._counted(names, path) if isinstance(other, str)]
                out.setdefault("dependentRequired", {})[str(name)] = list(dict.fromkeys(kept))

    def _limit(
        self, key: str, value: object, given: Mapping[Any, Any], out: Schema, path: str
    ) -> None:
        exclusive = {"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}
        if key in exclusive and given.get(exclusive[key]) is True:
            key = exclusive[key]  # draft 4
        elif isinstance(value, bool) and key in exclusive.values():
            return
        number = _number(value)
        if number is None or (key == "multipleOf" and number <= 0):
            self._changes.add(path, f"left out `{key}`: expected a number, got {_short(value)}")
            return
        out[key] = number

    def _size(self, key: str, value: object, out: Schema, path: str) -> None:
        number = _number(value)
        if number is None or number < 0 or number != int(number):
            self._changes.add(path, f"left out `{key}`: expected a count, got {_short(value)}")
            return
        out[key] = int(number)

    def _ref(self, value: object, out: Schema, path: str) -> None:
        found = self._find(value) if isinstance(value, str) else None
        if found is None:
            self._changes.add(
                path, f"accepts anything: `$ref` {_short(value)} leads nowhere inside the schema"
            )
            return
        pointer, target = found
        name = self._names.get(pointer)
        if name is None:
            name = self._names[pointer] = self._new_name(pointer)
            self._waiting.append((name, target))
        out["$ref"] = f"#/$defs/{name}"

    def _new_name(self, pointer: str) -> str:
        name = _STRANGE.sub("_", unquote(pointer.rpartition("/")[2])).strip("_")[:60] or "Root"
        base, number = name, 1
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name

    def _find(self, ref: str) -> tuple[str, object] | None:
        """The target of `ref`, with one name for each target."""
        base, _, fragment = ref.partition("#")
        if ref in ("", "#") or (not base and not fragment):
            return "", self._root
        if not base and fragment.startswith("/"):
            target = self._walk(fragment)
            return None if target is None else (fragment, target)
        if self._anchors is None:
            self._anchors = _anchors_in(self._root)
        # Later drafts name a place, earlier ones name the whole schema by its URL.
        for name in (ref, fragment, base):
            if name and name in self._anchors:
                return f"/{name}", self._anchors[name]
        return None

    def _walk(self, pointer: str) -> object | None:
        node: object = self._root
        for step in pointer[1:].split("/"):
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(node, Mapping):
                node = cast("Mapping[str, object]", node).get(name)
            elif isinstance(node, list | tuple) and name.isdecimal() and len(name) < 6:
                members = cast("list[object]", node)
                node = members[int(name)] if int(name) < len(members) else None
            else:
                return None
        return cast("object", node) if isinstance(node, Mapping | bool) else None

    # -- values

    def _counted(self, values: Iterable[object], path: str) -> Iterable[object]:
        for value in values:
            if not self._values:
                self._changes.add(path, f"left out what follows: {MAX_VALUES} values at most")
                return
            self._values -= 1
            yield value

    def _value(self, value: Any, depth: int = 0) -> Any:
        """A copy of a JSON value; `_NO_JSON` if it is not JSON, or too large."""
        if isinstance(value, enum.Enum):
            value = value.value
        if value is None or isinstance(value, str | bool):
            return value
        if isinstance(value, int | float):
            return _NO_JSON if (number := _number(value)) is None else number
        if depth > MAX_DEPTH or not isinstance(value, Mapping | list | tuple):
            return _NO_JSON
        if isinstance(value, Mapping):
            entries = cast("Mapping[Any, Any]", value)
            if len(entries) > self._values:
                return _NO_JSON
            self._values -= len(entries)
            copied = {str(key): self._value(held, depth + 1) for key, held in entries.items()}
            return _NO_JSON if _NO_JSON in copied.values() else copied
        members = cast("list[Any]", value)
        if len(members) > self._values:
            return _NO_JSON
        self._values -= len(members)
        listed = [self._value(held, depth + 1) for held in members]
        return _NO_JSON if any(held is _NO_JSON for held in listed) else listed

    def _enum(self, value: object, out: Schema, path: str) -> None:
        given: list[object] = [value] if isinstance(value, str | int | float) else []
        if isinstance(value, list | tuple | set | frozenset):
            given = cast("list[object]", value)
        members: list[Any] = []
        known: set[str] = set()
        whole = True
        for member in self._counted(given, path):
            copied = self._value(member)
            if copied is _NO_JSON:
                whole = False
                continue
            mark = repr(copied)
            if mark not in known:
                known.add(mark)
                members.append(copied)
        if not members or not whole or not self._values:
            self._changes.add(path, "left out `enum`: expected a list of JSON values, not empty")
            return
        out["enum"] = members

    def _annotation(self, key: str, value: object, out: Schema, path: str) -> None:
        if key == "examples" and not isinstance(value, list | tuple):
            value = [value]
        copied = self._value(value)
        if copied is not _NO_JSON:
            out[key] = copied
        elif key == "const":
            self._changes.add(path, "left out `const`: it is not a JSON value")


class _NoJson:
    def __repr__(self) -> str:
        return "no JSON value"


_NO_JSON: Final = _NoJson()


_MAX_PATTERN = 1000


def _is_pattern(text: str) -> bool:
    try:
        return len(text) <= _MAX_PATTERN and bool(re.compile(text))
    except (re.error, OverflowError, RecursionError):
        return False


def _is_needed(child: object) -> bool:
    """Draft 3 writes ``required: true`` into the property itself."""
    return isinstance(child, Mapping) and cast("Mapping[Any, Any]", child).get("required") is True


def _number(value: object) -> int | float | None:
    if isinstance(value, str):
        try:
            value = float(value) if len(value) <= 32 else None
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        # Readers disagree about integers beyond 64 bits.
        return value if -(2**63) <= value < 2**63 else _number(_as_float(value))
    return value if math.isfinite(value) else None


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _anchors_in(root: object) -> dict[str, object]:
    """The schemas that have a name of their own."""
    found: dict[str, object] = {}
    waiting = [root]
    for _ in range(4 * MAX_SCHEMAS):
        if not waiting:
            break
        node = waiting.pop()
        if isinstance(node, Mapping):
            schema = cast("Mapping[str, object]", node)
            for key in ("$id", "id", "$anchor", "$dynamicAnchor"):
                name = schema.get(key)
                if isinstance(name, str) and name:
                    found.setdefault(name.removesuffix("#").removeprefix("#"), cast("object", node))
            waiting += schema.values()
        elif isinstance(node, list | tuple) and len(waiting) < 4 * MAX_SCHEMAS:
            waiting += cast("list[object]", node)[: 4 * MAX_SCHEMAS]
    return found


def _allow_null(out: Schema) -> None:
    """OpenAPI's ``nullable: true``."""
    kind: Any = out.get("type")
    if "$ref" in out:
        out["anyOf"] = [{"$ref": out.pop("$ref")}, {"type": "null"}]
    elif isinstance(out.get("anyOf"), list):
        out["anyOf"].append({"type": "null"})
    elif isinstance(kind, str) and kind != "null":
        out["type"] = [kind, "null"]
    elif isinstance(kind, list) and "null" not in kind:
        out["type"] = [*cast("list[str]", kind), "null"]
    if isinstance(out.get("enum"), list) and None not in out["enum"]:
        out["enum"].append(None)


def _short(value: object) -> str:
    if isinstance(value, str):
        return value if len(value) <= 60 else f"{value[:60]}..."
    if value is None or isinstance(value, bool | int | float):
        return str(value)[:60]
    return type(value).__name__
