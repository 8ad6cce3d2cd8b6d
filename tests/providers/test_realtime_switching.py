"""One conversation over OpenAI, a full-duplex model, Gemini, Nova Sonic and a text model, another one
at every turn, with tools and pictures: what is sent stays legal for each."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from providers.aws.sonic import KEYS
from providers.google.accepting import check_messages
from providers.openai.duplex import Checked
from providers.sessions.driving import read
from rejoinder.llm import (
    AudioContent,
    ChatContext,
    FunctionCallOutput,
    FunctionToolCall,
    ImageContent,
    RealtimeModelFallbackAdapter,
    function_tool,
)
from rejoinder.llm.realtime import RealtimeError, RealtimeModel
from rejoinder.media import AudioFrame
from rejoinder.providers import anthropic
from rejoinder.providers.aws import realtime as aws
from rejoinder.providers.google import realtime as google
from rejoinder.providers.openai import live
from rejoinder.providers.openai import realtime as openai
from rejoinder.testing import (
    FaultServer,
    GeminiConnection,
    RealtimeServer,
    ScriptedLLM,
    ServerCall,
    ServerReply,
    check_history,
    no_leaks,
)
from rejoinder.testing.faults import Answer, Call
from rejoinder.testing.sonic_server import SonicReply, SonicServer
from rejoinder.turn import run_turn
from rejoinder.types import APIConnectOptions

FAST = APIConnectOptions(max_retry=0, retry_interval=0.01)
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)


@function_tool
async def look(city: str) -> str:
    """Look out of the window."""
    return f"rain in {city}"


class Vendor:
    """A model, and the service that plays its vendor."""

    def __init__(self, name: str, server: Any, model: RealtimeModel) -> None:
        self.name = name
        self.server = server
        self.model = model

    def will(self, *words: str, calls: Any = ()) -> None:
        make: Any = SonicReply if self.name == "aws" else ServerReply
        self.server.reply(make(words, calls=calls))

    @property
    def told(self) -> str:
        """All that the newest connection was sent, except sound."""
        connection = self.server.connections[-1]
        return str(connection.events)

    def check(self) -> None:
        """By the checker of this vendor; what OpenAI is sent is checked as it comes."""
        if self.name == "aws":
            assert not self.server.illegal
        for connection in self.server.connections if self.name == "google" else ():
            check_messages([dict(event) for event in connection.events])

    async def die(self) -> None:
        """End all sessions for good."""
        connection = self.server.connections[-1]
        if self.name == "aws":
            self.server.refuse = lambda _: (403, "AccessDeniedException", "No more.")
            await connection.fail("accessDeniedException", "No more.")
            return

        async def refuse(connection: Any) -> None:
            await connection.close(1008 if self.name == "google" else 4000, "No more.")

        self.server.on_connect = refuse
        if self.name != "google":
            await connection.error("The account is closed.", code="account_deactivated")
        else:
            await connection.close(1008, "The account is closed.")


@asynccontextmanager
async def vendors() -> AsyncGenerator[list[Vendor]]:
    async with (
        RealtimeServer() as one,
        RealtimeServer(connection=Checked) as duplex,
        RealtimeServer(connection=GeminiConnection) as two,
        SonicServer(credentials=KEYS) as three,
    ):
        found = [
            Vendor(
                "openai",
                one,
                openai.RealtimeModel(base_url=one.url, api_key="any", conn_options=FAST),
            ),
            Vendor(
                "live",
                duplex,
                live.GPTLiveModel(base_url=duplex.url, api_key="any", conn_options=FAST),
            ),
            Vendor(
                "google",
                two,
                google.RealtimeModel(
                    base_url=two.url.removesuffix("/v1"), api_key="any", conn_options=FAST
                ),
            ),
            Vendor(
                "aws",
                three,
                aws.RealtimeModel(
                    base_url=three.url,
                    api_key=KEYS.access_key,
                    api_secret=KEYS.secret_key,
                    conn_options=FAST,
                ),
            ),
        ]
        yield found
        for vendor in found:
            await vendor.model.aclose()
            vendor.check()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def calls(session: Any) -> tuple[list[str], asyncio.Future[Any]]:
    """Ask for a reply that calls. Return the names of the tools, and the request: a full-duplex model
    answers it by its next words."""
    replies: list[Any] = []
    session.once("generation_created", replies.append)
    asked = session.generate_reply()
    await until(lambda: replies)
    return (await read(replies[0]))[2], asked


async def turn(session: Any, vendor: Vendor, number: int, result: str) -> None:
    """The user asks and shows a picture, the model calls a tool, and speaks about its result."""
    replies: list[Any] = []
    session.on("generation_created", replies.append)
    vendor.will(calls=[ServerCall("look", '{"city": "Oslo"}', f"call_{number}")])
    vendor.will(f"Answer {number}.")
    chat_ctx = session.chat_ctx
    chat_ctx.add_message(role="user", content=[f"Question {number}?", ImageContent(image=PIXEL)])
    await session.update_chat_ctx(chat_ctx)
    names, asked = await calls(session)
    assert names == ["look"]
    chat_ctx = session.chat_ctx
    output = FunctionCallOutput(
        name="look", call_id=f"call_{number}", output=result, is_error=False
    )
    chat_ctx.items.append(output)
    await session.update_chat_ctx(chat_ctx)
    if session.capabilities.auto_tool_reply_generation:
        await until(lambda: len(replies) == 2)
        reply = replies[1]
    else:
        reply = await session.generate_reply()
    assert (await read(reply))[0] == f"Answer {number}."
    assert await asked in replies
    session.off("generation_created", replies.append)


def shape(chat_ctx: ChatContext) -> list[str]:
    """What of each kind, in order."""
    return [
        f"{item.role}: {item.text_content}" if item.type == "message" else item.type
        for item in chat_ctx.items
    ]


def told(numbers: range) -> list[str]:
    return [
        entry
        for number in numbers
        for entry in (
            f"user: Question {number}?",
            "function_call",
            "function_call_output",
            f"assistant: Answer {number}.",
        )
    ]


async def test_a_conversation_moves_to_another_vendor_at_every_turn() -> None:
    """By handing its context over: each session begins with what all before it said."""
    chat_ctx = ChatContext.empty()
    async with no_leaks(), vendors() as found, FaultServer() as texts:
        for number in range(10):
            vendor = [*found, None][number % 5]
            if vendor is None:
                model = anthropic.LLM(model="claude-sonnet-4-6", api_key="k", base_url=texts.url)
                await text_turn(model, texts, chat_ctx, number)
                await model.aclose()
                continue
            session = vendor.model.session()
            await session.update_instructions("Be brief.")
            await session.update_tools([look])
            await session.update_chat_ctx(chat_ctx)
            picture = vendor.name == "google"
            await turn(session, vendor, number, PIXEL if picture else "rain")
            for entry in (f"Question {number - 1}?", f"Answer {number - 1}."):
                assert number == 0 or entry in vendor.told, entry
            if picture:
                (result,) = vendor.server.connections[-1].results
                assert result["parts"][0]["inlineData"]["mimeType"] == "image/png"
            elif number > 1:
                assert "a picture (image/png) that cannot be shown here" in vendor.told
            chat_ctx = session.chat_ctx
            assert shape(chat_ctx) == told(range(number + 1))
            await session.aclose()
    assert shape(chat_ctx) == told(range(10))


async def text_turn(model: Any, server: FaultServer, chat_ctx: ChatContext, number: int) -> None:
    call = Call("look", '{"city": "Oslo"}', f"call_{number}")
    server.script(Answer(text=(), calls=(call,)), Answer(text=(f"Answer {number}.",)))
    chat_ctx.add_message(role="user", content=[f"Question {number}?", ImageContent(image=PIXEL)])
    async with run_turn(model, chat_ctx, tools=[look]) as turn:
        async for _ in turn:
            pass
    for request in server.requests[-2:]:
        assert not check_history("anthropic", request.json())


async def test_one_session_crosses_all_vendors_when_each_in_turn_fails() -> None:
    """By the fallback adapter, from speech to text and with one history."""
    call = FunctionToolCall(name="look", arguments='{"city": "Oslo"}', call_id="call_4")
    spare = ScriptedLLM([call], "Answer 4.")
    async with no_leaks(), vendors() as found:
        adapter = RealtimeModelFallbackAdapter(
            [vendor.model for vendor in found], text=spare, cooldown=600
        )
        session = adapter.session()
        moved: list[Any] = []
        session.on("session_reconnected", moved.append)
        await session.update_instructions("Be brief.")
        await session.update_tools([look])
        assert not adapter.capabilities.supports_overlapping_speech
        for number, vendor in enumerate(found):
            full_duplex = session.capabilities.supports_overlapping_speech
            assert full_duplex is (vendor.name == "live")
            await turn(session, vendor, number, "rain")
            assert number == 0 or f"Answer {number - 1}." in vendor.told
            await vendor.die()
            await until(lambda number=number: len(moved) > number)
        chat_ctx = session.chat_ctx
        chat_ctx.add_message(role="user", content=["Question 4?", ImageContent(image=PIXEL)])
        await session.update_chat_ctx(chat_ctx)
        assert (await read(await session.generate_reply()))[2] == ["look"]
        chat_ctx = session.chat_ctx
        chat_ctx.items.append(
            FunctionCallOutput(name="look", call_id="call_4", output="rain", is_error=False)
        )
        await session.update_chat_ctx(chat_ctx)
        assert (await read(await session.generate_reply()))[0] == "Answer 4."
        assert shape(session.chat_ctx) == told(range(5))
        sent = spare.calls[-1].chat_ctx
        for provider in ("openai", "anthropic", "google", "aws"):
            messages, data = sent.to_provider_format(provider)
            assert not check_history(
                provider, messages, system=getattr(data, "system_messages", None)
            )
        await adapter.aclose()


@pytest.mark.parametrize("rate", [24000, 8000])
async def test_speech_without_a_transcript_stands_before_its_answer(rate: int) -> None:
    """As sound where the model takes it in a history, else as a text that mentions it."""
    frame = AudioFrame(bytes(rate // 5), rate, 1, rate // 10)
    history = ChatContext.empty()
    history.add_message(role="user", content=[AudioContent(frame=[frame])])
    history.add_message(role="assistant", content="Yes.")
    history.add_message(role="user", content="Really?")
    async with no_leaks(), vendors() as found:
        for vendor in found:
            session = vendor.model.session()
            await session.update_chat_ctx(history)
            vendor.will("Really.")
            await read(await session.generate_reply())
            told = vendor.told
            taken = {"openai": "input_audio", "google": "audio/pcm;rate=16000"}
            speech = taken.get(vendor.name, "speech that was not transcribed")
            assert told.count(speech) == 1, vendor.name
            assert told.index(speech) < told.index("Yes."), vendor.name
            if vendor.name == "openai":
                (part,) = vendor.server.connections[-1].contents[history.items[0].id]["content"]
                assert 4600 <= len(base64.b64decode(part["audio"])) <= 4800
            await session.aclose()


@pytest.mark.parametrize(
    "output",
    ["data:application/pdf;base64,JVBERi0=", "%PDF-1.7 x", "data:image/gif;base64,R0lGODlh"],
)
async def test_a_result_that_no_model_takes_is_refused_and_another_one_is_not(output: str) -> None:
    async with vendors() as found:
        for vendor in found:
            session = vendor.model.session()
            await session.update_tools([look])
            vendor.will(calls=[ServerCall("look", "{}", "c1")])
            vendor.will("Done.")
            await calls(session)
            for result in (output, "a description"):
                chat_ctx = session.chat_ctx
                chat_ctx.items.append(
                    FunctionCallOutput(name="look", call_id="c1", output=result, is_error=False)
                )
                if result == output:
                    with pytest.raises(RealtimeError, match=r"'look' is a .* return a description"):
                        await session.update_chat_ctx(chat_ctx)
                    assert output[-8:] not in vendor.told
                else:
                    await session.update_chat_ctx(chat_ctx)
            await until(lambda vendor=vendor: "a description" in vendor.told)
            await session.aclose()
