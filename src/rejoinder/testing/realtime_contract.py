"""The contract of a realtime model, as a function for authors of providers.

::

    async def test_contract():
        async with RealtimeServer() as server:
            await check_realtime(lambda: acme.RealtimeModel(api_key="any", base_url=server.url))

It checks promises that agents rely on with every vendor: every future ends, streams end with their
reply, no call raises at the wrong moment, and no task or connection is left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from rejoinder._options import checked
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.realtime import (
    GenerationCreatedEvent,
    MessageGeneration,
    RealtimeError,
    RealtimeModel,
    RealtimeSession,
)
from rejoinder.media import AudioFrame
from rejoinder.testing.contract import get_weather, promise
from rejoinder.testing.leaks import no_leaks

__all__ = ["check_realtime"]

_CLOSE: Final = 2.0
"""Seconds within which a session has to be closed."""
_RATE: Final = 24000


@checked()
async def check_realtime(make: Callable[[], RealtimeModel]) -> None:
    """Check that a model keeps the contract of `rejoinder.llm.RealtimeModel`.

    Args:
        make: makes a new model whose service answers every request with a message within ten
            seconds. The service may be your own server on this machine; it gets about twenty
            requests.

    Raises:
        AssertionError: names the promise that was broken.
    """
    for check in (
        _check_names,
        _check_reply,
        _check_settings,
        _check_history,
        _check_interrupting,
        _check_truncating,
        _check_sound,
        _check_cancelling,
        _check_together,
        _check_closing,
        _check_closed,
    ):
        async with promise(check.__doc__ or ""), no_leaks(), make() as model:
            await check(model)


@asynccontextmanager
async def _session(model: RealtimeModel) -> AsyncGenerator[RealtimeSession[Any], None]:
    session = model.session()
    try:
        yield session
    finally:
        await session.aclose()


async def _read(event: GenerationCreatedEvent) -> tuple[str, float, list[str]]:
    """The text of a reply, seconds of its sound, and ids of its messages."""
    text, seconds, ids = "", 0.0, list[str]()

    async def one(message: MessageGeneration) -> None:
        nonlocal text, seconds
        ids.append(message.message_id)
        kinds = await message.modalities
        assert set(kinds) <= {"text", "audio"}, f"modalities are {kinds!r}"
        async for piece in message.text_stream:
            assert isinstance(piece, str), f"a piece of text is {piece!r}"
            text += piece
        async for frame in message.audio_stream:
            assert isinstance(frame, AudioFrame), f"a piece of sound is {frame!r}"
            seconds += frame.duration

    async for message in event.message_stream:
        await one(message)
    async for _ in event.function_stream:
        pass
    if event.outcome is not None:
        await event.outcome
    return text, seconds, ids


def _sound(ms: int = 100, rate: int = _RATE) -> AudioFrame:
    samples = rate * ms // 1000
    return AudioFrame(bytes(2 * samples), rate, 1, samples)


async def _check_names(model: RealtimeModel) -> None:
    """`label`, `model` and `provider` are names, and a session refers to its model."""
    for name, value in (
        ("label", model.label),
        ("model", model.model),
        ("provider", model.provider),
    ):
        assert isinstance(value, str), f"{name} is {value!r}"
        assert value, f"{name} is empty"
    async with _session(model) as session:
        assert session.realtime_model is model, "a session names another model"
        assert session.capabilities == model.capabilities, "a session has other capabilities"


async def _check_reply(model: RealtimeModel) -> None:
    """A reply is announced once, its streams end, and its metrics come once."""
    announced: list[GenerationCreatedEvent] = []
    metrics: list[Any] = []
    errors: list[Any] = []
    async with _session(model) as session:
        session.on("generation_created", announced.append)
        session.on("metrics_collected", metrics.append)
        session.on("error", errors.append)
        event = await session.generate_reply()
        text, seconds, ids = await _read(event)
        await asyncio.sleep(0)
    assert event.user_initiated, "a requested reply is not `user_initiated`"
    assert [found for found in announced if found is event], (
        "`generation_created` told another reply"
    )
    assert len(announced) == 1, f"one reply was announced {len(announced)} times"
    assert ids, "the reply has no message"
    assert all(ids), "a message has no id"
    assert len(set(ids)) == len(ids), "two messages have one id"
    assert text.strip(), "the reply has no text"
    if model.capabilities.audio_output:
        assert seconds > 0, "the reply has no sound"
    assert not errors, f"errors were emitted: {errors}"
    found = [one for one in metrics if one.request_id]
    assert len(found) <= 1, f"{len(found)} metrics for one reply"
    assert all(one.label == model.label for one in found), "metrics name another model"


async def _check_settings(model: RealtimeModel) -> None:
    """Instructions and tools may be set before the connection is open, and later."""
    async with _session(model) as session:
        await session.update_instructions("Answer briefly.")
        await session.update_tools([get_weather])
        assert "get_weather" in session.tools.function_tools, "`tools` lacks a tool that was given"
        await _read(await session.generate_reply())
        if model.capabilities.mutable_instructions:
            await session.update_instructions("Answer at length.")
        if model.capabilities.mutable_tools:
            await session.update_tools([])
            assert not session.tools.function_tools, "`tools` keeps a tool that was taken away"
        text, _, _ = await _read(await session.generate_reply())
        assert text.strip(), "no reply after a change of settings"


async def _check_history(model: RealtimeModel) -> None:
    """A given history appears in `chat_ctx`, in its order; changing the copy has no effect."""
    async with _session(model) as session:
        given = ChatContext.empty()
        given.add_message(role="user", content="My name is Ada.", id="check_1")
        given.add_message(role="assistant", content="Hello, Ada.", id="check_2")
        await session.update_chat_ctx(given)
        found = [item.id for item in session.chat_ctx.items if item.id.startswith("check_")]
        assert found == ["check_1", "check_2"], f"the history is {found}"
        session.chat_ctx.items.clear()
        assert session.chat_ctx.items, "changing the copy changed the history"
        await _read(await session.generate_reply())


async def _check_interrupting(model: RealtimeModel) -> None:
    """An interrupt is always allowed and ends pending requests, and the next reply arrives."""
    async with _session(model) as session:
        session.interrupt()
        future = session.generate_reply()
        session.interrupt()
        try:
            await _read(await future)
        except RealtimeError:
            pass
        running = await session.generate_reply()
        session.interrupt()
        await _read(running)
        text, _, _ = await _read(await session.generate_reply())
        assert text.strip(), "no reply after an interrupt"


async def _check_truncating(model: RealtimeModel) -> None:
    """If the model supports truncation, it never raises, whatever the time and the message."""
    if not model.capabilities.message_truncation:
        return
    async with _session(model) as session:
        modalities: list[Any] = ["audio", "text"]
        session.truncate(message_id="unknown", modalities=modalities, audio_end_ms=100)
        for end in (-1, 0, 1, 10**9):
            _, _, ids = await _read(await session.generate_reply())
            session.truncate(message_id=ids[0], modalities=modalities, audio_end_ms=end)
            session.truncate(message_id=ids[0], modalities=modalities, audio_end_ms=end)
        text, _, _ = await _read(await session.generate_reply())
        assert text.strip(), "no reply after a message was truncated"


async def _check_sound(model: RealtimeModel) -> None:
    """Sound may be pushed, committed and cleared at any time, even before the connection is open."""
    async with _session(model) as session:
        session.commit_audio()
        session.clear_audio()
        for ms in (0, 1, 10, 100, 333):
            session.push_audio(_sound(ms))
        session.clear_audio()
        await _read(await session.generate_reply())
        session.push_audio(_sound())
        session.clear_audio()
        text, _, _ = await _read(await session.generate_reply())
        assert text.strip(), "no reply after sound was pushed"


async def _check_cancelling(model: RealtimeModel) -> None:
    """A caller may cancel its future, and the next reply arrives."""
    async with _session(model) as session:
        future = session.generate_reply()
        future.cancel()
        await asyncio.sleep(0)
        text, _, _ = await _read(await session.generate_reply())
        assert text.strip(), "no reply after a future was cancelled"


async def _check_together(model: RealtimeModel) -> None:
    """Several sessions of one model are used at once."""
    async with _session(model) as one, _session(model) as two:
        replies = await asyncio.gather(one.generate_reply(), two.generate_reply())
        answers = await asyncio.gather(*map(_read, replies))
        assert all(text.strip() for text, _, _ in answers), "one of two sessions got no reply"


async def _check_closing(model: RealtimeModel) -> None:
    """`aclose` ends pending futures with a `RealtimeError`, in time, and may be called twice."""
    session = model.session()
    pending = [session.generate_reply() for _ in range(3)]
    async with asyncio.timeout(_CLOSE):
        await session.aclose()
        await session.aclose()
    for future in pending:
        assert future.done(), "a future still waits after `aclose`"
        assert not future.cancelled(), "a future was cancelled by `aclose`, as if by its caller"
        error = future.exception()
        assert error is None or isinstance(error, RealtimeError), f"a future failed with {error!r}"
    running = model.session()
    event = await running.generate_reply()
    async with asyncio.timeout(_CLOSE):
        await running.aclose()
        await _read(event)  # its streams have ended


async def _check_closed(model: RealtimeModel) -> None:
    """After `aclose`, no call raises; only the future of `generate_reply` may fail."""
    session = model.session()
    await session.aclose()
    session.interrupt()
    session.push_audio(_sound())
    session.commit_audio()
    session.clear_audio()
    try:
        await session.generate_reply()
    except RealtimeError:
        return
    raise AssertionError("a closed session returned a reply")
