"""Recorded answers, sent again over a real socket and read by the public `LLM.chat`.

A provider joins with a file of its own that names three things: the folders of its recordings, a
function that makes an `LLM` for an address, and a plain reading of the bytes (see
`recorded.reading`). `check_group` does the rest; see `test_openai.py` for the pattern.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from listening import listening
from recorded.corpus import Exchange, exchanges
from recorded.reading import Reading
from recorded.summary import COUNTS
from rejoinder._core.usage import Buckets
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    EmptyResponseError,
    RefusalError,
    WireError,
)
from rejoinder.llm.chat_context import ChatContext
from rejoinder.types import APIConnectOptions

ONCE = APIConnectOptions(max_retry=0, timeout=20.0)


# What each kind of failure in a plain reading has to be for the caller of `chat`.
ERRORS: dict[str, type[APIError] | tuple[type[APIError], ...]] = {
    "error": (APIStatusError, WireError),
    "cut": (APIConnectionError, WireError),
    "refusal": RefusalError,
    "filter": RefusalError,
    "empty": EmptyResponseError,
}


@dataclass
class Replay:
    """A server that answers every request with the current exchange, cut into pieces."""

    url: str = ""
    exchange: Exchange | None = None
    pieces: int = 0
    inside_characters: int = 0
    sent: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = 0
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                await reader.readexactly(length)
                await self.answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, writer: asyncio.StreamWriter) -> None:
        exchange = self.exchange
        assert exchange is not None
        lines = [f"HTTP/1.1 {exchange.status} Recorded", "transfer-encoding: chunked"]
        skipped = ("content-length", "content-encoding", "transfer-encoding", "connection", "date")
        lines += [f"{k}: {v}" for k, v in exchange.headers.items() if k not in skipped]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace"))
        self.sent = cut(exchange.body, random.Random(exchange.id))
        for piece in self.sent:
            self.pieces += 1
            self.inside_characters += piece[:1] != b"" and piece[0] & 0xC0 == 0x80
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(0)  # so that the client reads the piece by itself
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def cut(body: bytes, dice: random.Random) -> list[bytes]:
    """`body` in pieces, cut at random, and within characters wherever it holds long ones."""
    places = (
        {dice.randrange(1, len(body)) for _ in range(dice.randint(2, 12))} if body[1:] else set()
    )
    inside = [place for place, byte in enumerate(body) if byte & 0xC0 == 0x80]
    places.update(dice.sample(inside, min(4, len(inside))))
    edges = [0, *sorted(places), len(body)]
    return [body[a:b] for a, b in itertools.pairwise(edges) if b > a]


@asynccontextmanager
async def replay() -> AsyncIterator[Replay]:
    """A `Replay` on a port of its own."""
    server = Replay()
    async with listening(server.serve) as server.url:
        yield server


@dataclass
class Heard:
    """What came out of `LLM.chat`."""

    text: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    call_ids: list[str] = field(default_factory=list)
    finish: str | None = None
    usage: Any = None
    error: APIError | None = None


async def hear(llm: Any) -> Heard:
    """Ask `llm` and take everything it says."""
    heard = Heard()
    context = ChatContext.empty()
    context.add_message(role="user", content="hello")
    stream = llm.chat(chat_ctx=context, conn_options=ONCE)
    try:
        async with stream:
            async for chunk in stream:
                if chunk.delta is not None:
                    heard.text += chunk.delta.content or ""
                    for call in chunk.delta.tool_calls:
                        heard.calls.append((call.name, call.arguments))
                        heard.call_ids.append(call.call_id)
                if chunk.usage is not None:
                    heard.usage = chunk.usage
    except APIError as error:
        heard.error = error
    heard.finish = stream.finish_reason
    return heard


def differences(exchange: Exchange, heard: Heard, reading: Reading) -> list[str]:
    """Where what was heard is not what the plain reading says."""
    found: list[str] = []

    def same(what: str, got: Any, expected: Any) -> None:
        if got != expected:
            found.append(f"{what}: heard {got!r:.300}, read {expected!r:.300}")

    if exchange.kind == "error":
        if not isinstance(heard.error, APIStatusError):
            return [f"expected an APIStatusError, got {heard.error!r}"]
        same("status", heard.error.status_code, exchange.status)
        same("request id", heard.error.request_id, request_id(exchange))
        return found
    same("text", heard.text, reading.text)
    # Arguments that were never sent are handed out as the empty object.
    same(
        "calls",
        heard.calls,
        [(name, (text.strip() and text) or "{}") for name, text in reading.calls],
    )
    if len(set(reading.call_ids)) == len(reading.call_ids):
        given = [(a, b) for a, b in zip(heard.call_ids, reading.call_ids, strict=False) if b]
        same("call ids", [a for a, _ in given], [b for _, b in given])
    if reading.error != "error":
        same("finish", heard.finish, reading.finish)
    usage = heard.usage
    if reading.error not in ("error", "cut"):
        same(
            "usage",
            usage and (usage.prompt_tokens, usage.prompt_cached_tokens, usage.completion_tokens),
            reading.usage,
        )
    if usage is not None:
        buckets = Buckets.of(usage)
        same("sum of the buckets", buckets.total, usage.total_tokens)
        same("total", usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
        same("buckets", buckets.usage(service_tier=usage.service_tier), usage)
    expected = ERRORS.get(reading.error or "")
    if expected is None:
        same("error", heard.error, None)
    elif not isinstance(heard.error, expected):
        found.append(f"error: heard {heard.error!r}, read {reading.error}")
    return found


def request_id(exchange: Exchange) -> str | None:
    headers = exchange.headers
    for name in ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id"):
        if headers.get(name):
            return headers[name]
    named = re.search(rb'"request_id"\s*:\s*"([^"]+)"', exchange.body)  # Anthropic says it twice
    return named[1].decode() if named else None


async def check_group(
    group: str,
    make_llm: Callable[[str], Any],
    read: Callable[[str, str], Reading] | Callable[[str, bytes], Reading],
    *,
    binary: bool = False,
    only: Callable[[Exchange], bool] = lambda exchange: True,
) -> None:
    """Send every exchange of `group` through an `LLM` and compare it with its plain reading.

    Args:
        group: folder, e.g. ``"openai/responses"``.
        make_llm: makes the `LLM` for the address of a server.
        read: the plain reading: kind and body (text, or bytes if `binary`).
        only: which exchanges of the group are meant.
    """
    wrong: list[str] = []
    async with replay() as server, make_llm(server.url) as llm:
        for exchange in filter(only, exchanges(group)):
            server.exchange = exchange
            body: Any = exchange.body if binary else exchange.body.decode("utf-8", "surrogatepass")
            reading = read(exchange.kind, body)
            heard = await hear(llm)
            found = differences(exchange, heard, reading)
            if {"no_finish_reason", "no_terminal_event"} & exchange.tags and heard.error is None:
                found.append("no end mark, and yet no error")
            outcome = exchange.kind if reading.error in (None, "error") else reading.error
            if exchange.kind != "error" and reading.error == "error":
                outcome = "error inside"
            COUNTS[group, outcome] += 1
            wrong += [f"{exchange.id}: {line}" for line in found]
        COUNTS[group, "pieces"] += server.pieces
        COUNTS[group, "cuts inside characters"] += server.inside_characters
    assert not wrong, f"{len(wrong)} differences:\n" + "\n".join(wrong)


async def survive_group(group: str, make_llm: Callable[[str], Any]) -> None:
    """Send every hand-written exchange of `group`: chunks or an `APIError`, nothing else."""
    async with replay() as server, make_llm(server.url) as llm:
        for exchange in exchanges(group, "synthetic"):
            server.exchange = exchange
            heard = await hear(llm)
            if exchange.kind == "error":
                assert isinstance(heard.error, APIStatusError), exchange.id
                assert heard.error.status_code == exchange.status, exchange.id
            elif {"truncated", "mid_stream_error"} & exchange.tags:
                assert heard.error is not None, exchange.id
            COUNTS[f"synthetic {group}", exchange.kind] += 1
