"""Tools for small models: declarations, schemas that force a call, calls in words, and fitting
arguments.

Pure. `rejoinder.providers.local.reader` reads the output of small models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from rejoinder._core import jsontext

__all__ = [
    "Call",
    "ToolSpec",
    "call_schema",
    "fitting",
    "fold_tools",
    "plain_schema",
    "slim",
    "specs_of",
    "tell_calls",
    "tell_past",
    "tools_text",
]

_MAX_DEPTH: Final = 32


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A declared tool."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON schema of the arguments."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a declared tool with arguments that fit its schema."""

    name: str
    arguments: str
    """JSON text of an object."""


def specs_of(declared: Iterable[Mapping[str, Any]]) -> list[ToolSpec]:
    """Read tool declarations of the chat completions dialect."""
    specs: list[ToolSpec] = []
    for entry in declared:
        function = entry.get("function")
        if isinstance(function, Mapping):
            fields = cast("Mapping[str, Any]", function)
            specs.append(
                ToolSpec(
                    name=fields["name"],
                    description=fields.get("description") or "",
                    parameters=fields.get("parameters") or {"type": "object", "properties": {}},
                )
            )
    return specs


def slim(declared: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`declared` without the titles in its schemas, which only repeat names: each word costs reading
    time."""
    out: list[dict[str, Any]] = []
    for entry in declared:
        function = _mapping(entry.get("function"))
        out.append(
            {
                **entry,
                "function": {
                    **function,
                    "description": str(function.get("description") or "").strip(),
                    "parameters": _untitled(function.get("parameters")),
                },
            }
        )
    return out


def _untitled(schema: Any, depth: int = 0) -> Any:
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return cast("Any", schema)
    out: dict[str, Any] = {}
    for key, value in cast("Mapping[str, Any]", schema).items():
        if key in ("properties", "$defs", "definitions"):
            inner = _mapping(value).items()
            out[key] = {name: _untitled(item, depth + 1) for name, item in inner}
        elif isinstance(value, list):
            items = cast("list[Any]", value)
            out[key] = [_untitled(item, depth + 1) for item in items]
        elif key != "title" or not isinstance(value, str):
            out[key] = _untitled(value, depth + 1)
    return out


# ---------------------------------------------------------------------------------------------
# asking


def call_schema(specs: Sequence[ToolSpec]) -> dict[str, Any]:
    """The JSON schema of "one call of one of these", for the engine's grammar."""
    definitions: dict[str, Any] = {}
    variants: list[dict[str, Any]] = []
    for number, spec in enumerate(specs):
        # Each schema has its own definitions; in one common schema they need distinct names.
        arguments: dict[str, Any] = plain_schema(spec.parameters, prefix=f"t{number}_")
        definitions.update(arguments.pop("$defs", {}))
        if not arguments.get("properties") and "$ref" not in arguments:
            arguments = {"type": "object", "properties": {}, "additionalProperties": False}
        else:
            arguments["type"] = "object"
            arguments.setdefault("additionalProperties", False)
        variants.append(
            {
                "type": "object",
                "properties": {"name": {"const": spec.name}, "arguments": arguments},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    schema: dict[str, Any] = variants[0] if len(variants) == 1 else {"anyOf": variants}
    return {**schema, "$defs": definitions} if definitions else schema


def plain_schema(schema: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """The parts of `schema` that the engine's grammar supports, with definitions renamed by `prefix`."""
    out: dict[str, Any] = _plain(schema, prefix)
    definitions = {
        prefix + name: _plain(definition, prefix)
        for key in ("$defs", "definitions")
        for name, definition in _mapping(schema.get(key)).items()
    }
    if definitions:
        out["$defs"] = definitions
    return out


# The keywords that the engine's grammar supports. It refuses or ignores all others (formats, patterns
# without anchors, titles); the tool's own validation still checks every argument.
_KEPT: Final = frozenset({
    "type", "required", "enum", "const", "minItems", "maxItems", "minLength", "maxLength",
})  # fmt: skip


def _plain(schema: Any, prefix: str, depth: int = 0) -> dict[str, Any]:
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return {}
    source = cast("Mapping[str, Any]", schema)
    out: dict[str, Any] = {}
    for key, value in source.items():
        if key == "$ref" and isinstance(value, str):
            out[key] = f"#/$defs/{prefix}{value.rpartition('/')[2]}"
        elif key in _KEPT:
            out[key] = value
        elif key in ("anyOf", "oneOf", "allOf"):
            options = [_plain(item, prefix, depth + 1) for item in _sequence(value)]
            out["anyOf" if key == "oneOf" else key] = options
        elif key == "properties":
            out[key] = {
                name: _plain(item, prefix, depth + 1) for name, item in _mapping(value).items()
            }
        elif key == "items" and isinstance(value, Mapping):
            out[key] = _plain(value, prefix, depth + 1)
        elif key == "additionalProperties":
            out[key] = value if isinstance(value, bool) else _plain(value, prefix, depth + 1)
    return out


def tools_text(specs: Sequence[ToolSpec]) -> str:
    """A description of the tools, for a model whose chat template does not support tools."""
    lines = [
        jsontext.encode(
            {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
        ).decode()
        for spec in specs
    ]
    return "\n".join(
        [
            "# Tools",
            "Some requests need one of these functions:",
            *lines,
            "To call one, reply with nothing but this:",
            "<tool_call>",
            '{"name": "<function name>", "arguments": {<arguments>}}',
            "</tool_call>",
            "Otherwise answer in plain words.",
        ]
    )


def fold_tools(
    messages: Sequence[Mapping[str, Any]], specs: Sequence[ToolSpec]
) -> list[dict[str, Any]]:
    """`messages` for a template without tools: declarations are added to the system message; calls and
    their outputs become text in the form that `tools_text` describes."""
    out: list[dict[str, Any]] = []
    for message in messages:
        role = message["role"]
        content = message.get("content") or ""
        if role == "tool":
            role, content = "user", f"<tool_response>\n{content}\n</tool_response>"
        for call in _sequence(message.get("tool_calls")):
            function = call["function"]
            written = (
                f'<tool_call>\n{{"name": {jsontext.encode(function["name"]).decode()}, '
                f'"arguments": {function["arguments"] or "{}"}}}\n</tool_call>'
            )
            content = f"{content}\n{written}" if content else written
        if role == "user" and out and out[-1]["role"] == "user":
            out[-1]["content"] += f"\n{content}"
        else:
            out.append({"role": role, "content": content})
    if specs:
        text = tools_text(specs)
        if out and out[0]["role"] == "system":
            out[0]["content"] += f"\n\n{text}"
        else:
            out.insert(0, {"role": "system", "content": text})
    return out


def tell_calls(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`messages` with calls and results in plain words, for a model that should answer now: a small
    model that sees calls in its own past writes only calls. The results are added to the question,
    because it also repeats anything that it seems to have written before."""
    out: list[dict[str, Any]] = []
    called: dict[str, str] = {}
    for message in messages:
        if message["role"] == "tool":
            call = called.get(message["tool_call_id"], "The tool")
            sentence = f"{call} gave: {message.get('content') or '(nothing)'}."
            if out and out[-1]["role"] == "user":
                out[-1]["content"] += f"\n{sentence}"
            else:
                out.append({"role": "user", "content": sentence})
            continue
        for call in _sequence(message.get("tool_calls")):
            function = call["function"]
            called[call["id"]] = _told_call(function["name"], function["arguments"])
        entry = {key: value for key, value in message.items() if key != "tool_calls"}
        if entry.get("content") or "tool_calls" not in message:
            out.append(entry)
    if messages and messages[-1]["role"] == "tool":
        out[-1]["content"] += " Answer my question."
    return out


def tell_past(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`messages` with the past conversation described in the user's last message, for a model that may
    call tools now: after a few answers in words, a small model only continues in the same way and
    calls no tools."""
    described = tell_calls(messages)
    first = next(
        (n for n, message in enumerate(described) if message["role"] != "system"), len(described)
    )
    past = described[first:-1]
    if not past or described[-1]["role"] != "user":
        return described
    lines = [f"{message['role'].capitalize()}: {message.get('content') or ''}" for message in past]
    said = "\n".join(["Our conversation so far:", *lines])
    return [
        *described[:first],
        {**described[-1], "content": f"{said}\n\nNow: {described[-1]['content']}"},
    ]


def _told_call(name: str, arguments: str) -> str:
    try:
        values = _mapping(jsontext.decode(arguments))
    except ValueError:
        return name
    given = ", ".join(f"{key} {value}" for key, value in values.items())
    return f"{name} with {given}" if given else name


# ---------------------------------------------------------------------------------------------
# arguments and their schema


_MISFIT: Final = object()


def fitting(spec: ToolSpec, arguments: Any) -> dict[str, Any] | None:
    """`arguments` in the shape that the tool requires; ``None`` if they do not fit."""
    shaped = _shape(spec.parameters, arguments, spec.parameters)
    return cast("dict[str, Any]", shaped) if isinstance(shaped, dict) else None


def _shape(schema: Any, value: Any, root: Mapping[str, Any], depth: int = 0) -> Any:
    """`value` in the shape that `schema` requires, or the misfit marker.

    Only unambiguous values are mended: numbers and booleans as strings, an object as a string, null
    for an optional value, names that the schema does not have.
    """
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return value
    rules = cast("Mapping[str, Any]", schema)
    reference = rules.get("$ref")
    if isinstance(reference, str):
        target = _resolve(reference, root)
        return value if target is None else _shape(target, value, root, depth + 1)
    for key in ("anyOf", "oneOf"):
        options = _sequence(rules.get(key))
        if options:
            for option in options:
                shaped = _shape(option, value, root, depth + 1)
                if shaped is not _MISFIT:
                    return shaped
            return _MISFIT
    if "const" in rules:
        return value if value == rules["const"] else _MISFIT
    if isinstance(rules.get("enum"), list):
        return value if value in rules["enum"] else _MISFIT
    kinds = rules.get("type")
    if kinds is None:
        kinds = "object" if "properties" in rules else None
    if kinds is None:
        return value
    for kind in [kinds] if isinstance(kinds, str) else _sequence(kinds):
        shaped = _of_kind(kind, value, rules, root, depth)
        if shaped is not _MISFIT:
            return shaped
    return _MISFIT


def _of_kind(
    kind: Any, value: Any, rules: Mapping[str, Any], root: Mapping[str, Any], depth: int
) -> Any:
    if isinstance(value, str) and kind in ("integer", "number", "boolean", "object", "array"):
        try:
            value = jsontext.decode(value.strip())
        except ValueError:
            return _MISFIT
        if isinstance(value, str):
            return _MISFIT
    match kind:
        case "string":
            return value if isinstance(value, str) else _MISFIT
        case "boolean":
            return value if isinstance(value, bool) else _MISFIT
        case "null":
            return value if value is None else _MISFIT
        case "integer" | "number":
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                return _MISFIT
            if kind == "integer" and isinstance(value, float):
                return int(value) if value.is_integer() else _MISFIT
            return value
        case "array":
            if not isinstance(value, list):
                return _MISFIT
            items: list[Any] = [
                _shape(rules.get("items"), item, root, depth + 1)
                for item in cast("list[Any]", value)
            ]
            return _MISFIT if any(item is _MISFIT for item in items) else items
        case "object":
            return _object(value, rules, root, depth)
        case _:
            return value


def _object(value: Any, rules: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    if value is None:
        value = {}
    if not isinstance(value, dict):
        return _MISFIT
    data = cast("dict[str, Any]", value)
    properties = _mapping(rules.get("properties"))
    required = _sequence(rules.get("required"))
    extra = rules.get("additionalProperties", not properties)
    out: dict[str, Any] = {}
    for name, item in data.items():
        if name in properties:
            shaped = _shape(properties[name], item, root, depth + 1)
            if shaped is _MISFIT:
                if item is None and name not in required:
                    continue
                return _MISFIT
            out[name] = shaped
        elif extra:
            out[name] = item
    return out if all(name in out for name in required) else _MISFIT


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    value: Any = root
    if not reference.startswith("#/"):
        return None
    for step in reference[2:].split("/"):
        value = _mapping(value).get(step.replace("~1", "/").replace("~0", "~"))
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> Sequence[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, (list, tuple)) else ()
