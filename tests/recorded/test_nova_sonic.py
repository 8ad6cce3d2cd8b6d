"""Sessions with Nova Sonic, played to the public API: it gives what a plain reading finds."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from providers.aws.sonic import KEYS, Heard, when
from recorded.reading_nova_sonic import read as plainly
from rejoinder.llm import FunctionCallOutput, function_tool
from rejoinder.media import AudioFrame
from rejoinder.providers.aws.realtime import RealtimeModel
from rejoinder.testing.sonic_server import SonicConnection, SonicServer

FOLDER = os.environ.get("REJOINDER_RECORDINGS")
# Written by hand from AWS's guide and from event logs in public reports: nobody has published others.
LOGS = (
    sorted(
        path
        for kind in ("recorded", "synthetic")
        for path in (Path(FOLDER) / kind / "nova-sonic" / "realtime").glob("*.json")
    )
    if FOLDER
    else []
)


@function_tool(name="getWeather")
async def get_weather(city: str) -> str:
    """weather"""
    return city


class Player:
    """Plays the service's side of a log: waits for what the client did, and sends the rest."""

    def __init__(self, log: list[dict[str, Any]]) -> None:
        self._log = log
        self._seen: list[str] = []
        self._heard = asyncio.Event()
        self.over = asyncio.Event()

    def hear(self, connection: SonicConnection, kind: str, fields: dict[str, Any]) -> bool:
        self._seen.append(kind)
        self._heard.set()
        return True

    async def play(self, connection: SonicConnection) -> None:
        for entry in self._log:
            ((kind, fields),) = entry["event"]["event"].items()
            if entry["direction"] == "server":
                if kind == "toolUse":
                    connection.grammar.calls.add(fields["toolUseId"])
                await connection.send_text(json.dumps(entry["event"]))
            elif kind not in ("promptEnd", "sessionEnd"):
                while kind not in self._seen:
                    self._heard.clear()
                    await self._heard.wait()
                self._seen.remove(kind)
        await connection.send_text(json.dumps({"event": {"lastEvent": {}}}))
        self.over.set()


@pytest.mark.skipif(not LOGS, reason="REJOINDER_RECORDINGS names no folder of recorded traffic")
@pytest.mark.parametrize("piece", [1 << 14, 11])
@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
async def test_a_session_gives_what_it_holds(path: Path, piece: int) -> None:
    record = json.loads(path.read_text())
    log = record["events"]
    player = Player(log)
    expected = plainly(log)

    async def connected(connection: SonicConnection) -> None:
        connection.later(player.play(connection))

    async with SonicServer(
        credentials=KEYS, on_event=player.hear, on_connect=connected, typed=False, piece=piece
    ) as server:
        model = RealtimeModel(
            model=record["model"],
            voice="matthew",
            base_url=server.url,
            api_key=KEYS.access_key,
            api_secret=KEYS.secret_key,
        )
        session = model.session()
        seen = Heard(session)
        events: list[Any] = []
        session.on("bedrock_server_event_received", events.append)
        await session.update_instructions("Be brief.")
        if expected.calls:
            await session.update_tools([get_weather])
        session.push_audio(AudioFrame(bytes(3200), 16000, 1, 1600))
        for name, arguments, call_id in expected.calls:
            await when(lambda: any(i.type == "function_call" for i in session.chat_ctx.items))
            (call,) = [i for i in session.chat_ctx.items if i.type == "function_call"]
            assert (call.name, json.loads(call.arguments), call.call_id) == (
                name,
                arguments,
                call_id,
            )
            chat_ctx = session.chat_ctx
            chat_ctx.items.append(
                FunctionCallOutput(call_id=call_id, output='{"temp":21}', is_error=False)
            )
            await session.update_chat_ctx(chat_ctx)
        await player.over.wait()
        await when(lambda: any("lastEvent" in event.get("event", ()) for event in events))
        await when(lambda: all(task.done() for task in seen.replies))
        read_back = [task.result() for task in seen.replies]
        metrics = seen.named("metrics_collected")
        found = (sum(m.input_tokens for m in metrics), sum(m.output_tokens for m in metrics))
        kept = [
            (item.role, item.text_content)
            for item in session.chat_ctx.items
            if item.type == "message"
        ]
        await model.aclose()
        assert not server.illegal
        assert not server.protocol_errors
    assert [text for text, _, _ in read_back] == expected.replies
    assert sum(ms for _, ms, _ in read_back) == expected.sound // 2 // 24
    finals = [t.transcript for t in seen.named("input_audio_transcription_completed") if t.is_final]
    assert finals == expected.heard
    assert kept == expected.kept
    assert found == expected.tokens
    assert not seen.named("error")
