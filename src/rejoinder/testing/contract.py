"""The contract of a model and of a decoder, as two functions for authors of providers.

::

    async def test_contract():
        await check_llm(lambda: acme.LLM(api_key="any", base_url=server.url))

    def test_decoder():
        check_decoder(acme.make_decoder, [Path("reply.sse").read_bytes()])

Both raise an `AssertionError` that names the broken promise. They check the promises on which the rest
of this package relies: fallbacks, turns, retries and metrics.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from rejoinder._core.chunks import ChatChunk
from rejoinder._options import COUNT, checked
from rejoinder.errors import APIError
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.llm import LLM
from rejoinder.llm.tool_context import function_tool
from rejoinder.testing.chunking import byte_by_byte, every_cut, random_cuts
from rejoinder.testing.leaks import measure_memory, no_leaks
from rejoinder.wire.decoder import Decoder

__all__ = ["check_decoder", "check_llm", "get_weather", "promise"]

_PATIENCE: Final = 10.0
"""Seconds after which something counts as hung; nothing here takes long."""


# -- models ----------------------------------------------------------------------------------------


@function_tool
async def get_weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: its name
    """
    return f"Sunny in {city}."


@checked()
async def check_llm(make: Callable[[], LLM[Any]]) -> None:
    """Check that a model keeps the contract of `rejoinder.llm.LLM`.

    Args:
        make: makes a new LLM that answers any conversation, with text or a call of an offered tool.
            It may use your own server on this machine; the server gets about twelve requests.

    Raises:
        AssertionError: names the promise that was broken.
    """
    for check in (
        _check_names,
        _check_reply,
        _check_snapshot,
        _check_tools,
        _check_bad_input,
        _check_without_loop,
        _check_together,
        _check_closing,
        _check_cancelling,
    ):
        async with promise(check.__doc__ or ""), no_leaks(), make() as llm:
            await check(llm)


@asynccontextmanager
async def promise(words: str) -> AsyncGenerator[None, None]:
    """Name the promise in an error."""
    try:
        async with asyncio.timeout(_PATIENCE):
            yield
    except TimeoutError as error:
        raise AssertionError(f"{words} It hung for {_PATIENCE:g} s.") from error
    except Exception as error:
        raise AssertionError(f"{words} {type(error).__name__}: {error}") from error


def _question() -> ChatContext:
    chat_ctx = ChatContext.empty()
    chat_ctx.add_message(role="system", content="Answer briefly.")
    chat_ctx.add_message(role="user", content="How is the weather in Oslo?")
    return chat_ctx


async def _check_names(llm: LLM[Any]) -> None:
    """`label`, `model` and `provider` are names."""
    for name in ("label", "model", "provider"):
        value = getattr(llm, name)
        assert isinstance(value, str), f"{name} is {value!r}"
        assert value, f"{name} is empty"


async def _check_reply(llm: LLM[Any]) -> None:
    """A reply is a stream of chunks, `collect` returns the same as a whole, and each emits metrics once."""
    metrics: list[Any] = []
    errors: list[Any] = []
    llm.on("metrics_collected", metrics.append)
    llm.on("error", errors.append)
    said = ""
    async with llm.chat(chat_ctx=_question()) as stream:
        async for chunk in stream:
            assert isinstance(chunk, ChatChunk), f"a chunk is {chunk!r}"
            said += (chunk.delta.content or "") if chunk.delta is not None else ""
    assert said.strip(), "the reply has no text"
    collected = await llm.chat(chat_ctx=_question()).collect()
    assert collected.text.strip(), "`collect` returned no text"
    assert len(metrics) == 2, f"{len(metrics)} metrics for 2 replies"
    assert not errors, f"errors were emitted: {errors}"
    assert all(found.label == llm.label for found in metrics), "metrics name another model"


async def _check_snapshot(llm: LLM[Any]) -> None:
    """`chat` takes a snapshot of the conversation and does not change it."""
    chat_ctx = _question()
    before = chat_ctx.to_dict()
    stream = llm.chat(chat_ctx=chat_ctx)
    assert chat_ctx.to_dict() == before, "`chat` changed the conversation"
    chat_ctx.items.clear()
    assert (await stream.collect()).text.strip(), "the reply was lost with the conversation"


async def _check_tools(llm: LLM[Any]) -> None:
    """Calls name offered tools, have unique ids, and JSON objects as arguments."""
    tools: list[Any] = [get_weather]
    async with llm.chat(chat_ctx=_question(), tools=tools) as stream:
        calls = [
            call
            async for chunk in stream
            if chunk.delta is not None
            for call in chunk.delta.tool_calls
        ]
    assert tools == [get_weather], "`chat` changed the list of tools"
    for call in calls:
        assert call.name == "get_weather", f"a call of {call.name!r}"
        assert call.call_id, "a call has no id"
        assert isinstance(json.loads(call.arguments), dict), f"arguments {call.arguments!r}"
    assert len({call.call_id for call in calls}) == len(calls), "two calls have one id"


async def _check_bad_input(llm: LLM[Any]) -> None:
    """For invalid input, `chat` itself raises a `ValueError` or `TypeError`."""
    wrong: Any
    for wrong in (None, [{"role": "user"}], "Hello"):
        try:
            stream = llm.chat(chat_ctx=wrong)
        except (ValueError, TypeError):
            continue
        await stream.aclose()
        raise AssertionError(f"chat_ctx={wrong!r} was accepted")


async def _check_without_loop(llm: LLM[Any]) -> None:
    """`chat` needs no running event loop: the stream starts when it is first awaited."""
    stream = await asyncio.to_thread(lambda: llm.chat(chat_ctx=_question()))
    assert (await stream.collect()).text.strip(), "the reply has no text"


async def _check_together(llm: LLM[Any]) -> None:
    """One model serves several conversations at once."""
    streams = [llm.chat(chat_ctx=_question()) for _ in range(3)]
    replies = await asyncio.gather(*(stream.collect() for stream in streams))
    assert all(reply.text.strip() for reply in replies), "a reply has no text"


async def _check_closing(llm: LLM[Any]) -> None:
    """A stream can be closed at any moment, twice, and then ends without an error."""
    for chunks in (0, 1):
        stream = llm.chat(chat_ctx=_question())
        for _ in range(chunks):
            await anext(stream)
        await stream.aclose()
        await stream.aclose()
        async for _ in stream:  # unread chunks may still be read
            pass
    await llm.aclose()  # the block around this check closes it once more


async def _check_cancelling(llm: LLM[Any]) -> None:
    """A cancelled reader stops, and leaves nothing behind."""
    stream = llm.chat(chat_ctx=_question())
    task = asyncio.ensure_future(stream.collect())
    await asyncio.sleep(0)
    task.cancel()
    outcome = (await asyncio.gather(task, return_exceptions=True))[0]
    assert not isinstance(outcome, Exception), f"it raised {outcome!r}"


# -- decoders --------------------------------------------------------------------------------------


@dataclass
class _Heard:
    """The result of a body, regardless of how its text is cut into chunks."""

    text: str = ""
    thinking: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    usage: Any = None
    error: str | None = None

    def take(self, chunks: Iterable[ChatChunk]) -> None:
        for chunk in chunks:
            if chunk.usage is not None:
                self.usage = chunk.usage.model_dump()
            delta = chunk.delta
            if delta is not None:
                self.text += delta.content or ""
                self.thinking += delta.thinking or ""
                self.calls += [(call.name, call.arguments) for call in delta.tool_calls]


@checked(max_memory=COUNT.optional)
def check_decoder(
    make: Callable[[], Decoder[ChatChunk]],
    bodies: Sequence[bytes],
    *,
    max_memory: int | None = 64 << 20,
    seed: int = 0,
) -> None:
    """Check that a decoder keeps the promises of `rejoinder.wire.decoder`.

    Args:
        make: makes a fresh decoder.
        bodies: whole replies of the provider: text, a tool call, thinking. Short ones are cut in
            more ways.
        max_memory: maximum bytes for bodies of 16 MB without output; ``None`` omits this check,
            which is slow.
        seed: seed of the damage; equal seeds make equal damage.

    Raises:
        AssertionError: names the promise that was broken.
    """
    if not bodies:
        raise ValueError("check_decoder: expected at least one body")
    dice = random.Random(seed)  # noqa: S311  repeatable, not secret
    for number, body in enumerate(bodies):
        whole = _hear(make, [body])
        where = f"bodies[{number}]"
        assert whole.error is None, f"{where} is a whole reply, and was refused: {whole.error}"
        assert whole.text or whole.calls, f"{where} has no output"
        for pieces in _cuts(body, seed):
            found = _hear(make, pieces)
            assert found == whole, (
                f"{where}: another cut of the same bytes gives another result: {found} instead of "
                f"{whole} (pieces of {[len(piece) for piece in pieces[:20]]} bytes)"
            )
        _check_truncated(make, body, whole, where)
        for _ in range(60):
            _check_garbage(make, _damaged(body, dice), dice.randrange(1 << 30))
    for garbage in _GARBAGE:
        _check_garbage(make, garbage, seed)
    for size in (1, 3, 10, 100, 1000):
        _check_garbage(make, dice.randbytes(size), seed)
    if max_memory is not None:
        _check_memory(make, max_memory)


_GARBAGE: Final = (
    b"",
    b"\n\n\n",
    b"{}",
    b"[]",
    b"null",
    b'{"error": "no"}',
    b'{"error": {"message": "no", "code": 5}}',
    b"<html><body>Bad gateway</body></html>",
    b"data: \n\n",
    b"data: null\n\n",
    b"data: [1, {}]\n\n",
    b'data: {"choices": 5, "type": [], "candidates": {}}\n\n',
    b"event: error\ndata: no\n\n",
    b"\xff\xfe\x00" * 20,
)


def _hear(make: Callable[[], Decoder[ChatChunk]], pieces: Iterable[bytes]) -> _Heard:
    decoder = make()
    heard = _Heard()
    try:
        for piece in pieces:
            heard.take(decoder.feed(piece))
        heard.take(decoder.close())
        if decoder.failure is not None:  # found by the last call, which returned what came before
            raise decoder.failure
    except APIError as error:
        heard.error = f"{type(error).__name__}: {error}"
        for again in (lambda: decoder.feed(b"x"), decoder.close):
            try:
                again()
            except APIError:
                continue
            raise AssertionError("a decoder that has failed accepted more") from error
    except Exception as error:
        raise AssertionError(
            f"bytes may raise an APIError and no other exception, got {type(error).__name__}: "
            f"{error}"
        ) from error
    return heard


def _cuts(body: bytes, seed: int) -> Iterator[list[bytes]]:
    if len(body) <= 1_000:
        yield from every_cut(body)
        return
    yield byte_by_byte(body)
    for offset in range(40):
        yield random_cuts(body, seed=seed + offset, pieces=2 + offset)


def _check_truncated(
    make: Callable[[], Decoder[ChatChunk]], body: bytes, whole: _Heard, where: str
) -> None:
    step = max(1, len(body) // 300)
    for end in range(0, len(body), step):
        found = _hear(make, [body[:end]])
        assert whole.text.startswith(found.text.rstrip("\ufffd")), (
            f"{where}: the text of its first {end} bytes, {found.text!r}, is not the beginning of the whole"
        )
        assert found.calls == whole.calls[: len(found.calls)], (
            f"{where}: its first {end} bytes return an incomplete call: {found.calls[-1:]}"
        )
        assert found.error is not None or (found.text, found.calls) == (whole.text, whole.calls), (
            f"{where}: its first {end} bytes count as a whole reply"
        )


def _damaged(body: bytes, dice: random.Random) -> bytes:
    place, length = dice.randrange(len(body)), dice.randint(1, 12)
    return body[:place] + dice.randbytes(length) + body[place + dice.randint(0, length) :]


def _check_garbage(make: Callable[[], Decoder[ChatChunk]], data: bytes, seed: int) -> None:
    whole = _hear(make, [data])
    for pieces in (byte_by_byte(data), random_cuts(data, seed=seed)):
        found = _hear(make, pieces)
        assert found == whole, (
            f"another cut of damaged bytes gives another result: {found} instead of {whole}, "
            f"of {data[:200]!r}"
        )


def _check_memory(make: Callable[[], Decoder[ChatChunk]], limit: int) -> None:
    piece = b"[]," * (1 << 14)
    for start in (b"", b"[", b"data: [", b'data: {"a":['):
        with measure_memory() as use:
            _hear(make, _endless(start, piece, 16 << 20, lambda use=use: use.so_far() > limit))
        assert use.peak <= limit, (
            f"memory is not bounded: over {limit >> 20} MB for an endless body that begins with "
            f"{start!r}"
        )


def _endless(start: bytes, piece: bytes, size: int, enough: Callable[[], bool]) -> Iterator[bytes]:
    yield start
    for _ in range(size // len(piece)):
        if enough():
            return
        yield piece
    yield b"1]}\n\n"
