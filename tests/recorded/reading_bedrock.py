"""Plain readings of Bedrock's Converse answers: `json`, `struct` and strings only."""

from __future__ import annotations

import json
from typing import Any

from recorded.reading import Reading, number
from recorded.reading_anthropic import frames, spoken


def converse(kind: str, body: bytes) -> Reading:
    """What a body of Converse or ConverseStream says."""
    reading = Reading()
    if kind == "error":
        return Reading(error="error")
    if kind != "stream":
        answer = json.loads(body)
        for block in answer["output"]["message"]["content"]:
            reading.text += block.get("text", "")
            if "toolUse" in block and block["toolUse"].get("type") != "server_tool_use":
                use = block["toolUse"]
                text = json.dumps(use["input"], separators=(",", ":"), ensure_ascii=False)
                reading.calls.append((use["name"], text))
                reading.call_ids.append(use["toolUseId"])
            for part in block.get("citationsContent", {}).get("content", []):
                reading.text += part["text"]
        reading.text = spoken(reading.text)
        reading.finish = answer["stopReason"]
        reading.usage = counted(answer.get("usage") or {})
        return judged(reading, body)
    calls: dict[int, list[str]] = {}
    for headers, payload in frames(body):
        event = json.loads(payload)
        match headers.get(":event-type"):
            case "contentBlockStart" if "toolUse" in event["start"]:
                use = event["start"]["toolUse"]
                if use.get("type") != "server_tool_use":
                    calls[event["contentBlockIndex"]] = [use["toolUseId"], use["name"], ""]
            case "contentBlockDelta":
                delta = event["delta"]
                reading.text += delta.get("text", "")
                if "toolUse" in delta and event["contentBlockIndex"] in calls:
                    calls[event["contentBlockIndex"]][2] += delta["toolUse"]["input"]
            case "messageStop":
                reading.finish = event["stopReason"]
            case "metadata":
                reading.usage = counted(event["usage"])
            case _:
                pass
    reading.text = spoken(reading.text)
    for call_id, name, arguments in calls.values():
        reading.calls.append((name, arguments))
        reading.call_ids.append(call_id)
    return judged(reading, body)


def counted(usage: dict[str, Any]) -> tuple[int, int, int] | None:
    read = number(usage.get("cacheReadInputTokens"))
    prompt = number(usage.get("inputTokens")) + number(usage.get("cacheWriteInputTokens")) + read
    completion = number(usage.get("outputTokens"))
    return (prompt, read, completion) if prompt or completion else None


def judged(reading: Reading, body: bytes) -> Reading:
    if reading.finish is None:
        reading.error = "cut"
    elif reading.finish == "guardrail_intervened" and b'"BLOCKED"' in body:
        reading.error = "filter"  # a guardrail that only masks words lets the reply pass
    elif not reading.text and not reading.calls:
        reading.error = "empty"
    return reading
