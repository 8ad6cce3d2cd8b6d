"""The scripted realtime model: it says what was written down, in real sessions."""

from __future__ import annotations

from typing import Any

import pytest

from rejoinder.errors import ConfigurationError
from rejoinder.llm import FunctionCallOutput, function_tool
from rejoinder.testing import (
    RealtimeFault,
    ScriptedRealtimeModel,
    ScriptExhaustedError,
    ServerCall,
    ServerReply,
    no_leaks,
)
from testing.test_realtime_faults import outcome


@function_tool
async def weather(city: str) -> str:
    """Tells the weather."""
    return city


@pytest.mark.looptime
async def test_a_conversation_with_a_tool() -> None:
    call = ServerCall("weather", '{"city": "Oslo"}')
    async with no_leaks(), ScriptedRealtimeModel(ServerReply(calls=[call]), "It rains.") as model:
        session = model.session()
        await session.update_instructions("Be brief.")
        await session.update_tools([weather])
        event = await session.generate_reply()
        calls = [found async for found in event.function_stream]
        assert [(found.name, found.arguments) for found in calls] == [
            ("weather", '{"city": "Oslo"}')
        ]
        chat_ctx = session.chat_ctx
        chat_ctx.items.append(
            FunctionCallOutput(call_id=calls[0].call_id, output="rain", is_error=False)
        )
        await session.update_chat_ctx(chat_ctx)
        assert await outcome(await session.generate_reply()) == ("It rains.", "completed")
        model.assert_used_up()
        first, second = model.requests
        assert (first.instructions, first.tools, first.history) == ("Be brief.", ("weather",), ())
        assert second.history == (
            ("function_call", 'weather({"city": "Oslo"})'),
            ("function_call_output", "rain"),
        )


@pytest.mark.looptime
async def test_the_user_speaks() -> None:
    heard: list[Any] = []
    async with ScriptedRealtimeModel() as model:
        session = model.session()
        session.on("input_audio_transcription_completed", heard.append)
        await session.connected()
        await model.service.connections[0].speech("Hello?")
        await model.service.connections[0].begin_reply(ServerReply(["Hi."]))
        await session.generate_reply()
    assert [event.transcript for event in heard] == ["Hello?"]


@pytest.mark.looptime
async def test_a_script_that_is_not_played_out() -> None:
    async with ScriptedRealtimeModel("One.", RealtimeFault.LATE) as model:
        with pytest.raises(AssertionError, match="2 steps of the script are left"):
            model.assert_used_up()


@pytest.mark.looptime
async def test_steps_come_in_their_order() -> None:
    steps = (
        "One two.",
        RealtimeFault.CLOSE_1011,
        "Three four.",
        "Five.",
        RealtimeFault.FAILED,
        "Six.",
    )
    async with ScriptedRealtimeModel(*steps) as model:
        session = model.session()
        told = [await outcome(await session.generate_reply()) for _ in range(4)]
        assert told == [
            ("One two.", "completed"),
            ("Three ", "failed"),
            ("Five.", "completed"),
            ("Six.", "failed"),
        ]
        model.assert_used_up()


@pytest.mark.looptime
async def test_more_than_the_script_has() -> None:
    async with ScriptedRealtimeModel("One.") as model:
        session = model.session()
        assert await outcome(await session.generate_reply()) == ("One.", "completed")
        assert (await outcome(await session.generate_reply()))[1] == "failed"
        with pytest.raises(ScriptExhaustedError, match="1 more"):
            model.assert_used_up()


@pytest.mark.looptime
async def test_text_alone() -> None:
    async with ScriptedRealtimeModel("One.", modalities=["text"]) as model:
        event = await model.session().generate_reply()
        async for message in event.message_stream:
            assert await message.modalities == ["text"]
            assert [frame async for frame in message.audio_stream] == []


def test_wrong_steps_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"steps\[1\]"):
        ScriptedRealtimeModel("One.", 2)  # type: ignore[arg-type]
