"""Whatever happens in whatever order: futures end, calls are answered once, no word is heard twice."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from providers.sessions.driving import sound, talking
from rejoinder.llm import FunctionCallOutput
from rejoinder.llm.realtime import GenerationCreatedEvent, RealtimeError
from rejoinder.providers.openai.realtime import RealtimeSession
from rejoinder.testing import RealtimeConnection, RealtimeServer, ServerCall, ServerReply
from rejoinder.types import APIConnectOptions

Step = tuple[str, int]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "ask", "ask", "interrupt", "truncate", "push", "commit", "clear", "answer",
                "instruct", "write", "give up", "own reply", "own call", "speech", "release",
                "cap", "drop", "nonsense",
            ]
        ),
        st.integers(0, 8),
    ),
    min_size=1,
    max_size=14,
)  # fmt: skip

ALLOWED = {
    # What no order on this side can avoid: the service was faster.
    "conversation_already_has_active_response",
    "response_cancel_not_active",
    "input_audio_buffer_commit_empty",
    # An item that the service took out in the same moment.
    "refused",
}


class Play:
    """One conversation, and what has been seen of it."""

    def __init__(self, server: RealtimeServer, session: RealtimeSession) -> None:
        self.server = server
        self.session = session
        self.asked: list[asyncio.Future[GenerationCreatedEvent]] = []
        self.heard: list[str] = []
        self.calls: list[Any] = []
        self.outcomes: list[Any] = []
        self.refusals: list[str] = []
        self.readers: list[asyncio.Task[None]] = []
        self.words = 0
        session.on("generation_created", self._created)
        session.on("openai_server_event_received", self._saw)

    def _saw(self, event: dict[str, Any]) -> None:
        if event["type"] == "error":
            self.refusals.append(event["error"]["code"] or event["error"]["message"])

    def _created(self, event: GenerationCreatedEvent) -> None:
        self.readers.append(asyncio.get_running_loop().create_task(self._read(event)))

    async def _read(self, event: GenerationCreatedEvent) -> None:
        async def calls() -> None:
            async for call in event.function_stream:
                self.calls.append(call)

        async def messages() -> None:
            async for message in event.message_stream:
                self.heard.append("".join([text async for text in message.text_stream]))
                async for frame in message.audio_stream:
                    assert frame.sample_rate == 24000

        await asyncio.gather(calls(), messages())
        assert event.outcome is not None
        self.outcomes.append(await event.outcome)

    def reply(self, **options: Any) -> ServerReply:
        """A reply of words that no other reply says."""
        words = [f"w{self.words + n} " for n in range(3)]
        self.words += 3
        return ServerReply(words, **options)

    def call(self) -> ServerReply:
        self.words += 1
        return ServerReply(calls=[ServerCall("tool", "{}", f"call_{self.words}")])

    @property
    def connection(self) -> RealtimeConnection | None:
        return self.server.connections[-1] if self.server.connections else None

    async def step(self, kind: str, number: int) -> None:
        session, connection = self.session, self.connection
        match kind:
            case "ask":
                options: dict[str, Any] = {"hold": number % 3 == 1}
                self.server.reply(self.call() if number % 3 == 2 else self.reply(**options))
                self.asked.append(session.generate_reply())
            case "give up" if self.asked:
                self.asked[number % len(self.asked)].cancel()
            case "interrupt":
                session.interrupt()
            case "truncate":
                messages = [i for i in session.chat_ctx.items if i.type == "message"]
                if messages:
                    session.truncate(
                        message_id=messages[number % len(messages)].id,
                        modalities=["audio"],
                        audio_end_ms=number * 50 - 50,
                    )
            case "push":
                session.push_audio(sound(40 * number + 10, value=number))
            case "commit":
                session.commit_audio()
            case "clear":
                session.clear_audio()
            case "answer" if self.calls:
                call = self.calls[number % len(self.calls)]
                await self._change(
                    FunctionCallOutput(call_id=call.call_id, output="1", is_error=False)
                )
            case "instruct":
                await self._quietly(session.update_instructions(f"Rule {number}."))
            case "write":
                chat_ctx = session.chat_ctx
                self.words += 1
                chat_ctx.add_message(role="user", content=f"n{self.words}")
                await self._quietly(session.update_chat_ctx(chat_ctx))
            case "own reply" | "own call" if connection and not connection.running:
                await connection.begin_reply(self.call() if kind == "own call" else self.reply())
            case "speech" if connection:
                self.words += 1
                await connection.speech(f"n{self.words}" if number % 2 else None)
            case "release" if connection:
                connection.release()
            case "cap" if connection:
                await connection.close(1001)
            case "drop" if connection:
                connection.drop()
            case "nonsense" if connection:
                await connection.send_raw('{"type": "response.done", "response": 5}')
            case _:
                pass

    async def _change(self, item: Any) -> None:
        chat_ctx = self.session.chat_ctx
        chat_ctx.items.append(item)
        await self._quietly(self.session.update_chat_ctx(chat_ctx))

    async def _quietly(self, change: Any) -> None:
        try:
            await change
        except RealtimeError as error:
            self.refusals.append(error.code or str(error))

    async def drain(self) -> None:
        """Let everything end that can."""
        async with asyncio.timeout(20):
            while True:
                if self.connection is not None:
                    self.connection.release()
                running = [t for t in (*self.asked, *self.readers) if not t.done()]
                if not running:
                    return
                await asyncio.sleep(0.002)


async def play(steps: list[Step]) -> None:
    patience = APIConnectOptions(max_retry=20, retry_interval=0.0)
    async with (
        RealtimeServer() as server,
        talking(server, conn_options=patience, reply_timeout=2.0) as (session, seen),
    ):
        game = Play(server, session)
        await session.connected()
        for kind, number in steps:
            with contextlib.suppress(ConnectionError):  # of the server, over a broken connection
                await game.step(kind, number)
            for _ in range(number * 5):
                await asyncio.sleep(0)
        await game.drain()
        await session.connected()
        await game.step("ask", 0)  # and the next reply works
        await game.drain()
        assert isinstance(game.asked[-1].result(), GenerationCreatedEvent)
        check(game, seen)
        await synced(game)


def check(game: Play, seen: Any) -> None:
    for future in game.asked:
        if not future.cancelled() and future.exception() is not None:
            assert isinstance(future.exception(), RealtimeError)
    assert all(reader.exception() is None for reader in game.readers)
    said = Counter(re.findall(r"\bw\d+", " ".join(game.heard)))
    assert not [word for word, times in said.items() if times > 1], "a word was heard twice"
    kept = [item.text_content or "" for item in game.session.chat_ctx.messages()]
    written = Counter(re.findall(r"\b[wn]\d+", " ".join(kept)))
    assert not [word for word, times in written.items() if times > 1], "a word was kept twice"
    ran = Counter(call.call_id for call in game.calls)
    assert not [call_id for call_id, times in ran.items() if times > 1], (
        "a call was handed out twice"
    )
    for connection in game.server.connections:
        outputs = Counter(
            event["item"]["call_id"]
            for event in connection.events
            if event["type"] == "conversation.item.create"
            and event["item"]["type"] == "function_call_output"
        )
        assert not [i for i, times in outputs.items() if times > 1], "a call was answered twice"
    assert set(game.refusals) <= ALLOWED
    assert all(error.recoverable for error in seen.named("error"))


async def synced(game: Play) -> None:
    """The service holds what this side believes it to hold."""
    connection = game.server.connections[-1]

    def same() -> bool:
        ours = [item.id for item in game.session.chat_ctx.items]
        empty = {
            item.id
            for item in game.session.chat_ctx.items
            if item.type == "message" and not item.content
        }
        # Messages without words are not written anew on a later connection.
        return [i for i in ours if i not in empty] == [
            i for i in connection.items if i not in empty
        ]

    async with asyncio.timeout(60):
        while not same():
            await asyncio.sleep(0.002)


@examples(40)
@given(STEPS)
def test_whatever_happens_in_whatever_order(steps: list[Step]) -> None:
    asyncio.run(play(steps))


@pytest.mark.parametrize(
    "steps",
    [
        [("ask", 1), ("truncate", 3), ("cap", 0), ("truncate", 2)],
        [("ask", 2), ("answer", 0), ("drop", 0), ("answer", 0)],
        [("own reply", 0), ("ask", 0), ("interrupt", 0), ("ask", 0)],
    ],
)
def test_orders_that_once_were_wrong(steps: list[Step]) -> None:
    asyncio.run(play(steps))
