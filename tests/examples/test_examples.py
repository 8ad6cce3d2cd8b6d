"""Each example runs as its command does, and says what it is meant to show."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import httpx
import pytest

from rejoinder.cli.loop import LoopThread
from rejoinder.testing import Answer, Call, Fault, FaultServer, RealtimeServer

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


@dataclass
class Provider:
    """A `FaultServer` in a thread of its own."""

    loop: LoopThread
    server: FaultServer

    @property
    def environment(self) -> dict[str, str]:
        return {"OPENAI_API_KEY": "any", "OPENAI_BASE_URL": f"{self.server.url}/v1"}


@pytest.fixture
def provider() -> Iterator[Provider]:
    with LoopThread() as loop:
        server = FaultServer()
        loop.run(server.start())
        try:
            yield Provider(loop, server)
        finally:
            loop.run(server.aclose())


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / name), *arguments]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONWARNINGS": "", **more}


def run(folder: Path, line: list[str], **more: str) -> str:
    """What the command prints. It runs in `folder`, for the files that it writes."""
    done = subprocess.run(
        line,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=110,
        env=environment(**more),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


TICKET = '{"room": 12, "title": "Cold shower", "department": "plumbing", "urgent": true}'


def test_the_page_lists_all_of_them() -> None:
    page = (EXAMPLES / "README.md").read_text()
    files = {path.name for path in EXAMPLES.glob("*.py")} | {"tested_agent/test_agent.py"}
    listed = set(re.findall(r"\]\((\S+)\)", page))
    assert listed == files - {"mcp_notes.py"}
    for named in re.findall(r"(?:python|pytest) (examples/\S+?)[` ]", page):
        assert (EXAMPLES.parent / named).exists()


def test_the_caller_interrupts_the_agent_on_the_phone(tmp_path: Path) -> None:
    shown = run(tmp_path, command("phone_agent.py"))
    interrupted = shown.index("[interrupted; the caller heard: 'Good news")
    assert interrupted < shown.index("agent:  Done. Your parcel comes on Friday.")
    assert "corner.']" not in shown, "what was not played was not heard"


@contextlib.contextmanager
def talking(line: list[str], **more: str) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    env = environment(PYTHONUNBUFFERED="1", **more)
    with subprocess.Popen(
        line, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_caller_hears_that_no_model_answered(provider: Provider) -> None:
    provider.server.script(Answer(status=401))
    line = command("phone_agent.py", "--model", "openai/any")
    with talking(line, **provider.environment) as process:
        assert process.stdin is not None
        process.stdin.write("I moved.\n")
        process.stdin.flush()
        assert process.stdout is not None
        assert process.stdout.readline() == "caller: I moved.\n"
        assert process.stdout.readline() == "agent:  I am sorry, could you say that again?\n"
        process.stdin.close()  # hangs up
        assert process.wait(60) == 0


@contextlib.contextmanager
def chat_server(**more: str) -> Iterator[httpx.Client]:
    line = command("chat_server.py", "--model", "openai/any", "--port", "0")
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment(**more))
    try:
        assert process.stderr is not None
        for text in process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:\d+", text):
                break
        else:
            pytest.fail("the server told no address")
        with httpx.Client(base_url=found[0], timeout=60, trust_env=False) as client:
            yield client
    finally:
        process.terminate()
        process.communicate()


def test_the_chat_server_streams_answers_and_keeps_the_conversation(provider: Provider) -> None:
    provider.server.script(
        Answer(text=("It ", "rains.")), Answer(text="Yes.", fault=Fault.RESET_MID_STREAM)
    )
    with chat_server(**provider.environment) as client:
        assert "<form>" in client.get("/").text
        asked = {"chat": "1", "question": "How is it?"}
        events = [json.loads(line) for line in client.post("/chat", json=asked).text.splitlines()]
        assert events == [{"text": "It "}, {"text": "rains."}]
        asked["question"] = "Still?"
        last = json.loads(client.post("/chat", json=asked).text.splitlines()[-1])
        assert last == {"error": "the model cannot be reached"}
        assert client.post("/chat", json={"chat": "1"}).status_code == 400
    said = [entry["content"] for entry in provider.server.requests[1].json()["messages"]]
    assert said == ["How is it?", "It rains.", "Still?"]


def test_a_reader_who_leaves_ends_the_request_to_the_model(provider: Provider) -> None:
    provider.server.script(Answer(text=("It ", "rains."), fault=Fault.STALL_MID_STREAM))
    with chat_server(**provider.environment) as client:
        asked = {"chat": "1", "question": "How is it?"}
        with client.stream("POST", "/chat", json=asked) as response:
            next(response.iter_lines())
        provider.loop.run(provider.server.all_closed())
        assert provider.server.aborted == 1


def test_the_agent_with_mcp_servers(tmp_path: Path, provider: Provider) -> None:
    pytest.importorskip("mcp", reason="the extra `mcp` is not installed")
    provider.server.script(
        Answer(text=(), calls=[Call("add_note", '{"text": "no milk"}')]), Answer(text="I wrote it.")
    )
    shown = run(tmp_path, command("mcp_agent.py", "--model", "openai/any"), **provider.environment)
    assert "I wrote it." in shown
    assert "Noted: no milk" in shown


def test_the_chart_shows_what_failed(tmp_path: Path) -> None:
    shown = run(tmp_path, command("fallback_chart.py"))
    assert shown.count("Air scatters blue light more than red.") == 6, "each turn had an answer"
    assert "gpt-4.1" in shown
    assert "given up" in shown
    assert "failed: APIConnectionError" in shown
    chart = ET.parse(tmp_path / "fallback.svg").getroot()
    kinds = [bar.get("class") for bar in chart.iter("{http://www.w3.org/2000/svg}rect")]
    assert kinds.count("good") == 6
    assert kinds.count("bad") == 2


def test_an_answer_as_an_object(tmp_path: Path, provider: Provider) -> None:
    provider.server.script(Answer(text='{"room": 12}'), Answer(text=TICKET))
    line = command("structured_output.py", "--model", "openai/any")
    shown = run(tmp_path, line, **provider.environment)
    assert "Ticket(room=12, title='Cold shower', department='plumbing', urgent=True)" in shown


@pytest.mark.slow
def test_an_answer_as_an_object_by_the_embedded_model(tmp_path: Path, smol: Path) -> None:
    shown = run(tmp_path, command("structured_output.py", "--model", "local/smol"))
    assert "Ticket(room=" in shown


def test_a_spoken_turn(tmp_path: Path) -> None:
    shown = run(tmp_path, command("spoken_turn.py"))
    assert "model: It is sunny in Oslo." in shown
    with wave.open(str(tmp_path / "answer.wav")) as answer:
        assert answer.getnframes() == answer.getframerate()


async def test_a_spoken_turn_with_a_service(tmp_path: Path) -> None:
    async with RealtimeServer() as server:
        server.say("Good morning.")
        process = await asyncio.create_subprocess_exec(
            *command("spoken_turn.py", "--model", "openai/gpt-realtime-2.1"),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(OPENAI_API_KEY="any", OPENAI_BASE_URL=server.url),
        )
        out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    assert "model: Good morning." in out.decode()


def test_the_agent_with_tests(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "examples/tested_agent"]
    assert "4 passed" in run(EXAMPLES.parent, line)
