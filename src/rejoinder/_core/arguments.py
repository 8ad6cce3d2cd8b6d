"""From the JSON that a model wrote to the values that a function is called with.

Law: text in, values out; the function is never called here. The only failure is `ToolError`, whose
text is written for the model: where it went wrong, what is expected, what was got. JSON that is not
JSON is repaired only where it can mean one thing; a text that was cut off is not.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json, to_json

from rejoinder._core.schema import Plan
from rejoinder._core.strict import resolve_ref
from rejoinder._core.tools import RunContext, ToolError

__all__ = [
    "bind_arguments",
    "bind_raw_arguments",
    "parse_arguments",
    "repair_json",
    "validate_arguments",
]

JsonSchema = Mapping[str, Any]
Mender = Callable[[Any], Any]

_MAX_ENCODINGS = 4
"""How often arguments may be wrapped in JSON strings."""
_MAX_SHOWN = 120
"""Characters of a wrong value that are shown to the model."""
_MAX_ERRORS = 8


# ---------------------------------------------------------------------------------------------
# text -> object


def parse_arguments(text: str | bytes, *, tool: str = "") -> dict[str, Any]:
    """The arguments as an object.

    A JSON ``null`` is an empty object; an object inside a JSON string is unwrapped; broken JSON is
    repaired where that is unambiguous.

    Raises:
        ToolError: the text is no JSON object.
        TypeError: `text` is neither text nor bytes.
    """
    if not isinstance(text, str | bytes | bytearray):
        raise TypeError(f"arguments of a tool: expected JSON text, got {type(text).__name__}")
    value = _loads(text, tool)
    for _ in range(_MAX_ENCODINGS):
        if not isinstance(value, str):
            break
        inner = _try_loads(value)
        if inner is _BROKEN:
            break
        value = inner
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ToolError(
            f'The arguments{_of(tool)} must be a JSON object like {{"name": value}}, '
            f"got {_kind(value)}: {_shown(value)}"
        )
    return cast("dict[str, Any]", value)


_BROKEN: Final = object()


def _try_loads(text: str | bytes | bytearray) -> Any:
    try:
        return from_json(text)
    except ValueError:
        if isinstance(text, bytes | bytearray):
            text = text.decode("utf-8", "replace")
        return repair_json(text)


def _loads(text: str | bytes | bytearray, tool: str) -> Any:
    try:
        return from_json(text)
    except ValueError as error:
        value = _try_loads(text)
        if value is not _BROKEN:
            return value
        reason = str(error)
    shown = text if isinstance(text, str) else text.decode("utf-8", "replace")
    if not shown.strip():
        raise ToolError(
            f"The arguments{_of(tool)} are empty; write a JSON object, {{}} if there are none"
        ) from None
    raise ToolError(
        f"The arguments{_of(tool)} are not valid JSON ({reason}): {_cut(shown)}\n"
        "Write one complete JSON object with double quotes around names and texts"
    ) from None


def _of(tool: str) -> str:
    return f" of `{tool}`" if tool else ""


# Marks of chat templates that models leak into what they write. Those in angle brackets alone may
# also be HTML, so they are taken for marks around the JSON only, and never inside of it.
_MARKS: Final = re.compile(r"<\|[A-Za-z_][\w.:/-]{0,40}\|?>")
_AROUND: Final = (
    *(f"<{name}>" for name in ("tool_call", "tool", "function_call", "s", "bos", "eos")),
    *(f"</{name}>" for name in ("tool_call", "tool", "function_call", "s", "bos", "eos")),
    *("<start_of_turn>", "<end_of_turn>"),
    *("[TOOL_CALL]", "[TOOL_CALLS]", "[/TOOL_CALL]", "[/TOOL_CALLS]"),
)
_MAX_AROUND = 8
_FENCE: Final = "```"
_LANGUAGE: Final = re.compile(r"[A-Za-z0-9_-]*")


def repair_json(text: str) -> Any:
    """The one value that a broken JSON text can mean, or a marker that is no JSON value.

    Mended are: a byte order mark, a code fence or chat-template marks around or inside, trailing
    commas, single quotes, Python's ``True``/``False``/``None``, names without quotes, raw line breaks in texts,
    closing brackets that are missing at the end or too many, and the same value written twice.
    Nothing is guessed: an unfinished text, number or pair stays broken.
    """
    text = _without_fence(text)
    text = _MARKS.sub("", text.replace('<|"|>', '"').removeprefix("\ufeff"))
    text = _without_marks_around(text)
    try:
        return from_json(text)
    except ValueError:
        pass
    reader = _Reader(text)
    try:
        value = reader.value()
        reader.end(value)
    except (_Unclear, RecursionError, ValueError):  # ValueError: a number beyond all bounds
        return _BROKEN
    return value


def _without_fence(text: str) -> str:
    core = text.strip()
    if len(core) < 2 * len(_FENCE) or not (core.startswith(_FENCE) and core.endswith(_FENCE)):
        return text
    language, line_end, inner = core[len(_FENCE) : -len(_FENCE)].partition("\n")
    return inner if line_end and _LANGUAGE.fullmatch(language.strip()) else text


def _without_marks_around(text: str) -> str:
    for _ in range(_MAX_AROUND):
        core = text.lstrip()
        mark = next((mark for mark in _AROUND if core.startswith(mark)), None)
        if mark is None:
            break
        text = core[len(mark) :]
    for _ in range(_MAX_AROUND):
        core = text.rstrip()
        mark = next((mark for mark in _AROUND if core.endswith(mark)), None)
        if mark is None:
            break
        # What stands before a mark is whole: a number there has not lost any digits.
        text = core[: -len(mark)] + " "
    return text


class _Unclear(Exception):
    """The text can mean more than one thing, or nothing."""


_ATOM: Final = re.compile(r"[^\s,:\[\]{}\"']+")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?\Z")
_NAME: Final = re.compile(r"[A-Za-z_$][\w$-]*\Z")
_WORDS: Final[dict[str, Any]] = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "null": None,
    "None": None,
}
_ESCAPES: Final = {
    '"': '"', "'": "'", "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t",
}  # fmt: skip
_MAX_DEPTH = 64


class _Reader:
    """Reads what was meant to be JSON; raises `_Unclear` at the first thing that needs a guess."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def _peek(self) -> str:
        text, at = self._text, self._at
        while at < len(text) and text[at].isspace():
            at += 1
        self._at = at
        return text[at] if at < len(text) else ""

    def value(self) -> Any:
        char = self._peek()
        if char == "{":
            return self._object()
        if char == "[":
            return self._array()
        if char in ('"', "'") and char:
            return self._string()
        atom = self._atom()
        if atom in _WORDS:
            return _WORDS[atom]
        # At the very end a number may have lost digits.
        if _NUMBER.match(atom) and self._at < len(self._text):
            return from_json(atom)
        raise _Unclear

    def end(self, value: Any) -> None:
        """What follows the value: nothing, surplus closing brackets, or the same value again."""
        while (char := self._peek()) and char in "]}":
            self._at += 1
        while self._peek():
            if self.value() != value:
                raise _Unclear

    def _atom(self) -> str:
        match = _ATOM.match(self._text, self._at)
        if match is None:
            raise _Unclear
        self._at = match.end()
        return match.group()

    def _enter(self) -> None:
        self._at += 1
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _Unclear

    def _closed(self, bracket: str, *, may_lack: bool) -> bool:
        char = self._peek()
        if char == bracket:
            self._at += 1
            self._depth -= 1
            return True
        if char == "" and may_lack:
            # Something was said, and said completely: only the bracket is missing.
            self._depth -= 1
            return True
        return False

    def _object(self) -> dict[str, Any]:
        self._enter()
        out: dict[str, Any] = {}
        after_comma = False
        while not self._closed("}", may_lack=bool(out) and not after_comma):
            char = self._peek()
            if char in ('"', "'") and char:
                key = self._string()
            else:
                key = self._atom()
                if not _NAME.match(key):
                    raise _Unclear
            if self._peek() != ":":
                raise _Unclear
            self._at += 1
            value = self.value()
            if key in out and out[key] != value:
                raise _Unclear
            out[key] = value
            after_comma = self._comma("}")
        return out

    def _array(self) -> list[Any]:
        self._enter()
        out: list[Any] = []
        after_comma = False
        while not self._closed("]", may_lack=bool(out) and not after_comma):
            out.append(self.value())
            after_comma = self._comma("]")
        return out

    def _comma(self, bracket: str) -> bool:
        char = self._peek()
        if char == ",":
            self._at += 1
            return True
        if char not in ("", bracket):
            raise _Unclear
        return False

    def _string(self) -> str:
        text = self._text
        quote = text[self._at]
        at = self._at + 1
        out: list[str] = []
        while True:
            if at >= len(text):
                raise _Unclear
            char = text[at]
            if char == "\\":
                escape = text[at + 1 : at + 2]
                if escape == "u":
                    try:
                        out.append(chr(int(text[at + 2 : at + 6], 16)))
                    except ValueError:
                        raise _Unclear from None
                    at += 6
                    continue
                if escape not in _ESCAPES or not escape:
                    raise _Unclear
                out.append(_ESCAPES[escape])
                at += 2
                continue
            if char == quote:
                self._at = at + 1
                # A quote that no delimiter follows may belong to the text ("it's").
                if self._peek() not in ("", ",", ":", "]", "}"):
                    raise _Unclear
                return "".join(out).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            out.append(char)
            at += 1


# ---------------------------------------------------------------------------------------------
# object -> values


def validate_arguments(plan: Plan, text: str | bytes, *, tool: str = "") -> dict[str, Any]:
    """The values by parameter name, defaults filled in, context parameters left out.

    A null where null is not allowed means "use the default". Values are converted as pydantic does
    it (``"7"`` becomes 7 for an int), unknown names are ignored.

    Raises:
        ToolError: the arguments do not fit.
    """
    values = _validate(plan, text, tool)
    return {p.name: values[p.field] for p in plan.parameters if p.context is None}


def _validate(plan: Plan, text: str | bytes, tool: str) -> Mapping[str, Any]:
    validator = plan.model.__pydantic_validator__
    as_text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    if isinstance(as_text, str) and as_text[:1] == "{" and "null" not in as_text:
        # The usual case: one pass, parsing and validating together.
        try:
            return validator.validate_json(as_text).__dict__
        except ValidationError as error:
            if error.errors(include_url=False)[0]["type"] != "json_invalid":
                data = parse_arguments(as_text, tool=tool)
                raise ToolError(_explain(error, data, plan, tool)) from error
    data = _without_idle_nulls(plan)(parse_arguments(text, tool=tool))
    try:
        # Through JSON, because a strict field takes e.g. a date as text from there only.
        return validator.validate_json(to_json(data, inf_nan_mode="constants")).__dict__
    except ValidationError as error:
        raise ToolError(_explain(error, data, plan, tool)) from error


def bind_arguments(
    plan: Plan, text: str | bytes, *, call_ctx: object | None = None, tool: str = ""
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments for the function of `plan`; see `validate_arguments`.

    Raises:
        ToolError: the arguments do not fit.
        TypeError: a required context parameter has nothing to be filled with.
    """
    if plan.unbound:
        raise TypeError(
            f"tool `{tool or plan.name}` is a method of a class: take it from an instance"
        )
    return _bind(plan, _validate(plan, text, tool), call_ctx)


def _bind(
    plan: Plan, values: Mapping[str, Any], call_ctx: object | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for parameter in plan.parameters:
        kind = parameter.kind
        if parameter.context is not None:
            value: Any = _context(
                plan.name, parameter.name, parameter.default, parameter.context, call_ctx
            )
        else:
            value = values[parameter.field]
        if kind is inspect.Parameter.VAR_POSITIONAL:
            args.extend(value)
        elif kind is inspect.Parameter.VAR_KEYWORD:
            _refuse_taken(plan, parameter.key, value)
            kwargs.update(value)
        elif kind is inspect.Parameter.KEYWORD_ONLY:
            kwargs[parameter.name] = value
        else:
            args.append(value)
    return tuple(args), kwargs


def _refuse_taken(plan: Plan, key: str, more: Mapping[str, Any]) -> None:
    """Further keywords may not give a parameter a second value."""
    for parameter in plan.parameters:
        if parameter.name in more and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY:
            raise ToolError(
                f"The arguments{_of(plan.name)} do not fit:\n"
                f"- {_path((key, parameter.name))}: give this argument as {_path((parameter.key,))}"
            )


def _context(tool: str, name: str, default: Any, wanted: type[Any], call_ctx: object | None) -> Any:
    # A subclass promises more than every context holds; the plain class is taken for any context.
    special = wanted is not RunContext and issubclass(wanted, RunContext)
    if call_ctx is not None and (not special or isinstance(call_ctx, wanted)):
        return call_ctx
    if default is not inspect.Parameter.empty:
        return default
    got = "nothing" if call_ctx is None else f"a {type(call_ctx).__name__}"
    raise TypeError(
        f"tool `{tool}`, parameter `{name}`: expected a {wanted.__name__}, got {got}; say "
        "what it gets when the tool is run (`call_ctx=`, or `make_context=` of a turn)"
    )


def bind_raw_arguments(
    function: Callable[..., Any],
    text: str | bytes,
    *,
    contexts: Mapping[str, type[Any]],
    call_ctx: object | None = None,
    tool: str = "",
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """As `bind_arguments` for a raw tool, which gets the whole object as ``raw_arguments``.

    `contexts` are its context parameters, by name.
    """
    given = parse_arguments(text, tool=tool)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    parameters = inspect.signature(function).parameters
    for name, parameter in parameters.items():
        kind = parameter.kind
        if name == "raw_arguments":
            value: Any = given
        elif name in contexts:
            value = _context(tool, name, parameter.default, contexts[name], call_ctx)
        elif kind is parameter.VAR_POSITIONAL:
            continue
        elif kind is parameter.VAR_KEYWORD:
            if "raw_arguments" not in parameters:
                kwargs["raw_arguments"] = given
            continue
        elif parameter.default is not parameter.empty:
            value = parameter.default
        else:
            raise TypeError(
                f"raw tool `{tool}`, parameter `{name}`: expected a default or a RunContext, "
                "because nothing fills it"
            )
        if kind is parameter.KEYWORD_ONLY:
            kwargs[name] = value
        else:
            args.append(value)
    return tuple(args), kwargs


# ---------------------------------------------------------------------------------------------
# null means "use the default"


def _without_idle_nulls(plan: Plan) -> Mender:
    """Takes out every null that only means "use the default", at any depth."""
    if plan.mender is None:
        plan.mender = _mender(plan.schema, plan.schema, {}) or _same
    return plan.mender


def _same(value: Any) -> Any:
    return value


def _mender(schema: object, root: JsonSchema, refs: dict[str, list[Mender]]) -> Mender | None:
    """Compile the part of `schema` that can have something to mend; ``None`` if nothing can."""
    if not isinstance(schema, Mapping):
        return None
    node = cast("JsonSchema", schema)
    ref = node.get("$ref")
    if isinstance(ref, str):
        return _ref_mender(ref, root, refs)
    variants: list[Any] = node.get("anyOf") or node.get("oneOf") or node.get("allOf") or []
    if variants:
        return _union_mender(variants, root, refs)
    if isinstance(node.get("properties"), Mapping):
        return _object_mender(node, root, refs)
    values = _mender(node.get("additionalProperties"), root, refs)
    if values is not None:
        return _each_value(values)
    items = _mender(node.get("items"), root, refs)
    heads = [_mender(head, root, refs) or _same for head in node.get("prefixItems", ())]
    if items is None and all(head is _same for head in heads):
        return None
    return _each_item(heads, items or _same)


def _ref_mender(ref: str, root: JsonSchema, refs: dict[str, list[Mender]]) -> Mender | None:
    if ref not in refs:
        cell: list[Mender] = []
        refs[ref] = cell
        made = _mender(resolve_ref(root=root, ref=ref), root, refs)
        # A definition that refers to itself has already handed out the cell.
        cell.append(made or _same)
        return made
    cell = refs[ref]
    return lambda value: cell[0](value)


def _object_mender(
    node: JsonSchema, root: JsonSchema, refs: dict[str, list[Mender]]
) -> Mender | None:
    required = set(node.get("required", ()))
    idle: set[str] = set()
    inner: dict[str, Mender] = {}
    for name, child in node["properties"].items():
        if (name not in required or "default" in child) and not _allows_null(child, root):
            idle.add(name)
        mender = _mender(child, root, refs)
        if mender is not None:
            inner[name] = mender
    if not idle and not inner:
        return None

    def mend(value: Any) -> Any:
        if isinstance(value, dict):
            given = cast("dict[str, Any]", value)
            for name in idle & given.keys():
                if given[name] is None:
                    del given[name]
            for name in inner.keys() & given.keys():
                given[name] = inner[name](given[name])
        return cast("Any", value)

    return mend


def _union_mender(
    variants: list[Any], root: JsonSchema, refs: dict[str, list[Mender]]
) -> Mender | None:
    others = [variant for variant in variants if variant.get("type") != "null"]
    menders = [_mender(variant, root, refs) for variant in others]
    if len(menders) == 1:
        return menders[0]
    if not any(menders):
        return None

    def mend(value: Any) -> Any:
        # Of several kinds of objects only the one whose constants agree can be meant.
        fitting = [
            mender
            for variant, mender in zip(others, menders, strict=True)
            if _could_be(variant, value, root)
        ]
        if len(fitting) == 1 and fitting[0] is not None:
            return fitting[0](value)
        return value

    return mend


def _each_value(mender: Mender) -> Mender:
    def mend(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: mender(item) for key, item in cast("dict[str, Any]", value).items()}
        return value

    return mend


def _each_item(heads: list[Mender], rest: Mender) -> Mender:
    def mend(value: Any) -> Any:
        if isinstance(value, list):
            return [
                (heads[i] if i < len(heads) else rest)(item)
                for i, item in enumerate(cast("list[Any]", value))
            ]
        return value

    return mend


_JSON_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def _could_be(variant: JsonSchema, value: Any, root: JsonSchema) -> bool:
    if "$ref" in variant:
        variant = resolve_ref(root=root, ref=variant["$ref"])
    kinds = _JSON_TYPES.get(str(variant.get("type")))
    if kinds is not None and not isinstance(value, kinds):
        return False
    if isinstance(value, dict):
        given = cast("dict[str, Any]", value)
        for name, child in variant.get("properties", {}).items():
            if "const" in child and given.get(name, child.get("default")) != child["const"]:
                return False
    return True


def _allows_null(schema: object, root: JsonSchema) -> bool:
    if not isinstance(schema, Mapping):
        return True
    node = cast("JsonSchema", schema)
    if "$ref" in node:
        return _allows_null(resolve_ref(root=root, ref=node["$ref"]), root)
    for key in ("anyOf", "oneOf"):
        if key in node:
            return any(_allows_null(variant, root) for variant in node[key])
    if "allOf" in node:
        return all(_allows_null(part, root) for part in node["allOf"])
    if "const" in node:
        return node["const"] is None
    if "enum" in node:
        return None in node["enum"]
    kind = node.get("type")
    return kind is None or kind == "null" or (isinstance(kind, list) and "null" in kind)


# ---------------------------------------------------------------------------------------------
# what the model is told


def _explain(error: ValidationError, data: Mapping[str, Any], plan: Plan, tool: str) -> str:
    details = error.errors(include_url=False)
    lines = [f"The arguments{_of(tool or plan.name)} do not fit:"]
    lines += [f"- {_line(detail, plan.schema)}" for detail in details[:_MAX_ERRORS]]
    if len(details) > _MAX_ERRORS:
        lines.append(f"- and {len(details) - _MAX_ERRORS} more")
    known = [parameter.key for parameter in plan.parameters if parameter.context is None]
    for name in list(data)[:_MAX_ERRORS]:
        if name not in known and any(detail["type"] == "missing" for detail in details):
            by_case = {key.casefold(): key for key in known}
            close = difflib.get_close_matches(name.casefold(), by_case, n=1)
            hint = (
                f", did you mean `{by_case[close[0]]}`?"
                if close
                else f"; there are {_names(known)}"
            )
            lines.append(f"- {_path((name,))}: no such argument{hint}")
    return "\n".join(lines)


_ENUM_MEMBER: Final = re.compile(r"<\w+(?:\.\w+)+: (.*?)>(?=,| or |$)")
"""How pydantic shows a member of an enum; the model knows its value only."""


def _line(detail: ErrorDetails, schema: JsonSchema) -> str:
    path = _path(detail["loc"])
    if detail["type"] == "missing":
        place: Any = schema
        if len(detail["loc"]) == 1:
            place = schema.get("properties", {}).get(detail["loc"][0], {})
            kind = place.get("type")
            if isinstance(kind, str):
                return f"{path}: expected a value ({kind}), got nothing"
        return f"{path}: expected a value, got nothing"
    message = detail["msg"]
    for start in ("Value error, ", "Assertion failed, "):
        message = message.removeprefix(start)
    if message.startswith("Input should be "):
        message = "expected " + message.removeprefix("Input should be ")
    if detail["type"] == "literal_error":
        message = _ENUM_MEMBER.sub(r"\1", message)
    value: Any = detail["input"]
    got = "null" if value is None else f"{_kind(value)} {_shown(value)}"
    return f"{path}: {message}, got {got}"


def _path(loc: tuple[int | str, ...]) -> str:
    path = "$"
    for step in loc:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "text"
        case dict():
            return "object"
        case list():
            return "array"
        case _:
            return type(value).__name__


def _shown(value: object) -> str:
    try:
        text = to_json(value, inf_nan_mode="constants").decode()
    except ValueError:  # a lone surrogate, or no JSON value at all
        text = ascii(value)
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


# ---------------------------------------------------------------------------------------------
# texts


def canonical_arguments(text: str) -> str:
    """`text` itself if it is a JSON object or nothing that can be read; otherwise the object that
    was meant, written as JSON."""
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError:
        pass
    else:
        if isinstance(value, dict):
            return text
    try:
        return _compact(parse_arguments(text))
    except ToolError:
        return text


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def structured_text(value: Any) -> str | None:
    """JSON for what is no plain Python value: models, dataclasses, dates, lists of such; ``None``
    for what JSON cannot say."""
    try:
        return to_json(value, by_alias=True).decode()
    except (ValueError, TypeError, RecursionError):
        return None
