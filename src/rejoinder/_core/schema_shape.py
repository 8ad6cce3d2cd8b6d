"""References, cycles and sizes of a valid schema. Pure; takes linear time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

__all__ = ["cycles", "name_in", "refs_in", "too_large_for_strict"]

JsonSchema = Mapping[str, Any]


def name_in(ref: str) -> str:
    """The definition that a ``$ref`` leads to."""
    return ref.rpartition("/")[2]


def refs_in(node: object) -> set[str]:
    """The definitions that `node` itself refers to."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            schema = cast("JsonSchema", part)
            if isinstance(ref := schema.get("$ref"), str):
                found.add(name_in(ref))
            waiting += (v for k, v in schema.items() if k not in ("enum", "const", "default"))
        elif isinstance(part, list):
            waiting += cast("list[object]", part)
    return found


def cycles(definitions: JsonSchema) -> dict[str | None, int]:
    """For each definition that takes part in a cycle, the number of that cycle (Tarjan's way)."""
    edges = {name: sorted(refs_in(node)) for name, node in definitions.items()}
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    found: dict[str | None, int] = {}
    for start in edges:
        if start in order:
            continue
        work: list[tuple[str, int]] = [(start, 0)]
        while work:
            name, at = work.pop()
            if name not in order:
                order[name] = low[name] = len(order)
                stack.append(name)
                on_stack.add(name)
            for index in range(at, len(edges[name])):
                other = edges[name][index]
                if other not in edges:
                    continue
                if other not in order:
                    work += [(name, index), (other, 0)]
                    break
                if other in on_stack:
                    low[name] = min(low[name], low[other])
            else:
                if low[name] == order[name]:
                    members: list[str] = []
                    while True:
                        members.append(stack.pop())
                        on_stack.discard(members[-1])
                        if members[-1] == name:
                            break
                    if len(members) > 1 or name in edges[name]:
                        found.update(dict.fromkeys(members, order[name]))
    return found


# OpenAI's guide to structured outputs, "supported schemas".
_MAX_LEVELS = 10
_MAX_PROPERTIES = 5000
_MAX_ENUM_VALUES = 1000
_MAX_CHARACTERS = 120_000
_LARGE_ENUM = 250
_MAX_ENUM_CHARACTERS = 15_000


def too_large_for_strict(schema: JsonSchema) -> str | None:
    """The first of OpenAI's published limits for strict schemas that `schema`, in strict form,
    exceeds; ``None`` if it is within all of them."""
    properties = values = characters = 0
    definitions = cast("JsonSchema", schema.get("$defs", {}))
    levels: dict[str, int] = {}
    waiting: list[tuple[object, int]] = [(schema, 1)]
    while waiting:
        part, level = waiting.pop()
        if isinstance(part, list):
            waiting += ((child, level) for child in cast("list[object]", part))
            continue
        if not isinstance(part, Mapping):
            continue
        node = cast("JsonSchema", part)
        if level > _MAX_LEVELS:
            return f"more than {_MAX_LEVELS} levels"
        if isinstance(ref := node.get("$ref"), str):
            name = name_in(ref)
            if name in definitions and name not in levels:
                levels[name] = level
                waiting.append((definitions[name], level))
        members = node.get("enum", [node["const"]] if "const" in node else [])
        length = sum(len(m) for m in members if isinstance(m, str))
        values += len(members) if "enum" in node else 0
        characters += length
        if len(members) > _LARGE_ENUM and length > _MAX_ENUM_CHARACTERS:
            return f"more than {_MAX_ENUM_CHARACTERS} characters in one enum"
        children = node.get("properties")
        if isinstance(children, Mapping):
            properties += len(cast("JsonSchema", children))
            characters += sum(map(len, cast("JsonSchema", children)))
            waiting += ((child, level + 1) for child in cast("JsonSchema", children).values())
        waiting += ((node.get(key), level + 1) for key in ("items",))
        waiting += ((node.get(key), level) for key in ("anyOf", "allOf"))
    characters += sum(map(len, definitions))
    for count, limit, what in (
        (properties, _MAX_PROPERTIES, "properties"),
        (values, _MAX_ENUM_VALUES, "enum values"),
        (characters, _MAX_CHARACTERS, "characters in names and values"),
    ):
        if count > limit:
            return f"more than {limit} {what}"
    return None
