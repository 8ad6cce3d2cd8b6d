"""The lists and results of servers as plain values, and as text for models that read only text.

Pure. The text of a result follows LiveKit Agents 1.2.17 (the JSON of the part, or of the list of
parts), with two exceptions. Binary parts are described instead of written as base64, which no model can
read and which could fill a whole context. Text over the limit is cut, with a note.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self, cast

from rejoinder._core.items import ChatContent, ImageContent
from rejoinder._core.results import TextWithPictures
from rejoinder.mcp.mending import PARTS, values_in, without_schemas

__all__ = [
    "CallResult",
    "MCPToolOutput",
    "Prompt",
    "Resource",
    "ResourceTemplate",
    "ServerInfo",
    "ToolSpec",
    "ToolsChange",
    "bounded",
    "content_of",
    "cut",
    "error_text",
    "normal_part",
    "output_of",
    "text_of",
    "tools_change",
]


_COMPARED: Final = 100  # parts that are compared with a structured result


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """How the server identifies itself."""

    name: str
    version: str
    protocol_version: str
    instructions: str | None = None


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as its server defines it."""

    name: str
    description: str | None
    parameters: dict[str, Any]
    output_schema: dict[str, Any] | None = None
    title: str | None = None
    annotations: dict[str, Any] | None = None
    meta: dict[str, Any] | None = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> ToolSpec:
        return cls(
            name=wire["name"],
            description=wire.get("description"),
            parameters=dict(wire.get("inputSchema") or {}),
            output_schema=wire.get("outputSchema"),
            title=wire.get("title"),
            annotations=wire.get("annotations"),
            meta=wire.get("meta"),
        )

    @property
    def fingerprint(self) -> str:
        """Equal for equal definitions; `meta` and icons do not count."""
        return json.dumps(
            [self.description, self.parameters, self.output_schema, self.title, self.annotations],
            sort_keys=True,
        )


@dataclass(frozen=True, slots=True)
class ToolsChange:
    """How a server's list of tools differs from its last one."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    """Tools with the same name and another description or schema."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


_TOOLS: Final = 300
_SCHEMAS: Final = 8_000


def bounded(specs: Iterable[ToolSpec]) -> tuple[list[ToolSpec], list[str]]:
    """The tools of a server that can be offered, and the flaws of the others.

    The size of schemas is bounded, because they are read, compared and encoded on the event loop.
    """
    kept: list[ToolSpec] = []
    flaws: list[str] = []
    left = _SCHEMAS
    missing = 0
    bare: list[str] = []
    for spec in specs:
        if len(kept) >= _TOOLS:
            missing += 1
            continue
        size = values_in(spec.parameters, left)
        if size > left:
            bare.append(spec.name[:100])
            spec = replace(spec, parameters={"type": "object"})
        else:
            left -= size
        kept.append(spec)
    if bare:
        flaws.append(without_schemas(bare, f"{_SCHEMAS:,} values in all"))
    if missing:
        flaws.append(
            f"list of its tools is too long: the first {_TOOLS} are offered, {missing:,} are "
            "omitted; name those you need in `allowed_tools`"
        )
    return kept, flaws


def tools_change(old: Sequence[ToolSpec], new: Sequence[ToolSpec]) -> ToolsChange:
    """Compare two lists by name and definition."""
    before = {tool.name: tool.fingerprint for tool in old}
    after = {tool.name: tool.fingerprint for tool in new}
    return ToolsChange(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(name for name in after if name in before and before[name] != after[name]),
    )


@dataclass(frozen=True, slots=True)
class Resource:
    """Something that a server offers for reading."""

    uri: str
    name: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    size: int | None = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Resource:
        return cls(
            uri=str(wire["uri"]),
            name=wire["name"],
            title=wire.get("title"),
            description=wire.get("description"),
            mime_type=wire.get("mimeType"),
            size=wire.get("size"),
        )


@dataclass(frozen=True, slots=True)
class ResourceTemplate:
    """A family of resources; `uri_template` is an RFC 6570 template."""

    uri_template: str
    name: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> ResourceTemplate:
        return cls(
            uri_template=wire["uriTemplate"],
            name=wire["name"],
            title=wire.get("title"),
            description=wire.get("description"),
            mime_type=wire.get("mimeType"),
        )


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt a server can fill in. `arguments`: name -> (description, required)."""

    name: str
    title: str | None = None
    description: str | None = None
    arguments: Mapping[str, tuple[str | None, bool]] = field(
        default_factory=dict[str, tuple[str | None, bool]]
    )

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Prompt:
        return cls(
            name=wire["name"],
            title=wire.get("title"),
            description=wire.get("description"),
            arguments={
                argument["name"]: (argument.get("description"), bool(argument.get("required")))
                for argument in wire.get("arguments") or ()
            },
        )


@dataclass(frozen=True, slots=True)
class CallResult:
    """The result of a tool call.

    Attributes:
        parts: content parts in their wire form (`type`, `text`, `data`, `mimeType`, ...). Those
            after the first 1,000 are as the server sent them, valid or not.
        structured: the structured result, if there is one.
        is_error: the tool reported a failure.
        raw: the SDK's own object.
    """

    parts: list[dict[str, Any]]
    structured: Any = None
    is_error: bool = False
    meta: dict[str, Any] | None = None
    raw: Any = field(default=None, repr=False, compare=False)


class MCPToolOutput(TextWithPictures):
    """The text for the model, with the complete result.

    It is a `str`, so a tool can return it directly. `result` keeps images, sounds, resources and the
    structured result. Models that accept pictures as results also receive `images`.
    """

    __slots__ = ("result",)

    result: CallResult

    def __new__(cls, text: str, result: CallResult) -> Self:
        output = super().__new__(cls, text)
        output.result = result
        return output

    @property
    def structured(self) -> Any:
        """The structured result, or ``None``."""
        return self.result.structured

    @property
    def images(self) -> list[ImageContent]:
        """The images, ready to be put into a message for a model that can see."""
        return [part for part in content_of(self.result.parts) if isinstance(part, ImageContent)]


def content_of(parts: Iterable[Mapping[str, Any]]) -> list[ChatContent]:
    """Parts as the contents of a message: images stay images, everything else becomes text."""
    contents: list[ChatContent] = []
    for part in parts:
        if not isinstance(part, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  parts beyond the first 1,000 are not checked
            continue
        image = _image(part)
        contents.append(image if image is not None else text_of(part))
    return contents


def _image(part: Mapping[str, Any]) -> ImageContent | None:
    source: Mapping[str, Any] = part
    data = part.get("data")
    if part.get("type") == "resource":
        source = part.get("resource") or {}
        data = source.get("blob")
    elif part.get("type") is None:
        data = part.get("blob")
    mime_type = source.get("mimeType")
    if not isinstance(data, str) or not str(mime_type or "").startswith("image/"):
        return None
    return ImageContent(image=f"data:{mime_type};base64,{data}", mime_type=mime_type)


def text_of(part: Mapping[str, Any]) -> str:
    """The readable text of one part: its text, or a description of what it is."""
    text = part.get("text")
    if isinstance(text, str):
        return text
    resource = part.get("resource")
    if isinstance(resource, Mapping):
        return text_of({str(key): value for key, value in resource.items()})  # type: ignore[misc]  # JSON
    if part.get("type") == "resource_link":
        name = part.get("title") or part.get("name") or ""
        return f"[resource {name}: {part.get('uri')}]"
    data = part.get("data", part.get("blob"))
    if isinstance(data, str):
        kind = part.get("mimeType") or part.get("type") or "binary data"
        where = f" {part['uri']}" if part.get("uri") else ""
        return f"[{kind}{where}, {_size(data):,} bytes]"
    return json.dumps(part, ensure_ascii=False, separators=(",", ":"))


_FIELDS: Final = {
    "text": ("type", "text", "annotations", "meta"),
    "image": ("type", "data", "mimeType", "annotations", "meta"),
    "audio": ("type", "data", "mimeType", "annotations", "meta"),
    "resource": ("type", "resource", "annotations", "meta"),
}


def normal_part(part: Mapping[str, Any]) -> dict[str, Any]:
    """A content part with the fields that LiveKit Agents 1.2.17 writes, absent ones as null."""
    normal = dict.fromkeys(_FIELDS.get(str(part.get("type")), ()))
    for name, value in part.items():
        normal["meta" if name == "_meta" else name] = value
    return normal


def output_of(result: CallResult, *, limit: int) -> MCPToolOutput | None:
    """A successful result as a tool's output; ``None`` if it is empty.

    At most about `limit` characters; the text states what is omitted. A structured result follows the
    parts, unless they repeat it.
    """
    described: list[Any] = []
    left = limit
    for part in result.parts:
        if len(described) >= PARTS or (left <= 0 and len(described) > 1):
            missing = len(result.parts) - len(described)
            described.append(f"[cut: {missing:,} of {len(result.parts):,} parts left out]")
            break
        one, left = _shortened(_describe(part), left, limit)
        described.append(one)
        left -= 60  # the braces and names of a part
    if not described:
        if result.structured is None:
            return None
        return MCPToolOutput(cut(_json(result.structured), limit), result)
    if result.structured is not None and not _repeated(result, limit):
        text = _json(result.structured)
        fits = len(text) <= max(left, limit // 2)
        described.append({"structuredContent": result.structured if fits else cut(text, limit)})
    text = _json(described[0] if len(described) == 1 else described)
    # Many small parts, or large fields other than text.
    return MCPToolOutput(text if len(text) <= 2 * limit + 1000 else cut(text, limit), result)


def _repeated(result: CallResult, limit: int) -> bool:
    """Whether the texts of the parts already contain the structured result, as they should."""
    texts = [part.get("text") for part in result.parts[:_COMPARED]]
    if len(result.parts) > _COMPARED or sum(len(text or "") for text in texts) > limit:
        return True  # there is no room for more
    values = [_value(text) for text in texts if isinstance(text, str)]
    shown: list[Any] = [*values, *texts, values]
    structured = result.structured
    if structured in shown:
        return True
    # The Python SDK wraps what is not an object: {"result": 42}.
    if not isinstance(structured, dict):
        return False
    wrapped = cast("dict[str, Any]", structured)
    if list(wrapped) != ["result"]:
        return False
    return wrapped["result"] in shown or str(wrapped["result"]) in texts


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def error_text(result: CallResult, *, limit: int) -> str:
    """The text of a failed result, one line or more per part."""
    lines: list[str] = []
    left = limit
    for part in result.parts[:PARTS]:
        if left < 0:
            break
        lines.append(text_of(part))
        left -= len(lines[-1]) + 1
    text = "\n".join(lines)
    if not text and result.structured is not None:
        text = _json(result.structured)
    return cut(text or "the tool failed and gave no reason", limit)


def cut(text: str, limit: int) -> str:
    """`text`, or its beginning and a note of how much is missing."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[cut: {len(text) - limit:,} of {len(text):,} characters left out]"


def _describe(part: Mapping[str, Any]) -> dict[str, Any]:
    described = dict(part)
    for key in ("data", "blob"):
        data = described.get(key)
        if isinstance(data, str):
            del described[key]
            described["bytes"] = _size(data)
    resource = described.get("resource")
    if isinstance(resource, Mapping):
        described["resource"] = _describe(dict(resource))  # type: ignore[arg-type]  # JSON
    return described


def _shortened(part: dict[str, Any], left: int, limit: int) -> tuple[dict[str, Any], int]:
    """`part` with at most `left` characters of text, and how many are left after it."""
    holder: dict[str, Any] = part
    if isinstance(part.get("resource"), dict):
        holder = part["resource"]
    text = holder.get("text")
    if isinstance(text, str):
        if len(text) > left:
            holder["text"] = cut(text, max(left, 0))
        return part, left - len(text)
    size = len(_json(part))
    if size > limit:
        return {"type": part.get("type"), "text": cut(_json(part), max(left, 0))}, left - size
    return part, left - size


def _size(data: str) -> int:
    """The number of bytes that base64 encodes, without decoding it."""
    return len(data) * 3 // 4 - data[-2:].count("=")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
