"""Plain readings of Gemini's answers: `json` and strings only."""

from __future__ import annotations

import itertools
import json
from typing import Any

from recorded.reading import Reading, events, number

NUMBERS = {1: "STOP", 2: "MAX_TOKENS", 3: "SAFETY"}
BLOCKED = {"SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"}


def generate_content(kind: str, body: str) -> Reading:
    """What a body of generateContent says."""
    text = body.strip()
    if text[:1] == "[":
        items = json.loads(text)
    elif text[:1] == "{":
        items = [json.loads(text)]
    else:
        items = [json.loads(data) for _, data in events(body)]
    reading = Reading()
    usage: dict[str, Any] = {}
    partial: dict[str, Any] | None = None
    blocked = malformed = False
    for item in items:
        if "error" in item:
            return Reading(error="error")
        counts = item.get("usageMetadata") or {}
        if any("TokenCount" in name for name in counts):
            usage = {**usage, **counts} if "totalTokenCount" not in counts else counts
        if item.get("promptFeedback", {}).get("blockReason") or item.get("promptFeedback", {}).get(
            "blockReasonMessage"
        ):
            blocked = True
        for candidate in (item.get("candidates") or [])[:1]:
            for part in (candidate.get("content") or {}).get("parts") or []:
                call = part.get("functionCall")
                if call is None:
                    if not part.get("thought"):
                        reading.text += part.get("text", "")
                    continue
                if "name" in call:
                    partial = {}
                    reading.calls.append((call["name"], ""))
                    reading.call_ids.append(call.get("id", ""))
                    if "args" in call:
                        partial = call["args"]
                if partial is not None:
                    for entry in call.get("partialArgs") or []:
                        place(partial, entry)
                    text = json.dumps(partial, separators=(",", ":"), ensure_ascii=False)
                    reading.calls[-1] = (reading.calls[-1][0], text)
            reason = candidate.get("finishReason")
            if reason is not None:
                reading.finish = NUMBERS.get(reason, reason)
                blocked = blocked or reading.finish in BLOCKED
                malformed = malformed or reading.finish == "MALFORMED_FUNCTION_CALL"
    read = number(usage.get("cachedContentTokenCount"))
    prompt = number(usage.get("promptTokenCount")) + number(usage.get("toolUsePromptTokenCount"))
    done = number(usage.get("candidatesTokenCount")) + number(usage.get("thoughtsTokenCount"))
    if prompt or done:
        reading.usage = (prompt, read, done)
    if blocked:
        reading.error = "filter"
    elif malformed or reading.finish is None:
        reading.error = "cut"
    elif not reading.text and not reading.calls:
        reading.error = "empty"
    return reading


def place(arguments: dict[str, Any], entry: dict[str, Any]) -> None:
    """Put a piece of an argument where its path says; pieces of one text follow each other."""
    steps: list[Any] = []
    for step in entry["jsonPath"].removeprefix("$.").split("."):
        name, _, rest = step.partition("[")
        steps.append(name)
        steps += [int(index) for index in rest.rstrip("]").split("][") if index]
    target: Any = arguments
    for step, following in itertools.pairwise(steps):
        empty: Any = [] if isinstance(following, int) else {}
        if isinstance(step, int):
            while len(target) <= step:
                target.append(empty)
            target = target[step]
        else:
            target = target.setdefault(step, empty)
    value = next(
        (entry[kind] for kind in ("stringValue", "numberValue", "boolValue") if kind in entry), None
    )
    last = steps[-1]
    if isinstance(last, int):
        if len(target) <= last:
            target.append(value)
        else:
            target[last] += value
    elif isinstance(value, str):
        target[last] = target.get(last, "") + value
    else:
        target[last] = value
