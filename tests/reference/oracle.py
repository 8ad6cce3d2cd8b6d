"""The recorded results of LiveKit Agents 1.2.17 and 1.7.0, and the same calls made here.

`vectors/` holds sixty random conversations and what both versions made of them. Each key of the
outputs names one call; `run` makes it with this package and puts the result in the same plain form.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

from rejoinder.llm.chat_context import (
    ChatContext,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)

HERE = Path(__file__).parent
VERSIONS = ("1.2.17", "1.7.0")


def load_json(name: str) -> Any:
    return json.loads(gzip.decompress((HERE / name).read_bytes()))


@cache
def cases() -> list[dict[str, Any]]:
    return load_json("vectors/cases.json.gz")


@cache
def outputs(version: str) -> dict[str, Any]:
    return load_json(f"vectors/outputs-{version}.json.gz")


def keys(*kinds: str) -> list[str]:
    return [key for key in outputs(VERSIONS[0]) if key.split(":")[0] in kinds]


def expected(key: str) -> list[Any]:
    """What the versions gave, without repetition."""
    found: list[Any] = []
    for version in VERSIONS:
        value = without_new_defaults(key, outputs(version)[key])
        if value not in found:
            found.append(value)
    return found


def without_new_defaults(key: str, value: Any) -> Any:
    """Newer versions write the defaults of their newer fields; those say nothing."""
    if key.split(":")[0] in ("to_dict", "roundtrip") and value[0] == "ok":
        items = [dict(item) for item in value[1]["items"]]
        for item in items:
            if item.get("reply_required") is True:
                del item["reply_required"]
        return ["ok", {"items": items}]
    return value


def build(data: list[dict[str, Any]]) -> ChatContext:
    """The conversation of a case, made through the public models."""
    return ChatContext([_item(entry) for entry in data])


def _item(entry: dict[str, Any]) -> ChatItem:
    match entry["kind"]:
        case "message":
            return ChatMessage(
                id=entry["id"],
                role=entry["role"],
                content=[
                    value if kind == "text" else ImageContent(image=value, id="img_x")
                    for kind, value in entry["content"]
                ],
                interrupted=entry["interrupted"],
                created_at=entry["t"],
            )
        case "call":
            return FunctionCall(
                id=entry["id"],
                call_id=entry["call_id"],
                name=entry["name"],
                arguments=entry["arguments"],
                created_at=entry["t"],
            )
        case "output":
            return FunctionCallOutput(
                id=entry["id"],
                call_id=entry["call_id"],
                name=entry["name"],
                output=entry["output"],
                is_error=entry["is_error"],
                created_at=entry["t"],
            )
        case other:
            raise AssertionError(other)


def plain(value: Any) -> Any:
    """The form in which results were recorded."""
    if isinstance(value, bytes):
        return "b64:" + base64.b64encode(value).decode()
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return value


def attempt(call: Any) -> Any:
    try:
        return ["ok", plain(call())]
    except Exception as error:
        return ["raise", type(error).__name__]


def run_format(key: str) -> Any:
    _, name, dummy, index = key.rsplit(":", 3)
    context = build(cases()[int(index)]["data"])
    return attempt(
        lambda: context.to_provider_format(name, inject_dummy_user_message=dummy == "True")
    )
