"""A turn as Arize Phoenix shows it: sent by OTLP, and read back through its API."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outside.environment import python

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@pytest.fixture
def phoenix(tmp_path: Path) -> Iterator[str]:
    """The address of a server of its own."""
    ports: list[int] = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    log = (tmp_path / "log.txt").open("wb")
    process = subprocess.Popen(
        [str(python("phoenix").parent / "phoenix"), "serve"],
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=tmp_path,
        start_new_session=True,
        env={
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(tmp_path),
            "PHOENIX_WORKING_DIR": str(tmp_path),
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(ports[0]),
            "PHOENIX_GRPC_PORT": str(ports[1]),
            "PHOENIX_TELEMETRY_ENABLED": "false",
            "NO_PROXY": "127.0.0.1",
        },
    )
    url = f"http://127.0.0.1:{ports[0]}"
    try:
        end = time.monotonic() + 240
        while True:
            if process.poll() is not None or time.monotonic() > end:
                text = (tmp_path / "log.txt").read_text("utf-8", "replace")
                pytest.fail(f"Phoenix did not start:\n{text[-2000:]}")
            try:
                urllib.request.urlopen(f"{url}/healthz", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()


def spans_of(url: str, count: int) -> list[dict[str, Any]]:
    """The spans that it shows, oldest first, as soon as there are `count`."""
    found: list[dict[str, Any]] = []
    end = time.monotonic() + 60
    while len(found) < count and time.monotonic() < end:
        try:
            with urllib.request.urlopen(
                f"{url}/v1/projects/turns/spans?limit=100", timeout=10
            ) as answer:
                found = json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code != 404:  # the project is made with its first span
                raise
        time.sleep(0.2)
    return sorted(found, key=lambda span: span["start_time"])


@pytest.mark.timeout(600)
def test_a_turn_as_phoenix_shows_it(phoenix: str) -> None:
    subprocess.run(
        [
            str(python("phoenix")),
            str(HERE / "inside_phoenix.py"),
            f"{phoenix}/v1/traces",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=True,
        timeout=120,
    )
    spans = spans_of(phoenix, 12)
    assert len({span["context"]["trace_id"] for span in spans}) == 1
    kinds = [(span["name"], span["span_kind"]) for span in spans]
    assert kinds.count(("agent_turn", "AGENT")) == 1
    assert kinds.count(("function_tool", "TOOL")) == 1
    models = [span for span in spans if span["span_kind"] == "LLM"]
    assert [span["name"] for span in models] == ["llm_request"] * 3, "each request is shown once"
    shown = [span["attributes"] for span in models]
    assert [one["llm.model_name"] for one in shown] == ["gpt-4.1", "gpt-4.1", "claude-sonnet-4-5"]
    assert [one["llm.provider"] for one in shown] == ["openai", "openai", "anthropic"]
    assert [span["status_code"] for span in models][1] == "ERROR"
    called, _, answered = shown
    assert called["llm.token_count.prompt"] == 120
    assert called["llm.token_count.completion"] == 9
    assert called["llm.token_count.prompt_details.cache_read"] == 100
    call = "llm.output_messages.0.message.tool_calls.0.tool_call.function"
    assert called[f"{call}.name"] == "order_status"
    assert json.loads(called[f"{call}.arguments"]) == {"order_id": "A17"}
    messages = [
        (
            answered[f"llm.input_messages.{n}.message.role"],
            answered.get(f"llm.input_messages.{n}.message.content"),
        )
        for n in range(4)
    ]
    assert messages == [
        ("system", "Be brief."),
        ("user", "Where is A17?"),
        ("assistant", None),
        ("tool", "shipped"),
    ]
    assert answered["llm.output_messages.0.message.content"] == "Your order is on its way."
    (tool,) = [span["attributes"] for span in spans if span["span_kind"] == "TOOL"]
    assert tool["tool.name"] == "order_status"
    assert tool["output.value"] == "shipped"
    total = sum(span["attributes"].get("llm.token_count.total", 0) for span in spans)
    assert total == 129 + 162, "tokens are counted once"
