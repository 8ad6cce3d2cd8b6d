"""The command in scripts: what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cli.commands import COMMAND, environment, run
from rejoinder.cli.outcome import Ended
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
    assert "tools" not in request.json(), "a script gets the tools it asks for"


def test_the_demo_tools_when_asked_for(provider: Provider) -> None:
    run("chat", *provider.options, "--tool", "demo", "--once", "Hi", **provider.key)
    (request,) = provider.server.requests
    names = {tool["function"]["name"] for tool in request.json()["tools"]}
    assert names == {"calculate", "time_in"}


def test_run_as_a_module(provider: Provider) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rejoinder", "chat", *provider.options, "-q", "--once", "Hi"],
        capture_output=True,
        text=True,
        env=environment(**provider.key),
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello wörld 👋.\n", "")


def test_quiet(provider: Provider) -> None:
    ran = run("chat", *provider.options, "-q", "--no-tools", "--once", "Hi", **provider.key)
    assert (ran.code, ran.out, ran.err) == (0, "Hello wörld 👋.\n", "")
    assert "tools" not in provider.server.requests[0].json()


def test_the_question_from_standard_input(provider: Provider) -> None:
    ran = run("chat", *provider.options, "-q", input="Grüß dich\n".encode(), **provider.key)
    assert ran.code == 0
    assert provider.server.requests[0].json()["messages"][-1]["content"] == "Grüß dich"


def test_what_is_piped_in_follows_the_question(provider: Provider, tmp_path: Path) -> None:
    asked = ["chat", *provider.options, "-q", "--once", "Summarize this:"]
    run(*asked, input=b"line one\nline two\n", **provider.key)
    run(*asked, input=b" \n", **provider.key)
    file = tmp_path / "text"
    file.write_text("from a file\n")
    with file.open() as stdin:
        subprocess.run(
            [*COMMAND, *asked], stdin=stdin, env=environment(**provider.key), check=True,
            capture_output=True,
        )  # fmt: skip
    contents = [r.json()["messages"][-1]["content"] for r in provider.server.requests]
    assert contents == [
        "Summarize this:\n\nline one\nline two",
        "Summarize this:",
        "Summarize this:\n\nfrom a file",
    ]


def test_a_pipe_into_which_nobody_writes_is_announced(provider: Provider) -> None:
    read, write = os.pipe()
    with subprocess.Popen(
        [*COMMAND, "chat", *provider.options, "--once", "Hi"],
        stdin=read, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(**provider.key),
    ) as child:  # fmt: skip
        os.close(read)
        assert child.stderr is not None
        assert "reading standard input" in child.stderr.readline()
        os.close(write)
        out, _ = child.communicate(timeout=60)
    assert out == "Hello wörld 👋.\n"


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
    assert "<- failed: RuntimeError: no luck (my_tools.py, line 7)" in ran.err
    (told,) = (m for m in provider.server.requests[1].json()["messages"] if m["role"] == "tool")
    assert "no luck" not in told["content"], "the model is not told what is inside"


@pytest.mark.parametrize("tool", ["leave", "leave_too", "press_keys"])
def test_a_tool_that_ends_the_program_does_not(provider: Provider, tools: Path, tool: str) -> None:
    provider.server.script(
        Answer(text=(), calls=(Call(tool, "{}", "call_1"),)), Answer(text=("Still here.",))
    )
    ran = run("chat", *provider.options, "--tool", f"{tools}:{tool}", "--once", "x", **provider.key)
    assert (ran.code, ran.out) == (0, "Still here.\n")
    assert "<- failed: " in ran.err


def test_what_tools_print_is_not_the_reply(provider: Provider, tools: Path) -> None:
    provider.server.script(
        Answer(text=("Look:",), calls=(Call("chatter", "{}", "call_1"),)), Answer(text=("Done.",))
    )
    ran = run(
        "chat", *provider.options, "--tool", f"{tools}:chatter", "--once", "x", **provider.key
    )
    assert (ran.code, ran.out) == (0, "Look:\nDone.\n")
    assert "from the tool" in ran.err
    assert "from its child" in ran.err


@pytest.mark.parametrize(
    ("tool", "told"), [("unknown_type", "Nowhere"), ("nameless", "<lambda>"), ("opaque", "Opaque")]
)
def test_a_function_that_cannot_be_a_tool(tools: Path, tool: str, told: str) -> None:
    ran = run("chat", "-m", "openai/x", "--tool", f"{tools}:{tool}", "--once", "x")
    assert ran.code == 2
    assert "cannot be a tool" in ran.err
    assert told in ran.err


@pytest.mark.parametrize("tool", ["hang", "hang_hard"])
def test_a_tool_that_hangs_is_given_up(provider: Provider, tools: Path, tool: str) -> None:
    provider.server.script(
        Answer(text=(), calls=(Call(tool, "{}", "call_1"),)), Answer(text=("Too slow.",))
    )
    ran = run(
        "chat", *provider.options, "--tool", f"{tools}:{tool}", "--tool-timeout", "0.5",
        "--once", "x", **provider.key,
    )  # fmt: skip
    assert (ran.code, ran.out) == (0, "Too slow.\n")
    assert "<- failed: " in ran.err


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
        (["chat", "--tool-choice", "bogus", "--once", "x"], 2, "unknown tool 'bogus'"),
        (["chat", "--no-tools", "--tool-choice", "required", "--once", "x"], 2, "no tools"),
        (["chat", "--tool-timeout", "-1", "--once", "x"], 2, "--tool-timeout"),
        (["chat", "--base-url", "http://x", "--once", "x"], 2, "--model"),
        (["chat", "-m", "openai/x", "--base-url", "", "--once", "x"], 2, "--base-url"),
        (["chat", "-m", "openai/", "--once", "x"], 2, "after the slash"),
        (["chat", "-m", "", "--once", "x"], 2, "the name is empty"),
        (["chat", "-m", "qwem", "--once", "x"], 2, "did you mean 'qwen'?"),
        (["chat", "-m", "opneai/x", "--once", "x"], 2, "did you mean 'openai'?"),
        (["chat", "--temperature", "nan", "--once", "x"], 2, "--temperature"),
        (["chat", "--modle", "x"], 2, "did you mean '--model'?"),
        (["chat", "What is this?"], 2, "--once"),
        (["models", "ftch"], 2, "did you mean 'fetch'?"),
        (["chat", "--tool", "os:getcwdd", "--once", "x"], 2, "did you mean 'getcwd'?"),
        (["models", "path", "nosuch"], 2, "no such local model"),
        (["models", "path", "smol"], 4, "is not here"),
        (["chat", "--image", __file__, "--once", "x"], 2, "expected a JPEG, PNG, GIF or WebP, got"),
        (["chat", "--image", "~nobody-of-this-name/x", "--once", "x"], 2, "No such file"),
        (["chat", "--file", "/dev/zero", "--once", "x"], 2, "larger than 32 MB"),
        (["chat", "--file", "", "--once", "x"], 2, "got an empty one"),
        (["chat", "--schema", "", "--once", "x"], 2, "got an empty one"),
        (["chat", "--record", "", "--once", "x"], 2, "expected the name of a ZIP or a folder"),
        (["chat", "--record", __file__, "--once", "x"], 2, "got the file"),
        (["chat", "-m", "~nobody-of-this-name/x.gguf", "--once", "x"], 2, "does not exist"),
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


@pytest.mark.parametrize("command", ["models", "doctor"])
def test_no_home(command: str) -> None:
    ran = run(command, REJOINDER_CACHE="~nobody-of-this-name/models")
    assert ran.code == 3
    assert "set REJOINDER_CACHE to a folder" in ran.out + ran.err


def test_a_report_goes_on_where_there_is_no_home() -> None:
    nobody = "~nobody-of-this-name/x"
    ran = run("doctor", REJOINDER_CACHE=nobody, REJOINDER_HOME=nobody, OPENAI_API_KEY="sk-canary")
    assert ran.code == 3
    assert ran.err == ""
    for told in ("set REJOINDER_CACHE", "set REJOINDER_HOME", "keys in the environment: OPENAI"):
        assert told in ran.out
    assert "canary" not in ran.out


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
    assert "cannot connect (connection refused); no reply after 3 attempts.\n" in ran.err


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


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("place", ["/dev/full", "&-"])
def test_nobody_takes_what_is_not_the_reply(provider: Provider, place: str) -> None:
    done = in_shell(f'exec "$@" 2>{place}', "chat", *provider.options, "--once", "x")
    assert (done.returncode, done.stdout) == (0, "Hello wörld 👋.\n".encode())


def in_shell(script: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND, *arguments],
        capture_output=True,
        env=environment(OPENAI_API_KEY="sk-test"),
        check=False,
    )


@pytest.mark.parametrize("arguments", [["chat", "--once", "x"], ["models"]])
def test_standard_output_is_closed(arguments: list[str]) -> None:
    done = in_shell('exec "$@" 1>&-', *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(b"rejoinder: standard output is closed")


def test_standard_input_cannot_be_read(tmp_path: Path) -> None:
    done = in_shell(f'exec "$@" 0>{tmp_path / "x"}', "chat")
    assert done.returncode == 2
    assert done.stderr.startswith(b"rejoinder: standard input cannot be read")


def test_the_locale_does_not_matter(provider: Provider) -> None:
    ran = run(
        "chat", *provider.options, "-q", "-s", "Grüße", "--once", "Grüß dich",
        LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", **provider.key,
    )  # fmt: skip
    assert (ran.code, ran.out) == (0, "Hello w?rld ?.\n")
    said = [message["content"] for message in provider.server.requests[0].json()["messages"]]
    assert said == ["Grüße", "Grüß dich"]


def test_a_model_that_falls_silent(provider: Provider) -> None:
    provider.server.always(Fault.STALL_MID_STREAM)
    ran = run("chat", *provider.options, "--timeout", "0.3", "--once", "x", **provider.key)
    assert (ran.code, ran.out) == (1, "Hello\n")
    place = "docs/troubleshooting.md#no-further-output-in-time"
    assert ran.err == f"rejoinder: no further output within 0.3 s. More: {place}\n"


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


@pytest.mark.parametrize(
    ("server", "why"),
    [
        ("no-such-command-here", "the program was not found; install it, or write its full path"),
        ("{tmp}/no/uvx some-server", "not found; install uv (https://docs.astral.sh/uv), or"),
        ("{tmp}/notes", "you may not run this file; name a file that is executable"),
        ("{tmp}", "you may not run this file; name a file that is executable"),
        ("{tmp}/empty", "this file is not a program"),
        ("{tmp}/orphan", "the interpreter in the first line of this script was not found"),
        ("false", "its process ended with code 1; run the command in a shell to see more"),
        ("echo 'a", "an unclosed quotation mark"),
        ("http://127.0.0.1:9/mcp", "check the address, and that the server runs"),
        ("http://nowhere.invalid/mcp", "check the address, and that the server runs"),
        ("ftp://127.0.0.1/mcp", "expected an http:// or https:// URL, or a command"),
    ],
)
@pytest.mark.parametrize("command", ["chat", "web"])
def test_an_mcp_server_that_does_not_come_up(
    provider: Provider, tmp_path: Path, server: str, why: str, command: str
) -> None:
    pytest.importorskip("mcp")
    for name, text, mode in (
        ("notes", "", 0o600),
        ("empty", "text", 0o700),
        ("orphan", f"#!{tmp_path}/gone\n", 0o700),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    spec = server.format(tmp=tmp_path)
    if "://" not in spec and "'" not in spec:
        spec += " --api-key sk-canary-0123456789"
    once = ["--once", "x"] if command == "chat" else []
    ran = run(command, *provider.options, "--mcp", spec, *once, **provider.key)
    assert ran.code == 3
    assert why in ran.err
    (line,) = ran.err.splitlines()
    assert line.startswith(f"rejoinder: the MCP server {server.format(tmp=tmp_path).split()[0]!r}")
    assert not any(word in line for word in ("Errno", "MCPServer", "MCPError", "canary"))


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
        afresh=True, **provider.key,
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


@pytest.mark.parametrize("where", ["task", "callback"])
def test_a_termination_signal_gets_out_of_a_running_loop(where: str) -> None:
    """The line editor runs one, and a signal may strike anywhere in it."""

    async def struck() -> None:
        raise Ended(signal.SIGTERM)

    async def wait() -> None:
        task: object = None
        if where == "task":
            task = asyncio.ensure_future(struck())
        else:
            asyncio.get_running_loop().call_soon(struck().send, None)
        await asyncio.Event().wait()
        del task

    with pytest.raises(Ended) as caught:
        asyncio.run(wait())
    assert caught.value.signal == signal.SIGTERM


def test_a_termination_signal_that_strikes_in_a_finalizer_is_not_lost() -> None:
    program = """
import os, signal, sys, time
from rejoinder.cli import commands
sys.unraisablehook = lambda _: print("lost", flush=True)
commands._LOST = 0.2
class Ends:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)
with commands._interrupts():
    Ends()
    time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "lost\n"
    assert done.returncode == 128 + signal.SIGTERM
