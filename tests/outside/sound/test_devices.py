"""`rejoinder talk` with a microphone and a speaker: null sinks of a PulseAudio of its own."""

from __future__ import annotations

import asyncio
import base64
import math
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from published import client_faults
from rejoinder.cli.loop import LoopThread
from rejoinder.testing import RealtimeConnection, RealtimeServer

pytestmark = pytest.mark.timeout(120)

COMMAND = [sys.executable, "-m", "rejoinder.cli", "talk", "--model", "openai/any"]


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which ``mic`` is the microphone and ``out`` the speaker."""
    if shutil.which("pulseaudio") is None or shutil.which("pactl") is None:
        pytest.skip("PulseAudio is missing: apt install pulseaudio pulseaudio-utils")
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    variables = {
        **os.environ,
        "HOME": str(tmp_path),
        "REJOINDER_HOME": str(tmp_path / "rejoinder"),
        "XDG_RUNTIME_DIR": str(runtime),
        "PULSE_RUNTIME_PATH": str(runtime),
        "PULSE_SINK": "out",
        "PULSE_SOURCE": "mic.monitor",
        "OPENAI_API_KEY": "any",
        "no_proxy": "*",
    }
    # PortAudio reaches PulseAudio through ALSA.
    (tmp_path / ".asoundrc").write_text("pcm.!default pulse\nctl.!default pulse\n")
    modules = (
        "module-native-protocol-unix",
        "module-null-sink sink_name=out rate=24000 channels=1",
        "module-null-sink sink_name=mic rate=24000 channels=1",
    )
    with subprocess.Popen(
        [
            *("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"),
            *(word for module in modules for word in ("-L", module)),
        ],
        env=variables,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            for _ in range(100):
                ready = subprocess.run(
                    ["pactl", "info"], env=variables, capture_output=True, check=False
                )
                if ready.returncode == 0:
                    break
                time.sleep(0.1)
            else:
                pytest.fail("PulseAudio does not start")
            yield variables
        finally:
            server.terminate()


class Service:
    def __init__(self, loop: LoopThread, server: RealtimeServer) -> None:
        self.loop = loop
        self.server = server

    def do(self, work: Any) -> Any:
        return self.loop.run(work, timeout=30)

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.02)


@pytest.fixture
def service() -> Iterator[Service]:
    client_faults({"type": "response.create"})  # imports what the server's loop must not wait for
    with LoopThread() as loop:
        server = RealtimeServer()
        loop.run(server.__aenter__())
        try:
            yield Service(loop, server)
        finally:
            loop.run(server.__aexit__(None, None, None))


def loudest(data: bytes) -> int:
    return max(map(abs, struct.unpack(f"<{len(data) // 2}h", data)), default=0)


async def sing(connection: RealtimeConnection) -> None:
    """The user asks, and the model sings for ten seconds."""
    await connection.speech("Sing.")
    head = {"id": "resp_s", "object": "realtime.response", "metadata": None}
    part: dict[str, Any] = {"response_id": "resp_s", "item_id": "item_s", "output_index": 0}
    item = {"id": "item_s", "type": "message", "role": "assistant", "content": []}
    await connection.send("response.created", response={**head, "status": "in_progress"})
    await connection.send(
        "response.output_item.added", response_id="resp_s", output_index=0, item=item
    )
    await connection.send("conversation.item.added", previous_item_id=None, item=item)
    loud = b"".join(struct.pack("<h", 9000 * (1 - 2 * (at // 40 % 2))) for at in range(2400))
    for _ in range(100):
        where = {**part, "content_index": 0}
        await connection.send("response.output_audio_transcript.delta", **where, delta="La")
        delta = base64.b64encode(loud).decode()
        await connection.send("response.output_audio.delta", **where, delta=delta)


async def stop_singing(connection: RealtimeConnection, event: dict[str, Any]) -> bool:
    if event["type"] == "response.cancel":
        ended = {"id": "resp_s", "object": "realtime.response", "status": "cancelled", "output": []}
        await connection.send("response.done", response=ended)
    return event["type"] in ("response.cancel", "conversation.item.truncate")


def test_it_listens_speaks_and_stops_when_the_user_speaks_up(
    devices: dict[str, str], service: Service, tmp_path: Path
) -> None:
    question = tmp_path / "tone.wav"
    with wave.open(str(question), "wb") as file:
        file.setparams((1, 2, 24000, 0, "NONE", "NONE"))
        tone = (round(16000 * math.sin(at / 10)) for at in range(24000 * 3))
        file.writeframes(b"".join(struct.pack("<h", value) for value in tone))
    server = service.server
    server.on_event = stop_singing
    heard = bytearray()
    recorder = subprocess.Popen(
        ["parec", "--raw", "--format=s16le", "--rate=24000", "--channels=1", "-d", "out.monitor"],
        env=devices,
        stdout=subprocess.PIPE,
    )

    def record() -> None:
        assert recorder.stdout is not None
        while piece := os.read(recorder.stdout.fileno(), 4800):
            heard.extend(piece)

    recording = threading.Thread(target=record)
    recording.start()
    child = subprocess.Popen(
        [*COMMAND, "--base-url", server.url],
        env=devices, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        service.do(service.until(lambda: server.connections and server.connections[0].audio))
        connection = server.connections[0]
        subprocess.run(["paplay", "-d", "mic", str(question)], env=devices, check=True)
        assert loudest(bytes(connection.audio)) > 8000, "the microphone was not heard"
        service.do(sing(connection))
        service.do(service.until(lambda: loudest(bytes(heard[-4800:])) > 4000))
        service.do(
            connection.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_x")
        )

        def cuts() -> list[dict[str, Any]]:
            return [e for e in connection.events if e["type"] == "conversation.item.truncate"]

        service.do(service.until(cuts))
        assert 0 < cuts()[0]["audio_end_ms"] < 9000
        service.do(service.until(lambda: loudest(bytes(heard[-4800:])) < 500))
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
        assert child.returncode == 0, err
        assert out.startswith("LaLa")
        assert "you: Sing." in err
        assert "interrupted" in err
    finally:
        child.kill()
        child.communicate()
        recorder.terminate()
        recording.join(10)
        recorder.communicate()


def test_an_answer_from_a_file_is_played_to_its_end(
    devices: dict[str, str], service: Service, tmp_path: Path
) -> None:
    question = tmp_path / "question.wav"
    with wave.open(str(question), "wb") as file:
        file.setparams((1, 2, 24000, 0, "NONE", "NONE"))
        file.writeframes(bytes(24000))
    service.server.say("One two three four five.", ms=300)
    began = time.monotonic()
    done = subprocess.run(
        [*COMMAND, "--base-url", service.server.url, "--in", str(question)],
        env=devices,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "One two three four five.\n"
    assert time.monotonic() - began > 1.4, "the sound was not played to its end"


def test_without_a_microphone_the_error_says_so(
    devices: dict[str, str], service: Service, tmp_path: Path
) -> None:
    (tmp_path / ".asoundrc").write_text("pcm.!default null_of_nothing\n")
    done = subprocess.run(
        [*COMMAND, "--base-url", service.server.url],
        env={**devices, "PULSE_SERVER": "unix:/nowhere"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "cannot be opened" in done.stderr
    assert "ALSA lib" not in done.stderr
    assert not service.server.connections
