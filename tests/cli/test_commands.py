"""The command in scripts: what it prints, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cli.commands import COMMAND, environment, run
from rejoinder.testing.faults import Answer, Call, Fault

if TYPE_CHECKING:
    from cli.conftest import Provider

pytestmark = pytest.mark.timeout(180)


def test_the_reply_and_nothing_else_goes_to_standard_output(provider: Provider) -> None:
    ran = run("chat", *provider.options, "--once", "Hi", **provider.key)
    assert (ran.code, ran.out) == (0, "Hello wörld 👋.\n")
    assert "tokens" in ran.err
    assert "\x1b" not in ran.err
    (request,) = provider.server.requests
    roles = [message["role"] for message in request.json()["messages"]]
    assert roles == ["system", "user"]
    assert {tool["function"]["name"] for tool in request.json()["tools"]} == {
        "calculate",
        "time_in",
    }


def test_quiet(provider: Provider) -> None:
    ran = run("chat", *provider.options, "-q", "--no-tools", "--once", "Hi", **provider.key)
    assert (ran.code, ran.out, ran.err) == (0, "Hello wörld 👋.\n", "")
    assert "tools" not in provider.server.requests[0].json()


def test_the_question_from_standard_input(provider: Provider) -> None:
    ran = run("chat", *provider.options, "-q", input="Grüß dich\n".encode(), **provider.key)
    assert ran.code == 0
    assert provider.server.requests[0].json()["messages"][-1]["content"] == "Grüß dich"


def test_system(provider: Provider) -> None:
    run("chat", *provider.options, "-s", "Be rude.", "--once", "Hi", **provider.key)
    run("chat", *provider.options, "-s", "", "--once", "Hi", **provider.key)
    first, second = (request.json()["messages"] for request in provider.server.requests)
    assert first[0] == {"role": "system", "content": "Be rude."}
    assert [message["role"] for message in second] == ["user"]


def test_a_tool_runs_and_is_shown(provider: Provider, tools: Path) -> None:
    provider.server.script(
        Answer(text=(), calls=(Call("add", '{"a": 2, "b": 3}', "call_1"),)), Answer(text=("Five.",))
    )
    ran = run(
        "chat", *provider.options, "--tool", f"{tools}:add", "--tool-choice", "add", "--once", "2+3",
        **provider.key,
    )  # fmt: skip
    assert (ran.code, ran.out) == (0, "Five.\n")
    assert "-> add(a=2, b=3)" in ran.err
    assert "<- 5" in ran.err
    first, second = (request.json() for request in provider.server.requests)
    assert first["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    assert second["messages"][-1]["content"] == "5"


def test_a_tool_that_raises_does_not_end_the_talk(provider: Provider, tools: Path) -> None:
    provider.server.script(
        Answer(text=(), calls=(Call("fail", '{"why": "no luck"}', "call_1"),)),
        Answer(text=("Sorry.",)),
    )
    ran = run("chat", *provider.options, "--tool", f"{tools}:fail", "--once", "x", **provider.key)
    assert (ran.code, ran.out) == (0, "Sorry.\n")
    assert "<- failed: " in ran.err


@pytest.mark.parametrize("tool", ["hang", "hang_hard"])
def test_a_tool_that_hangs_is_given_up(provider: Provider, tools: Path, tool: str) -> None:
    provider.server.script(
        Answer(text=(), calls=(Call(tool, "{}", "call_1"),)), Answer(text=("Too slow.",))
    )
    began = time.monotonic()
    ran = run(
        "chat", *provider.options, "--tool", f"{tools}:{tool}", "--tool-timeout", "0.5",
        "--once", "x", **provider.key,
    )  # fmt: skip
    assert (ran.code, ran.out) == (0, "Too slow.\n")
    assert "<- failed: " in ran.err
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 2, "COMMAND"),
        (["bogus"], 2, "bogus"),
        (["chat", "--bogus"], 2, "--bogus"),
        (["chat", "--once", ""], 2, "empty"),
        (["chat", "-m", "nosuch", "--once", "x"], 2, "no such local model"),
        (["chat", "-m", "nosuch/x", "--once", "x"], 2, "no provider is called 'nosuch'"),
        (["chat", "-m", "/no/such.gguf", "--once", "x"], 2, "/no/such.gguf"),
        (["chat", "-m", __file__, "--once", "x"], 4, "not a GGUF model file"),
        (["chat", "-m", "openai/x", "--once", "x"], 3, "OPENAI_API_KEY"),
        (["chat", "-m", "anthropic/x", "--once", "x"], 3, "ANTHROPIC_API_KEY"),
        (["chat", "--tool", "nonsense", "--once", "x"], 2, "module:function"),
        (["chat", "--tool", "no_such_module:f", "--once", "x"], 2, "No module named"),
        (["chat", "--tool", "os:no_such_thing", "--once", "x"], 2, "no_such_thing"),
        (["chat", "--tool", "no_such.py:f", "--once", "x"], 2, "there is no file"),
        (["chat", "--tool", "os:sep", "--once", "x"], 2, "expected a function"),
        (["chat", "--tool-choice", "bogus", "--once", "x"], 2, "no tool 'bogus'"),
        (["chat", "--no-tools", "--tool-choice", "required", "--once", "x"], 2, "no tools"),
        (["chat", "--tool-timeout", "-1", "--once", "x"], 2, "--tool-timeout"),
        (["chat", "--base-url", "http://x", "--once", "x"], 2, "--model"),
        (["models", "path", "nosuch"], 2, "no such local model"),
        (["models", "path", "smol"], 4, "is not here"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_a_number(
    arguments: list[str], code: int, told: str, tmp_path: Path
) -> None:
    ran = run(*arguments, REJOINDER_CACHE=str(tmp_path))
    assert ran.code == code, ran.err
    assert ran.out == ""
    assert told in ran.err
    assert ran.err.startswith("rejoinder: ")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("data", [b"caf\xe9", b"\xff\xfeh\x00i\x00"])
def test_standard_input_that_is_not_utf8(data: bytes) -> None:
    ran = run("chat", input=data)
    assert ran.code == 2
    assert "not UTF-8" in ran.err


def test_an_argument_that_is_not_utf8() -> None:
    done = subprocess.run(
        [*COMMAND, "chat", "--once", b"caf\xe9"],
        capture_output=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 2
    assert b"not UTF-8" in done.stderr


def test_a_provider_that_fails(provider: Provider) -> None:
    provider.server.always(Answer(status=400, message="that model is asleep"))
    ran = run("chat", *provider.options, "--once", "x", **provider.key)
    assert ran.code == 1
    assert ran.err.startswith("rejoinder: ")
    assert "that model is asleep" in ran.err


def test_a_provider_that_is_tried_again(provider: Provider) -> None:
    provider.server.script(Fault.STATUS_503)
    ran = run("chat", *provider.options, "--once", "x", **provider.key)
    assert ran.code == 0
    assert ran.out
    assert "trying again" in ran.err


def test_nobody_listens(unused_tcp_port: int) -> None:
    ran = run(
        "chat", "--model", "any", "--base-url", f"http://127.0.0.1:{unused_tcp_port}/v1",
        "--once", "x", OPENAI_API_KEY="x",
    )  # fmt: skip
    assert ran.code == 1
    assert "rejoinder: " in ran.err


def test_whoever_reads_goes_away(provider: Provider) -> None:
    provider.server.always(Answer(text=("word " * 50,) * 1000))
    with subprocess.Popen(
        [*COMMAND, "chat", *provider.options, "-q", "--once", "x"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**provider.key),
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.read(10)
        program.stdout.close()
        assert program.wait(30) == 141
        assert program.stderr.read() == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_standard_output_is_full(provider: Provider) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "chat", *provider.options, "-q", "--once", "x"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(**provider.key),
            check=False,
        )
    assert done.returncode == 1
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr


def test_standard_input_is_closed(provider: Provider) -> None:
    script = 'exec 0<&-; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND, "chat", *provider.options],
        capture_output=True,
        env=environment(**provider.key),
        check=False,
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_an_mcp_server_that_does_not_come_up(provider: Provider) -> None:
    pytest.importorskip("mcp")
    ran = run(
        "chat", *provider.options, "--mcp", "no-such-command-here", "--once", "x", **provider.key
    )
    assert ran.code == 3
    assert "no-such-command-here" in ran.err


def test_the_tools_of_an_mcp_server(provider: Provider, tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    server = tmp_path / "server.py"
    server.write_text(
        "from mcp.server.mcpserver import MCPServer\n"
        "server = MCPServer('greeter')\n"
        "@server.tool()\n"
        "def greet(name: str) -> str:\n"
        "    '''Greet somebody.'''\n"
        "    return f'Hello, {name}!'\n"
        "server.run()\n"
    )
    provider.server.script(
        Answer(text=(), calls=(Call("greet", '{"name": "Ada"}', "call_1"),)),
        Answer(text=("Done.",)),
    )
    ran = run(
        "chat", *provider.options, "--mcp", f"{sys.executable} {server}", "--once", "x",
        **provider.key,
    )  # fmt: skip
    assert (ran.code, ran.out) == (0, "Done.\n"), ran.err
    assert "Hello, Ada!" in ran.err


def test_models_and_doctor(tmp_path: Path) -> None:
    ran = run("models", REJOINDER_CACHE=str(tmp_path))
    assert ran.code == 0
    assert "smollm2-135m" in ran.out
    assert "Apache-2.0" in ran.out
    assert str(tmp_path) in ran.err
    assert run("models", "remove", "smol", REJOINDER_CACHE=str(tmp_path)).code == 0
    ran = run("doctor", REJOINDER_CACHE=str(tmp_path))
    assert ran.code in (0, 3)
    assert str(tmp_path) in ran.out
    assert run("--version").out.startswith("rejoinder ")
    assert "--once" in run("chat", "--help").out


def test_a_fault_of_ours_is_a_sentence_too(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "import rejoinder.cli.chat as chat\n"
        "def broken(args): raise KeyError('oops')\n"
        "chat.run = broken\n"
        "from rejoinder.cli.app import main\n"
        "main(['chat', '--once', 'x'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 70
    assert done.stderr.startswith("rejoinder: a fault in rejoinder: KeyError")
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=environment(REJOINDER_DEBUG="1"),
        check=False,
    )
    assert "Traceback" in done.stderr
