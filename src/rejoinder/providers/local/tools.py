"""Tool calls of small models: forced by a schema, or found in what they write.

Law of this file: pure. Small models know what a call looks like and not how to mark it: they write
bare JSON, JSON in a code fence, doubled braces, a dozen names for the same two keys. So `CallReader`
reads their text as it comes and gives out text and calls. What could be the beginning of a call is
held back until it is decided; a call that names no declared tool, or whose arguments do not fit, is
dropped and reported, never shown as text. Memory is bounded: past `_LIMIT` characters nothing is a
call any more. JSON that is no call (the user asked for some) is text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from rejoinder._core import jsontext
from rejoinder._core.arguments import repair_json

__all__ = [
    "Call",
    "CallReader",
    "ToolSpec",
    "call_schema",
    "fold_tools",
    "plain_schema",
    "slim",
    "specs_of",
    "tell_calls",
    "tools_text",
]

_LIMIT: Final = 1 << 14
"""Characters that are held back at most."""
_DULL: Final = 256
"""From this length on, what is held back is judged again only when a character comes that can
decide something; judging it at every token would cost the square of its length."""
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
    """Tools as they are declared in the chat completions dialect."""
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
    """`declared` without the titles that schemas repeat names in: each word costs reading time."""
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
        # Each schema speaks of its own definitions; in one schema they need names of their own.
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
    """`schema` with what the engine's grammar understands, its definitions renamed by `prefix`."""
    out: dict[str, Any] = _plain(schema, prefix)
    definitions = {
        prefix + name: _plain(definition, prefix)
        for key in ("$defs", "definitions")
        for name, definition in _mapping(schema.get(key)).items()
    }
    if definitions:
        out["$defs"] = definitions
    return out


# What the engine's grammar understands. The rest (formats, patterns without anchors, titles) it
# refuses or ignores; the tool's own validation still sees every argument.
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
    """What to say about tools to a model whose chat template has no place for them."""
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
    """`messages` for a template without tools: declarations go into the system message, calls and
    their outputs become text in the form that `tools_text` asks for."""
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
    """`messages` with calls and results told in plain words, for a model that is to answer now: one
    that is small sees calls in its own past and writes nothing but calls."""
    out: list[dict[str, Any]] = []
    called: dict[str, str] = {}
    for message in messages:
        calls = _sequence(message.get("tool_calls"))
        if message["role"] == "tool":
            call = called.get(message["tool_call_id"], "The tool")
            told = f"{call} gave: {message.get('content') or '(nothing)'}."
            if out and out[-1].get("told"):
                out[-1]["content"] += f"\n{told}"
            else:
                out.append({"role": "user", "content": told, "told": True})
            continue
        entry = dict(message)
        if calls:
            entry.pop("tool_calls")
            names: list[str] = []
            for call in calls:
                function = call["function"]
                names.append(function["name"])
                called[call["id"]] = _told_call(function["name"], function["arguments"])
            entry["content"] = message.get("content") or f"I looked it up with {', '.join(names)}."
        out.append(entry)
    if out and out[-1].get("told"):
        out[-1]["content"] += " Answer my question."
    for entry in out:
        entry.pop("told", None)
    return out


def _told_call(name: str, arguments: str) -> str:
    try:
        values = _mapping(jsontext.decode(arguments))
    except ValueError:
        return name
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in values.items())})"


# ---------------------------------------------------------------------------------------------
# reading


class CallReader:
    """The text of a model in, text and calls out.

    Args:
        specs: the declared tools.
        single: give out one call at most.
        answered: calls that are not to be made again; one of them is dropped.
        refuse: no call is allowed; all are dropped.

    Attributes:
        dropped: something was meant as a call and could not be taken as one.
        misfit: the declared tool that was called with arguments that do not fit, if one was.
        called: calls given out so far.
        said: whether any text was given out.
    """

    def __init__(
        self,
        specs: Sequence[ToolSpec],
        *,
        single: bool = False,
        answered: Collection[Call] = (),
        refuse: bool = False,
    ) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._single = single
        self._refuse = refuse
        self._answered = {_canonical(call) for call in answered}
        self._held = ""
        self._blank = ""
        self._line_start = True
        self._in_fence = False
        self._seen: set[Call] = set()
        self.dropped = False
        self.misfit: str | None = None
        self.called = 0
        self.said = False

    @property
    def full(self) -> bool:
        """No further call will be given out."""
        return self._single and self.called > 0

    def feed(self, text: str) -> list[str | Call]:
        """What can be given out now that `text` has come."""
        waiting = len(self._held)
        self._held += text
        if _DULL < waiting <= _LIMIT and not _DECISIVE.search(text):
            return []
        return self._drain(final=False)

    def close(self) -> list[str | Call]:
        """No more text will come. Returns what was held back, as what it turned out to be."""
        out = self._drain(final=True)
        self._blank = ""
        return out

    def _drain(self, *, final: bool) -> list[str | Call]:
        out: list[str | Call] = []
        text: list[str] = []
        while self._held:
            held = self._held
            start = _START.search(held)
            if start is None:
                text.append(self._pass(len(held)))
                break
            if start.start():
                text.append(self._pass(start.start()))
                continue
            verdict = self._judge(held, final)
            if verdict is None:
                if len(held) <= _LIMIT and not final:
                    break
                verdict = _Verdict(len(held))
            if verdict.calls is None:
                text.append(self._pass(verdict.length))
                continue
            self._take(verdict, text, out)
        self._say(text, out)
        return out

    def _take(self, verdict: _Verdict, text: list[str], out: list[str | Call]) -> None:
        """Something that was meant as calls: give out the good ones, and no word of the rest."""
        self._say(text, out)
        self._blank = ""
        self._held = self._held[verdict.length :]
        self._line_start = True
        self.dropped = self.dropped or verdict.dropped
        self.misfit = self.misfit or verdict.misfit
        for call in verdict.calls or ():
            if call in self._seen or self.full:
                continue  # small models like to repeat themselves
            if self._refuse or call in self._answered:
                self.dropped = True
                continue
            self._seen.add(call)
            self.called += 1
            out.append(call)

    def _pass(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        _, newline, tail = text.rpartition("\n")
        self._line_start = (bool(newline) or self._line_start) and not tail.strip()
        return text

    def _say(self, text: list[str], out: list[str | Call]) -> None:
        joined = self._blank + "".join(text)
        text.clear()
        if self.called:
            self._blank = ""
            return  # what follows a call is its result as the model imagines it
        kept = joined.rstrip()
        if not self.said:
            kept = kept.lstrip("\n")
            joined = joined.lstrip("\n")
        self._blank = joined[len(kept) :]
        if kept:
            self.said = True
            out.append(kept)

    # -- judging: None waits for more, a verdict without calls is text ------------------------

    def _judge(self, held: str, final: bool) -> _Verdict | None:
        first = held[0]
        if first == "`":
            return self._judge_fence(held, final)
        if self._in_fence:
            return _Verdict(1)
        if first == "<":
            return self._judge_tag(held, final)
        if first == "[" and not self._line_start:
            return _Verdict(1)
        return self._judge_json(held, 0, final, marked=False)

    def _judge_fence(self, held: str, final: bool) -> _Verdict | None:
        if not held.startswith("```"):
            if "```".startswith(held) and not final:
                return None
            return _Verdict(len(held) - len(held.lstrip("`")))
        if self._in_fence:
            self._in_fence = False
            return _Verdict(3)
        opening = _FENCE.match(held)
        if opening is None:  # the line that names the language is not complete
            if final or not _FENCE_BEGUN.match(held):
                self._in_fence = not final
                return _Verdict(3)
            return None
        body = opening.end()
        if body == len(held) and not final:
            return None
        if held[body : body + 1] in ("{", "["):
            verdict = self._judge_json(held, body, final, marked=False)
        elif held.startswith("<tool_call>", body):
            verdict = self._judge_tag(held[body:], final)
            if verdict is not None:
                verdict = verdict.longer(body)
        elif "<tool_call>".startswith(held[body:]) and not final:
            return None
        else:
            verdict = _Verdict(1)
        if verdict is None:
            return None
        if verdict.calls is None:
            self._in_fence = True
            return _Verdict(3)
        rest = _FENCE_END.match(held, verdict.length)
        if rest is None:
            return verdict if final or held[verdict.length :].strip(" \r\n`") else None
        return _Verdict(rest.end(), verdict.calls, verdict.dropped, verdict.misfit)

    def _judge_tag(self, held: str, final: bool) -> _Verdict | None:
        mark = _MARK.match(held)
        if mark is None:
            if not final and any(name.startswith(held) for name in _MARKS):
                return None
            return _Verdict(1)
        if mark.group().startswith("</"):
            # The end of a call that was already taken.
            return _Verdict(len(mark.group().rstrip()), ())
        body = mark.end()
        if body == len(held):
            return _Verdict(body, (), dropped=True) if final else None
        if held[body] not in "{[":
            return _Verdict(body, (), dropped=True)
        verdict = self._judge_json(held, body, final, marked=True)
        if verdict is None or verdict.calls is not None:
            return verdict
        return _Verdict(verdict.length, (), dropped=True)

    def _judge_json(self, held: str, start: int, final: bool, *, marked: bool) -> _Verdict | None:
        """`held` from `start` opens with a bracket. `marked`: it stands in tags that say it is a
        call, so it can be nothing else."""
        if not marked and not self._may_be_call(held, start, final):
            return _Verdict(start + 1)
        end = _end_of_json(held, start)
        if end is None:
            if not final:
                if len(held) > _LIMIT:
                    return _Verdict(len(held))
                if not marked and self._is_other_json(held, start):
                    return _Verdict(start + 1)
                return None
            end = len(held)
        written = held[start:end]
        value = _read(written)
        meant = None if value is _UNREADABLE else _meant(value, self._specs)
        if meant is None:
            looks_like_call = _CALL_SHAPE.match(written) is not None
            if value is _UNREADABLE and (marked or looks_like_call):
                return _Verdict(end, (), dropped=True)
            return _Verdict(start + 1 if not marked else end)
        calls: list[Call] = []
        dropped = False
        misfit: str | None = None
        for name, arguments in meant:
            spec = self._specs.get(name)
            if spec is None:
                dropped = True
                continue
            shaped = _shape(spec.parameters, arguments, spec.parameters)
            if isinstance(shaped, dict):
                calls.append(Call(name, jsontext.encode(cast("Any", shaped)).decode()))
            else:
                dropped, misfit = True, misfit or name
        return _Verdict(end, tuple(calls), dropped, misfit)

    def _may_be_call(self, held: str, start: int, final: bool) -> bool:
        """Whether the first key is one that calls begin with, as far as it can be seen."""
        first = _FIRST_KEY.match(held, start)
        if first is not None:
            key = first.group(1)
            return key in _CALL_KEYS or key in self._specs
        if final:
            return False
        begun = _FIRST_KEY_BEGUN.match(held, start)
        return begun is not None and begun.end() == len(held)

    def _is_other_json(self, held: str, start: int) -> bool:
        """Whether a key was seen that no call has, so that it need not be held back any longer."""
        if held[start] == "[":
            return False
        return any(
            key not in _CALL_KEYS and key not in self._specs for key in _top_keys(held, start)
        )


def _canonical(call: Call) -> Call:
    try:
        return Call(call.name, jsontext.encode(jsontext.decode(call.arguments)).decode())
    except ValueError:
        return call


@dataclass(frozen=True, slots=True)
class _Verdict:
    length: int
    """Characters it is about."""
    calls: tuple[Call, ...] | None = None
    """``None``: they are text."""
    dropped: bool = False
    misfit: str | None = None

    def longer(self, by: int) -> _Verdict:
        return _Verdict(self.length + by, self.calls, self.dropped, self.misfit)


_DECISIVE: Final = re.compile(r"[\]}:`>]")
_START: Final = re.compile(r"[<`{\[]")
_FENCE: Final = re.compile(r"```[ \t]*(?:json|jsonc|json5|tool_call|tool|xml)?[ \t]*\r?\n\s*", re.I)
_FENCE_BEGUN: Final = re.compile(r"```[ \t]*[A-Za-z_0-9]{0,9}[ \t]*\r?\Z")
_FENCE_END: Final = re.compile(r"\s*```")
_MARKS: Final = (
    "<tool_call>", "</tool_call>", "<function_call>", "</function_call>", "<tools>", "</tools>",
    "<|tool_call|>", "<|python_tag|>", "<tool_calls>", "</tool_calls>",
)  # fmt: skip
_MARK: Final = re.compile("(?:" + "|".join(map(re.escape, _MARKS)) + r")\s*")
_CALL_KEYS: Final = frozenset({
    "name", "arguments", "parameters", "args", "input", "function", "tool", "tool_name",
    "function_name", "function_call", "tool_call", "tool_calls", "type", "id",
})  # fmt: skip
_NAME_KEYS: Final = ("name", "function", "tool", "tool_name", "function_name")
_ARGUMENT_KEYS: Final = ("arguments", "parameters", "args", "input")
_INNER_KEYS: Final = ("function", "function_call", "tool_call")
_FIRST_KEY: Final = re.compile(r"""[\[{][\[{\s]*["']([^"'\\\n]{1,64})["']\s*:""")
_FIRST_KEY_BEGUN: Final = re.compile(r"""[\[{][\[{\s]*(?:["'][^"'\\\n]{0,64}(?:["']\s*)?)?""")
_CALL_SHAPE: Final = re.compile(
    r"""[\[{\s]*["'](?:name|function|tool|tool_name|function_name|tool_calls?|function_call)["']"""
)
_UNREADABLE: Final = object()


def _end_of_json(text: str, start: int) -> int | None:
    """Where the JSON value that opens at `start` ends; ``None`` if it does not end."""
    depth = 0
    in_text = False
    for token in _JSON_TOKEN.finditer(text, start):
        mark = token.group()
        if in_text:
            in_text = mark != '"'
        elif mark == '"':
            in_text = True
        elif mark in "{[":
            depth += 1
        elif mark in "}]":
            depth -= 1
            if depth == 0:
                return token.end()
    return None


_JSON_TOKEN: Final = re.compile(r'\\.|["{}\[\]]', re.DOTALL)
_KEY_TOKEN: Final = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:)?|[{}\[\]]', re.DOTALL)


def _top_keys(text: str, start: int) -> list[str]:
    keys: list[str] = []
    depth = 0
    for token in _KEY_TOKEN.finditer(text, start):
        mark = token.group()
        if mark in "{[":
            depth += 1
        elif mark in "}]":
            depth -= 1
        elif depth == 1 and token.group(2):
            keys.append(token.group(1))
    return keys


def _read(text: str) -> Any:
    candidates = [text]
    if text.startswith("{{"):
        candidates.append(text[1:-1] if text.endswith("}}") else text[1:])
    for candidate in candidates:
        try:
            return jsontext.decode(candidate)
        except ValueError:
            pass
    for candidate in candidates:
        value = repair_json(candidate)
        if isinstance(value, (dict, list)):
            return cast("Any", value)
    return _UNREADABLE


def _meant(value: Any, specs: Mapping[str, ToolSpec]) -> list[tuple[str, Any]] | None:
    """The calls that a JSON value stands for, declared or not; ``None`` if it is no call."""
    if isinstance(value, list):
        found: list[tuple[str, Any]] = []
        for item in cast("list[Any]", value):
            inner = _meant(item, specs)
            if inner is None:
                return None
            found += inner
        return found or None
    if not isinstance(value, dict):
        return None
    data = cast("dict[str, Any]", value)
    many: Any = data.get("tool_calls")
    if isinstance(many, list):
        return _meant(cast("Any", many), specs)
    for key in _INNER_KEYS:
        if isinstance(data.get(key), dict):
            return _meant(data[key], specs)
    name = next((data[key] for key in _NAME_KEYS if isinstance(data.get(key), str)), None)
    arguments = next((data[key] for key in _ARGUMENT_KEYS if key in data), None)
    if name is None:
        only = next(iter(data), "")
        if len(data) == 1 and only in specs and isinstance(data[only], dict):
            return [(only, data[only])]
        return None
    if any(key not in _CALL_KEYS for key in data):
        return None
    if arguments is None:
        if not any(key in data for key in _ARGUMENT_KEYS) and name not in specs:
            return None  # {"name": "Ada"} is somebody's data
        arguments = {}
    return [(name.strip(), arguments)]


# ---------------------------------------------------------------------------------------------
# arguments and their schema


_MISFIT: Final = object()


def _shape(schema: Any, value: Any, root: Mapping[str, Any], depth: int = 0) -> Any:
    """`value` in the shape that `schema` asks for, or the misfit marker.

    Only what cannot mean anything else is mended: numbers and booleans written as text, an object
    written as text, a null for something that may be left out, names the schema does not have.
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
