"""The conversation as a person has it: a real terminal, real keys, Ctrl-C at every stage."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cli.commands import Terminal
from rejoinder.testing.faults import Answer, Call, Fault

if TYPE_CHECKING:
    from cli.conftest import Provider

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PROMPT = r">(?: |\x08?\x1b\[2?C)"  # `prompt_toolkit` moves the cursor instead of writing a blank


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_a_conversation(provider: Provider) -> None:
    provider.server.script(Answer(text=("Hello", " Ada.")), Answer(text=("Fine.",)))
    with Terminal("chat", *provider.options, afresh=True, **provider.key) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("Hi, I am Ada\n")
        terminal.wait_for(r"Hello Ada\.")
        terminal.wait_for(r"tokens \(")
        terminal.wait_for(PROMPT)
        terminal.type("How are you?\n")
        terminal.wait_for(r"Fine\.")
        terminal.wait_for(PROMPT)
        terminal.press("d")
        assert terminal.leave() == 0
    first, second = (request.json()["messages"] for request in provider.server.requests)
    assert [message["role"] for message in first] == ["system", "user"]
    assert [message["content"] for message in second][1:] == [
        "Hi, I am Ada",
        "Hello Ada.",
        "How are you?",
    ]


def test_commands(provider: Provider) -> None:
    provider.server.script(Answer(text=("One.",)), Answer(text=("Two.",)))
    with Terminal("chat", *provider.options, **provider.key) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("/help\n")
        terminal.wait_for("/clear")
        terminal.wait_for(PROMPT)
        terminal.type("/tools\n")
        terminal.wait_for("calculate")
        terminal.wait_for("time_in")
        terminal.type("/nonsense\n")
        terminal.wait_for("Unknown command /nonsense")
        terminal.type("a\\\nb\n")
        terminal.wait_for(r"One\.")
        terminal.wait_for(PROMPT)
        terminal.type("/clear\n")
        terminal.wait_for("A new conversation begins")
        terminal.type("c\n")
        terminal.wait_for(r"Two\.")
        terminal.wait_for(PROMPT)
        terminal.type("/quit\n")
        assert terminal.leave() == 0
    first, second = (request.json()["messages"] for request in provider.server.requests)
    assert first[-1]["content"] == "a\nb"
    assert [message["role"] for message in second] == ["system", "user"]


def test_colours_and_none(provider: Provider) -> None:
    with Terminal("chat", *provider.options, "--once", "x", **provider.key) as terminal:
        assert terminal.leave() == 0
        assert "\x1b[2m" in terminal.seen
    with Terminal(
        "chat", *provider.options, "--once", "x", NO_COLOR="1", **provider.key
    ) as terminal:
        assert terminal.leave() == 0
        assert "\x1b[2m" not in terminal.seen
        assert "Hello wörld" in terminal.seen


@pytest.mark.parametrize("name", ["dumb", "unknown", ""])
def test_a_terminal_that_moves_no_cursor(provider: Provider, name: str) -> None:
    provider.server.script(Answer(text=("Some **bold** words.\n\n", "- one\n")))
    with Terminal("chat", *provider.options, TERM=name, **provider.key) as terminal:
        terminal.wait_for("> ")
        terminal.type("x\n")
        terminal.wait_for("- one")
        terminal.wait_for("> ")
        terminal.press("d")
        assert terminal.leave() == 0
    assert "\x1b" not in terminal.seen
    assert "Some **bold** words." in terminal.seen


def test_a_model_gives_no_orders_to_the_terminal(provider: Provider) -> None:
    provider.server.script(Answer(text=("\x1b]0;owned\x07safe", "\x1b[2Jtext")))
    with Terminal("chat", *provider.options, "--once", "x", **provider.key) as terminal:
        assert terminal.leave() == 0
        assert "safetext" in terminal.seen
        assert "\x1b[2J" not in terminal.seen
        assert "owned" not in terminal.seen


def test_ctrl_c_stops_the_reply_and_again_leaves(provider: Provider) -> None:
    provider.server.script(Answer(fault=Fault.STALL_MID_STREAM, after=1), Answer(text=("Well.",)))
    with Terminal("chat", *provider.options, **provider.key) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("Tell me a long story\n")
        terminal.wait_for("Hello")
        terminal.press("c")
        terminal.wait_for(r"\[interrupted\]")
        terminal.wait_for(PROMPT)
        terminal.type("Go on\n")
        terminal.wait_for(r"Well\.")
        terminal.wait_for(PROMPT)
        terminal.press("c")
        terminal.wait_for("Ctrl-C again to leave")
        terminal.wait_for(PROMPT)
        terminal.press("c")
        assert terminal.leave() == 130
    # What was heard is in the history, and so is what was asked.
    contents = [message["content"] for message in provider.server.requests[1].json()["messages"]]
    assert contents[1:] == ["Tell me a long story", "Hello", "Go on"]


def test_ctrl_c_twice_in_a_row_leaves(provider: Provider) -> None:
    provider.server.script(Answer(fault=Fault.STALL_MID_STREAM, after=1))
    with Terminal("chat", *provider.options, **provider.key) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("x\n")
        terminal.wait_for("Hello")
        terminal.press("c")
        terminal.wait_for(r"\[interrupted\]")
        terminal.wait_for(PROMPT)
        terminal.press("c")
        assert terminal.leave() == 130


@pytest.mark.parametrize("stall", [Fault.STALL_BEFORE_HEADERS, Fault.STALL_BEFORE_OUTPUT])
def test_ctrl_c_while_nothing_comes(provider: Provider, stall: Fault) -> None:
    provider.server.always(stall)
    with Terminal("chat", *provider.options, **provider.key) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("x\n")
        deadline = time.monotonic() + 30
        while not provider.server.requests and time.monotonic() < deadline:
            time.sleep(0.02)
        terminal.wait_for(r"waiting for the model \(\d+ s; Ctrl-C stops it\)")
        terminal.press("c")
        terminal.wait_for(
            r"\[interrupted\]",
        )
        terminal.wait_for(PROMPT)
        terminal.press("d")
        assert terminal.leave() == 0


def test_ctrl_c_in_a_single_question(provider: Provider) -> None:
    provider.server.script(Answer(fault=Fault.STALL_MID_STREAM, after=1))
    with Terminal("chat", *provider.options, "--once", "x", **provider.key) as terminal:
        terminal.wait_for("Hello")
        terminal.press("c")
        assert terminal.leave() == 130


@pytest.mark.parametrize("tool", ["hang", "hang_hard", "block"])
def test_ctrl_c_while_a_tool_hangs(provider: Provider, tools: Path, tool: str) -> None:
    provider.server.always(Answer(text=(), calls=(Call(tool, "{}", "call_1"),)))
    with Terminal(
        "chat", *provider.options, "--tool", f"{tools}:{tool}", **provider.key
    ) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("x\n")
        terminal.wait_for(rf"-> {tool}\(\)")
        terminal.press("c")
        if tool == "block":
            # It holds the loop itself: only leaving helps.
            terminal.wait_for("Ctrl-C again to leave")
        else:
            terminal.wait_for(r"\[interrupted\]")
            terminal.wait_for(PROMPT)
        terminal.press("c")
        assert terminal.leave() == 130


@pytest.mark.parametrize("how", ["quit", "once"])
def test_leaving_waits_for_a_tool_that_must_finish(
    provider: Provider, tools: Path, tmp_path: Path, how: str
) -> None:
    until = tmp_path / "now"
    provider.server.always(
        Answer(text=(), calls=(Call("book", json.dumps({"until": str(until)}), "call_1"),))
    )
    more = ["--once", "x"] if how == "once" else []
    with Terminal(
        "chat", *provider.options, "--tool", f"{tools}:book", *more, **provider.key
    ) as terminal:
        if how == "quit":
            terminal.wait_for(PROMPT)
            terminal.type("x\n")
        terminal.wait_for("-> book")
        terminal.press("c")
        terminal.wait_for(r"\[interrupted\]")
        if how == "quit":
            terminal.wait_for(PROMPT)
            terminal.type("/quit\n")
        terminal.wait_for("Waiting for book, which cannot be stopped")
        until.touch()
        assert terminal.leave() == (0 if how == "quit" else 130)
    assert (tmp_path / "now.booked").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_told_to_end(provider: Provider, number: signal.Signals) -> None:
    provider.server.script(Answer(fault=Fault.STALL_MID_STREAM, after=1))
    with Terminal("chat", *provider.options, **provider.key) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("x\n")
        terminal.wait_for("Hello")
        os.kill(terminal.pid, number)
        assert terminal.leave() == 128 + number


def test_pasted_lines_are_one_question(provider: Provider) -> None:
    readline = pytest.importorskip("readline")
    if "libedit" in (readline.__doc__ or ""):
        pytest.skip("this line editor takes pasted lines one by one")
    with Terminal("chat", *provider.options, **provider.key) as terminal:
        terminal.wait_for(r"\x1b\[\?2004h")  # the terminal shall mark what is pasted
        terminal.wait_for(PROMPT)
        terminal.type("\x1b[200~one\ntwo\n/three\x1b[201~\n")
        terminal.wait_for(r"tokens \(")
        terminal.wait_for(PROMPT)
        terminal.press("d")
        assert terminal.leave() == 0
    (request,) = provider.server.requests
    assert request.json()["messages"][-1]["content"] == "one\ntwo\n/three"


def wait_until_it_has_begun(pid: int) -> None:
    """Python's own start prints a traceback at Ctrl-C, which nobody can help. It catches the signal
    meanwhile; the first thing that the command does is not to. Whoever looked too late for that sees
    the thread that the command starts soon after."""
    caught = False
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if b"rejoinder.cli" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            continue  # still the test's own fork
        status = Path(f"/proc/{pid}/status").read_text()
        mask = int(re.search(r"SigCgt:\s*([0-9a-f]+)", status).group(1), 16)  # type: ignore[union-attr]
        catches = bool(mask & 1 << signal.SIGINT - 1)
        threads = int(re.search(r"Threads:\s*(\d+)", status).group(1))  # type: ignore[union-attr]
        if (caught and not catches) or threads > 1:
            return
        caught = caught or catches
        time.sleep(0.001)
    pytest.fail("the command does not begin")


@pytest.mark.skipif(sys.platform != "linux", reason="reads what a process does from /proc")
@pytest.mark.parametrize("moment", [0.0, 0.05, 0.1, 0.2, 0.4, 0.8])
def test_ctrl_c_while_it_starts(provider: Provider, moment: float) -> None:
    """At any moment: no traceback, and it ends (by the signal itself, as long as there is nothing
    to tidy up)."""
    with Terminal("chat", *provider.options, afresh=True, **provider.key) as terminal:
        wait_until_it_has_begun(terminal.pid)
        time.sleep(moment)
        os.kill(terminal.pid, signal.SIGINT)
        time.sleep(0.3)
        with contextlib.suppress(ProcessLookupError):
            os.kill(terminal.pid, signal.SIGINT)
        assert terminal.leave() in (130, -signal.SIGINT)


@pytest.mark.parametrize("line", [b"caf\xe9\n", b"\xff\xfe caf\n", b"\xed\xa0\x80x\n"])
def test_a_line_that_is_not_utf8(provider: Provider, line: bytes) -> None:
    with Terminal("chat", *provider.options, **provider.key) as terminal:
        terminal.wait_for(PROMPT)
        os.write(terminal._fd, line)
        # The line editor leaves out what it cannot show; what it lets pass is refused by us.
        terminal.wait_for(r"not UTF-8|tokens \(")
        terminal.wait_for(PROMPT)
        terminal.type("and on\n")
        terminal.wait_for("Hello wörld")
        terminal.wait_for(PROMPT)
        terminal.press("d")
        assert terminal.leave() == 0
    sent = [request.json()["messages"][-1]["content"] for request in provider.server.requests]
    assert sent[-1].endswith("and on")
    assert all("\ufffd" not in text and text.isprintable() for text in sent)


def test_a_failure_does_not_end_the_conversation(provider: Provider) -> None:
    provider.server.script(Answer(status=400, message="too hot"), Answer(text=("Better.",)))
    with Terminal("chat", *provider.options, **provider.key) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("first\n")
        terminal.wait_for("too hot")
        terminal.wait_for(PROMPT)
        terminal.type("second\n")
        terminal.wait_for(r"Better\.")
        terminal.wait_for(PROMPT)
        terminal.press("d")
        assert terminal.leave() == 0
    # What could not be answered is not sent again and again.
    contents = [message["content"] for message in provider.server.requests[1].json()["messages"]]
    assert contents[1:] == ["second"]


def test_ctrl_c_while_the_model_is_fetched(provider: Provider, tmp_path: Path) -> None:
    with Terminal(
        "chat", "-m", "smol",
        REJOINDER_CACHE=str(tmp_path), PIP_INDEX_URL=f"{provider.server.url}/simple",
        PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS="", PIP_RETRIES="0",
    ) as terminal:  # fmt: skip
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob("*.parts")) and time.monotonic() < deadline:
            time.sleep(0.02)
        terminal.press("c")
        assert terminal.leave() in (130, 4)  # or the index has refused before
    assert not list(tmp_path.glob("*.gguf"))


def test_the_real_model(smol: Path) -> None:
    with Terminal(
        "chat", "-m", "smol", "--no-tools", "--max-tokens", "400", afresh=True
    ) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("Write a long story about a fox.\n")
        terminal.wait_for("fox")  # its own echo
        terminal.wait_for(r"\w+ \w+ \w+ \w+ \w+")
        terminal.press("c")
        terminal.wait_for(r"\[interrupted\]|tokens \(")
        terminal.wait_for(PROMPT)
        terminal.press("d")
        assert terminal.leave() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads what a process does from /proc")
@pytest.mark.parametrize("moment", [0.0, 0.5, 1.0])
def test_ctrl_c_while_the_real_model_loads(smol: Path, moment: float) -> None:
    with Terminal("chat", "-m", "smol", "--once", "Write a long story.", afresh=True) as terminal:
        wait_until_it_has_begun(terminal.pid)
        time.sleep(moment)
        terminal.press("c")
        assert terminal.leave() in (130, -signal.SIGINT)


def test_a_damaged_model(smol: Path, tmp_path: Path) -> None:
    file = tmp_path / "damaged.gguf"
    file.write_bytes(smol.read_bytes()[: 4 << 20])
    with Terminal("chat", "-m", str(file)) as terminal:
        assert terminal.leave() == 4
        assert "damaged.gguf" in plain(terminal.seen)
    assert hashlib.sha256(smol.read_bytes()).hexdigest()
