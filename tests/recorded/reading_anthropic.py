"""Plain readings of Anthropic's answers, whoever hosts the model: `json` and strings only."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

from recorded.reading import Reading, events, number


def frames(body: bytes) -> list[tuple[dict[str, str], bytes]]:
    """Headers and payload of each AWS event-stream frame; only text headers are expected."""
    found: list[tuple[dict[str, str], bytes]] = []
    place = 0
    while place < len(body):
        total, size = struct.unpack(">II", body[place : place + 8])
        block = body[place + 12 : place + 12 + size]
        headers: dict[str, str] = {}
        at = 0
        while at < len(block):
            length = block[at]
            name = block[at + 1 : at + 1 + length].decode()
            at += 1 + length + 1
            (length,) = struct.unpack(">H", block[at : at + 2])
            headers[name] = block[at + 2 : at + 2 + length].decode()
            at += 2 + length
        found.append((headers, body[place + 12 + size : place + total - 4]))
        place += total
    return found


def messages(kind: str, body: bytes) -> Reading:
    """What a body of the Messages API says."""
    if kind != "stream":
        return whole(json.loads(body))
    if body[:1] == b"\x00":
        items = [
            json.loads(base64.b64decode(json.loads(data)["bytes"])) for _, data in frames(body)
        ]
    else:
        items = [json.loads(data) for _, data in events(body.decode("utf-8", "surrogatepass"))]
    reading = Reading()
    calls: dict[int, list[str]] = {}
    usage: dict[str, Any] = {}
    ended = False
    for item in items:
        match item["type"]:
            case "message_start":
                usage.update(item["message"].get("usage") or {})
            case "content_block_start" if item["content_block"]["type"] == "tool_use":
                block = item["content_block"]
                calls[item["index"]] = [block["id"], block["name"], ""]
            case "content_block_delta":
                delta = item["delta"]
                reading.text += delta.get("text", "")
                if "partial_json" in delta and item["index"] in calls:
                    calls[item["index"]][2] += delta["partial_json"]
            case "message_delta":
                reading.finish = item["delta"].get("stop_reason")
                usage.update({k: v for k, v in (item.get("usage") or {}).items() if v is not None})
            case "message_stop":
                ended = True
                break
            case _:
                pass
    for call_id, name, arguments in calls.values():
        if reading.finish == "max_tokens" and not arguments:
            continue  # it was cut before its arguments
        reading.calls.append((name, arguments))
        reading.call_ids.append(call_id)
    reading.text = spoken(reading.text)
    reading.usage = counted(usage)
    reading.error = None if ended else "cut"
    return judged(reading)


def whole(message: dict[str, Any]) -> Reading:
    """What a whole message says."""
    reading = Reading(finish=message.get("stop_reason"))
    if "error" in message:
        return Reading(error="error")
    for block in message["content"]:
        if block["type"] == "text":
            reading.text += block["text"]
        elif block["type"] == "tool_use":
            if reading.finish == "max_tokens" and not block["input"]:
                continue  # it was cut before its arguments
            text = json.dumps(block["input"], separators=(",", ":"), ensure_ascii=False)
            reading.calls.append((block["name"], text))
            reading.call_ids.append(block["id"])
    reading.text = spoken(reading.text)
    reading.usage = counted(message.get("usage") or {})
    if reading.finish is None:
        reading.error = "cut"
    return judged(reading)


def spoken(text: str) -> str:
    """Without the thoughts that older models write at the beginning, between tags."""
    if text.startswith("<thinking>"):
        return text.partition("</thinking>")[2].lstrip()
    return text


def counted(usage: dict[str, Any]) -> tuple[int, int, int] | None:
    read = number(usage.get("cache_read_input_tokens"))
    prompt = (
        number(usage.get("input_tokens")) + number(usage.get("cache_creation_input_tokens")) + read
    )
    completion = number(usage.get("output_tokens"))
    return (prompt, read, completion) if prompt or completion else None


def judged(reading: Reading) -> Reading:
    if reading.error is None:
        if reading.finish == "refusal":
            reading.error = "refusal"
        elif not reading.text and not reading.calls:
            reading.error = "empty"
    return reading
