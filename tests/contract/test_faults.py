"""Everything that can go wrong on the wire has its one outcome, the same on every provider."""

from __future__ import annotations

import asyncio
import logging
import resource
import traceback
from dataclasses import replace
from typing import Any

import pytest

from contract.rows import KEY, ROWS, Row
from rejoinder.errors import APIError, APIStatusError
from rejoinder.llm.chat_context import ChatContext
from rejoinder.testing.faults import GREETING, Answer, Fault, FaultServer, outcome_of
from rejoinder.testing.leaks import Holdings
from rejoinder.types import APIConnectOptions

pytestmark = pytest.mark.looptime

# Faults that end only by a deadline: they get a short one, all others a long one.
STALLS = {
    Fault.STALL_BEFORE_HEADERS,
    Fault.STALL_BEFORE_OUTPUT,
    Fault.STALL_MID_STREAM,
    Fault.KEEP_ALIVES_FOR_EVER,
    Fault.KEEP_ALIVES_MID_STREAM,
    Fault.ROLE_ONLY_FOR_EVER,
    Fault.USAGE_ONLY_FOR_EVER,
}
SHORT = 0.25
LONG = 20.0
"""Seconds by which a busy machine may be late."""
MEMORY = 64 << 10  # in kB, as the system counts


def conversation() -> ChatContext:
    context = ChatContext.empty()
    context.add_message(role="user", content="hello")
    return context


async def ask(llm: Any, **options: Any) -> tuple[str, APIError | None]:
    """The text that arrives, and the error that ends it."""
    text = ""
    error: APIError | None = None
    try:
        async with llm.chat(chat_ctx=conversation(), **options) as stream:
            async for chunk in stream:
                if chunk.delta is not None and chunk.delta.content:
                    text += chunk.delta.content
    except APIError as caught:
        error = caught
    return text, error


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        pytest.param(row, fault, id=f"{row.name}-{fault}")
        for row in ROWS
        for fault in Fault
        if fault not in row.differs
    ],
)
async def test_a_fault_has_its_outcome(
    row: Row, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    expected = outcome_of(fault, row.format)
    options = APIConnectOptions(max_retry=0, timeout=LONG)
    if fault in STALLS:
        # Text has all the time it wants to arrive where it is to arrive.
        late = "between_outputs" if expected.text else "first_output"
        options = replace(options, **{late: SHORT})
    async with FaultServer() as server:
        before = Holdings.now()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with row.make(server.url) as llm:
            server.script(fault)
            text, error = await ask(llm, conn_options=options)
            shown = repr(llm)
        async with asyncio.timeout(5):
            await server.all_closed()
        await settled(before)

    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    assert grown < MEMORY, f"memory grew by {grown} kB"
    if not expected.errors:
        assert error is None, repr(error)
        assert text == "".join(GREETING)
    else:
        assert isinstance(error, expected.errors), repr(error)
        assert bool(text) == expected.text
        if expected.status is not None:
            assert isinstance(error, APIStatusError)
            assert error.status_code == expected.status
        if expected.retryable is not None:
            assert error.retryable is expected.retryable
        if expected.retry_after is not None:
            assert error.retry_after == pytest.approx(expected.retry_after, abs=1.1)
        assert str(error).strip()
        shown += repr(error) + str(error) + "".join(traceback.format_exception(error))
        shown += repr(error.body) + repr(error.__cause__)
    assert KEY not in shown
    assert KEY not in caplog.text


async def settled(before: Holdings) -> None:
    """Fail unless tasks and sockets that are not `before` are gone within a moment."""
    left: list[str] = []
    for _ in range(100):
        left = Holdings.now().since(before)
        if not left:
            return
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    left = Holdings.now().since(before)
    assert not left, "\n".join(left)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_a_server_that_quotes_the_key_is_not_quoted(
    row: Row, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with FaultServer() as server, row.make(server.url) as llm:
        server.script(Answer(status=401, message=f"Incorrect API key provided: {KEY}."))
        _, error = await ask(llm, conn_options=APIConnectOptions(max_retry=0))
    assert isinstance(error, APIStatusError)
    shown = repr(error) + repr(error.body) + "".join(traceback.format_exception(error))
    assert "Incorrect API key provided" in shown
    assert KEY not in shown
    assert KEY not in caplog.text


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_a_redirect_to_another_origin_carries_no_key(row: Row) -> None:
    async with FaultServer() as server, row.make(server.url) as llm:
        server.script(Fault.REDIRECT_AWAY)
        await ask(llm, conn_options=APIConnectOptions(max_retry=0))
        assert server.elsewhere.requests
        for request in server.elsewhere.requests:
            assert KEY not in repr(dict(request.headers)) + request.path
