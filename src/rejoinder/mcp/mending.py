"""Mends the results of servers before the SDK validates them. Pure.

The SDK accepts or refuses a result as a whole: one tool with a bad schema would lose all tools of its
server, and one unknown content part the text beside it. Here, only the flawed part is lost. Each
change is described in words and returned.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from rejoinder._core.pictures import shown_type

__all__ = [
    "LISTS",
    "PARTS",
    "Refused",
    "mend_call",
    "mend_list",
    "mend_response",
    "shallow_mismatch",
    "values_in",
    "without_schemas",
]

LISTS: Final = {
    "tools/list": "tools",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
    "prompts/list": "prompts",
    "resources/read": "contents",
    "prompts/get": "messages",
}
"""Methods whose result is a list, and its field."""

PARTS: Final = 1000
"""Maximum number of content parts of a result that are checked and shown to a model. The program
receives the rest unchanged."""

_DEFAULTS: Final = {"ttlMs": 0, "cacheScope": "private", "resultType": "complete"}
"""Envelope fields of 2026-07-28 that some servers omit, with their most conservative values."""
_ROUNDS: Final = 12  # repairs of one entry before it is left out
_SHOWN: Final = 200  # characters of a foreign value in a message
_CORE: Final = {
    "text": ("text",),
    "image": ("data", "mimeType"),
    "audio": ("data", "mimeType"),
    "resource": ("resource",),
    "resource_link": ("uri", "name"),
}
_USUAL: Final = frozenset({"content", "isError", "structuredContent"})
_NO_ARGUMENTS: Final[dict[str, Any]] = {"type": "object", "properties": {}}


class Refused(Exception):
    """Raised by a check: the paths of invalid values, each with a reason."""

    def __init__(self, faults: list[tuple[tuple[str | int, ...], str]]) -> None:
        super().__init__(faults)
        self.faults = faults


Check = Callable[[dict[str, Any]], None]
Json = dict[str, Any]


def mend_list(method: str, result: Json, check: Check) -> tuple[Json, tuple[str, ...]]:
    """A listing without its bad entries.

    Args:
        method: one of `LISTS`.
        result: the unchanged result.
        check: raises `Refused` for a result that the SDK would refuse.

    Returns:
        The mended result, and the changes. A result whose list is not a list is returned unchanged.
    """
    field = LISTS[method]
    entries = result.get(field)
    if not isinstance(entries, list):
        return result, ()
    flaws: list[str] = []
    result = dict(result)
    entries = result[field] = _bounded(method, cast("list[Any]", entries), flaws)
    if _passes(check, result):
        return result, tuple(flaws)
    result = _mend_envelope(result, field, check)
    kept: list[Any] = []
    for number, entry in enumerate(entries):
        mended, details = _mend_entry({**result, field: [entry]}, field, check)
        name = _name_of(entry) or f"number {number + 1}"
        if mended is not None:
            kept.append(mended)
        if details:
            what = "left out" if mended is None else "mended"
            flaws.append(f"{_SINGULAR[method]} {name} was {what}: {'; '.join(details)}")
    result[field] = kept
    return result, tuple(flaws)


_SINGULAR: Final = {
    "tools/list": "tool",
    "resources/list": "resource",
    "resources/templates/list": "resource template",
    "prompts/list": "prompt",
    "resources/read": "content",
    "prompts/get": "message",
}


def _passes(check: Check, result: Json) -> bool:
    try:
        check(result)
    except Refused:
        return False
    return True


_ENTRIES: Final = 1_000
"""Maximum number of entries read from one page of a listing."""
SCHEMA: Final = 4_000
"""Maximum number of values in the schema of one tool."""
_SCHEMAS: Final = 20_000
"""Maximum number of values in all schemas of one page."""


def _bounded(method: str, entries: list[Any], flaws: list[str]) -> list[Any]:
    """The entries to read. Their number is bounded, because each takes time on the event loop. Tools
    lose their output schema: if a result did not fit it, the SDK would raise an error although the
    tool has run."""
    if len(entries) > _ENTRIES:
        flaws.append(
            f"list of {len(entries):,} entries is too long: only the first {_ENTRIES:,} of a page are "
            "used"
        )
        entries = entries[:_ENTRIES]
    if method != "tools/list":
        return entries
    left = _SCHEMAS
    kept: list[Any] = []
    bare: list[str] = []
    for entry in entries:
        if isinstance(entry, dict):
            tool = cast("Json", entry)
            entry = {name: value for name, value in tool.items() if name != "outputSchema"}
            most = min(SCHEMA, left)
            size = values_in(entry.get("inputSchema"), most)
            if size > most:
                entry["inputSchema"] = {"type": "object"}
                bare.append(str(entry.get("name"))[:_SHOWN])
            else:
                left -= size
        kept.append(entry)
    if bare:
        flaws.append(without_schemas(bare, f"{SCHEMA:,} values a tool, {_SCHEMAS:,} a page"))
    return kept


def without_schemas(names: list[str], limit: str) -> str:
    """The warning about tools whose schemas are too long."""
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return (
        f"schemas of {', '.join(names[:5])}{more} are too long ({limit}), so the model does not see "
        "their parameters; select fewer tools with `allowed_tools`"
    )


def _mend_envelope(result: Json, field: str, check: Check) -> Json:
    empty: Json = {**result, field: []}
    for _ in range(_ROUNDS):
        try:
            check(empty)
        except Refused as refused:
            path = refused.faults[0][0]
            if not path or path[0] == field:
                break
            name = str(path[0])
            if name not in empty and name in _DEFAULTS:
                empty[name] = _DEFAULTS[name]
            elif name in empty:
                del empty[name]
                if name in _DEFAULTS:
                    empty[name] = _DEFAULTS[name]
            else:
                break
        else:
            break
    return empty


def _mend_entry(result: Json, field: str, check: Check) -> tuple[Any, list[str]]:
    details: list[str] = []
    entry = result[field][0]
    for _ in range(_ROUNDS):
        try:
            check(result)
        except Refused as refused:
            path, reason = refused.faults[0]
        else:
            return entry, details
        if len(path) < 3 or not isinstance(entry, dict):
            return None, [*details, reason]
        name = str(path[2])
        entry = dict(cast("Json", entry))
        if name == "inputSchema":
            schema = _object_schema(entry.get(name))
            details.append("its inputSchema is not the schema of an object")
            if schema is None or schema == entry.get(name):
                return None, details
            entry[name] = schema
        elif name in entry and name not in {"name", "uri", "uriTemplate", "role", "content"}:
            details.append(f"{name}: {reason}")
            del entry[name]
        elif name == "name" and "name" not in entry and isinstance(entry.get("uri"), str):
            details.append("it has no name")
            entry["name"] = entry["uri"]
        else:
            return None, [*details, f"{name}: {reason}"]
        result = {**result, field: [entry]}
    return None, details


def _object_schema(schema: Any) -> Json | None:
    """An object's schema for a tool without a usable one; ``None`` for one of another kind."""
    if not isinstance(schema, dict):
        return dict(_NO_ARGUMENTS)
    schema = dict(cast("Json", schema))
    kind = schema.get("type")
    if isinstance(kind, list) and "object" in kind:
        kind = "object"
    if kind not in (None, "object"):
        return None
    schema["type"] = "object"
    if not isinstance(schema.get("properties", {}), dict):
        del schema["properties"]
    if not isinstance(schema.get("required", []), list):
        del schema["required"]
    return schema


def _name_of(entry: Any) -> str:
    if not isinstance(entry, dict):
        return ""
    found = cast("Json", entry)
    name = found.get("name") or found.get("uri") or found.get("uriTemplate")
    return f"`{name[:_SHOWN]}`" if isinstance(name, str) and name else ""


# results of tools ----------------------------------------------------------------------------


def mend_call(
    result: Json, check: Check, *, trusting: bool = False
) -> tuple[Json, Json, tuple[str, ...]]:
    """A tool's result with its bad parts turned into text.

    Args:
        result: the unchanged result.
        check: raises `Refused` for a result that the SDK would refuse.
        trusting: skip the check of a result that holds nothing unusual.

    Returns:
        The result for the SDK (at most `PARTS` parts), the whole result, and the changes.
    """
    content = result.get("content")
    flaws: list[str] = []
    if result.get("resultType", "complete") != "complete":
        return result, result, ()  # a request of the server, not a result
    if content is None:
        content = []
        if "content" in result or "structuredContent" not in result:
            flaws.append("it has no content")
    elif isinstance(content, str):
        flaws.append("its content is a text, not a list of parts")
        content = [{"type": "text", "text": content}]
    elif isinstance(content, dict) and "type" in content:
        flaws.append("its content is one part, not a list of parts")
        content = [cast("Json", content)]
    elif not isinstance(content, list):
        return result, result, ()
    parts = cast("list[Any]", content)
    usual = trusting and _USUAL.issuperset(result)
    for number, part in enumerate(parts[:PARTS]):
        if not _is_plain(part):
            usual = False
            if parts is content:
                parts = list(parts)
            mended, fault = _mend_part(part, check)
            parts[number] = mended
            if fault and len(flaws) < 10:
                flaws.append(f"part {number + 1}: {fault}")
    whole: Json = {**result, "content": parts}
    if not isinstance(whole.get("isError", False), bool):
        whole["isError"] = bool(whole["isError"])
        flaws.append("isError is not a boolean")
    view: Json = {**whole, "content": parts[:PARTS]} if len(parts) > PARTS else dict(whole)
    if values_in(view.get("structuredContent"), PARTS) > PARTS:
        # The SDK would validate every value in it at once; the caller restores it afterwards.
        del view["structuredContent"]
    if not (usual and isinstance(view.get("structuredContent", {}), dict)):
        _mend_view(view, check)
    return view, whole, tuple(flaws)


def values_in(value: Any, limit: int) -> int:
    """How many values `value` holds; a number above `limit` if they are more."""
    pending, count = [value], 0
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            pending += cast("Json", one).values()
        elif isinstance(one, list):
            pending += cast("list[Any]", one)
        count += 1
        if count + len(pending) > limit:
            return count + len(pending)
    return count


def _mend_view(view: Json, check: Check) -> None:
    """Remove from `view` what the SDK does not accept. The program receives the whole result."""
    if _passes(check, view):
        return
    view.setdefault("resultType", "complete")
    for name in ("", "structuredContent", "_meta"):
        view.pop(name, None)
        if _passes(check, view):
            return


def _is_plain(part: Any) -> bool:
    if not isinstance(part, dict):
        return False
    found = cast("Json", part)
    return len(found) == 2 and found.get("type") == "text" and isinstance(found.get("text"), str)


def _mend_part(part: Any, check: Check) -> tuple[Json, str]:
    if isinstance(part, str):
        return {"type": "text", "text": part}, "it is a text, not a part"
    if not isinstance(part, dict):
        return {"type": "text", "text": _json(part)}, "it is not an object"
    found = cast("Json", part)
    kind = found.get("type")
    if kind == "text" and not isinstance(found.get("text"), str):
        text = found.get("text")
        return {
            "type": "text",
            "text": "" if text is None else _json(text),
        }, "its text is not a string"
    if not isinstance(kind, str) or kind not in _CORE:
        return {"type": "text", "text": _json(found)}, f"its type {str(kind)[:_SHOWN]!r} is unknown"
    if kind == "resource_link" and "name" not in found and isinstance(found.get("uri"), str):
        found = {**found, "name": found["uri"]}
    flaw = ""
    if kind == "image" and not found.get("mimeType") and (shown := _shown_type(found.get("data"))):
        found = {**found, "mimeType": shown}
        flaw = "its type was missing and was taken from its bytes"
    if _passes(check, {"content": [found]}):
        return found, flaw
    core = {"type": kind, **{name: found[name] for name in _CORE[kind] if name in found}}
    if _passes(check, {"content": [core]}):
        return core, "fields beside its content are not valid"
    return {"type": "text", "text": _json(found)}, f"it is not a valid part of type {kind}"


def _shown_type(data: Any) -> str:
    """The type of a picture, by the beginning of its base64; empty if it is not known."""
    try:
        return shown_type(b64decode(data[:24])) if isinstance(data, str) else ""
    except ValueError:
        return ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def shallow_mismatch(schema: Mapping[str, Any] | None, result: Json) -> str | None:
    """How a structured result differs from its `outputSchema`, looking at the top level only.

    A full validation would apply regular expressions and references of a foreign schema to foreign
    data, which could take unlimited time.
    """
    if schema is None or result.get("isError"):
        return None
    structured = result.get("structuredContent")
    if structured is None:
        return "it has an output schema but returned no structured content"
    properties = schema.get("properties")
    if not isinstance(structured, dict) or not isinstance(properties, Mapping):
        return None
    value, known = cast("Json", structured), cast("Mapping[str, Any]", properties)
    required = schema.get("required")
    for name in cast("list[Any]", required) if isinstance(required, list) else ():
        if name not in value:
            return f"the structured content lacks {str(name)[:_SHOWN]!r}"
    for name, member in list(value.items())[:100]:
        wanted = known.get(name)
        if wanted is None and schema.get("additionalProperties") is False:
            return f"the structured content has {name[:_SHOWN]!r}, which its schema does not allow"
        kind = cast("Json", wanted).get("type") if isinstance(wanted, dict) else None
        if isinstance(kind, str) and kind in _KINDS and not _is_a(member, kind):
            return f"{name[:_SHOWN]!r} of the structured content is not of type {kind}"
    return None


_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int, float),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def _is_a(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _KINDS[kind])


# messages ------------------------------------------------------------------------------------


def mend_response(message: Any) -> Json | None:
    """Turn a nearly valid JSON-RPC response into a valid one; ``None`` for anything else."""
    if not isinstance(message, dict):
        return None
    found = cast("Json", message)
    if "method" in found or not isinstance(found.get("id"), int | str):
        return None
    head: Json = {"jsonrpc": "2.0", "id": found["id"]}
    error = found.get("error")
    if error is None and "result" in found:
        result = found["result"]
        return {**head, "result": cast("Json", result) if isinstance(result, dict) else {}}
    if error is None:
        return None
    given = cast("Json", error) if isinstance(error, dict) else {"message": error}
    code, text = given.get("code"), given.get("message")
    return {
        **head,
        "error": {
            "code": code if isinstance(code, int) and not isinstance(code, bool) else -32603,
            "message": text if isinstance(text, str) else _json(text),
            **({"data": given["data"]} if "data" in given else {}),
        },
    }
