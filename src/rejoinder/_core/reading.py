"""Converts the messages of a provider to items: the inverse of its format.

Pure. A provider's ``inverse`` module reads its messages and passes the contents to an `ItemReader`, which
groups turns, calls and outputs. Parts that our items cannot express are kept as parts of the message,
see `rejoinder._core.items.load_items`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

from rejoinder import _stamps
from rejoinder._core.items import ChatItem, load_items
from rejoinder._core.unread import Unread, with_unread
from rejoinder._foreign import dump, dumps, has

__all__ = [
    "ItemReader",
    "ReadResult",
    "as_text",
    "data_address",
    "is_picture",
    "mappings",
    "read_result",
    "system_texts",
]

Record = dict[str, Any]


def mappings(values: object, where: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Each entry with its place; objects of an SDK become mappings.

    Raises:
        ValueError: `values` is not a list, or an entry is neither a mapping nor an object of an SDK.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ValueError(f"{where}: expected a list, got {type(cast('object', values)).__name__}")
    for index, value in enumerate(cast("Iterable[Any]", values)):
        place = f"{where}[{index}]"
        if dumps(value):
            value = dump(value, exclude_none=True)
        if not isinstance(value, Mapping):
            raise ValueError(f"{place}: expected an object, got {type(value).__name__}")
        yield place, cast("Mapping[str, Any]", value)


def system_texts(system: Any) -> list[str]:
    """The instructions beside the messages, in any form that APIs accept.

    Args:
        system: a text, a list of texts or of blocks with a ``text``, a mapping with ``parts``, or the
            data that `to_provider_format` returned beside the messages.

    Raises:
        ValueError: it is something else.
    """
    known = _members(system)
    if known is not None:
        names = [name for name in ("system_messages", "instructions", "parts") if name in known]
        system = known[names[0]] if names else [known]
    if system is None:
        return []
    entries: list[Any] = [system] if isinstance(system, str) else list(system)
    texts: list[str] = []
    for entry in entries:
        block = _members(entry)
        text = entry if block is None else block.get("text", "")
        if not isinstance(text, str):
            raise ValueError(f"system: expected texts, got {type(text).__name__}")
        texts.append(text)
    return [text for text in texts if text]


def _members(value: Any) -> Mapping[str, Any] | None:
    """The members of a mapping, of a format's data beside the messages, or of an SDK's object."""
    if isinstance(value, Mapping):
        return cast("Mapping[str, Any]", value)
    return cast("dict[str, Any]", value.__dict__) if has(value, "__dict__") else None


def data_address(data: object, mime_type: object, where: str) -> str:
    """A ``data:`` URL of bytes, or of base64 text.

    Raises:
        ValueError: `data` is neither.
    """
    if isinstance(data, bytes | bytearray):
        data = base64.b64encode(data).decode("ascii")
    if not isinstance(data, str):
        raise ValueError(f"{where}: expected bytes or base64 text, got {type(data).__name__}")
    return f"data:{mime_type or 'application/octet-stream'};base64,{data}"


def as_text(value: object) -> str:
    """A value as a text: itself, or as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def is_picture(known: Mapping[str, Any]) -> bool:
    """Whether an image, as plain data of ours, is a picture, and not a document."""
    kind = known.get("mime_type") or known["image"].removeprefix("data:")
    return kind.startswith("image/") or not known["image"].startswith("data:")


class ReadResult(NamedTuple):
    """The content of a tool's result.

    Attributes:
        text: the text of all parts except pictures and documents.
        images: its pictures, as plain data of ours.
        documents: its documents, in the form of a message's content.
        kept: the parts to keep, see `rejoinder._core.unread`; empty if the format writes the same from
            text and images.
    """

    text: str
    images: list[Record]
    documents: list[Any]
    kept: Record


def read_result(parts: Iterable[tuple[Any, Any]], *, pictures_last: bool = True) -> ReadResult:
    """Read the content of a tool's result.

    Args:
        parts: each part in the form of a message's content, and in its original form.
        pictures_last: the format writes a text, followed by the pictures; ``False``: no pictures.
    """
    texts: list[str] = []
    images: list[Record] = []
    documents: list[Any] = []
    content: list[Any] = []
    pictures: list[Record] = []
    same = True
    for part, raw in parts:
        known = part.known if isinstance(part, Unread) else part
        if isinstance(known, Mapping):
            held = cast("Record", known)
            if not is_picture(held):
                documents.append(part)
                continue
            picture: Record = {"at": len(content) + len(pictures)}
            if isinstance(part, Unread):
                picture["part"] = raw
            same = same and pictures_last and not isinstance(part, Unread)
            pictures.append(picture)
            images.append(held)
            continue
        same = same and not isinstance(part, Unread) and not pictures
        texts.append(as_text(raw) if known is None else known)
        content.append(raw)
    text = "\n".join(texts)
    kept: Record = {"content": content, "text": text}
    if pictures:
        kept["pictures"] = pictures
    return ReadResult(text, images, documents, {} if same else kept)


_INSTRUCTIONS = ("<instructions>\n", "\n</instructions>")


class ItemReader:
    """Collects the items of a conversation in their order.

    Args:
        system: the instructions that stand beside the messages.
        form: the format that sends unknown parts back, and its key in `extra`.
    """

    def __init__(self, system: Sequence[str] = (), *, form: str = "") -> None:
        self._form = form
        self._records: list[Record] = []
        self._calls: dict[str, Record] = {}
        self._unanswered: dict[str, str] = {}
        self._group = ""
        self._instructed = bool(system)
        if system:
            self.message("system", list(system))

    def finish(self) -> list[ChatItem]:
        """The items.

        Raises:
            pydantic.ValidationError: a value does not fit.
        """
        return load_items(self._records)

    def message(
        self, role: str, content: Sequence[Any], extra: Mapping[str, Any] | None = None
    ) -> None:
        """A message; calls that follow an assistant's belong to its turn.

        Args:
            role: our role.
            content: texts, images and other parts, as plain data or `Unread`.
            extra: state of the provider.
        """
        if any(isinstance(part, Unread) for part in content):
            content, extra = self._keep(content, extra or {})
        record: Record = {
            "id": _stamps.new_id("item_"),
            "type": "message",
            "role": role,
            "content": list(content),
        }
        if extra:
            record["extra"] = dict(extra)
        self._records.append(record)
        self._group = record["id"] if role == "assistant" else ""

    def _keep(
        self, content: Sequence[Any], extra: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """`content` without unknown parts, which are moved to `extra`."""
        read: list[Any] = []
        kept: list[Record] = []
        for at, part in enumerate(content):
            if not isinstance(part, Unread):
                read.append(part)
            elif part.known is None:
                kept.append({"at": at, "part": part.part})
            else:
                read.append(part.known)
                kept.append({"at": at, "part": part.part, "read": True})
        return read, with_unread(extra, self._form, self._form, {"content": kept})

    def user(self, content: Sequence[Any]) -> None:
        """A user message. Instructions in it, in the form of our formats, become separate messages."""
        said: list[Any] = []
        for part in content:
            text = part if isinstance(part, str) and self._instructed else ""
            start, end = _INSTRUCTIONS
            if text.startswith(start) and text.endswith(end):
                if said:
                    self.message("user", said)
                    said = []
                self.message("system", [text[len(start) : -len(end)]])
            else:
                said.append(part)
        if said:
            self.message("user", said)

    def turn(self) -> None:
        """The assistant's turn begins, perhaps without a message."""
        self._group = ""

    def call(
        self,
        call_id: object,
        name: object,
        arguments: object,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """A call in the assistant's turn."""
        identity = str(call_id) if call_id else _stamps.new_id("call_")
        item_id = _stamps.new_id("item_")
        self._group = self._group or item_id
        record: Record = {
            "id": item_id,
            "type": "function_call",
            "call_id": identity,
            "name": str(name or ""),
            "arguments": as_text({} if arguments is None else arguments),
            "group_id": self._group,
        }
        if extra:
            record["extra"] = dict(extra)
        self._records.append(record)
        self._calls[identity] = record
        self._unanswered[identity] = record["name"]

    def output(
        self,
        call_id: object,
        output: object,
        *,
        is_error: bool = False,
        name: object = None,
        keep: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
        images: Sequence[Record] = (),
        kept: Record | None = None,
    ) -> None:
        """The output of a call; without an id, of the first call with this name that has no output yet.

        Args:
            call_id: id of the call.
            output: a text, or a value that is converted to text.
            is_error: the tool failed.
            name: name of the tool.
            keep: adds state of the output to the `extra` of the call, because outputs have none.
            images: the pictures in it, as plain data.
            kept: the original output, to be kept there.
        """
        if kept:
            keep = partial(_with_output, self._form, kept)
        identity = str(call_id) if call_id else ""
        if not identity:
            waiting = (
                known for known, called in self._unanswered.items() if name in (None, called)
            )
            identity = next(waiting, "") or _stamps.new_id("call_")
        self._unanswered.pop(identity, None)
        self._group = ""  # a call that follows is another turn's
        call = self._calls.get(identity)
        if call is not None and keep is not None and (extra := keep(call.get("extra", {}))):
            call["extra"] = extra
        record: Record = {
            "id": _stamps.new_id("item_"),
            "type": "function_call_output",
            "call_id": identity,
            "name": str(name or (call["name"] if call else "")),
            "output": as_text(output),
            "is_error": is_error,
        }
        if images:
            record["images"] = list(images)
        self._records.append(record)


def _with_output(form: str, written: Record, extra: Mapping[str, Any]) -> dict[str, Any]:
    return with_unread(extra, form, form, {"output": written})
