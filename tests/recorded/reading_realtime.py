"""A plain reading of a recorded realtime session, written without the code that is tested."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

RENAMED = {
    "response.text.delta": "response.output_text.delta",
    "response.audio.delta": "response.output_audio.delta",
    "response.audio_transcript.delta": "response.output_audio_transcript.delta",
    "conversation.item.created": "conversation.item.added",
}


@dataclass
class Reading:
    """What a session must give to its user."""

    replies: dict[str, str] = field(default_factory=dict)
    sounds: dict[str, int] = field(default_factory=dict)
    calls: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    tokens: dict[str, tuple[int, int]] = field(default_factory=dict)
    heard: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Seconds or tokens of each transcript of the user, by item."""
    statuses: dict[str, str] = field(default_factory=dict)
    transcripts: list[str] = field(default_factory=list)


def read(log: list[dict[str, Any]]) -> Reading:
    reading = Reading()
    for entry in log:
        if entry["direction"] != "server" or "event" not in entry:
            continue
        event = entry["event"]
        kind = RENAMED.get(event["type"], event["type"])
        if kind == "response.created":
            reading.replies[event["response"]["id"]] = ""
        elif kind in ("response.output_text.delta", "response.output_audio_transcript.delta"):
            reading.replies[event["response_id"]] += event["delta"]
        elif kind == "response.output_audio.delta":
            size = len(base64.b64decode(event["delta"]))
            reading.sounds[event["response_id"]] = (
                reading.sounds.get(event["response_id"], 0) + size
            )
        elif kind == "response.output_item.done" and event["item"]["type"] == "function_call":
            item = event["item"]
            call = (item["name"], item["arguments"], item["call_id"])
            reading.calls.setdefault(event["response_id"], []).append(call)
        elif kind == "response.done":
            response = event["response"]
            usage = response.get("usage") or event.get("usage") or {}
            reading.statuses[response["id"]] = response["status"]
            if response["id"] in reading.sounds:  # a session hands out whole samples
                reading.sounds[response["id"]] &= ~1
            reading.tokens[response["id"]] = (
                usage.get("input_tokens", 0),
                usage.get("output_tokens", 0),
            )
        elif (
            kind == "conversation.item.input_audio_transcription.completed"
            and event.get("status") != "in_progress"
        ):
            reading.transcripts.append(event["transcript"])
            usage = event.get("usage")
            if usage is not None:
                bill = (usage.get("seconds", 0), usage.get("input_tokens", 0))
                reading.heard[event["item_id"]] = bill
        elif kind == "conversation.item.input_audio_transcription.failed":
            reading.transcripts.append("")  # the turn is over; nothing was understood
    return reading
