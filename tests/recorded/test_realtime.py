"""Recorded realtime sessions, played to the public API: it gives what a plain reading finds."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from published import client_faults, server_faults
from recorded.reading_realtime import Reading, read
from rejoinder.llm import ChatContext, ChatMessage, FunctionCallOutput
from rejoinder.llm.realtime import GenerationCreatedEvent
from rejoinder.metrics import STTMetrics
from rejoinder.providers.openai.realtime import RealtimeModel, RealtimeSession
from rejoinder.testing import RealtimeServer, SessionEvent, load_session

FOLDER = os.environ.get("REJOINDER_RECORDINGS")
DIALECTS = {"openai": "ga", "azure": "ga", "azure-voice-live": "voice-live", "xai": "xai"}
LOGS = (
    sorted(
        path
        for provider in DIALECTS
        for path in (Path(FOLDER) / "recorded" / provider / "realtime").glob("*.json")
    )
    if FOLDER
    else []
)


class Listener:
    """The user of the session: notes all that it is given."""

    def __init__(self, session: RealtimeSession) -> None:
        self.found = Reading()
        self.connected = asyncio.Event()
        self.called = asyncio.Event()
        self.last = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        session.on("openai_server_event_received", self._saw)
        session.on("generation_created", self._created)
        session.on("metrics_collected", self._metrics)
        session.on("input_audio_transcription_completed", self._transcribed)

    def _saw(self, event: dict[str, Any]) -> None:
        if event["event_id"] == "last":
            self.last.set()

    def _created(self, event: GenerationCreatedEvent) -> None:
        self._tasks.append(asyncio.create_task(self._read(event)))

    async def _read(self, event: GenerationCreatedEvent) -> None:
        name = event.response_id or ""
        self.found.replies[name] = ""

        async def calls() -> None:
            async for call in event.function_stream:
                told = (call.name, call.arguments, call.call_id)
                self.found.calls.setdefault(name, []).append(told)
                self.called.set()

        async def messages() -> None:
            async for message in event.message_stream:
                async for text in message.text_stream:
                    self.found.replies[name] += text
                async for frame in message.audio_stream:
                    size = 2 * frame.samples_per_channel
                    self.found.sounds[name] = self.found.sounds.get(name, 0) + size

        await asyncio.gather(calls(), messages())
        assert event.outcome is not None
        self.found.statuses[name] = await event.outcome

    def _metrics(self, metrics: Any) -> None:
        if isinstance(metrics, STTMetrics):
            self.found.heard[metrics.request_id] = (metrics.audio_duration, metrics.input_tokens)
        elif metrics.request_id:
            self.found.tokens[metrics.request_id] = (metrics.input_tokens, metrics.output_tokens)
        else:
            self.connected.set()

    def _transcribed(self, event: Any) -> None:
        if event.is_final:
            self.found.transcripts.append(event.transcript)

    async def end(self) -> Reading:
        await asyncio.gather(*self._tasks)
        return self.found


async def speak(session: RealtimeSession, listener: Listener, log: list[dict[str, Any]]) -> None:
    """Do through the public API what the client of the log did."""
    first = True
    for entry in log:
        event = entry.get("event")
        if event is None or entry["direction"] != "client":
            continue
        kind = event["type"]
        if kind == "session.update":
            if not first:
                await session.update_instructions(event["session"].get("instructions", "x"))
            first = False
        elif kind == "conversation.item.create":
            if event["item"]["type"] == "function_call_output":
                await listener.called.wait()
            await _add(session, event["item"])
        elif kind == "response.create":
            await session.generate_reply()


async def _add(session: RealtimeSession, item: dict[str, Any]) -> None:
    chat_ctx: ChatContext = session.chat_ctx
    if item["type"] == "function_call_output":
        chat_ctx.items.append(
            FunctionCallOutput(call_id=item["call_id"], output=item["output"], is_error=False)
        )
    else:
        content = [
            part.get("text") or part.get("transcript") or "sound" for part in item["content"]
        ]
        chat_ctx.items.append(ChatMessage(role=item["role"], content=content))
    await session.update_chat_ctx(chat_ctx)


def of_dialect(path: Path) -> Any:
    marks = () if DIALECTS[path.parts[-3]] == "ga" else (pytest.mark.dialect,)
    return pytest.param(path, marks=marks, id=path.stem)


@pytest.mark.skipif(not LOGS, reason="REJOINDER_RECORDINGS names no folder of recorded traffic")
@pytest.mark.parametrize("path", [of_dialect(path) for path in LOGS])
async def test_a_recorded_session_gives_what_it_holds(path: Path) -> None:
    log = json.loads(path.read_text())["events"]
    recording = load_session(path)
    last = SessionEvent("server", '{"type": "rate_limits.updated", "event_id": "last"}')
    async with RealtimeServer() as server:
        # Some logs hold two connections; here one goes on.
        frames = [event for event in recording.events if event.closed is None]
        server.play(replace(recording, events=(*frames, last)))
        model = RealtimeModel(
            base_url=server.url, api_key="any", dialect=DIALECTS[recording.provider]
        )
        session = model.session()
        listener = Listener(session)
        try:
            await listener.connected.wait()
            await speak(session, listener, log)
            await listener.last.wait()
            found = await asyncio.wait_for(listener.end(), 10)
        finally:
            await model.aclose()
    expected = read(log)
    assert list(found.replies) == list(expected.replies)
    assert found.replies == expected.replies
    assert found.sounds == expected.sounds
    assert found.calls == expected.calls
    assert found.statuses == expected.statuses
    assert found.tokens == expected.tokens
    assert found.heard == expected.heard
    assert found.transcripts == expected.transcripts


@pytest.mark.skipif(not LOGS, reason="REJOINDER_RECORDINGS names no folder of recorded traffic")
def test_the_published_types_are_those_of_real_traffic() -> None:
    """The checker of what we send accepts what other clients really sent, and OpenAI answered."""
    faults: list[str] = []
    counted = 0
    for path in LOGS:
        if DIALECTS[path.parts[-3]] != "ga":
            continue
        for entry in json.loads(path.read_text())["events"]:
            event = entry.get("event")
            if event is None:
                continue
            counted += 1
            if entry["direction"] == "client":
                faults += client_faults(event)
            else:  # the service sends more than it publishes
                faults += [fault for fault in server_faults(event) if "no such field" not in fault]
    assert counted > 500
    assert faults == []
