"""How many functions of the package one streaming turn with a tool enters.

    python bench/hops.py [--src PATH/TO/src] [--list PROVIDER]

A turn with one tool call makes two requests. For each provider this prints the function entries
from the start of the turn to the hand-over of its first request to the transport, from `chat` to
the hand-over of the second, the sum of both, and the entries of the whole turn. A generator or
coroutine counts once, not at each resumption. Entries, distinct functions and modules are those of
the package alone. `--src` measures another checkout with the same script, so that two versions can
be compared; `--list` prints the functions that one provider enters, most frequent first.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import struct
import sys
import zlib
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Self

RESUMABLE = 0x20 | 0x80 | 0x200  # generators, coroutines, asynchronous generators
NAME, ARGUMENTS, ANSWER = "weather", '{"city": "Oslo", "days": 2}', "It is cold in Oslo."


def sse(*events: Any, end: str = "") -> bytes:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode() + end.encode()


def completions(call: bool) -> bytes:
    function = {"name": NAME, "arguments": ARGUMENTS}
    entry = {"index": 0, "id": "abcdef123", "type": "function", "function": function}
    delta = {"tool_calls": [entry]} if call else {"content": ANSWER}
    reason = "tool_calls" if call else "stop"
    return sse(
        {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]},
        end="data: [DONE]\n\n",
    )


def responses(call: bool) -> bytes:
    if call:
        item: dict[str, Any] = {"type": "function_call", "id": "fc_1", "call_id": "call_1"}
        item |= {"name": NAME, "arguments": ARGUMENTS, "status": "completed"}
        events = [{"type": "response.output_item.done", "output_index": 0, "item": item}]
    else:
        event = "response.output_text.delta"
        events = [{"type": event, "item_id": "m", "output_index": 0, "delta": ANSWER}]
        item = {"type": "message", "id": "m", "role": "assistant", "status": "completed"}
        item["content"] = [{"type": "output_text", "text": ANSWER, "annotations": []}]
    done = {"id": "r", "status": "completed", "output": [item]}
    return sse(*events, {"type": "response.completed", "response": done})


def anthropic_events(call: bool) -> list[dict[str, Any]]:
    block: dict[str, Any] = {"type": "text", "text": ""}
    delta: dict[str, Any] = {"type": "text_delta", "text": ANSWER}
    if call:
        block = {"type": "tool_use", "id": "toolu_1", "name": NAME, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": ARGUMENTS}
    usage = {"input_tokens": 5, "output_tokens": 1}
    return [
        {
            "type": "message_start",
            "message": {"id": "m", "type": "message", "role": "assistant", "usage": usage},
        },
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use" if call else "end_turn"},
            "usage": {"output_tokens": 9},
        },
        {"type": "message_stop"},
    ]


def anthropic(call: bool) -> bytes:
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        for event in anthropic_events(call)
    )


def bedrock(call: bool) -> bytes:
    return b"".join(
        frame("chunk", {"bytes": base64.b64encode(json.dumps(event).encode()).decode()})
        for event in anthropic_events(call)
    )


def google(call: bool) -> bytes:
    args = json.loads(ARGUMENTS)
    part = {"functionCall": {"name": NAME, "args": args}} if call else {"text": ANSWER}
    content = {"role": "model", "parts": [part]}
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 9, "totalTokenCount": 14}
    return sse(
        {"candidates": [{"content": content, "finishReason": "STOP"}], "usageMetadata": usage}
    )


def frame(kind: str, payload: dict[str, Any]) -> bytes:
    headers = b""
    for name, value in (
        (":event-type", kind),
        (":content-type", "application/json"),
        (":message-type", "event"),
    ):
        headers += bytes([len(name)]) + name.encode() + b"\x07"
        headers += struct.pack(">H", len(value)) + value.encode()
    body = json.dumps(payload).encode()
    head = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    head += struct.pack(">I", zlib.crc32(head))
    whole = head + headers + body
    return whole + struct.pack(">I", zlib.crc32(whole))


def aws(call: bool) -> bytes:
    use = {"toolUse": {"toolUseId": "tooluse_1", "name": NAME}}
    start = [frame("contentBlockStart", {"start": use, "contentBlockIndex": 0})] if call else []
    delta = {"toolUse": {"input": ARGUMENTS}} if call else {"text": ANSWER}
    usage = {"inputTokens": 5, "outputTokens": 9, "totalTokens": 14}
    return b"".join(
        [
            frame("messageStart", {"role": "assistant"}),
            *start,
            frame("contentBlockDelta", {"delta": delta, "contentBlockIndex": 0}),
            frame("contentBlockStop", {"contentBlockIndex": 0}),
            frame("messageStop", {"stopReason": "tool_use" if call else "end_turn"}),
            frame("metadata", {"usage": usage, "metrics": {"latencyMs": 1}}),
        ]
    )


# Name of a row: module and constructor of the LLM, its options, the bodies of responses.
ROWS: dict[str, tuple[str, str, dict[str, Any], Any, str]] = {
    "openai": ("openai", "LLM", {"model": "gpt-4.1", "api_key": "k"}, completions, "sse"),
    "openai responses": (
        "openai",
        "LLM",
        {"model": "gpt-4.1", "api_key": "k", "api": "responses"},
        responses,
        "sse",
    ),
    "anthropic": (
        "anthropic",
        "LLM",
        {"model": "claude-sonnet-4-5", "api_key": "k"},
        anthropic,
        "sse",
    ),
    "anthropic bedrock": (
        "anthropic",
        "LLM.with_bedrock",
        {"model": "claude", "bearer_token": "k", "region": "us-east-1"},
        bedrock,
        "frames",
    ),
    "google": ("google", "LLM", {"model": "gemini-2.5-flash", "api_key": "k"}, google, "sse"),
    "aws": ("aws", "LLM", {"model": "amazon.nova-lite-v1:0", "bearer_token": "k"}, aws, "frames"),
    "mistralai": ("mistralai", "LLM", {"api_key": "k"}, completions, "sse"),
    "inference": (
        "inference",
        "LLM",
        {"model": "openai/gpt-4.1", "api_key": "k", "api_secret": "s"},
        completions,
        "sse",
    ),
}
TYPES = {"sse": "text/event-stream", "frames": "application/vnd.amazon.eventstream"}


class Response:
    status = 200

    def __init__(self, body: bytes, kind: str) -> None:
        self.headers = {"content-type": TYPES[kind]}
        self._body = body

    async def read_some(self) -> bytes:
        body, self._body = self._body, b""
        return body

    async def read_all(self, limit: int = 1 << 20) -> bytes:
        return (await self.read_some())[:limit]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None: ...


class Transport:
    """Answers the first request of a turn with a call, the second with text."""

    def __init__(self, bodies: Any, kind: str, hops: Hops) -> None:
        self._bodies, self._kind, self._hops, self._sent = bodies, kind, hops, 0

    async def send(self, request: object) -> Response:
        self._hops.handed_over()
        self._sent += 1
        return Response(self._bodies(self._sent % 2 == 1), self._kind)

    async def prewarm(self, url: str, *, timeout: float = 10.0) -> None: ...

    async def aclose(self) -> None: ...


class Hops:
    """Counts the functions below `src` that are entered."""

    def __init__(self, src: str) -> None:
        self._src = src
        self._known: dict[CodeType, bool] = {}
        self._resumed: set[FrameType] = set()  # kept, so that no other frame gets its address
        self.asking = True
        self.requests: list[int] = []
        self.before: Counter[CodeType] = Counter()
        self.all: Counter[CodeType] = Counter()

    def handed_over(self) -> None:
        self.requests.append(sum(self.before.values()) - sum(self.requests))
        self.asking = False

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if event != "call":
            return
        code = frame.f_code
        ours = self._known.get(code)
        if ours is None:
            ours = self._known[code] = code.co_filename.startswith(self._src)
        if not ours:
            return
        if code.co_flags & RESUMABLE:
            if frame in self._resumed:
                return
            self._resumed.add(frame)
        if code.co_name == "chat" and "/providers/" in code.co_filename:
            self.asking = True
        self.all[code] += 1
        if self.asking:
            self.before[code] += 1


async def measure(row: str, src: str) -> Hops:
    from importlib import import_module

    from rejoinder.llm import ChatContext, function_tool
    from rejoinder.turn import run_turn

    @function_tool
    async def weather(city: str, days: int = 1) -> str:
        """The weather in a city.

        Args:
            city: its name
            days: how many
        """
        return "3 degrees"

    module, constructor, options, bodies, kind = ROWS[row]
    make: Any = import_module(f"rejoinder.providers.{module}")
    for name in constructor.split("."):
        make = getattr(make, name)
    hops = Hops(src)
    llm = make(transport=Transport(bodies, kind, hops), **options)
    for turn in range(3):  # what is imported or built once is not of interest
        context = ChatContext.empty()
        context.add_message(role="system", content="You tell the weather, briefly.")
        context.add_message(role="user", content="How is the weather in Oslo?")
        if turn == 2:
            hops.requests, hops.asking = [], True
            hops.before.clear()
            hops.all.clear()
            sys.setprofile(hops)
        try:
            done = await run_turn(llm, context, tools=[weather]).collect()
        finally:
            sys.setprofile(None)
        assert (done.text, done.steps) == (ANSWER, 2), done
    await llm.aclose()
    return hops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    here = Path(__file__).resolve().parents[1] / "src"
    parser.add_argument("--src", type=Path, default=here, help="folder that holds the package")
    parser.add_argument("--list", metavar="PROVIDER", choices=ROWS, help="print its functions")
    options = parser.parse_args()
    src = str(options.src.resolve())
    sys.path.insert(0, src)
    import rejoinder

    assert rejoinder.__file__ is not None
    assert rejoinder.__file__.startswith(src), rejoinder.__file__
    print(f"{'':18} {'1st':>5} {'2nd':>5} {'both':>5} {'distinct':>9} {'modules':>8} {'turn':>6}")
    for row in ROWS if options.list is None else [options.list]:
        hops = asyncio.run(measure(row, src))
        first, second = hops.requests
        modules = {code.co_filename for code in hops.before}
        print(
            f"{row:18} {first:5} {second:5} {first + second:5} {len(hops.before):9} "
            f"{len(modules):8} {sum(hops.all.values()):6}"
        )
        if options.list is not None:
            for code, times in hops.before.most_common():
                print(f"{times:6} {code.co_filename[len(src) + 11 :]}:{code.co_qualname}")


if __name__ == "__main__":
    main()
