"""The shipped contract: our own models keep it, and broken ones are told which promise they break."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from contract.rows import ROWS, Row
from rejoinder._core.chunks import ChatChunk, ChoiceDelta, FunctionToolCall
from rejoinder.errors import WireError
from rejoinder.llm.llm import LLM, LLMStream
from rejoinder.testing import Answer, FaultServer, check_decoder, check_llm
from rejoinder.testing._dialects import DIALECTS, Call, Usage
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS
from rejoinder.wire.sse import SSEDecoder

every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def body_of(row: Row, text: tuple[str, ...], calls: tuple[Call, ...] = ()) -> bytes:
    dialect = DIALECTS[row.format]
    parts = dialect.render(text, calls, "", Usage())
    start, between, end = dialect.frame
    return start + between.join([*parts.opening, *parts.outputs, *parts.closing]) + end


@every_row
async def test_our_models_keep_it(row: Row) -> None:
    async with FaultServer(default=Answer(text=("Sunny", " in Oslo."))) as server:
        await check_llm(lambda: row.make(server.url))


@every_row
def test_our_decoders_keep_it(row: Row) -> None:
    call = Call("get_weather", '{"city": "Köln"}', "call_a")
    bodies = [body_of(row, ("Sunny", " in", " Köln.")), body_of(row, ("Well.",), (call,))]
    check_decoder(row.decoder, bodies, max_memory=None)


def test_memory() -> None:
    (row,) = (row for row in ROWS if row.name == "openai")
    check_decoder(row.decoder, [body_of(row, ("Hi",))])


# -- broken models


class Stream(LLMStream):
    async def _run(self) -> None:
        model: Any = self._llm
        await model.speak(self._event_ch.send_nowait)


class Model(LLM[Any]):
    """Says "Hi."; what it gets wrong is in its subclasses."""

    async def speak(self, send: Callable[[ChatChunk], None]) -> None:
        send(ChatChunk(id="1", delta=ChoiceDelta(role="assistant", content="Hi.")))

    def chat(
        self, *, chat_ctx: Any, tools: Any = None, conn_options: Any = None, **_: Any
    ) -> LLMStream:
        if not hasattr(chat_ctx, "items"):
            raise TypeError("chat_ctx: expected a ChatContext")
        return Stream(
            self,
            chat_ctx=chat_ctx,
            tools=tools or [],
            conn_options=conn_options or DEFAULT_API_CONNECT_OPTIONS,
        )


class Silent(Model):
    async def speak(self, send: Callable[[ChatChunk], None]) -> None:
        send(ChatChunk(id="1"))


class Meddling(Model):
    def chat(self, *, chat_ctx: Any, **options: Any) -> LLMStream:
        chat_ctx.items.pop(0)
        return super().chat(chat_ctx=chat_ctx, **options)


class Trusting(Model):
    def chat(self, *, chat_ctx: Any, **options: Any) -> LLMStream:
        chat_ctx = chat_ctx if hasattr(chat_ctx, "items") else None
        return Stream(self, chat_ctx=chat_ctx, tools=[], conn_options=DEFAULT_API_CONNECT_OPTIONS)


class Inventive(Model):
    async def speak(self, send: Callable[[ChatChunk], None]) -> None:
        await super().speak(send)
        call = FunctionToolCall(name="get_weather", arguments="[1]", call_id="c")
        send(ChatChunk(id="1", delta=ChoiceDelta(role="assistant", tool_calls=[call])))


class Leaking(Model):
    async def speak(self, send: Callable[[ChatChunk], None]) -> None:
        await super().speak(send)
        self.kept = asyncio.ensure_future(asyncio.Event().wait())


class Nameless(Model):
    @property
    def model(self) -> str:
        return ""


async def test_a_model_that_keeps_it() -> None:
    await check_llm(Model)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (Nameless, "are names.*model is empty"),
        (Silent, "A reply is a stream of chunks.*the reply has no text"),
        (Meddling, "`chat` changed the conversation"),
        (Inventive, r"JSON objects as arguments.*\[1\]"),
        (Trusting, "invalid input.*chat_ctx=None was accepted"),
        (Leaking, "left behind"),
    ],
)
async def test_what_a_model_breaks_is_named(model: type[Model], told: str) -> None:
    made: list[Any] = []

    def make() -> LLM[Any]:
        made.append(model())
        return made[-1]

    with pytest.raises(AssertionError, match=f"(?s){told}"):
        await check_llm(make)
    for llm in made:
        if (task := getattr(llm, "kept", None)) is not None:
            task.cancel()


# -- broken decoders


class Reader:
    """Reads ``data: {"text": ...}`` until ``{"end": true}``; keeps the promises."""

    def __init__(self) -> None:
        self._frames = SSEDecoder()
        self._ended = False
        self.failure: Any = None

    def feed(self, data: bytes) -> list[ChatChunk]:
        if self.failure is not None:
            raise self.failure
        chunks: list[ChatChunk] = []
        events = [] if self._ended else self._frames.feed(data)
        for event in events:
            try:
                if len(event[1]) > 1 << 20:
                    raise ValueError("too long")
                value = json.loads(event[1])
                if not isinstance(value, dict):
                    raise ValueError("no object")
            except ValueError as error:
                self.failure = WireError(f"bad event: {error}")
                return chunks
            if value.get("end"):
                self._ended = True
                return chunks
            if isinstance(value.get("text"), str):
                delta = ChoiceDelta(role="assistant", content=value["text"])
                chunks.append(ChatChunk(id="1", delta=delta))
        if self._frames.failure is not None:
            self.failure = self._frames.failure
        return chunks

    def close(self) -> list[ChatChunk]:
        if self.failure is None and not self._ended:
            self.failure = WireError("ended before its end mark")
        if self.failure is not None:
            raise self.failure
        return []


class Hasty(Reader):
    """Takes each read for a whole number of events."""

    def feed(self, data: bytes) -> list[ChatChunk]:
        self._frames = SSEDecoder()
        return super().feed(data)


class Credulous(Reader):
    """Takes any end for the end of the reply."""

    def close(self) -> list[ChatChunk]:
        if self.failure is not None:
            raise self.failure
        return []


class Frail(Reader):
    """Lets the errors of a parser out."""

    def feed(self, data: bytes) -> list[ChatChunk]:
        chunks = super().feed(data)
        if self.failure is not None:
            raise KeyError("choices")
        return chunks


class Forgiving(Reader):
    """Forgets that it has failed."""

    def feed(self, data: bytes) -> list[ChatChunk]:
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return super().feed(data)


class Hoarding(Reader):
    """Keeps every value that it ever saw."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []

    def feed(self, data: bytes) -> list[ChatChunk]:
        self.kept.append([[] for _ in range(data.count(b"[]"))])
        return super().feed(data)


BODY = b'data: {"text": "Hello "}\n\ndata: {"text": "there."}\n\ndata: {"end": true}\n\n'


def test_a_decoder_that_keeps_it() -> None:
    check_decoder(Reader, [BODY])


@pytest.mark.parametrize(
    ("decoder", "told"),
    [
        (Hasty, "another cut of the same bytes"),
        (Credulous, "count as a whole reply"),
        (Frail, "no other exception, got KeyError"),
        (Forgiving, "a decoder that has failed accepted more"),
        (Hoarding, "memory is not bounded"),
    ],
)
def test_what_a_decoder_breaks_is_named(decoder: type[Reader], told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        check_decoder(decoder, [BODY])


def test_it_needs_a_body() -> None:
    with pytest.raises(ValueError, match="at least one body"):
        check_decoder(Reader, [])
    with pytest.raises(AssertionError, match=r"bodies\[0\] is a whole reply, and was refused"):
        check_decoder(Reader, [BODY[:20]])
