"""WireStream over real sockets: it can be left anywhere, keeps its limits, and reads no further than
its consumer can follow. Every HTTP provider uses it as it is; OpenAI's stands for them here."""

from __future__ import annotations

import asyncio
import email.utils
import gc
import gzip
import json
import socket
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from consumer import read
from listening import listening
from rejoinder.errors import APIConnectionError, APIStatusError, APITimeoutError
from rejoinder.llm import ChatContext, ChoiceDelta, function_tool
from rejoinder.metrics import LLMMetrics
from rejoinder.providers import anthropic, google, openai
from rejoinder.testing.leaks import Holdings, measure_memory, settled
from rejoinder.types import APIConnectOptions
from work import stopped_clock

pytestmark = pytest.mark.looptime

KEY = "canary-0b1d"
Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Reads a request, then does as it is told. Knows who is still connected."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.heads: list[bytes] = []
        self.open = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            await self.behaviour(reader, writer)
            await reader.read()  # until the client goes away
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            writer.transport.abort()

    async def emptied(self) -> None:
        async with asyncio.timeout(5):
            while self.open:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(behaviour: Behaviour) -> AsyncIterator[Server]:
    server = Server(behaviour)

    async def request_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            )
            await reader.readexactly(length)
            server.heads.append(head.lower())
            await behaviour(reader, writer)

    server.behaviour = request_first
    async with listening(server.serve) as url:
        server.url = f"{url}/v1"
        yield server


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def piece(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(**delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return f"data: {json.dumps({'id': 'r', 'choices': [choice]})}\n\n".encode()


END = b'data: {"id":"r","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
WHOLE = HEAD + piece(event(content="ok") + END) + b"0\r\n\r\n"


def model(url: str, **options: Any) -> openai.LLM:
    return openai.LLM(model="m", api_key=KEY, base_url=url, **options)


def conversation() -> ChatContext:
    context = ChatContext.empty()
    context.add_message(role="user", content="x" * 400)
    return context


# -- leaving, wherever it stands -----------------------------------------------------------------


@function_tool
async def nothing() -> None:
    """Do nothing."""


@pytest.mark.parametrize("tools", [[], [nothing]])
async def test_a_reply_that_has_ended_is_freed_at_once(tools: list[Any]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(WHOLE)

    async with serving(answer) as server:
        llm = model(server.url)
        gc.collect()
        gc.disable()
        try:
            stream = llm.chat(chat_ctx=conversation(), tools=tools)
            freed = weakref.ref(stream)
            await stream.collect()
            await asyncio.sleep(0)
            del stream
            assert freed() is None
        finally:
            gc.enable()
            await llm.aclose()


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def sends_a_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    await reader.read()


async def sends_half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + piece(event(content="half")))
    await reader.read()


async def sends_half_an_error(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\n{")
    await reader.read()


async def asks_to_wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\nRetry-After: 5\r\n\r\n{}")


async def talks_without_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    while True:
        writer.write(piece(event(content="word ") * 20))
        await writer.drain()


PLACES = [
    says_nothing,
    sends_a_head,
    sends_half,
    sends_half_an_error,
    asks_to_wait,
    talks_without_end,
]


@pytest.mark.parametrize("behaviour", PLACES)
async def test_leaving_anywhere_is_quick_and_leaves_nothing(behaviour: Behaviour) -> None:
    """After every number of turns of the event loop, until nothing moves any more."""
    async with serving(behaviour) as server, model(server.url) as llm:
        before = Holdings.now()
        for turns in [*range(16), 20, 30, 50, 100]:
            stream = llm.chat(chat_ctx=conversation())
            for _ in range(turns):
                await asyncio.sleep(0)
            with stopped_clock():
                await stream.aclose()
            assert not [t for t in asyncio.all_tasks() if t.get_name().endswith("reply")]
        # Where it comes to rest.
        stream = llm.chat(chat_ctx=conversation())
        await asyncio.sleep(0.1)
        with stopped_clock():
            await stream.aclose()
        await llm._transport.aclose()  # connections that may serve again are kept until then
        await server.emptied()
        await settled(before)


async def test_leaving_while_a_request_is_built() -> None:
    async def never() -> str:
        await asyncio.sleep(1000)
        return ""

    async with serving(says_nothing) as server:
        llm = openai.LLM(model="m", base_url=server.url, api_key=never)
        async with llm:
            before = Holdings.now()
            stream = llm.chat(chat_ctx=conversation())
            await asyncio.sleep(0.01)
            await stream.aclose()
            assert len(server.heads) == 0
            await settled(before)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_leaving_while_connecting(scheme: str) -> None:
    """Over http a listener whose queue is full, over https one that never shakes hands."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        listener.setblocking(False)
        port = listener.getsockname()[1]
        held: list[socket.socket] = []
        if scheme == "http":
            for _ in range(4):
                other = socket.socket()
                other.setblocking(False)
                other.connect_ex(("127.0.0.1", port))
                held.append(other)
        try:
            async with model(f"{scheme}://127.0.0.1:{port}/v1") as llm:
                before = Holdings.now()
                stream = llm.chat(chat_ctx=conversation())
                await asyncio.sleep(0.1)
                with stopped_clock():
                    await stream.aclose()
                await settled(before)
        finally:
            for other in held:
                other.close()


# -- limits --------------------------------------------------------------------------------------


PAUSE = 0.02
"""Seconds between the pieces that a server sends."""


def for_ever(data: bytes, opening: bytes = b"") -> Behaviour:
    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + (piece(opening) if opening else b""))
        while True:
            await paced(writer, data)

    return behaviour


def drip(data: bytes) -> Behaviour:
    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for i in range(len(data)):
            await paced(writer, piece(data[i : i + 1]))

    return behaviour


async def paced(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    SENT.append(data)
    await writer.drain()
    await asyncio.sleep(PAUSE)


SENT: list[bytes] = []
"""What `paced` has sent in this test."""


@pytest.fixture(autouse=True)
def nothing_sent() -> None:
    SENT.clear()


KEEP_ALIVE = piece(b": keep-alive\n\n")
USAGE = piece(
    b'data: {"id":"r","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":0,"total_tokens":1}}\n\n'
)


@pytest.mark.parametrize(
    ("behaviour", "said", "limit"),
    [
        (for_ever(KEEP_ALIVE), "", "no output within 0.3 s"),
        (for_ever(piece(event(role="assistant", content=""))), "", "no output within 0.3 s"),
        (for_ever(USAGE), "", "no output within 0.3 s"),
        (for_ever(KEEP_ALIVE, event(content="a")), "a", "no further output within 0.2 s"),
        (for_ever(USAGE, event(content="a")), "a", "no further output within 0.2 s"),
        (for_ever(piece(b" "), b"data: {"), "", "no output within 0.3 s"),
        (drip(event(content="a" * 200)), "", "no output within 0.3 s"),
        (for_ever(piece(event(content="a"))), "a" * 30, "not complete within 0.7 s"),
        (for_ever(piece(event(reasoning_content="hm"))), "", "not complete within 0.7 s"),
    ],
    ids=[
        "comments",
        "role",
        "usage",
        "then-comments",
        "then-usage",
        "spaces",
        "drip",
        "talk",
        "think",
    ],
)
@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.looptime
async def test_limits_hold_whatever_arrives(
    behaviour: Behaviour, said: str, limit: str, slow: bool
) -> None:
    options = APIConnectOptions(
        max_retry=0, timeout=5, first_output=0.3, between_outputs=0.2, total=0.7
    )
    async with serving(behaviour) as server, model(server.url) as llm:
        stream = llm.chat(chat_ctx=conversation(), conn_options=options)
        if slow:
            await asyncio.sleep(0.9)  # nobody reads, and the limits hold all the same
            assert stream._task is not None
            with stopped_clock():
                await asyncio.wait([stream._task])
        got, error = await read(stream)
        assert isinstance(error, APITimeoutError)
        assert limit in str(error)
        assert got == said or (len(said) > 1 and got.startswith("aa"))
        # One piece at the start, one a pause, and those that were sent before the end was seen.
        assert len(SENT) <= 1 + 0.7 / PAUSE + 2
        await server.emptied()


async def test_a_connect_limit_of_its_own() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        async with model(f"https://127.0.0.1:{port}/v1") as llm:
            options = APIConnectOptions(max_retry=0, timeout=1000, connect=0.2)
            _, error = await read(llm.chat(chat_ctx=conversation(), conn_options=options))
            assert isinstance(error, APITimeoutError)
            assert "no connection within 0.2 s" in str(error)


@pytest.mark.parametrize("none", [0, float("inf")])
async def test_no_limits(none: float) -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(WHOLE)

    async with serving(answers) as server, model(server.url) as llm:
        options = APIConnectOptions(max_retry=0, timeout=none)
        assert await read(llm.chat(chat_ctx=conversation(), conn_options=options)) == ("ok", None)


# -- what a cut reply has cost -------------------------------------------------------------------


def named(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()


ANTHROPIC_START = named(
    "message_start",
    '{"type":"message_start","message":{"id":"r","role":"assistant","content":[],"usage":'
    '{"input_tokens":1200,"cache_read_input_tokens":800,"output_tokens":1}}}',
)
ANTHROPIC_WORDS = named(
    "content_block_start",
    '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
) + named(
    "content_block_delta",
    '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}'
    % ("x" * 40),
)
GEMINI_WORDS = (
    b"data: %b\n\n"
    % json.dumps(
        {
            "responseId": "r",
            "candidates": [{"content": {"role": "model", "parts": [{"text": "x" * 40}]}}],
            "usageMetadata": {
                "promptTokenCount": 2000,
                "cachedContentTokenCount": 800,
                "candidatesTokenCount": 13,
                "totalTokenCount": 2013,
            },
        }
    ).encode()
)
COUNTED = {
    "prompt_tokens": 2000,
    "completion_tokens": 13,
    "total_tokens": 2013,
    "prompt_tokens_details": {"cached_tokens": 800},
}
OPENAI_WORDS = (
    b"data: %b\n\n"
    % json.dumps(
        {"id": "r", "choices": [{"index": 0, "delta": {"content": "x" * 40}}], "usage": COUNTED}
    ).encode()
)


@pytest.mark.parametrize("how", ["closed", "broken"])
@pytest.mark.parametrize(
    ("made", "sent", "said", "completion"),
    [
        (lambda url: model(url), OPENAI_WORDS, True, 13),
        (
            lambda url: google.LLM(model="m", api_key=KEY, base_url=url),
            GEMINI_WORDS,
            True,
            13,
        ),
        (
            lambda url: anthropic.LLM(model="m", api_key=KEY, base_url=url),
            ANTHROPIC_START + ANTHROPIC_WORDS,
            True,
            10,
        ),
        (
            lambda url: anthropic.LLM(model="m", api_key=KEY, base_url=url),
            ANTHROPIC_START,
            False,
            1,
        ),
    ],
    ids=["openai", "google", "anthropic", "anthropic-before-a-word"],
)
async def test_a_cut_reply_costs_what_the_provider_had_counted(
    made: Callable[[str], Any], sent: bytes, said: bool, completion: int, how: str
) -> None:
    """What was read is known exactly, and what was said as far as somebody counted it."""
    hang_up = asyncio.Event()

    async def breaks_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + piece(sent))
        await hang_up.wait()
        writer.transport.abort()

    async with serving(breaks_off) as server, made(server.url) as llm:
        metrics: list[LLMMetrics] = []
        llm.on("metrics_collected", metrics.append)
        options = APIConnectOptions(max_retry=0)
        stream = llm.chat(chat_ctx=conversation(), conn_options=options)
        async with asyncio.timeout(10):
            while (
                stream._decoder is None
                or stream._decoder.usage_so_far is None
                or (said and not stream._meter.committed)
            ):
                await asyncio.sleep(0.005)
        if how == "closed":
            await stream.aclose()
        hang_up.set()
        got, error = await read(stream)
        assert got == ("x" * 40 if said else "")
        assert (error is None) is (how == "closed")
        if how == "broken" and not said:
            assert metrics == []  # as for every reply that failed before it said anything
            return
        (told,) = metrics
        assert told.cancelled is (how == "closed")
        assert (told.prompt_tokens, told.prompt_cached_tokens) == (2000, 800)
        assert told.completion_tokens == completion
        assert told.total_tokens == 2000 + completion
        assert told.estimated is said


# -- a slow consumer -----------------------------------------------------------------------------

WORDS = 10_000
AT_ONCE = (1 << 18) + (1 << 17)
"""Bytes that may come to the decoder at once: what asyncio takes from a socket in one read, on top
of a buffer of aiohttp's that is all but full."""


async def talks_long(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    for start in range(0, WORDS, 10):
        writer.write(piece(b"".join(event(content=f"{n} ") for n in range(start, start + 10))))
        await writer.drain()
    writer.write(piece(END) + b"0\r\n\r\n")


async def test_reading_pauses_for_a_slow_consumer_and_the_server_is_not_blamed() -> None:
    async with serving(talks_long) as server, model(server.url) as llm:
        options = APIConnectOptions(max_retry=0, timeout=10, between_outputs=0.5)
        with measure_memory() as memory:
            stream = llm.chat(chat_ctx=conversation(), conn_options=options)
            async with asyncio.timeout(20):
                while not stream._paused:
                    await asyncio.sleep(0.01)
            waiting = len(stream._event_ch)
            await asyncio.sleep(1.0)  # twice the limit on silence
            assert len(stream._event_ch) == waiting
            assert 1024 <= waiting <= 1024 + AT_ONCE // len(event(content="0 ")) < WORDS
        assert memory.peak < 16 << 20
        got, error = await read(stream)
        assert error is None
        assert got.split() == [str(n) for n in range(WORDS)]


async def test_a_server_that_falls_silent_after_a_pause_is_noticed() -> None:
    async def talks_then_stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"".join(piece(event(content="a") * 10) for _ in range(200)))
        await reader.read()

    async with serving(talks_then_stalls) as server, model(server.url) as llm:
        options = APIConnectOptions(max_retry=0, timeout=10, between_outputs=0.2)
        stream = llm.chat(chat_ctx=conversation(), conn_options=options)
        await asyncio.sleep(0.6)
        got, error = await read(stream)
        assert (len(got), error) == (2000, error), error
        assert isinstance(error, APITimeoutError)


# -- attempts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "pause"),
    [
        (lambda: "Retry-After: 0.4", 0.4),
        (lambda: "retry-after-ms: 400\r\nRetry-After: 60", 0.4),
        (lambda: f"Retry-After: {email.utils.formatdate(time.time() + 2, usegmt=True)}", 1.0),
        (lambda: "Retry-After: nonsense", 0.1),
    ],
    ids=["seconds", "milliseconds", "date", "nonsense"],
)
async def test_the_pause_that_a_server_asks_for(fields: Callable[[], str], pause: float) -> None:
    moments: list[float] = []

    async def busy_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        moments.append(asyncio.get_running_loop().time())
        if len(moments) == 1:
            writer.write(
                f"HTTP/1.1 429 Busy\r\nContent-Length: 2\r\n{fields()}\r\n\r\n{{}}".encode()
            )
        else:
            writer.write(WHOLE)

    async with serving(busy_once) as server, model(server.url) as llm:
        assert await read(llm.chat(chat_ctx=conversation())) == ("ok", None)
    # Not before. Asked for more than is left of the time of a reply, it would not come at all.
    assert moments[1] - moments[0] >= pause


async def test_a_pause_longer_than_the_time_left_fails_at_once() -> None:
    async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 429 Busy\r\nContent-Length: 2\r\nRetry-After: 60\r\n\r\n{}")

    async with serving(busy) as server, model(server.url) as llm:
        for options in (APIConnectOptions(timeout=10), APIConnectOptions(timeout=90, total=30)):
            with stopped_clock():
                _, error = await read(llm.chat(chat_ctx=conversation(), conn_options=options))
            assert isinstance(error, APIStatusError)
            assert error.retry_after == 60


@pytest.mark.parametrize(
    "said",
    [
        event(content="a"),
        event(
            tool_calls=[
                {"index": 0, "id": "c", "function": {"name": "pay", "arguments": "{}"}},
                {"index": 1, "id": "d", "function": {"name": "pay", "arguments": "{"}},
            ]
        ),
    ],
    ids=["text", "call"],
)
async def test_nothing_is_tried_again_after_it_was_said(said: bytes) -> None:
    async def breaks_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + piece(said))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    async with serving(breaks_off) as server, model(server.url) as llm:
        metrics: list[LLMMetrics] = []
        llm.on("metrics_collected", metrics.append)
        stream = llm.chat(chat_ctx=conversation())
        deltas: list[ChoiceDelta] = []
        error: Exception | None = None
        try:
            async for chunk in stream:
                if chunk.delta is not None:
                    deltas.append(chunk.delta)
        except APIConnectionError as caught:
            error = caught
        assert error is not None
        came = [delta for delta in deltas if delta.content or delta.tool_calls]
        assert len(server.heads) == (1 if came else 4)
        if came:
            (told,) = metrics
            assert told.estimated
            assert told.prompt_tokens == 104
            assert told.completion_tokens >= 1


async def test_the_request_is_built_anew_for_each_attempt() -> None:
    keys = iter(["first", "second"])

    async def key() -> str:
        return next(keys)

    async def busy_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n{}" if len(server.heads) == 1 else WHOLE
        )

    async with serving(busy_once) as server:
        llm = openai.LLM(model="m", base_url=server.url, api_key=key)
        async with llm:
            assert await read(llm.chat(chat_ctx=conversation())) == ("ok", None)
    first, second = server.heads
    assert b"authorization: bearer first\r\n" in first
    assert b"authorization: bearer second\r\n" in second


@pytest.mark.parametrize("size", [3_000_000])
async def test_a_compressed_flood_of_comments_lets_the_loop_turn(size: int) -> None:
    """A few kilobytes unpack to any size, and no read has to wait: the deadlines of this reply and
    the whole process stood still with it."""
    comments = gzip.compress(b": x\n\n" * (size // 5))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head + f"Content-Length: {len(comments)}\r\n\r\n".encode() + comments)

    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with serving(flood) as server, model(server.url) as llm:
        stream = llm.chat(chat_ctx=conversation(), conn_options=APIConnectOptions(max_retry=0))
        counter = asyncio.create_task(count())
        got, error = await read(stream)
        counter.cancel()
    assert got == ""
    assert isinstance(error, APIConnectionError)
    assert turns > size / (1 << 17)


async def test_a_megabyte_at_once_is_decoded_between_the_chunks_of_others() -> None:
    """One server that sends a whole long reply in one piece must not hold up the replies of others."""
    reply = event(content=" word") * 12_000 + END
    assert len(reply) > 1_000_000
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head + f"Content-Length: {len(reply)}\r\n\r\n".encode() + reply)

    decoded, most = 0, 0

    async def turns() -> None:
        nonlocal decoded, most
        while True:
            most, decoded = max(most, decoded), 0
            await asyncio.sleep(0)

    async with serving(flood) as server, model(server.url) as llm:
        other = asyncio.create_task(turns())
        async with llm.chat(chat_ctx=conversation()) as stream:
            stream._seen_by = lambda chunk, now: count()

            def count() -> None:
                nonlocal decoded
                decoded += 1

            async for _ in stream:
                pass
        other.cancel()
    assert 0 < most < 800  # of 12,000: about 50 kB of them, and a turn for the others


@pytest.mark.parametrize("offset", range(480, 501, 2))
async def test_a_key_where_an_error_is_cut_is_hidden_before(offset: int) -> None:
    """The words of a server are cut to a few hundred characters; half of a key is no longer known
    as one."""
    words = "x " * (offset // 2) + KEY + " " + "y " * 9000
    body = json.dumps({"error": {"message": words}}).encode()

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 401 No\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)

    async with serving(refuses) as server, model(server.url) as llm:
        options = APIConnectOptions(max_retry=0)
        _, error = await read(llm.chat(chat_ctx=conversation(), conn_options=options))
    assert isinstance(error, APIStatusError)
    assert KEY[:6] not in str(error)
    assert KEY not in repr(error.body)
    assert len(str(error)) < 700
    assert "check the API key" in str(error)


async def test_the_words_of_a_server_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    told = "no\r\nWARNING root: forged\x1b[2J\u2028\u202e " + "z" * 50_000
    body = json.dumps({"error": {"message": told}}).encode()

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 503 Busy\r\nContent-Length: {len(body)}\r\nRetry-After: 0\r\n\r\n"
        writer.write(head.encode() + body)

    async with serving(refuses) as server, model(server.url) as llm:
        options = APIConnectOptions(max_retry=1)
        _, error = await read(llm.chat(chat_ctx=conversation(), conn_options=options))
    assert isinstance(error, APIConnectionError)
    cause = error.__cause__
    assert isinstance(cause, APIStatusError)
    for text in (cause.message, *(record.getMessage() for record in caplog.records)):
        assert text.isprintable()
        assert len(text) < 800
    assert "forged" in cause.message
    assert len(str(cause.body)) > 50_000
