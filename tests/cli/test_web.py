"""``rejoinder web`` as a person starts and ends it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from cli.commands import COMMAND, environment, run
from rejoinder.testing import Answer

CANARY = "sk-canary-0123456789abcdef0123"


@contextlib.contextmanager
def page(*arguments: str, **more: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """The running command, and a client with its token."""
    process = subprocess.Popen(
        [*COMMAND, "web", "--port", "0", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**more),
    )
    try:
        assert process.stdout is not None
        address = urlsplit(process.stdout.readline().strip())
        assert address.hostname == "127.0.0.1"
        headers = {"Authorization": f"Bearer {address.fragment}"}
        base = f"{address.scheme}://{address.netloc}"
        with httpx.Client(base_url=base, headers=headers, timeout=60, trust_env=False) as client:
            yield process, client
    finally:
        process.kill()
        process.communicate()


def ask(client: httpx.Client, text: str = "Hi") -> str:
    body = {
        "threadId": "t", "runId": "r", "tools": [], "context": [], "state": None,
        "forwardedProps": {}, "messages": [{"id": "u", "role": "user", "content": text}],
    }  # fmt: skip
    lines = client.post("/api/run", json=body).text.splitlines()
    events: list[dict[str, Any]] = [json.loads(line[6:]) for line in lines if line]
    assert events[-1]["type"] == "RUN_FINISHED", events[-1]
    return "".join(e["delta"] for e in events if e["type"] == "TEXT_MESSAGE_CONTENT")


def test_it_serves_until_ctrl_c_and_keeps_nothing(provider: Any, home: Path) -> None:
    provider.server.always(Answer(text="Hello there"))
    with page(*provider.options, OPENAI_API_KEY=CANARY) as (process, client):
        assert ask(client) == "Hello there"
        told = client.get("/").text + client.get("/api/settings").text
        told += client.get("/api/conversations/t/export").text
        told += client.get("/api/conversations/t/recording").content.decode("latin-1")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
    assert CANARY not in told + out + err
    assert not home.exists()


def test_conversations_can_be_kept(provider: Any) -> None:
    provider.server.always(Answer(text="Hello there"))
    with page(*provider.options, "--keep", **provider.key) as (_, client):
        ask(client, "Where is the tower?")
    ran = run("log", "show", "t")
    assert "Where is the tower?" in ran.out
    assert "Hello there" in ran.out
    with page(*provider.options, "--keep", **provider.key) as (_, client):
        (found,) = client.get("/api/conversations?search=tower").json()
        shown = client.get(f"/api/conversations/{found['id']}").json()
    assert [m["role"] for m in shown["messages"]] == ["system", "user", "assistant"]


def test_a_recording_answers_again(provider: Any, tmp_path: Path) -> None:
    provider.server.always(Answer(text="Hello there"))
    with page(*provider.options, **provider.key) as (_, client):
        ask(client)
        data = client.get("/api/conversations/t/recording").content
    (recording := tmp_path / "recording.zip").write_bytes(data)
    asked = len(provider.server.requests)
    with page(*provider.options, "--replay", str(recording), **provider.key) as (_, client):
        assert ask(client) == "Hello there"
    assert len(provider.server.requests) == asked


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--host", "0.0.0.0"], 2, "all addresses"),
        (["--host", "example"], 2, "an IP address"),
        (["--port", "99999"], 2, "0 to 65535"),
        (["--replay", "/nowhere", "--model", "openai/x"], 2, "--replay"),
        (["--model", "nothing/x"], 2, "no such model"),
    ],
)
def test_what_cannot_be_served(arguments: list[str], code: int, told: str) -> None:
    ran = run("web", *arguments, OPENAI_API_KEY="k")
    assert ran.code == code
    assert told in ran.err
    assert ran.err.count("\n") == 1


def test_a_taken_port_is_named(provider: Any) -> None:
    port = provider.server.url.rpartition(":")[2]
    ran = run("web", "--port", port, *provider.options, **provider.key)
    assert ran.code == 3
    assert port in ran.err
    assert "--port" in ran.err
