"""Random orders of everything in sessions of Google's and OpenAI's Live APIs, as
``sessions/test_session_random`` has them for OpenAI's realtime protocol. No time passes."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import looptime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.openai.duplex import Checked
from providers.sessions.driving import Seen
from providers.sessions.test_session_random import Play, Step
from rejoinder.llm import FunctionCallOutput, function_tool
from rejoinder.llm.realtime import GenerationCreatedEvent, RealtimeError
from rejoinder.media import AudioFrame
from rejoinder.providers.google import realtime as google
from rejoinder.providers.openai.live import GPTLiveModel, GPTLiveSession
from rejoinder.testing import (
    GeminiConnection,
    LiveConnection,
    RealtimeConnection,
    RealtimeService,
    ServerCall,
)
from rejoinder.types import APIConnectOptions

KINDS = [
    "ask", "ask", "interrupt", "truncate", "push", "commit", "clear", "answer", "answer",
    "instruct", "tools", "write", "remove", "give up", "own reply", "own call", "speech",
    "release", "cap", "drop", "nonsense", "delegate", "tell", "wait", "wait",
]  # fmt: skip
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 8)), min_size=1, max_size=14)


@function_tool
async def tool() -> str:
    """A tool."""
    return "1"


@dataclass(frozen=True)
class Vendor:
    make: Callable[..., Any]
    connection: type[RealtimeConnection]
    rate: int
    options: dict[str, Any] = field(default_factory=dict[str, Any])


VENDORS = {
    "live": Vendor(GPTLiveModel, Checked, 24000),
    "live, client": Vendor(GPTLiveModel, Checked, 24000, {"delegation": "client"}),
    "google": Vendor(google.RealtimeModel, GeminiConnection, 16000),
    "google, waiting": Vendor(
        google.RealtimeModel, GeminiConnection, 16000, {"tool_behavior": "BLOCKING"}
    ),
    "google, text by turns": Vendor(
        google.RealtimeModel, GeminiConnection, 16000, {"model": "gemini-3.1-flash-live-preview"}
    ),
    "google, silent about speech": Vendor(
        google.RealtimeModel, GeminiConnection, 16000, {"model": "gemini-2.5-flash-native-audio"}
    ),
}


class VendorPlay(Play):
    """A conversation with another vendor."""

    def __init__(self, server: Any, session: Any, rate: int) -> None:
        super().__init__(server, session)
        self.rate = rate
        self.tasks: list[str] = []
        if isinstance(session, GPTLiveSession):
            session.on("delegation_created", lambda event: self.tasks.append(event.id))

    async def step(self, kind: str, number: int) -> None:
        session, connection = self.session, self.connection
        match kind:
            case "push":
                size = self.rate * (40 * number + 10) // 1000
                session.push_audio(AudioFrame(bytes([number]) * 2 * size, self.rate, 1, size))
            case "tools":
                await self._quietly(session.update_tools([tool] if number % 2 else []))
            case "remove":
                chat_ctx = session.chat_ctx
                del chat_ctx.items[number % 3 : number % 3 + 1]
                await self._quietly(session.update_chat_ctx(chat_ctx))
            case "own call" if isinstance(connection, LiveConnection):
                self.words += 1
                await connection.call(ServerCall("tool", "{}", f"call_{self.words}"))
            case "nonsense" if connection:
                await RealtimeConnection.send_raw(connection, "{")
            case "delegate" if isinstance(connection, LiveConnection):
                await connection.delegate()
            case "tell" if self.tasks and isinstance(session, GPTLiveSession):
                task = self.tasks[number % len(self.tasks)]
                session.append_commentary(f"w{self.words} ", delegation_id=task)
                self.words += 1
            case "wait":
                await asyncio.sleep(1.5 * number)
            case _:
                await super().step(kind, number)

    async def drain(self) -> None:
        """Let everything end that can: replies, tools, tasks, and then what has a deadline."""
        async with asyncio.timeout(400):
            while True:
                if self.connection is not None:
                    self.connection.release()
                done = {
                    item.call_id
                    for item in self.session.chat_ctx.items
                    if item.type == "function_call_output"
                }
                for call in self.calls:
                    if call.call_id not in done:
                        result = FunctionCallOutput(
                            call_id=call.call_id, output="1", is_error=False
                        )
                        await self._change(result)
                for task in self.tasks:
                    if isinstance(self.session, GPTLiveSession):
                        self.session.delegation_over(task)
                if all(task.done() for task in (*self.asked, *self.readers)):
                    return
                await asyncio.sleep(0.5)


async def play(vendor: Vendor, steps: list[Step]) -> None:
    service = RealtimeService(connection=vendor.connection)
    transport = service.transport()
    options = APIConnectOptions(max_retry=50, retry_interval=0.05)
    model = vendor.make(transport=transport, api_key="any", conn_options=options, **vendor.options)
    session = model.session()
    seen = Seen(session)
    game = VendorPlay(service, session, vendor.rate)
    try:
        await session.connected()
        for kind, number in steps:
            try:
                await game.step(kind, number)
            except ConnectionError:  # of the server, over a broken connection
                pass
            await asyncio.sleep(0.01 * number)
        await game.drain()
        await session.connected()
        await asyncio.sleep(12)  # what is owed has come
        await game.step("ask", 0)
        await game.drain()
        assert isinstance(game.asked[-1].result(), GenerationCreatedEvent)
        check(game, seen)
    finally:
        await model.aclose()
        left = [task.get_name() for task in asyncio.all_tasks()]
        await transport.aclose()
        await service.aclose()
    assert not [name for name in left if name.startswith("realtime")], "a task was left behind"


def check(game: VendorPlay, seen: Seen) -> None:
    for future in game.asked:
        if not future.cancelled() and future.exception() is not None:
            assert isinstance(future.exception(), RealtimeError)
    assert all(reader.exception() is None for reader in game.readers)
    kept = [item.text_content or "" for item in game.session.chat_ctx.messages()]
    for what, texts in (("heard", game.heard), ("kept", kept)):
        said = Counter(re.findall(r"\b[wn]\d+", " ".join(texts)))
        assert not [word for word, times in said.items() if times > 1], f"{what} twice"
    ran = Counter(call.call_id for call in game.calls)
    assert not [call_id for call_id, times in ran.items() if times > 1], "handed out twice"
    for connection in game.server.connections:
        assert isinstance(connection, LiveConnection | GeminiConnection)
        answered = Counter(result.get("call_id") or result["id"] for result in connection.results)
        assert not [i for i, times in answered.items() if times > 1], "answered twice"
    assert all(error.recoverable for error in seen.named("error"))


def run(work: Coroutine[Any, Any, None]) -> None:
    loop = looptime.new_event_loop(start=0.0)
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", VENDORS)
@settings(max_examples=5)
@given(steps=STEPS)
def test_whatever_happens_in_whatever_order(name: str, steps: list[Step]) -> None:
    run(play(VENDORS[name], steps))


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        # A connection in preparation ended, and its tasks stayed.
        ("google", [("own call", 4), ("instruct", 3), ("drop", 6), ("wait", 6), ("wait", 0)]),
        # A request failed while the session waited for the end of speech that had no end.
        ("google, silent about speech", [("ask", 4), ("speech", 7), ("remove", 1)]),
        ("live", [("push", 5), ("instruct", 8)]),
    ],
)
def test_orders_that_once_were_wrong(name: str, steps: list[Step]) -> None:
    run(play(VENDORS[name], steps))
