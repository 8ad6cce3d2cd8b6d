"""The faults of a realtime service in Google's protocol, and the contract of Google's models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from rejoinder.llm.realtime import RealtimeError
from rejoinder.providers.google.realtime import RealtimeModel
from rejoinder.testing import (
    GeminiConnection,
    RealtimeFault,
    RealtimeServer,
    RealtimeService,
    check_realtime,
    no_leaks,
)
from rejoinder.types import APIConnectOptions
from testing.test_realtime_faults import LONGEST, outcome, push

OPTIONS = APIConnectOptions(max_retry=2, retry_interval=0.1)
FATAL = {
    RealtimeFault.REFUSE_401,
    RealtimeFault.REFUSE_404,
    RealtimeFault.REFUSED,  # 1007: what was sent would be refused again
    RealtimeFault.WRONG_MODEL,
}
ENDS = {RealtimeFault.FAILED: "failed", RealtimeFault.FILTERED: "incomplete"}


@asynccontextmanager
async def scripted(fault: RealtimeFault) -> AsyncGenerator[RealtimeModel]:
    """A model whose service misbehaves once. It is closed within a second."""
    service = RealtimeService(connection=GeminiConnection)
    service.fault(fault)
    service.say("One two three.")
    service.say("Four five.")
    transport = service.transport()
    model = RealtimeModel(api_key="any", transport=transport, conn_options=OPTIONS)
    async with no_leaks():
        try:
            yield model
        finally:
            async with asyncio.timeout(1):
                await model.aclose()
            await service.aclose()
            await transport.aclose()


async def soon(session: Any) -> tuple[str, str]:
    """The next reply. A dead connection, or an end of a turn that never came, costs a deadline."""
    for _ in range(10):
        with suppress(RealtimeError):
            return await outcome(await session.generate_reply())
    raise AssertionError("no reply in the end")


@pytest.mark.looptime
@pytest.mark.parametrize("fault", list(RealtimeFault), ids=lambda fault: fault.value)
async def test_a_fault_and_what_comes_of_it(fault: RealtimeFault) -> None:
    """The request ends, the next one gets a whole reply unless the session is over, one fatal error
    tells that, and closing takes less than a second."""
    async with scripted(fault) as model, asyncio.timeout(2 * LONGEST):
        session = model.session()
        errors: list[Any] = []
        session.on("error", errors.append)
        pushing = asyncio.ensure_future(push(session))
        try:
            try:
                _, ended = await outcome(await session.generate_reply())
                assert ended == ENDS.get(fault, ended)
            except RealtimeError:
                assert fault not in ENDS
            over = [error for error in errors if not error.recoverable]
            assert len(over) == (fault in FATAL)
            if over:
                with pytest.raises(RealtimeError):
                    await session.generate_reply()
            else:
                text, how = await soon(session)
                assert how == "completed"
                assert text.strip()
        finally:
            pushing.cancel()


@pytest.mark.looptime
@pytest.mark.parametrize("fault", list(RealtimeFault), ids=lambda fault: fault.value)
async def test_closing_at_any_time_ends_within_a_second(fault: RealtimeFault) -> None:
    for moment in (0.0, 0.001, 0.5, 12.0):
        async with scripted(fault) as model:
            session = model.session()
            future = session.generate_reply()
            await asyncio.sleep(moment)
            async with asyncio.timeout(1):
                await session.aclose()
            assert future.done()
            assert not future.cancelled()


@pytest.mark.parametrize(
    "model", ["gemini-3.8-live", "gemini-3.1-flash-live", "gemini-2.5-flash-native-audio"]
)
async def test_the_contract_of_realtime_models_is_kept(model: str) -> None:
    async with RealtimeServer(connection=GeminiConnection) as server:
        url = server.url.removesuffix("/v1")
        await check_realtime(lambda: RealtimeModel(model=model, base_url=url, api_key="any"))
