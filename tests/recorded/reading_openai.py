"""Plain readings of Chat Completions and Responses answers, streamed and whole."""

from __future__ import annotations

import json
from typing import Any

from recorded.reading import Reading, events, is_json, number


def chat_completion(kind: str, body: str) -> Reading:
    """What an answer of the Chat Completions API says."""
    if kind == "error":
        return Reading(error="error")
    chunks: list[Any] = []
    reading = Reading()
    if kind == "json":
        chunks = [json.loads(body)]
    else:
        for name, data in events(body):
            if data.strip() == "[DONE]":
                break
            chunk = json.loads(data)
            if name == "error" and "error" not in chunk:
                chunk = {"error": chunk}
            chunks.append(chunk)
    refusal = ""
    open_calls: list[dict[str, Any]] = []
    for chunk in chunks:
        for choice in chunk.get("choices") or []:
            if choice.get("index", 0) != 0:
                continue
            parts = ("message", "delta") if kind == "json" else ("delta", "message")
            delta = choice.get(parts[0]) or choice.get(parts[1]) or {}
            reading.text += text_of(delta.get("content"))
            audio = delta.get("audio")
            if audio:
                reading.text += audio.get("transcript") or ""
            refusal += delta.get("refusal") or ""
            calls = list(delta.get("tool_calls") or [])
            old = delta.get("function_call")
            if old and (old.get("name") or old.get("arguments")):
                calls.append({"index": "old", "function": old})
            for call in calls:
                gather(open_calls, call)
            if choice.get("finish_reason"):
                reading.finish = choice["finish_reason"]
                for call in open_calls:
                    call["closed"] = True
        usage = chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage")
        if usage:
            reading.usage = chat_usage(usage)
        if chunk.get("error") or any(choice.get("error") for choice in chunk.get("choices") or []):
            reading.error = "error"
            break
    for call in open_calls:
        if reading.finish == "length" and not is_json(call["arguments"]):
            continue
        reading.calls.append((call["name"], call["arguments"]))
        reading.call_ids.append(call["id"])
    reading.text = without_thoughts(reading.text)
    if reading.error is None:
        if reading.finish is None:
            reading.error = "cut"
        elif refusal:
            reading.error = "refusal"
        elif reading.finish == "content_filter":
            reading.error = "filter"
        elif not reading.text and not reading.calls:
            reading.error = "empty"
    return reading


def gather(open_calls: list[dict[str, Any]], part: dict[str, Any]) -> None:
    function = part.get("function") or {}
    place = part.get("index", part.get("id"))
    for call in reversed(open_calls):
        same_place = call["place"] == place and not call.get("closed")
        if same_place and part.get("id") in (None, "", call["id"]):
            call["arguments"] += function.get("arguments") or ""
            return
    open_calls.append(
        {
            "place": place,
            "id": part.get("id") or "",
            "name": function.get("name") or "",
            "arguments": function.get("arguments") or "",
        }
    )


def text_of(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    return content or ""


def without_thoughts(text: str) -> str:
    """Some models open their answer with their thoughts in a tag of their own."""
    if not text.lstrip().startswith("<think>"):
        return text
    return text.split("</think>", 1)[1].lstrip() if "</think>" in text else ""


def chat_usage(usage: dict[str, Any]) -> tuple[int, int, int]:
    prompt, completion = number(usage["prompt_tokens"]), number(usage["completion_tokens"])
    details = usage.get("prompt_tokens_details") or {}
    thought = number((usage.get("completion_tokens_details") or {}).get("reasoning_tokens"))
    heard = number(details.get("audio_tokens"))
    beside = number(usage.get("total_tokens")) - prompt - completion
    if beside > 0:  # counted beside the two, not in them: thoughts by xAI, sound by Mistral
        if beside == thought:
            completion += thought
        elif beside == heard:
            prompt += heard
        else:
            raise AssertionError(f"a total that nothing explains: {usage}")
    cached = (
        number(details.get("cached_tokens"))
        or number(usage.get("prompt_cache_hit_tokens"))  # DeepSeek
        or number(usage.get("num_cached_tokens"))  # Mistral
    )
    # Mistral counts whole blocks: more than was read cannot have come from the cache.
    return prompt, min(cached, prompt), completion


def response(kind: str, body: str) -> Reading:
    """What an answer of the Responses API says."""
    if kind == "error":
        return Reading(error="error")
    final: dict[str, Any] | None = None
    streamed = ""
    reading = Reading()
    if kind == "json":
        final = json.loads(body)
    else:
        for _, data in events(body):
            if data.strip() == "[DONE]":
                continue
            event = json.loads(data)
            if event["type"] == "response.output_text.delta":
                streamed += event["delta"]
            elif event["type"] == "error":
                reading.error = "error"
                break
            elif event["type"] in (
                "response.completed",
                "response.incomplete",
                "response.failed",
            ):
                final = event["response"]
                break
    if final is None:
        reading.error = reading.error or "cut"
        reading.text = streamed
        return reading
    reading.finish = final["status"]
    refusal, other = "", False
    for item in final["output"]:
        if item["type"] == "message":
            for part in item["content"]:
                if part["type"] == "output_text":
                    reading.text += part["text"]
                elif part["type"] == "refusal":
                    refusal += part["refusal"]
        elif item["type"] == "function_call":
            if final["status"] == "completed" or is_json(item["arguments"]):
                reading.calls.append((item["name"], item["arguments"]))
                reading.call_ids.append(item["call_id"])
        elif item["type"] == "custom_tool_call" and item is final["output"][-1]:
            # What follows it shows that the provider ran the tool itself, as xAI does.
            text = json.dumps({"input": item["input"]}, separators=(",", ":"), ensure_ascii=False)
            reading.calls.append((item["name"], text))
            reading.call_ids.append(item["call_id"])
        elif item["type"] != "reasoning":
            other = True
    if kind == "stream" and not reading.text.startswith(streamed):
        reading.text = streamed  # the server says more at the end than it said on the way
    usage = final.get("usage")
    if usage:
        read, written = usage["input_tokens"], usage["output_tokens"]
        inside = usage.get("input_tokens_details") or {}
        thought = number((usage.get("output_tokens_details") or {}).get("reasoning_tokens"))
        if usage.get("total_tokens") == read + written + thought:
            written += thought
        if read or written:
            reading.usage = (read, number(inside.get("cached_tokens")), written)
    if final["status"] == "failed" or final.get("error"):
        reading.error = "error"
    elif refusal:
        reading.error = "refusal"
    elif (final.get("incomplete_details") or {}).get("reason") == "content_filter":
        reading.error = "filter"
    elif not reading.text and not reading.calls and not other:
        reading.error = "empty"
    return reading
