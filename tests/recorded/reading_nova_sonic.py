"""A plain reading of a session with Nova Sonic, written without the code that is tested."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Reading:
    """What a session holds.

    Attributes:
        replies: what the model planned to say, reply by reply; calls alone are replies too.
        heard: what the user said, turn by turn.
        kept: the messages of the conversation at the end.
        sound: bytes of the model's sound.
        calls: name, arguments and id of each call.
        tokens: those that went up, and came down.
    """

    replies: list[str] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)
    sound: int = 0
    calls: list[tuple[str, Any, str]] = field(default_factory=list)
    tokens: tuple[int, int] = (0, 0)


def read(log: list[dict[str, Any]]) -> Reading:
    found = Reading()
    blocks: dict[str, dict[str, Any]] = {}
    speaking = listening = False
    up = down = 0
    for entry in log:
        if entry["direction"] != "server":
            continue
        ((kind, fields),) = entry["event"]["event"].items()
        block = blocks.get(fields.get("contentId", ""), {})
        stage = json.loads(block.get("additionalModelFields", "{}")).get("generationStage")
        if kind == "contentStart":
            blocks[fields["contentId"]] = fields
        elif kind == "textOutput":
            text = fields["content"]
            if "interrupted" in text:
                continue
            if block["role"] == "USER":
                if listening:
                    found.heard[-1] += " " + text
                else:
                    found.heard.append(text)
                    listening = True
                    found.kept.append(("user", text))
            elif stage == "SPECULATIVE":
                listening = False
                if speaking:
                    found.replies[-1] += " " + text
                else:
                    found.replies.append(text)
                    found.kept.append(("assistant", text))
                    speaking = True
        elif kind == "audioOutput":
            found.sound += len(base64.b64decode(fields["content"]))
        elif kind == "toolUse":
            listening = False
            found.replies.append("")
            found.calls.append(
                (fields["toolName"], json.loads(fields["content"]), fields["toolUseId"])
            )
        elif kind == "contentEnd" and block.get("type") == "AUDIO":
            speaking = speaking and fields["stopReason"] == "PARTIAL_TURN"
        elif kind == "usageEvent":
            delta = fields["details"]["delta"]
            up += sum(delta["input"].values())
            down += sum(delta["output"].values())
    found.tokens = (up, down)
    return found
