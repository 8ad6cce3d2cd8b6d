"""One conversation that goes from vendor to vendor, Nova Sonic among them, and ends at a text model."""

from __future__ import annotations

import asyncio
from typing import Any

from providers.aws.sonic import KEYS
from providers.sessions.driving import read
from rejoinder.llm import (
    ChatContext,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
    RealtimeModelFallbackAdapter,
)
from rejoinder.providers.aws.realtime import RealtimeModel as SonicModel
from rejoinder.providers.openai.realtime import RealtimeModel as OpenAIModel
from rejoinder.testing import RealtimeConnection, RealtimeServer, ScriptedLLM, no_leaks
from rejoinder.testing.sonic_server import SonicServer
from rejoinder.types import APIConnectOptions

FAST = APIConnectOptions(max_retry=0, retry_interval=0.01)
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+M8AAAMBAQDJ/pLvAAAA"
    "AElFTkSuQmCC"
)


def history() -> ChatContext:
    chat_ctx = ChatContext.empty()
    chat_ctx.add_message(role="system", content="The user is called Ann.")
    chat_ctx.add_message(role="assistant", content="Welcome!")
    chat_ctx.add_message(
        role="user", content=["What is this, and the weather?", ImageContent(image=PIXEL)]
    )
    chat_ctx.items.append(FunctionCall(call_id="c0", name="weather", arguments='{"city":"Oslo"}'))
    chat_ctx.items.append(FunctionCallOutput(call_id="c0", output="rain", is_error=False))
    chat_ctx.add_message(role="assistant", content="A dot, and rain.")
    return chat_ctx


async def test_a_conversation_moves_from_openai_to_nova_and_on_to_text() -> None:
    async with (
        no_leaks(),
        RealtimeServer() as openai,
        SonicServer(credentials=KEYS) as sonic,
    ):
        openai.say("From OpenAI.")
        sonic.say("From Nova.")
        models: list[Any] = [
            OpenAIModel(base_url=openai.url, api_key="any", conn_options=FAST),
            SonicModel(
                base_url=sonic.url,
                api_key=KEYS.access_key,
                api_secret=KEYS.secret_key,
                conn_options=FAST,
            ),
        ]
        adapter = RealtimeModelFallbackAdapter(models, text=ScriptedLLM("From text."))
        session = adapter.session()
        await session.update_instructions("Be brief.")
        await session.update_chat_ctx(history())
        assert (await read(await session.generate_reply()))[0] == "From OpenAI."

        async def refuse(connection: RealtimeConnection) -> None:
            await connection.close(4000, "out of order")

        openai.on_connect = refuse
        await openai.connections[0].error("The account is closed.", code="account_deactivated")
        async with asyncio.timeout(20):
            event = await session.generate_reply(instructions="Go on.")
            assert (await read(event))[0] == "From Nova."
        grammar = sonic.connections[-1].grammar
        assert grammar.system.startswith("Be brief.")
        assert "The user is called Ann." in grammar.system
        assert "Welcome!" in grammar.system
        (asked, told) = grammar.history
        assert asked == ("USER", "What is this, and the weather?")
        for part in ("weather", "rain", "A dot, and rain.", "From OpenAI."):
            assert part in told[1]
        assert not sonic.illegal

        await sonic.connections[-1].fail("accessDeniedException", "No more.")
        async with asyncio.timeout(20):
            event = await session.generate_reply()
            assert (await read(event))[0] == "From text."
        said = [item.text_content for item in session.chat_ctx.items if item.type == "message"]
        assert said[-3:] == ["From OpenAI.", "From Nova.", "From text."]
        assert [item.type for item in session.chat_ctx.items].count("function_call") == 1
        await adapter.aclose()
        for model in models:
            await model.aclose()
