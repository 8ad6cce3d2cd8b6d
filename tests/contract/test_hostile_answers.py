"""Answers that a server may send and no client expects: each ends in a typed error of one line."""

from __future__ import annotations

import asyncio
import pickle

import pytest

from contract.rows import ROWS, Row
from listening import listening
from rejoinder.errors import APIError
from rejoinder.llm import ChatContext
from rejoinder.types import APIConnectOptions

pytestmark = pytest.mark.may_block

JSON = b"Content-Type: application/json\r\n"
BODIES = [
    b"null",
    b"[]",
    b'"x"',
    b'{"error":null}',
    b'{"error":[]}',
    b'{"error":{"message":{"a":1}}}',
    b'{"error":{"type":9,"code":{"x":1},"param":[],"message":7}}',
    b'{"error":{"type":{"x":1},"code":[1],"message":null}}',
    b'{"code":{"x":1},"type":[1],"message":{"type":{"x":1}}}',
    b'{"__type":[1]}',
    b'{"detail":[{"msg":{"a":1},"loc":5}]}',
    b'{"error":{"details":[{"retryDelay":5},1,null],"message":"m","status":5}}',
    b'{"error":{"message":"' + b"a\\u0000\\u001b[2J\\n" * 1000 + b'"}}',
    b"[" * 30_000,
]
ODD = [
    b"HTTP/1.1 100 \x1b[2J\r\n\r\nHTTP/1.1 204 \r\n\r\ndata: {}\n\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffffff\x1b[2J\r\nhello",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 5000 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnone",
    b"HTTP/1.1 308 No\r\nLocation: \x00\xff\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 308 No\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
    *(
        b"HTTP/1.1 429 No\r\nRetry-After: "
        + after
        + b"\r\n"
        + JSON
        + b"Content-Length: 2\r\n\r\n{}"
        for after in (b"1e400", b"-5", b"nan", b"9" * 5000, b"Wed, 21 Oct 9999 07:28:00 GMT")
    ),
]


@pytest.mark.parametrize(
    "row", {row.format: row for row in reversed(ROWS)}.values(), ids=lambda row: row.name
)
async def test_it_is_an_error_of_one_line(row: Row) -> None:
    chat_ctx = ChatContext.empty()
    chat_ctx.add_message(role="user", content="hi")
    options = APIConnectOptions(max_retry=1, retry_interval=0.001, timeout=0.5)
    answer = b""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async with listening(handle) as url, row.make(url) as llm:
        errors = [
            b"HTTP/1.1 %d No\r\n%bContent-Length: %d\r\n\r\n%b" % (status, JSON, len(body), body)
            for status in (400, 500, 200)
            for body in BODIES
        ]
        for answer in [*errors, *ODD]:
            with pytest.raises(APIError) as caught:
                await llm.chat(chat_ctx=chat_ctx, conn_options=options).collect()
            told = str(caught.value)
            assert told.isprintable(), answer[:100]
            assert len(told) < 1500, answer[:100]
            assert str(pickle.loads(pickle.dumps(caught.value)))
