"""Every fault of a realtime service, and what a session makes of it: the table is true.

There is no network, so that deadlines of seconds pass at once.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rejoinder.llm.realtime import GenerationCreatedEvent, RealtimeError
from rejoinder.media import AudioFrame
from rejoinder.testing import (
    REALTIME_OUTCOMES,
    RealtimeFault,
    RealtimeServer,
    ScriptedRealtimeModel,
    no_leaks,
)
from rejoinder.types import APIConnectOptions

OPTIONS = APIConnectOptions(max_retry=2, retry_interval=0.1)
LONGEST = 60.0
"""Seconds on the loop's clock within which everything has ended: all deadlines together."""


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
@pytest.mark.parametrize("fault", list(RealtimeFault), ids=lambda fault: fault.value)
async def test_a_fault_and_what_comes_of_it(fault: RealtimeFault) -> None:
    expected = REALTIME_OUTCOMES[fault]
    async with no_leaks(), asyncio.timeout(LONGEST):
        model = ScriptedRealtimeModel(fault, "One two three.", "Four five.", conn_options=OPTIONS)
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
            again = session.generate_reply()
            if expected.fatal:
                with pytest.raises(RealtimeError):
                    await again
            else:
                text, how = await outcome(await again)
                assert how == "completed"
                assert text.strip()
            assert sum(not error.recoverable for error in errors) == expected.fatal
        finally:
            pushing.cancel()
            async with asyncio.timeout(1):
                await model.aclose()


@pytest.mark.looptime
@pytest.mark.parametrize("fault", list(RealtimeFault), ids=lambda fault: fault.value)
async def test_closing_at_any_time_ends_within_a_second(fault: RealtimeFault) -> None:
    for moment in (0.0, 0.001, 0.5, 12.0):
        async with no_leaks():
            model = ScriptedRealtimeModel(fault, "One two three.", conn_options=OPTIONS)
            session = model.session()
            future = session.generate_reply()
            await asyncio.sleep(moment)
            async with asyncio.timeout(1):
                await session.aclose()
            assert future.done()
            assert not future.cancelled()
            await model.aclose()


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
    from rejoinder.providers.openai.realtime import RealtimeModel

    expected = REALTIME_OUTCOMES[fault]
    async with RealtimeServer() as server:
        server.fault(fault)
        server.say("One two three.")
        options = APIConnectOptions(max_retry=2, retry_interval=0.01)
        model = RealtimeModel(base_url=server.url, api_key="any", conn_options=options)
        try:
            ended: str | None = (await outcome(await model.session().generate_reply()))[1]
        except RealtimeError:
            ended = None
        await model.aclose()
    assert ended == expected.reply
