"""Compiles every schema that is sent: those of tools, ours or foreign, and of replies.

The input is a valid schema (pydantic's, or from `json_schema.tidy`); the output is in the subset that a
dialect accepts. If the dialect cannot express a constraint, it is dropped, and added to the description
in words where that helps the model. Each such place is a `Change`.

Pure. Takes time linear in the schema and its references, bounded by `MAX_WRITTEN`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from rejoinder._core.json_schema import MAX_DEPTH, Change, Changes, Schema, tidy
from rejoinder._core.names import portable_keys
from rejoinder._core.schema_merging import ANNOTATIONS, any_of, conjoin, open_for, or_null
from rejoinder._core.schema_rules import SCHEMA_RULES, SchemaRules
from rejoinder._core.schema_shape import cycles, name_in, refs_in

__all__ = ["MAX_WRITTEN", "Compiled", "compile_schema"]

MAX_WRITTEN: Final = 5000
"""Maximum number of schemas written; inlined references count each time. Further schemas accept
anything."""

_MAX_INLINED = 8
"""Maximum depth of definitions that are inlined instead of references."""
_UNROLLED = 3
"""How often a recursive definition is inlined in itself if the dialect does not allow recursion."""
_MAX_LEVELS = MAX_DEPTH + 8

JsonSchema = Mapping[str, Any]

_IN_WORDS: Final = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minLength", "maxLength", "pattern", "format", "minItems", "maxItems", "uniqueItems"),
    *("minProperties", "maxProperties"),
)
"""Keywords that a model understands in a description."""
_NAMED: Final = ("properties", "patternProperties", "dependentSchemas")
_CHILDREN: Final = (
    *("items", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else"),
    *("unevaluatedItems", "unevaluatedProperties", "contentSchema"),
)
_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_THE_END: Final[JsonSchema] = {"type": "object", "properties": {}, "additionalProperties": False}
"""The schema at the end of a recursion."""
_LOOKS_AROUND: Final = re.compile(r"\(\?[=!<]|\\[1-9bBk]|\(\?P=")
_MAX_WORDS = 300


class Compiled(msgspec.Struct, frozen=True):
    """A schema in a dialect.

    Attributes:
        schema: the schema; shared, not to be changed.
        changes: the first differences from the given schema.
        count: the number of differences.
    """

    schema: Schema
    changes: tuple[Change, ...]
    count: int

    def __str__(self) -> str:
        more = self.count - len(self.changes)
        return "; ".join(map(str, self.changes)) + (f"; and {more} more" if more else "")


def compile_schema(
    schema: object, rules: SchemaRules | str, *, own: bool = False, any_root: bool = False
) -> Compiled:
    """`schema` in the dialect of `rules`, with an object at its root.

    Args:
        schema: any schema.
        rules: the dialect, or its name in `SCHEMA_RULES`.
        own: the schema comes from pydantic, so it is already valid.
        any_root: allow a root that is not an object.
    """
    if isinstance(rules, str):
        rules = SCHEMA_RULES[rules]
    changes = Changes()
    source = cast("Schema", schema) if own else tidy(schema, changes)
    out = _Compiler(source, rules, changes).run(any_root=any_root)
    return Compiled(out, tuple(changes.listed), changes.count)


class _Compiler:
    def __init__(self, root: JsonSchema, rules: SchemaRules, changes: Changes) -> None:
        self._root = root
        self._rules = rules
        self._changes = changes
        definitions = root.get("$defs", root.get("definitions", {}))
        self._definitions = cast("JsonSchema", definitions)
        free = rules.required_cycles and rules.recursion
        self._cycles = {} if free else cycles(self._definitions)
        self._left = MAX_WRITTEN
        self._depth = 0
        self._used: list[str] = []
        self._endings: dict[str, JsonSchema] = {}

    def run(self, *, any_root: bool) -> Schema:
        root = {k: v for k, v in self._root.items() if k not in ("$defs", "definitions")}
        inside: frozenset[str] = frozenset()
        if not any_root:
            root, inside = self._behind_refs(root, "$", inside)
            root = self._object_root(root, inside)
        out = self._schema(root, "$", inside)
        if not any_root:
            out.setdefault("properties", {})
        written: Schema = {}
        for name in self._used:  # grows while its members are written
            path = f"$.$defs.{name}"
            written[name] = self._schema(self._definitions[name], path, frozenset(), of=name)
        if written:
            out["$defs"] = written
        return out

    # -- references

    def _behind_refs(
        self, node: Schema, path: str, inside: frozenset[str]
    ) -> tuple[Schema, frozenset[str]]:
        """`node` with its reference replaced by the definition."""
        while isinstance(ref := node.get("$ref"), str):
            name = name_in(ref)
            rest = {key: value for key, value in node.items() if key != "$ref"}
            target = self._definitions.get(name)
            if name in inside or not isinstance(target, Mapping):
                return rest, inside
            inside |= {name}
            node = self._in_place(cast("JsonSchema", target), rest, path)
        return node, inside

    def _in_place(self, target: JsonSchema, beside: JsonSchema, path: str) -> Schema:
        """A definition merged with the keywords beside its reference, because both apply."""
        node = dict(target)
        node.update({key: value for key, value in beside.items() if key in ANNOTATIONS})
        for what in conjoin(node, beside):
            self._changes.add(path, f"left out `{what}`, which stands beside a reference")
        return node

    def _reference(
        self, node: Schema, path: str, inside: frozenset[str]
    ) -> tuple[Schema | None, Schema, frozenset[str]]:
        """The reference to write, or the schema to write instead."""
        name = name_in(node["$ref"])
        target = self._definitions.get(name)
        if not isinstance(target, Mapping):
            self._changes.add(path, f"accepts anything: {node['$ref']} leads nowhere")
            return {}, node, inside
        if not self._rules.recursion and name in self._cycles:
            return self._unrolled(node, name, path, inside)
        taken = self._rules.beside_ref
        rest = {key: value for key, value in node.items() if key != "$ref"}
        beside = rest if taken is None else {key: rest[key] for key in rest if key in taken}
        if self._rules.refs and len(beside) == len(rest):
            if not beside.keys() <= {*ANNOTATIONS}:
                beside = self._node(beside, path, inside, None)
            return {"$ref": self._use(name), **beside}, node, inside
        if name not in inside and len(inside) < _MAX_INLINED:
            written = self._in_place(cast("JsonSchema", target), rest, path)
            return None, written, inside | {name}
        if self._rules.refs:
            if not rest.keys() <= {*beside, *ANNOTATIONS}:
                self._changes.add(path, "left out what stands beside a reference")
            return {"$ref": self._use(name), **beside}, node, inside
        self._changes.add(path, "accepts any object: its references go in a circle or too deep")
        return None, {"type": "object"}, inside

    def _unrolled(
        self, node: Schema, name: str, path: str, inside: frozenset[str]
    ) -> tuple[Schema | None, Schema, frozenset[str]]:
        """A recursive definition, inlined to a limited depth."""
        level = sum(held.partition("\0")[0] == name for held in inside)
        target = cast("JsonSchema", self._definitions[name])
        if level == _UNROLLED:
            self._changes.add(path, f"ends here: recursion is written out {_UNROLLED} levels deep")
            if name not in self._endings:
                self._endings[name] = self._ended(target, self._cycles[name]) or _THE_END
            target = self._endings[name]
        rest = {key: value for key, value in node.items() if key != "$ref"}
        written = self._in_place(target, rest, path)
        return None, written, inside | {f"{name}\0{level}"}

    def _ended(self, node: JsonSchema, cycle: int) -> JsonSchema | None:
        """`node` without references into `cycle`; ``None`` if it demands one."""
        if cycle not in self._led_to(node):
            return node
        if "$ref" in node:
            return None
        out = dict(node)
        for key, part in node.items():
            if cycle not in self._led_to({key: part}):
                continue
            if key in ("anyOf", "oneOf"):
                members = [self._ended(member, cycle) for member in part]
                out[key] = [member for member in members if member is not None]
            elif key == "properties":
                ended = {name: self._ended(child, cycle) for name, child in part.items()}
                out[key] = {name: child for name, child in ended.items() if child is not None}
                if any(ended.get(name, True) is None for name in node.get("required", ())):
                    return None
            elif key == "items":
                out[key] = _THE_END
            else:
                del out[key]
            if key in ("anyOf", "oneOf") and not out[key]:
                return None
        return out

    def _use(self, name: str) -> str:
        if name not in self._used:
            self._used.append(name)
        return f"#/$defs/{name}"

    # -- one schema

    def _schema(
        self, source: object, path: str, inside: frozenset[str], *, of: str | None = None
    ) -> Schema:
        """`source` in the dialect; `of` is the name of its definition."""
        if not isinstance(source, Mapping):
            return {} if source is not False else {"not": {}}
        if not self._left:
            self._changes.add(path, f"accepts anything: {MAX_WRITTEN} schemas at most are written")
            return self._anything({})
        if self._depth > _MAX_LEVELS:
            self._changes.add(path, f"accepts anything: {_MAX_LEVELS} levels at most are written")
            return self._anything({})
        self._left -= 1
        self._depth += 1
        written = self._node(dict(cast("JsonSchema", source)), path, inside, of)
        self._depth -= 1
        return written

    def _node(self, node: Schema, path: str, inside: frozenset[str], of: str | None) -> Schema:
        rules = self._rules
        while "$ref" in node:
            written, node, inside = self._reference(node, path, inside)
            if written is not None:
                return written if written else self._anything({})
        if "allOf" in node and not rules.all_of:
            node, inside = self._conjoined(node, path, inside)
            if "$ref" in node:
                return self._schema(node, path, inside, of=of)
        if "oneOf" in node and not rules.one_of:
            self._one_of(node, path)
        if "const" in node and not rules.const:
            node["enum"] = [node.pop("const")]
        if isinstance(node.get("enum"), list):
            self._enum(node, path)
        kinds: Any = node.get("type")
        if isinstance(kinds, list) and not rules.type_lists:
            self._split_types(node, cast("list[str]", kinds))
        members: list[Schema] | None = None
        if "anyOf" in node and not rules.type_beside_any_of:
            members = self._members(node, path, inside)
        if rules.typed and members is None:
            self._give_type(node)
        self._fit_array(node, path)
        self._fit_object(node, path, of)
        self._leave_out(node, path)
        written = self._with_children(node, path, inside)
        return written if members is None else {**written, "anyOf": members}

    def _with_children(self, node: Schema, path: str, inside: frozenset[str]) -> Schema:
        for key in _NAMED:
            if isinstance(node.get(key), Mapping):
                children = cast("JsonSchema", node[key])
                node[key] = {
                    name: self._schema(child, f"{path}.{key}.{name}", inside)
                    for name, child in children.items()
                }
        for key in _CHILDREN:
            child = node.get(key)
            if isinstance(child, Mapping) or (child is True and key == "items"):
                node[key] = self._schema(
                    {} if child is True else cast("object", child), f"{path}.{key}", inside
                )
        for key in _LISTS:
            members = node.get(key)
            if isinstance(members, list):
                node[key] = [
                    self._schema(member, f"{path}.{key}[{index}]", inside)
                    for index, member in enumerate(cast("list[object]", members))
                ]
        return node

    def _anything(self, node: Schema) -> Schema:
        """A schema that accepts every value, for dialects in which a schema needs a type."""
        if not self._rules.typed:
            return node
        kinds = ("string", "number", "boolean", "object", "null")
        members: list[Schema] = [{"type": kind} for kind in kinds]
        items: Schema = {"items": {"type": "string"}} if self._rules.items_needed else {}
        return {**node, "anyOf": [*members, {"type": "array", **items}]}

    def _conjoined(
        self, node: Schema, path: str, inside: frozenset[str]
    ) -> tuple[Schema, frozenset[str]]:
        """`node` with the parts of its ``allOf`` merged into it."""
        waiting: list[Any] = list(reversed(node.pop("allOf")))
        if len(waiting) == 1 and not node.keys() - {*ANNOTATIONS} and "$ref" in waiting[0]:
            return {**waiting[0], **node}, inside
        while waiting:
            part = waiting.pop()
            if not isinstance(part, Mapping):
                continue
            merged, inside = self._behind_refs(dict(cast("JsonSchema", part)), path, inside)
            waiting += reversed(merged.pop("allOf", []))
            for what in conjoin(node, merged):
                self._changes.add(path, f"left out `{what}` of an `allOf`")
        return node, inside

    def _one_of(self, node: Schema, path: str) -> None:
        variants = node.pop("oneOf")
        if "anyOf" not in node:
            node["anyOf"] = variants
        else:
            self._changes.add(path, "left out `oneOf` beside `anyOf`")

    def _enum(self, node: Schema, path: str) -> None:
        members = cast("list[Any]", node["enum"])
        rules = self._rules
        if not rules.empty_texts and "" in [m for m in members if isinstance(m, str)]:
            self._changes.add(path, "left out `enum`: an empty text cannot be a member")
            del node["enum"]
            node.setdefault("type", "string" if all(isinstance(m, str) for m in members) else None)
            if node["type"] is None:
                del node["type"]
            _say(node, f"one of {_listed(members)}")
            return
        if rules.mixed_enums:
            return
        by_kind: dict[str, list[Any]] = {}
        for member in members:
            by_kind.setdefault(_kind_of(member), []).append(member)
        if "integer" in by_kind and "number" in by_kind:
            by_kind["number"] = [*by_kind.pop("integer"), *by_kind["number"]]
        variants: list[Schema] = [
            {"type": kind, "enum": held}
            if kind in ("string", "integer", "number")
            else {"type": kind}
            for kind, held in by_kind.items()
        ]
        del node["enum"]
        if len(variants) == 1:
            node.update(variants[0])
        elif "anyOf" in node:
            self._changes.add(path, "left out `enum` beside `anyOf`")
        else:
            node.pop("type", None)
            node["anyOf"] = variants
        for kind in by_kind.keys() - {"string", "integer", "number", "null"}:
            if kind != "boolean" or len(by_kind[kind]) < 2:
                self._changes.add(path, f"left out the members of `enum` that are of type {kind}")
                _say(node, f"one of {_listed(members)}")

    def _split_types(self, node: Schema, kinds: list[str]) -> None:
        """``type: [a, b]`` as a union; each member gets the keywords of its type."""
        if len(kinds) == 1 or "anyOf" in node:
            if len(kinds) == 1:
                node["type"] = kinds[0]
            else:
                del node["type"]  # the members of the union have it
            return
        del node["type"]
        moved = {key: node.pop(key) for key in list(node) if key not in ANNOTATIONS}
        variants: list[Schema] = []
        for kind in kinds:
            variant: Schema = {"type": kind}
            for key, value in moved.items():
                if key == "enum":
                    held = [m for m in value if _kind_of(m) == kind]
                    if held and kind != "null":
                        variant["enum"] = held
                elif _KIND_OF_KEYWORD.get(key, kind) in (
                    kind,
                    "number" if kind == "integer" else "",
                ):
                    variant[key] = value
            variants.append(variant)
        node["anyOf"] = variants

    def _members(self, node: Schema, path: str, inside: frozenset[str]) -> list[Schema]:
        """The members of ``anyOf``, written; each gets the keywords beside the ``anyOf``."""
        kept = (*ANNOTATIONS, "anyOf")
        beside = {key: node.pop(key) for key in list(node) if key not in kept}
        written: list[Schema] = []
        for index, member in enumerate(cast("list[object]", node.pop("anyOf"))):
            place = f"{path}.anyOf[{index}]"
            if not beside or not isinstance(member, Mapping) or not self._left:
                written.append(self._schema(cast("object", member), place, inside))
                continue
            variant, within = self._behind_refs(dict(cast("JsonSchema", member)), place, inside)
            for what in conjoin(variant, beside):
                self._changes.add(place, f"left out `{what}`, said beside `anyOf`")
            written.append(self._schema(variant, place, within))
        return written

    def _give_type(self, node: Schema) -> None:
        if "type" in node or "$ref" in node:
            return
        for key in node:
            kind = _KIND_OF_KEYWORD.get(key)
            if kind is not None:
                node["type"] = kind
                return
        node.update(self._anything({}))

    def _fit_array(self, node: Schema, path: str) -> None:
        kind = node.get("type")
        if kind != "array" and not (isinstance(kind, list) and "array" in kind):
            return
        heads = node.get("prefixItems")
        if isinstance(heads, list) and not self._takes("prefixItems"):
            del node["prefixItems"]
            rest = node.get("items")
            kinds = list(cast("list[Any]", heads))
            if isinstance(rest, Mapping):
                kinds.append(cast("Any", rest))
            node["items"] = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
            if rest is False or rest == {"not": {}}:
                node.setdefault("maxItems", len(cast("list[Any]", heads)))
            self._changes.add(path, "left out the order of `prefixItems`")
        if not isinstance(node.get("items"), Mapping) and "prefixItems" not in node:
            if self._rules.items_needed:
                node["items"] = {"type": "string"} if self._rules.typed else {}
            else:
                node.pop("items", None)

    def _fit_object(self, node: Schema, path: str, of: str | None) -> None:
        rules = self._rules
        kind = node.get("type")
        properties = node.get("properties")
        objects = kind == "object" or (isinstance(kind, list) and "object" in kind)
        if not objects and not isinstance(properties, Mapping):
            if rules.required_known and node.pop("required", None):
                self._changes.add(path, "left out `required` of properties that are not listed")
            return
        children = dict(cast("JsonSchema", properties)) if isinstance(properties, Mapping) else {}
        required: list[str] = [name for name in node.get("required", ()) if isinstance(name, str)]
        if self._cycles and not rules.required_cycles:
            home = self._cycles.get(of) if of is not None else None
            free = [
                n for n in required if home is None or home not in self._led_to(children.get(n))
            ]
            if len(free) < len(required):
                self._changes.add(path, "a property that leads back to its object is optional")
            required = free
        if "patternProperties" in node and not self._takes("patternProperties"):
            # Their keys are not listed; only their values can be described.
            open_for(node, cast("JsonSchema", node["patternProperties"]).values())
        if rules.closed:
            if node.get("additionalProperties", False) not in (False, True) or (
                not children and node.get("additionalProperties") is not False
            ):
                self._changes.add(path, "keys that are not listed are not allowed")
            node["additionalProperties"] = False
        if rules.all_required:
            for name in children.keys() - set(required):
                children[name] = or_null(children[name])
            required = list(children)
        if rules.keys is not None and not all(map(rules.keys.fullmatch, children)):
            sent = portable_keys(children)
            for name, other in sent.items():
                if name != other:
                    self._changes.add(path, f"`{name}` is called `{other}`")
            children = {sent[name]: child for name, child in children.items()}
            required = [sent.get(name, name) for name in required]
        if isinstance(properties, Mapping) or rules.closed:
            node["properties"] = children
        if rules.required_known:
            required = [name for name in required if name in children]
        # OpenAI refuses an empty list without properties, Groq an object without any list.
        given = node.pop("required", None) is not None
        if required or (given and children):
            node["required"] = required

    def _led_to(self, child: object) -> set[int | None]:
        """The cycles in which `child` takes part."""
        return {self._cycles.get(name) for name in refs_in(child)} - {None}

    def _takes(self, key: str) -> bool:
        return self._rules.keywords is None or key in self._rules.keywords

    def _leave_out(self, node: Schema, path: str) -> None:
        rules = self._rules
        left: Schema = {}
        for key in list(node):
            value = node[key]
            fits = self._takes(key)
            if key == "format" and fits:
                fits = rules.formats is None or value in rules.formats
            elif key == "pattern" and fits and rules.plain_patterns:
                fits = not _LOOKS_AROUND.search(str(value))
            if not fits:
                left[key] = node.pop(key)
        said = [f"{key}: {left[key]}" for key in _IN_WORDS if key in left]
        if said:
            _say(node, ", ".join(said))
        for key in left:
            if key not in ("title", "$comment", "examples", "default", "deprecated"):
                shown = f": {left[key]}" if key in _IN_WORDS else ""
                self._changes.add(path, f"left out `{key}{shown}`"[:200])

    # -- the root

    def _object_root(self, root: Schema, inside: frozenset[str]) -> Schema:
        """`root` as an object without unions; a union of objects is merged into one object."""
        if "allOf" in root:
            root, inside = self._conjoined(root, "$", inside)
            root, inside = self._behind_refs(root, "$", inside)
        for key in ("anyOf", "oneOf"):
            variants = root.pop(key, None)
            if isinstance(variants, list):
                self._fold(root, cast("list[object]", variants), key, inside)
        for key in ("enum", "const", "not", "if", "then", "else", "allOf"):
            if root.pop(key, None) is not None:
                self._changes.add("$", f"left out `{key}`")
        kind = root.get("type")
        if kind not in ("object", None) and not (isinstance(kind, list) and "object" in kind):
            self._changes.add("$", f"expected an object at the root, got {kind}: nothing is taken")
            root = {"properties": {}}
        rest = {key: value for key, value in root.items() if key not in ("type", "properties")}
        return {"type": "object", "properties": root.get("properties", {}), **rest}

    def _sent(self, name: str) -> str:
        return name if self._rules.keys is None else portable_keys([name])[name]

    def _fold(self, root: Schema, variants: list[object], key: str, inside: frozenset[str]) -> None:
        seen: dict[str, dict[str, Any]] = {}
        required: set[str] | None = None
        open_keys = False
        forms: list[str] = []
        for variant in variants:
            if not isinstance(variant, Mapping):
                required = set()
                continue
            node, within = self._behind_refs(dict(cast("JsonSchema", variant)), "$", inside)
            if "allOf" in node:
                node, within = self._conjoined(node, "$", within)
            for inner in ("anyOf", "oneOf"):
                if isinstance(node.get(inner), list) and len(within) < 32:
                    self._fold(node, node.pop(inner), inner, within)
            needs = [name for name in node.get("required", ()) if isinstance(name, str)]
            required = set(needs) if required is None else required & set(needs)
            open_keys |= node.get("additionalProperties") is not False
            properties = node.get("properties", {})
            for name, child in cast("JsonSchema", properties).items():
                seen.setdefault(name, {}).setdefault(_mark(child), child)
            forms.append(", ".join(map(self._sent, needs or cast("JsonSchema", properties))))
        if open_keys and root.get("additionalProperties") is False and not root.get("properties"):
            del root["additionalProperties"]
        properties = dict(cast("JsonSchema", root.get("properties", {})))
        for name, kinds in seen.items():
            if name not in properties:
                properties[name] = any_of(list(kinds.values()))
        root["properties"] = properties
        if required:
            root["required"] = list(dict.fromkeys([*root.get("required", ()), *sorted(required)]))
        forms = [form for form in dict.fromkeys(forms) if form]
        if len(forms) > 1:
            _say(root, "give one of: " + " | ".join(forms))
        self._changes.add("$", f"`{key}` at the root is folded into one object")


_KIND_OF_KEYWORD: Final = {
    **dict.fromkeys(("properties", "required", "additionalProperties", "minProperties"), "object"),
    **dict.fromkeys(("maxProperties", "patternProperties", "propertyNames"), "object"),
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems", "uniqueItems"), "array"),
    **dict.fromkeys(("minLength", "maxLength", "pattern", "format"), "string"),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), "number"),
    "multipleOf": "number",
}


def _kind_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _mark(schema: object) -> str:
    """A key that is equal for equal schemas."""
    return json.dumps(schema, sort_keys=True, default=repr)


def _listed(values: list[Any]) -> str:
    return ", ".join(json.dumps(value, ensure_ascii=False, default=repr) for value in values[:50])


def _say(node: Schema, words: str) -> None:
    """Add a constraint that the schema cannot express to the description."""
    if len(words) > _MAX_WORDS:
        words = f"{words[:_MAX_WORDS]}..."
    description = node.get("description")
    node["description"] = f"{description} ({words})" if description else f"({words})"
