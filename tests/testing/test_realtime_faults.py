"""Every fault of a realtime service, in each protocol, and what a session makes of it: the tables are
true.

There is no network, so that deadlines of seconds pass at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from providers.openai.duplex import Checked
from rejoinder.llm.realtime import GenerationCreatedEvent, RealtimeError, RealtimeModel
from rejoinder.media import AudioFrame
from rejoinder.providers.google import realtime as google
from rejoinder.providers.openai import realtime as openai
from rejoinder.providers.openai.live import GPTLiveModel
from rejoinder.testing import (
    REALTIME_OUTCOMES,
    GeminiConnection,
    RealtimeConnection,
    RealtimeFault,
    RealtimeOutcome,
    RealtimeServer,
    RealtimeService,
    no_leaks,
)
from rejoinder.types import APIConnectOptions

OPTIONS = APIConnectOptions(max_retry=2, retry_interval=0.1)
LONGEST = 120.0
"""Seconds on the loop's clock within which everything has ended: all deadlines together."""


@dataclass(frozen=True)
class Vendor:
    """A protocol, and how its sessions differ from those of OpenAI's."""

    make: Callable[..., RealtimeModel]
    connection: type[RealtimeConnection]
    others: Mapping[RealtimeFault, RealtimeOutcome]
    tries: int = 1
    """Requests after which a reply comes at the latest: where the end of a reply or a dead
    connection shows only by a deadline, the first ones end in errors."""

    def outcome(self, fault: RealtimeFault) -> RealtimeOutcome:
        return self.others.get(fault, REALTIME_OUTCOMES[fault])


VENDORS = {
    "openai": Vendor(openai.RealtimeModel, RealtimeConnection, {}),
    "live": Vendor(
        GPTLiveModel,
        Checked,
        {
            # The service knows no replies: what never began, or ended badly, is heard or not.
            RealtimeFault.NO_BEGINNING: RealtimeOutcome(),
            RealtimeFault.BACKWARDS: RealtimeOutcome(),
            RealtimeFault.FAILED: RealtimeOutcome(),
            RealtimeFault.BUSY: RealtimeOutcome(
                reply=None, code="conversation_already_has_active_response"
            ),
            RealtimeFault.FILTERED: RealtimeOutcome(reply="failed", fatal=True),
        },
    ),
    "google": Vendor(
        google.RealtimeModel,
        GeminiConnection,
        {
            # Lack of credit and limits close the connection, as trouble that may pass.
            RealtimeFault.NO_CREDIT: RealtimeOutcome(),
            RealtimeFault.QUOTA: RealtimeOutcome(),
            RealtimeFault.RATE_LIMIT: RealtimeOutcome(),
            # A reply has no event of its own for its beginning or its end.
            RealtimeFault.BACKWARDS: RealtimeOutcome(),
            RealtimeFault.NO_BEGINNING: RealtimeOutcome(),
            RealtimeFault.NO_END: RealtimeOutcome(),
            # 1007: what was sent would be refused again.
            RealtimeFault.REFUSED: RealtimeOutcome(reply=None, fatal=True),
        },
        tries=10,
    ),
}
CASES = [
    pytest.param(name, fault, id=f"{name}-{fault.value}")
    for name in VENDORS
    for fault in RealtimeFault
]


@asynccontextmanager
async def faulty(vendor: Vendor, fault: RealtimeFault) -> AsyncGenerator[RealtimeModel]:
    """A model whose service misbehaves once. It is closed within a second, and leaves nothing."""
    service = RealtimeService(connection=vendor.connection)
    service.fault(fault)
    service.say("One two three.")
    service.say("Four five.")
    transport = service.transport()
    async with no_leaks():
        model = vendor.make(api_key="any", transport=transport, conn_options=OPTIONS)
        try:
            yield model
        finally:
            async with asyncio.timeout(1):
                await model.aclose()
            await service.aclose()
            await transport.aclose()


async def outcome(event: GenerationCreatedEvent) -> tuple[str, str]:
    """The text of a reply, and how it ended."""
    text = ""
    async for message in event.message_stream:
        text += "".join([piece async for piece in message.text_stream])
        async for _ in message.audio_stream:
            pass
    assert event.outcome is not None
    return text, await event.outcome


async def push(session: Any) -> None:
    """The user's sound, for ever: a service that is silent meanwhile is dead."""
    while True:
        session.push_audio(AudioFrame(bytes(4800), 24000, 1, 2400))
        await asyncio.sleep(0.1)


def test_every_fault_has_an_outcome() -> None:
    assert set(REALTIME_OUTCOMES) == set(RealtimeFault)


@pytest.mark.looptime
@pytest.mark.parametrize(("name", "fault"), CASES)
async def test_a_fault_and_what_comes_of_it(name: str, fault: RealtimeFault) -> None:
    """The request ends as the table has it, the next one gets a whole reply unless the session is
    over, and one fatal error tells that."""
    vendor = VENDORS[name]
    expected = vendor.outcome(fault)
    async with faulty(vendor, fault) as model, asyncio.timeout(LONGEST):
        session = model.session()
        errors: list[Any] = []
        session.on("error", errors.append)
        pushing = asyncio.ensure_future(push(session))
        try:
            ended, code = None, None
            try:
                ended = (await outcome(await session.generate_reply()))[1]
            except RealtimeError as error:
                code = error.code
            assert ended == expected.reply
            assert expected.code in (None, code)
            if expected.fatal:
                with pytest.raises(RealtimeError):
                    await session.generate_reply()
            else:
                text, how = await soon(session, vendor.tries)
                assert how == "completed"
                assert text.strip()
            assert sum(not error.recoverable for error in errors) == expected.fatal
        finally:
            pushing.cancel()


async def soon(session: Any, tries: int) -> tuple[str, str]:
    """The next reply."""
    for _ in range(tries - 1):
        try:
            return await outcome(await session.generate_reply())
        except RealtimeError:
            continue
    return await outcome(await session.generate_reply())


@pytest.mark.looptime
@pytest.mark.parametrize(("name", "fault"), CASES)
async def test_closing_at_any_time_ends_within_a_second(name: str, fault: RealtimeFault) -> None:
    for moment in (0.0, 0.001, 0.5, 12.0):
        async with faulty(VENDORS[name], fault) as model:
            session = model.session()
            future = session.generate_reply()
            await asyncio.sleep(moment)
            async with asyncio.timeout(1):
                await session.aclose()
            assert future.done()
            assert not future.cancelled()


@pytest.mark.parametrize(
    "fault",
    [
        RealtimeFault.REFUSE_503,
        RealtimeFault.CLOSE_AT_ONCE,
        RealtimeFault.GARBAGE,
        RealtimeFault.DROP_BEFORE,
        RealtimeFault.CAP,
        RealtimeFault.CLOSE_4000,
        RealtimeFault.WRONG_MODEL,
    ],
    ids=lambda fault: fault.value,
)
async def test_the_same_over_a_network(fault: RealtimeFault) -> None:
    expected = REALTIME_OUTCOMES[fault]
    async with RealtimeServer() as server:
        server.fault(fault)
        server.say("One two three.")
        options = APIConnectOptions(max_retry=2, retry_interval=0.01)
        model = openai.RealtimeModel(base_url=server.url, api_key="any", conn_options=options)
        try:
            ended: str | None = (await outcome(await model.session().generate_reply()))[1]
        except RealtimeError:
            ended = None
        await model.aclose()
    assert ended == expected.reply
