"""A loopback server for `bench/providers.py` and `bench/live.py`: Chat Completions streams, as fast as possible or paced.

What a request wants stands in its model's name, so that every client can ask for it:

    fast-N    N chunks at once
    slow-N    N chunks, one every `GAP` seconds, each in a write of its own
    clock-N   N chunks at 50 a second, each with the moment at which it was sent
    call-N    the same, but where no tool has answered yet a call follows the first half of them
    flood-N   the same, but after the first half of them comes 1 MB of text at once

Where the address is that of another API (Anthropic's Messages, Gemini's streamGenerateContent,
Bedrock's converse-stream), `fast-N` answers in its dialect.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from heapq import heappop, heappush

GAP = 0.002
RATE = 50.0
WORDS = ("the", "of", "and", "a", "to", "in", "is", "you", "that", "it", "he", "was", "for", "on")
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    b"x-request-id: req_bench\r\n\r\n"
)


def event(delta: dict[str, object], finish: str | None = None, usage: object = None) -> bytes:
    body = {
        "id": "chatcmpl-ASYMaNc7XmbGRUNREnmvhyyISBHsv",
        "object": "chat.completion.chunk",
        "created": 1731368640,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_0ba0d124f1",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        "usage": None,
        "obfuscation": "aB3dE5",
    }
    if usage is not None:
        body |= {"choices": [], "usage": usage}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


FIRST = event({"role": "assistant", "content": "", "refusal": None})
WORD = [event({"content": f" {word}{number}"}) for number in range(7) for word in WORDS]
MOMENT = event({"content": " @@@@@@@@@@@@@@@@@"})
CALL = event(
    {
        "tool_calls": [
            {
                "index": 0,
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
            }
        ]
    }
)
FLOOD = 1 << 20
"""Bytes that a flood writes at once."""


def last(count: int, reason: str = "stop") -> bytes:
    usage = {"prompt_tokens": 12, "completion_tokens": count, "total_tokens": count + 12}
    return event({}, reason) + event({}, usage=usage) + b"data: [DONE]\n\n"


def other(path: bytes) -> tuple[bytes, list[bytes], bytes, bytes] | None:
    """Content type, the words, and what comes before and after them, in another API's dialect."""

    def sse(value: object, name: str = "") -> bytes:
        data = b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\r\n\r\n"
        return f"event: {name}\r\n".encode() + data if name else data

    words = [f" {word}{number}" for number in range(7) for word in WORDS]
    if b"/messages" in path:
        usage = {"input_tokens": 12, "output_tokens": 1}
        start = {"type": "message_start", "message": {"id": "msg_1", "usage": usage}}
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}}
        end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
        pieces = [
            sse(
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "text_delta", "text": word},
                },
                "content_block_delta",
            )
            for word in words
        ]
        before = sse(start, "message_start") + sse(block, "content_block_start")
        after = sse({"type": "content_block_stop", "index": 0}, "content_block_stop")
        after += sse(end, "message_delta") + sse({"type": "message_stop"}, "message_stop")
        return b"text/event-stream", pieces, before, after
    if b"streamGenerateContent" in path:
        counts = {
            "promptTokenCount": 12,
            "candidatesTokenCount": 9,
            "totalTokenCount": 21,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 12}],
        }

        def answer(text: str, **more: object) -> bytes:
            content = {"parts": [{"text": text}], "role": "model"}
            return sse(
                {
                    "candidates": [{"content": content, "index": 0, **more}],
                    "usageMetadata": counts,
                    "modelVersion": "gemini-2.5-flash",
                    "responseId": "3noMaojQL_2s6tkPiO26qQ4",
                }
            )

        after = answer("", finishReason="STOP")
        return b"text/event-stream", [answer(word) for word in words], b"", after
    if b"converse-stream" in path:
        from rejoinder.wire.eventstream import encode_message

        def frame(name: str, **value: object) -> bytes:
            headers = {
                ":event-type": name,
                ":content-type": "application/json",
                ":message-type": "event",
            }
            return encode_message(headers, json.dumps({**value, "p": "abcdefghijklm"}).encode())

        usage = {"inputTokens": 12, "outputTokens": 9, "totalTokens": 21}
        after = frame("contentBlockStop", contentBlockIndex=0)
        after += frame("messageStop", stopReason="end_turn") + frame("metadata", usage=usage)
        pieces = [
            frame("contentBlockDelta", contentBlockIndex=0, delta={"text": word}) for word in words
        ]
        kind = b"application/vnd.amazon.eventstream"
        return kind, pieces, frame("messageStart", role="assistant"), after
    return None


class Clock:
    """Writes the chunks of all `clock` streams when they are due, with one task for all."""

    def __init__(self) -> None:
        self.due: list[tuple[float, int, asyncio.StreamWriter, int, asyncio.Future[None]]] = []
        self.number = 0
        self.task: asyncio.Task[None] | None = None

    async def stream(self, writer: asyncio.StreamWriter, count: int) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.number += 1
        # Spread over the interval, as streams of different callers are.
        start = time.monotonic() + (self.number * 0.618034 % 1.0) / RATE
        heappush(self.due, (start, self.number, writer, count, done))
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self.run())
        await done

    async def run(self) -> None:
        while self.due:
            wait = self.due[0][0] - time.monotonic()
            await asyncio.sleep(max(0.0, wait))
            while self.due and self.due[0][0] <= time.monotonic():
                due, number, writer, left, done = heappop(self.due)
                if writer.is_closing():
                    done.set_result(None)
                    continue
                moment = b" %017.6f" % time.monotonic()
                writer.write(framed(MOMENT.replace(b" @@@@@@@@@@@@@@@@@", moment)))
                if left > 1:
                    heappush(self.due, (due + 1 / RATE, number, writer, left - 1, done))
                else:
                    done.set_result(None)


CLOCK = Clock()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(found[1])) if found else b""
            path = head.partition(b"\r\n")[0]
            wish = re.search(rb'"(?:openai/)?(fast|slow|clock|call|flood)-(\d+)"', body)
            wish = wish or re.search(rb"/(fast)-(\d+)[:/]", path)
            if wish is None:
                writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}")
                continue
            kind, count = wish[1], int(wish[2])
            dialect = other(path)
            if dialect is not None:
                content_type, words, before, after = dialect
                writer.write(HEAD.replace(b"text/event-stream", content_type))
                writer.write(framed(before) if before else b"")
                chunks = [words[index % len(words)] for index in range(count)]
                for start in range(0, count, 40):
                    writer.write(framed(b"".join(chunks[start : start + 40])))
                    await writer.drain()
                writer.write(framed(after) + b"0\r\n\r\n")
                await writer.drain()
                continue
            if kind == b"fast":
                chunks = [WORD[index % len(WORD)] for index in range(count)]
                writer.write(HEAD)
                for start in range(0, count, 40):
                    writer.write(framed(b"".join(chunks[start : start + 40])))
                    await writer.drain()
            else:
                writer.write(HEAD + framed(FIRST))
                if kind == b"slow":
                    for index in range(count):
                        await asyncio.sleep(GAP)
                        writer.write(framed(WORD[index % len(WORD)]))
                elif kind == b"call" and b'"role":"tool"' not in body.replace(b": ", b":"):
                    await CLOCK.stream(writer, count // 2)
                    writer.write(framed(CALL + last(count // 2, "tool_calls")) + b"0\r\n\r\n")
                    continue
                elif kind == b"flood":
                    await CLOCK.stream(writer, count // 2)
                    writer.write(framed(b"".join(WORD) * (FLOOD // len(b"".join(WORD)) + 1)))
                    await CLOCK.stream(writer, count // 2)
                else:
                    await CLOCK.stream(writer, count // 2 if kind == b"call" else count)
            writer.write(framed(last(count)) + b"0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        # Cancelled when the server ends; Python 3.11 would print a traceback for each connection.
        pass
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until we are let go
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
