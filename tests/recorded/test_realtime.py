"""Recorded realtime sessions, played to the public API: it gives what a plain reading finds."""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from recorded.reading_realtime import RENAMED, Reading, read
from rejoinder.llm import ChatContext, ChatMessage, FunctionCallOutput
from rejoinder.llm.realtime import GenerationCreatedEvent
from rejoinder.providers.openai.realtime import RealtimeModel, RealtimeSession
from rejoinder.testing import RealtimeConnection, RealtimeServer

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


def with_early_answers(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The log with the confirmation of each item right behind its creation: the recorded client did
    not wait for it, and a session does."""
    log = list(log)
    made = {
        entry["event"]["item"]["id"]
        for entry in log
        if entry.get("event", {}).get("type") == "response.output_item.added"
    } | {
        entry["event"]["item_id"]
        for entry in log
        if entry.get("event", {}).get("type") == "input_audio_buffer.committed"
    }
    place = 0
    while place < len(log):
        if log[place].get("event", {}).get("type") == "conversation.item.create":
            for later in range(place + 1, len(log)):
                event = log[later].get("event", {})
                kind = RENAMED.get(event.get("type"), event.get("type"))
                if kind == "conversation.item.added" and event["item"]["id"] not in made:
                    made.add(event["item"]["id"])
                    log.insert(place + 1, log.pop(later))
                    break
        place += 1
    return log


class Player:
    """Plays the server's side of a log: waits where the client spoke, and sends the rest."""

    def __init__(self, log: list[dict[str, Any]]) -> None:
        self._log = with_early_answers(log)
        self._seen: set[str] = set()
        self._names: dict[str, str] = {}
        self._created: deque[str] = deque()
        self._asked: deque[str] = deque()
        self._refs: dict[str, str] = {}
        self._spoke: deque[str] = deque()
        self._heard = asyncio.Event()

    def hear(self, _: RealtimeConnection, event: dict[str, Any]) -> bool:
        kind = event["type"]
        if kind == "conversation.item.create":
            self._created.append(event["item"]["id"])
        elif kind == "response.create":
            self._asked.append(event["response"]["metadata"]["client_event_id"])
        if kind != "input_audio_buffer.append":
            self._spoke.append(kind)
            self._heard.set()
        return True

    async def play(self, connection: RealtimeConnection) -> None:
        for entry in self._log:
            event = entry.get("event")
            if event is None:
                continue
            if entry["direction"] == "client":
                await self._wait_for(event["type"])
            else:
                await connection.send_raw(self._written(event))
        await connection.send_raw(json.dumps({"type": "rate_limits.updated", "event_id": "last"}))

    async def _wait_for(self, kind: str) -> None:
        if kind == "input_audio_buffer.append":
            return
        while kind not in self._spoke:
            self._heard.clear()
            await self._heard.wait()
        self._spoke.remove(kind)

    def _written(self, event: dict[str, Any]) -> str:
        kind = RENAMED.get(event["type"], event["type"])
        item = event.get("item")
        if kind == "response.output_item.added":
            self._seen.add(item["id"])
        elif kind == "input_audio_buffer.committed":
            self._seen.add(event["item_id"])
        elif kind == "conversation.item.added" and item["id"] not in self._seen and self._created:
            self._seen.add(item["id"])
            self._names[item["id"]] = self._created.popleft()
        response = event.get("response")
        if kind == "response.created" and self._asked:
            self._refs[response["id"]] = self._asked.popleft()
        if response is not None and response["id"] in self._refs:
            metadata = {"client_event_id": self._refs[response["id"]]}
            event = {**event, "response": {**response, "metadata": metadata}}
        text = json.dumps(event)
        for recorded, actual in self._names.items():
            text = text.replace(recorded, actual)
        return text


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
        if metrics.request_id:
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


@pytest.mark.skipif(not LOGS, reason="REJOINDER_RECORDINGS names no folder of recorded traffic")
@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
async def test_a_recorded_session_gives_what_it_holds(path: Path) -> None:
    record = json.loads(path.read_text())
    log = record["events"]
    player = Player(log)
    async with RealtimeServer(on_event=player.hear) as server:
        server.on_connect = lambda connection: _background(player.play(connection))
        model = RealtimeModel(
            base_url=server.url, api_key="any", dialect=DIALECTS[record["provider"]]
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
    assert found.transcripts == expected.transcripts


RUNNING: set[asyncio.Task[None]] = set()


async def _background(work: Any) -> None:
    task = asyncio.create_task(work)
    RUNNING.add(task)
    task.add_done_callback(RUNNING.discard)
