"""A plain reading of a recorded session of the Live API, written without the code that is tested."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Said:
    """One reply."""

    text: str = ""
    sound: int = 0
    calls: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)
    tokens: tuple[int, int] = (0, 0)


def read(log: list[dict[str, Any]]) -> list[Said]:
    """The replies, in order. A call ends a reply, because these models wait for its result."""
    said: list[Said] = []
    open_ = False

    def current() -> Said:
        nonlocal open_
        if not open_:
            said.append(Said())
            open_ = True
        return said[-1]

    for entry in log:
        if entry["direction"] != "server" or "event" not in entry:
            continue
        message = entry["event"]
        content = message.get("serverContent", {})
        for part in content.get("modelTurn", {}).get("parts", ()):
            reply = current()
            if "inlineData" in part:
                reply.sound += len(base64.b64decode(part["inlineData"]["data"]))
        text = content.get("outputTranscription", {}).get("text")
        if text:
            current().text += text
        for call in message.get("toolCall", {}).get("functionCalls", ()):
            current().calls.append((call["name"], call["args"], call["id"]))
        if "toolCall" in message or content.get("generationComplete"):
            open_ = False
        usage = message.get("usageMetadata")
        if usage:
            made = usage.get("responseTokenCount") or usage.get("candidatesTokenCount") or 0
            thoughts = usage.get("thoughtsTokenCount", 0)
            said[-1].tokens = (usage["promptTokenCount"], made + thoughts)
    for reply in said:
        reply.sound &= ~1  # a session hands out whole samples
    return said


def arguments(text: str) -> dict[str, Any]:
    return dict(json.loads(text))
