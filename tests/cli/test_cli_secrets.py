"""The commands show no key, wherever it was given and whatever goes wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cli.commands import Terminal, run
from rejoinder.testing.faults import Answer, Fault

if TYPE_CHECKING:
    from cli.conftest import Provider

CANARY = "sk-canary-0123456789abcdef"
PROMPT = r">(?: |\x08?\x1b\[2?C)"  # `prompt_toolkit` moves the cursor instead of writing a blank
SAYS = f"Incorrect API key provided: {CANARY}"

SERVER = """
import os, sys
from mcp.server.mcpserver import MCPServer

server = MCPServer("weather")

@server.tool()
def look() -> str:
    "Look out."
    return "sun"

if sys.argv[1] == "works":
    server.run()
sys.exit("cannot connect with " + " ".join(sys.argv) + os.environ.get("SERVICE_KEY", ""))
"""

FAULTS = [
    Fault.NONE,
    Fault.STATUS_401,
    Fault.NOT_HTTP,
    Fault.JSON_ERROR_200,
    Fault.REDIRECT_AWAY,
]


def test_the_tools_of_a_server_whose_command_line_holds_a_key(
    provider: Provider, tmp_path: Path
) -> None:
    pytest.importorskip("mcp")
    server = tmp_path / "server.py"
    server.write_text(SERVER)
    command = f"{sys.executable} {server} works --api-key {CANARY}"
    options = ["chat", *provider.options, "--mcp", command]
    with Terminal(*options, OPENAI_API_KEY=CANARY) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("/tools\n")
        terminal.wait_for(r"look")
        terminal.wait_for(PROMPT)
        assert "canary" not in terminal.seen


def test_a_server_that_fails_with_the_key_of_its_command_line(
    provider: Provider, tmp_path: Path
) -> None:
    pytest.importorskip("mcp")
    server = tmp_path / "server.py"
    server.write_text(SERVER)
    ran = run(
        "chat", *provider.options, "--mcp", f"{sys.executable} {server} fails --api-key {CANARY}",
        "--once", "x", OPENAI_API_KEY=CANARY,
    )  # fmt: skip
    assert "canary" not in ran.out + ran.err


def test_the_tools_of_a_server_whose_address_holds_a_key(provider: Provider) -> None:
    pytest.importorskip("mcp")
    for url in (
        f"http://user:{CANARY}@127.0.0.1:9/mcp",
        f"http://127.0.0.1:9/mcp?api_key={CANARY}",
        f"{provider.server.url}/mcp?api_key={CANARY}",
    ):
        ran = run(
            "chat", *provider.options, "--mcp", url,
            "--once", "x", OPENAI_API_KEY=CANARY,
        )  # fmt: skip
        assert "canary" not in ran.out + ran.err, url


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.value)
@pytest.mark.parametrize("command", [["doctor"], ["chat", "--json", "--once", "x"]], ids=" ".join)
def test_a_server_that_quotes_the_key(provider: Provider, fault: Fault, command: list[str]) -> None:
    provider.server.always(Answer(fault=fault, message=SAYS))
    options = provider.options[1:] if command == ["doctor"] else provider.options
    ran = run(*command[:1], *options, *command[1:], OPENAI_API_KEY=CANARY)
    assert "canary" not in ran.out + ran.err


@pytest.mark.parametrize("command", [["doctor"], ["chat", "--json", "--once", "x"]], ids=" ".join)
def test_an_address_that_holds_a_key(provider: Provider, command: list[str]) -> None:
    at = provider.server.url.removeprefix("http://")
    provider.server.always(Answer(fault=Fault.STATUS_401, message=SAYS))
    for url in (
        f"http://user:{CANARY}@{at}/v1",
        f"http://{at}/v1?api-key={CANARY}",
        f"http://user:{CANARY}@127.0.0.1:9/v1",
        f"ftp://user:{CANARY}@{at}/v1",
        f"http://user:{CANARY}@{at}:x/v1",
    ):
        model = ["openai/any"] if command == ["doctor"] else ["--model", "openai/any"]
        ran = run(*command[:1], *model, "--base-url", url, *command[1:])
        assert "canary" not in ran.out + ran.err, url


def test_a_program_that_holds_a_key_and_cannot_be_read(tmp_path: Path) -> None:
    for text in (f'key = "{CANARY}', f'key = "{CANARY}" oops\n', f"# coding: {CANARY[:-6]}\n"):
        (tmp_path / "agent.py").write_text(text)
        ran = run("migrate", str(tmp_path))
        assert "was skipped" in ran.err
        assert CANARY not in ran.out + ran.err, text


def test_a_file_of_keys_that_is_damaged(home: Path) -> None:
    home.mkdir(exist_ok=True)
    for text in (f'{{"OPENAI_API_KEY": "{CANARY}"', f'["{CANARY}"]', f'{{"{CANARY}": 1}}', CANARY):
        (home / "keys.json").write_text(text)
        for command in (
            ["keys"],
            ["keys", "remove", "openai"],
            ["doctor", "openai/x", "--base-url", "http://127.0.0.1:9/v1"],
        ):
            ran = run(*command)
            assert "canary" not in ran.out + ran.err, (text, command)
