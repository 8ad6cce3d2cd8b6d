"""Recorded sessions of the Live API, played to the public API: it gives what a plain reading finds."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from providers.google.accepting import check_messages
from recorded.reading_gemini_live import Said, arguments, read
from rejoinder.llm import ChatMessage, FunctionCallOutput, function_tool
from rejoinder.llm.realtime import GenerationCreatedEvent
from rejoinder.providers.google.realtime import RealtimeModel, RealtimeSession
from rejoinder.testing import GeminiConnection, RealtimeConnection, RealtimeServer

FOLDER = os.environ.get("REJOINDER_RECORDINGS")
LOGS = sorted((Path(FOLDER) / "recorded" / "google" / "realtime").glob("*.json")) if FOLDER else []
CAMEL = {"client_content": "clientContent", "tool_response": "toolResponse", "setup": "setup"}


class Player:
    """Plays the server's side of a log: waits where the client spoke, and sends the rest."""

    def __init__(self, log: list[dict[str, Any]]) -> None:
        self._log = log
        self._spoke: list[str] = []
        self._heard = asyncio.Event()
        self.done = asyncio.Event()

    def hear(self, _: RealtimeConnection, event: dict[str, Any]) -> bool:
        self._spoke.append(kind(event))
        self._heard.set()
        return True

    async def play(self, connection: RealtimeConnection) -> None:
        for entry in self._log:
            event = entry.get("event")
            if event is None:
                continue
            if entry["direction"] == "client":
                (name,) = event
                await self._wait_for(kind({CAMEL[name]: event[name]}))
            else:
                await connection.send_raw(json.dumps(event))
        await connection.send_raw(json.dumps({"goAway": {"timeLeft": "600s"}}))

    async def _wait_for(self, wanted: str) -> None:
        while wanted not in self._spoke:
            self._heard.clear()
            await self._heard.wait()
        self._spoke.remove(wanted)


def kind(event: dict[str, Any]) -> str:
    """What a message of the client does, however many turns it holds. A text that some models take
    as `realtimeInput` alone asks for a reply, as the end of a turn did in the logs."""
    (name,) = event
    if name == "realtimeInput":
        return "clientContent True"
    return f"{name} {event[name].get('turnComplete', '')}"


class Listener:
    """The user of the session: notes all that it is given."""

    def __init__(self, session: RealtimeSession) -> None:
        self.said: dict[str, Said] = {}
        self.connected = asyncio.Event()
        self.called = asyncio.Event()
        self.last = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        session.on("gemini_server_event_received", self._saw)
        session.on("generation_created", self._created)
        session.on("metrics_collected", self._metrics)

    def _saw(self, event: dict[str, Any]) -> None:
        if "goAway" in event:
            self.last.set()

    def _created(self, event: GenerationCreatedEvent) -> None:
        said = self.said[event.response_id or ""] = Said()
        self._tasks.append(asyncio.create_task(self._read(event, said)))

    async def _read(self, event: GenerationCreatedEvent, said: Said) -> None:
        async def calls() -> None:
            async for call in event.function_stream:
                said.calls.append((call.name, arguments(call.arguments), call.call_id))
                self.called.set()

        async def messages() -> None:
            async for message in event.message_stream:
                async for text in message.text_stream:
                    said.text += text
                async for frame in message.audio_stream:
                    said.sound += 2 * frame.samples_per_channel

        await asyncio.gather(calls(), messages())
        assert event.outcome is not None
        assert await event.outcome == "completed"

    def _metrics(self, metrics: Any) -> None:
        if metrics.request_id:
            self.said[metrics.request_id].tokens = (metrics.input_tokens, metrics.output_tokens)
        else:
            self.connected.set()

    async def end(self) -> list[Said]:
        await self.last.wait()
        await asyncio.gather(*self._tasks)
        return list(self.said.values())


async def speak(session: RealtimeSession, listener: Listener, log: list[dict[str, Any]]) -> None:
    """Do through the public API what the client of the log did."""
    for entry in log:
        event = entry.get("event")
        if event is None or entry["direction"] != "client":
            continue
        chat_ctx = session.chat_ctx
        if "client_content" in event:
            for turn in event["client_content"]["turns"]:
                role = "assistant" if turn["role"] == "model" else "user"
                texts = [part["text"] for part in turn["parts"]]
                chat_ctx.items.append(ChatMessage(role=role, content=texts))
            await session.update_chat_ctx(chat_ctx)
            if event["client_content"]["turnComplete"]:
                await session.generate_reply()
        elif "tool_response" in event:
            await listener.called.wait()
            chat_ctx = session.chat_ctx
            for result in event["tool_response"]["functionResponses"]:
                output = FunctionCallOutput(
                    call_id=result["id"], output=result["response"]["output"], is_error=False
                )
                chat_ctx.items.append(output)
            await session.update_chat_ctx(chat_ctx)


def tools_of(setup: dict[str, Any]) -> list[Any]:
    async def run(raw_arguments: dict[str, object]) -> None: ...

    return [
        function_tool(
            run,
            raw_schema={
                "name": declared["name"],
                "description": declared["description"],
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        )
        for tool in setup.get("tools", ())
        for declared in tool["functionDeclarations"]
    ]


@pytest.mark.skipif(not LOGS, reason="REJOINDER_RECORDINGS names no folder of recorded traffic")
@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
async def test_a_recorded_session_gives_what_it_holds(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    log = json.loads(path.read_text())["events"]
    setup = log[0]["event"]["setup"]
    player = Player(log)
    playing: list[asyncio.Task[None]] = []

    async def begin(connection: RealtimeConnection) -> None:
        playing.append(asyncio.create_task(player.play(connection)))

    async with RealtimeServer(
        connection=GeminiConnection, on_event=player.hear, on_connect=begin
    ) as server:
        model = RealtimeModel(
            model=setup["model"].rpartition("/")[2],
            vertexai="publishers" in setup["model"],
            base_url=server.url.removesuffix("/v1"),
            api_key="any",
        )
        session = model.session()
        listener = Listener(session)
        try:
            await session.update_tools(tools_of(setup))
            await asyncio.wait_for(listener.connected.wait(), 10)
            await asyncio.wait_for(speak(session, listener, log), 10)
            found = await asyncio.wait_for(listener.end(), 10)
        finally:
            await model.aclose()
        assert found == read(log)
        assert server.connections[0].events[0]["setup"]["model"] == setup["model"]
        check_messages(server.connections[0].events)
