"""``rejoinder chat`` as a person uses it for a day: tools, interruptions, saving, leaving, going on."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cli.commands import Terminal, run
from cli.test_terminal import PROMPT, plain
from rejoinder.llm import ChatContext, ChatMessage
from rejoinder.testing import load_exchanges
from rejoinder.testing.faults import Answer, Call, Fault

if TYPE_CHECKING:
    from cli.conftest import Provider

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def contents(provider: Provider, number: int = -1) -> list[str]:
    return [
        message["content"]
        for message in provider.server.requests[number].json()["messages"]
        if isinstance(message.get("content"), str)
    ]


def test_a_conversation_with_tools_is_interrupted_saved_left_found_and_continued(
    provider: Provider, tools: Path, tmp_path: Path
) -> None:
    provider.server.script(
        Answer(text=(), calls=(Call("add", '{"a": 40, "b": 2}', "call_1"),)),
        Answer(text=("It is 42.",)),
        Answer(fault=Fault.STALL_MID_STREAM, after=1),
        Answer(text=("Where were we? 42.",)),
    )
    options = ["chat", *provider.options]
    with Terminal(*options, "--tool", f"{tools}:add", **provider.key) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("What is 40 plus 2?\n")
        terminal.wait_for(r"-> add\(a=40, b=2\)")
        terminal.wait_for("<- 42")
        terminal.wait_for(r"It is 42\.")
        terminal.wait_for(PROMPT)
        terminal.type("Tell me a story\n")
        terminal.wait_for("Hello")
        terminal.press("c")
        terminal.wait_for(r"\[interrupted\]")
        terminal.wait_for(PROMPT)
        terminal.type(f"/save {tmp_path}/talk.json\n")
        terminal.wait_for("Saved 7 items")
        terminal.wait_for(PROMPT)
        terminal.press("d")
        assert terminal.leave() == 0

    listed = run("log", afresh=True)
    id = listed.out.split()[0]
    assert "openai/any" in listed.out
    assert "What is 40 plus 2?" in listed.out
    assert id in run("log", "search", "story").out
    assert run("log", "search", "zebra").code == 1
    shown = run("log", "show", id[:8]).out
    assert "user: What is 40 plus 2?\n-> add(a=40, b=2)\n<- 42\nassistant: It is 42.\n" in shown
    assert "assistant: Hello [interrupted]" in shown
    exported = json.loads(run("log", "export").out)
    assert exported == json.loads((tmp_path / "talk.json").read_text())

    with Terminal("chat", "-c", **provider.key) as terminal:
        terminal.wait_for("continues after 2 messages of yours")
        terminal.wait_for(PROMPT)
        terminal.type("Go on\n")
        terminal.wait_for(r"Where were we\? 42\.")
        terminal.wait_for(PROMPT)
        terminal.press("d")
        assert terminal.leave() == 0
    assert contents(provider)[1:] == [
        "What is 40 plus 2?", "42", "It is 42.", "Tell me a story", "Hello", "Go on",
    ]  # fmt: skip
    assert run("log", "remove", id[:8]).code == 0
    assert run("log").out == ""


def test_commands(provider: Provider, tmp_path: Path) -> None:
    provider.server.script(*(Answer(text=(f"Answer {n}.",)) for n in range(1, 8)))
    with Terminal("chat", *provider.options, **provider.key) as terminal:

        def typed(line: str, expected: str) -> None:
            terminal.wait_for(PROMPT)
            terminal.type(line + "\n")
            terminal.wait_for(expected)

        typed("one", r"Answer 1\.")
        typed("/retry", r"Answer 2\.")
        assert contents(provider)[1:] == ["one"]
        typed("/system Speak like a pirate", "apply from the next")
        typed("two", r"Answer 3\.")
        assert contents(provider) == ["Speak like a pirate", "one", "Answer 2.", "two"]
        typed("/system", "Speak like a pirate")
        typed("/branch", r"Now in conv_\w+; /load (conv_\w+) returns")
        first = re.search(r"/load (conv_\w+) returns", terminal.seen)
        assert first is not None
        typed("three", r"Answer 4\.")
        typed(f"/load {first[1]}", "Continues after 5 items")
        typed("four", r"Answer 5\.")
        assert contents(provider)[-2:] == ["Answer 3.", "four"]
        typed("/model", rf"2mopenai/any at {provider.server.url}/v1\x1b")
        typed("/model openai/other", "openai/other answers from here on")
        typed("/model", rf"2mopenai/other at {provider.server.url}/v1\x1b")
        typed("/model nonsense/x", "no such model")
        typed(f"/save {tmp_path}/no/where", "No such file")
        typed(f"/save {tmp_path}/x.json", "Saved 7 items")
        typed("/reset", "A new conversation begins")
        typed("five", r"Answer 6\.")
        assert contents(provider) == ["Speak like a pirate", "five"]
        assert provider.server.requests[-1].json()["model"] == "other"
        typed(f"/load {tmp_path}/x.json", "Continues after 7 items")
        typed("/load nowhere", "no file nowhere, and no conversation begins with 'nowhere'")
        typed(f"/load {__file__}", "holds no conversation")
        terminal.wait_for(PROMPT)
        (tmp_path / "empty.json").write_text("{}")
        terminal.type(f"/load {tmp_path}/empty.json\n")
        terminal.wait_for(r"ChatContext[^\"]*'items'")
        typed("six", r"Answer 7\.")
        assert contents(provider)[-2:] == ["Answer 5.", "six"]
        terminal.wait_for(PROMPT)
        terminal.type("/quit\n")
        assert terminal.leave() == 0
    assert len(run("log", "list", "-q").out.splitlines()) == 4


def test_a_conversation_from_a_file_knows_its_model_after_a_retry(
    provider: Provider, tmp_path: Path
) -> None:
    saved = tmp_path / "saved.json"
    saved.write_text(json.dumps(ChatContext([ChatMessage(role="user", content=["Hi"])]).to_dict()))
    with Terminal("chat", *provider.options, **provider.key) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type(f"/load {saved}\n")
        terminal.wait_for("Continues")
        terminal.wait_for(PROMPT)
        terminal.type("/retry\n")
        terminal.wait_for("Hello")
        terminal.wait_for(PROMPT)
        terminal.press("d")
        assert terminal.leave() == 0
    (kept,) = map(json.loads, run("log", "--json").out.splitlines())
    assert kept["about"]["model"] == "openai/any"


def test_approval(provider: Provider, tools: Path) -> None:
    ask = Answer(text=("Let me see.",), calls=(Call("add", '{"a": 1, "b": 2}', "call_1"),))
    provider.server.script(ask, Answer(text=("Refused.",)), ask, Answer(text=("Done.",)), ask, Answer(text=("Again.",)))  # fmt: skip
    with Terminal(
        "chat", *provider.options, "--tool", f"{tools}:add", "--approve", **provider.key
    ) as terminal:
        for reply, result, last in (("n", "was not run", r"Refused\."), ("a", "<- 3", r"Done\.")):
            terminal.wait_for(PROMPT)
            terminal.type("Add\n")
            terminal.wait_for(r"Run add\(a=1, b=2\)\?.*: ")
            terminal.type(f"{reply}\n")
            terminal.wait_for(result)
            terminal.wait_for(last)
        terminal.wait_for(PROMPT)
        terminal.type("Add\n")
        terminal.wait_for(r"Again\.")  # nobody was asked
        terminal.wait_for(PROMPT)
        terminal.press("d")
        assert terminal.leave() == 0
    assert plain(terminal.seen).count("Run add(") == 2
    assert not re.search(r"[^\r\n] *Run add", plain(terminal.seen))  # on a line of its own
    ran = run("chat", *provider.options, "--once", "x", "--approve", **provider.key)
    assert ran.code == 2
    assert "asks at the keyboard" in ran.err


def test_markdown_is_drawn_and_plain_is_not(provider: Provider) -> None:
    provider.server.always(Answer(text=("Some **bo", "ld** word.\n\n- one\n", "- two\n")))
    with Terminal("chat", *provider.options, "--once", "x", **provider.key) as terminal:
        assert terminal.leave() == 0
        assert " • \x1b[0mone" in terminal.seen or "• one" in plain(terminal.seen)
    env: dict[str, Any]
    for more, env in ((["--plain"], {}), ([], {"TERM": "dumb"}), ([], {"NO_COLOR": "1"})):
        with Terminal(
            "chat", *provider.options, "--once", "x", *more, **provider.key, **env
        ) as terminal:
            assert terminal.leave() == 0
            assert "Some **bold** word." in terminal.seen
    piped = run("chat", *provider.options, "--once", "x", **provider.key)
    assert piped.out == "Some **bold** word.\n\n- one\n- two\n"


def test_a_dumb_terminal_and_a_small_window(provider: Provider) -> None:
    provider.server.always(Answer(text=("Fine.",)))
    with Terminal("chat", *provider.options, TERM="dumb", **provider.key) as terminal:
        terminal.wait_for("> ")
        terminal.type("Hi\n")
        terminal.wait_for(r"Fine\.")
        terminal.wait_for("> ")
        assert "\x1b[" not in terminal.seen
        terminal.press("d")
        assert terminal.leave() == 0
    with Terminal("chat", *provider.options, **provider.key) as terminal:
        terminal.wait_for(PROMPT)
        terminal.resize(20, 5)
        os.kill(terminal.pid, signal.SIGWINCH)
        terminal.type("A line that is longer than this window is wide\n")
        terminal.wait_for(r"Fine\.")
        terminal.wait_for(PROMPT)
        terminal.press("d")
        assert terminal.leave() == 0
    assert contents(provider)[-1] == "A line that is longer than this window is wide"


def test_told_to_end_at_the_prompt_it_leaves_the_terminal_as_it_was(provider: Provider) -> None:
    with Terminal("chat", *provider.options, **provider.key) as terminal:
        before = termios.tcgetattr(terminal._fd)
        terminal.wait_for(PROMPT)
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.leave() == 128 + signal.SIGTERM
        assert termios.tcgetattr(terminal._fd)[:4] == before[:4]


def test_events_as_json(provider: Provider, tools: Path) -> None:
    provider.server.script(
        Answer(text=(), calls=(Call("add", '{"a": 1, "b": 2}', "call_1"),)), Answer(text=("3.",))
    )
    ran = run(
        "chat", *provider.options, "--tool", f"{tools}:add", "--json", input=b"Add", **provider.key
    )
    assert ran.code == 0
    events = [json.loads(line) for line in ran.out.splitlines()]
    assert [event["event"] for event in events] == [
        "usage", "tool_started", "tool_finished", "text", "usage", "done",
    ]  # fmt: skip
    assert events[2]["output"] == "3"
    assert events[-1]["text"] == "3."
    assert events[-1]["conversation"] in run("log").out
    assert ran.err == ""
    assert run("chat", *provider.options, "--json", "--once", " ", **provider.key).code == 2
    provider.server.always(Answer(status=401, message="no, sk-canary-0123456789"))
    ran = run(
        "chat", *provider.options, "--json", "--once", "x", OPENAI_API_KEY="sk-canary-0123456789"
    )
    assert ran.code == 1
    assert json.loads(ran.out)["event"] == "error"
    assert "canary" not in ran.out + ran.err


def test_a_schema(provider: Provider, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    provider.server.script(Answer(text=('{"n": "many"}',)), Answer(text=('{"n": 7}',)))
    ran = run(
        "chat", *provider.options, "--once", "x", "--schema", json.dumps(schema), **provider.key
    )
    assert json.loads(ran.out) == {"n": 7}
    (tmp_path / "bad.json").write_text("[1")
    (tmp_path / "odd.json").write_text('{"typ": "object"}')
    for given in (*(str(tmp_path / name) for name in ("bad.json", "none", "odd.json")), "{", "[]"):
        ran = run("chat", *provider.options, "--once", "x", "--schema", given, **provider.key)
        assert ran.code == 2
        assert "--schema" in ran.err
        assert "response_format" not in ran.err


@pytest.mark.parametrize("events", [[], ["--json"]], ids=["text", "json"])
def test_an_answer_that_never_fits_names_the_option(
    provider: Provider, tmp_path: Path, events: list[str]
) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    (file := tmp_path / "number.json").write_text(json.dumps(schema))
    provider.server.always(Answer(text=('{"n": "many"}',)))
    asked = ["chat", *provider.options, *events, "--once", "x", "--schema"]
    for given, option in ((str(file), f"--schema {file}:"), (json.dumps(schema), "--schema:")):
        ran = run(*asked, given, **provider.key)
        assert ran.code == 1
        assert f"does not fit {option} " in ran.err
        assert "response_format" not in ran.out + ran.err
        if events:
            assert option in json.loads(ran.out.splitlines()[-1])["message"]


def test_pictures_and_files(provider: Provider, tmp_path: Path) -> None:
    picture = tmp_path / "dot.png"
    picture.write_bytes(
        bytes.fromhex(
            "89504e470d0a1a0a0000000d494844520000000100000001080200000090"
            "7753de0000000c49444154789c63f8ffff3f0005fe02fe0def46b80000000049454e44ae426082"
        )
    )
    notes = tmp_path / "notes.txt"
    notes.write_text("Remember the milk\n")
    ran = run(
        "chat", *provider.options, "--once", "Look", "--image", str(picture), "--file", str(notes),
        **provider.key,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    text, image = provider.server.requests[0].json()["messages"][-1]["content"]
    assert text["text"] == "Look\n\nnotes.txt:\n```\nRemember the milk\n```"
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    for option, path in (("--image", notes), ("--image", tmp_path), ("--file", picture)):
        ran = run("chat", *provider.options, "--once", "x", option, str(path), **provider.key)
        assert (ran.code, option in ran.err) == (2, True), ran.err


def test_a_fallback(provider: Provider) -> None:
    provider.server.always(Answer(text=("Hello from the second.",)))
    ran = run(
        "chat", "-m", "openai/gone", "--base-url", "http://127.0.0.1:9/v1",
        "--fallback", "openai/any", "--once", "x",
        OPENAI_BASE_URL=f"{provider.server.url}/v1", **provider.key,
    )  # fmt: skip
    assert ran.out == "Hello from the second.\n", ran.err
    assert ran.code == 0


def test_a_model_is_shown_as_it_was_typed(provider: Provider) -> None:
    fallbacks = ["--fallback", "deepseek/b", "--fallback", "openai/c"]
    keys = {**provider.key, "DEEPSEEK_API_KEY": "sk-test"}
    with Terminal("chat", "-m", "openai/a", *fallbacks, **keys) as terminal:
        terminal.wait_for(r"openai/a\. /help")
        terminal.wait_for(PROMPT)
        terminal.type("/model\n")
        terminal.wait_for(r"2mopenai/a, then deepseek/b, then openai/c\x1b")
        terminal.wait_for(PROMPT)
        terminal.type("/quit\n")
        assert terminal.leave() == 0


def test_a_recording_holds_no_key(provider: Provider, tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    ran = run(
        "chat", *provider.options, "--once", "x", "--record", str(folder),
        OPENAI_API_KEY="sk-canary-0123456789",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    assert not any(b"canary" in file.read_bytes() for file in files)


def test_a_recording_is_one_file_where_a_zip_is_named(provider: Provider, tmp_path: Path) -> None:
    place = tmp_path / "new" / "talk.zip"
    ask = ["chat", *provider.options, "--once", "x", "--record", str(place)]
    ran = run(*ask, OPENAI_API_KEY="sk-canary-0123456789")
    assert ran.code == 0, ran.err
    assert [file.name for file in place.parent.iterdir()] == ["talk.zip"]
    assert place.is_file()
    (exchange,) = load_exchanges(place)
    assert "canary" not in repr(exchange)
    ran = run(*ask, **provider.key)
    assert ran.code == 2
    assert "exists already" in ran.err
    assert load_exchanges(place) == [exchange]


def test_what_is_kept_and_what_is_not(provider: Provider, home: Path) -> None:
    ask = ["chat", *provider.options, "--once", "x"]
    assert run(*ask, "--no-keep", **provider.key).code == 0
    assert run(*ask, REJOINDER_KEEP="0", **provider.key).code == 0
    assert not home.exists()
    assert run(*ask, **provider.key).code == 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in home.iterdir())
    assert run(*ask[:-1], "y", "-c", **provider.key).code == 0
    assert contents(provider)[1:] == ["x", "Hello wörld 👋.", "y"]
    assert run(*ask, "-c", "nowhere", **provider.key).code == 2
    (blocked := home.parent / "file").write_text("")
    ran = run(*ask, REJOINDER_HOME=str(blocked), **provider.key)
    assert ran.code == 0
    assert "not kept" in ran.err
    ran = run(*ask, "-c", REJOINDER_HOME=str(blocked), **provider.key)
    assert ran.code == 3


def test_two_terminals_on_one_conversation_and_a_kill(provider: Provider) -> None:
    options = ["chat", *provider.options]
    with Terminal(*options, **provider.key) as first:
        first.wait_for(PROMPT)
        first.type("one\n")
        first.wait_for(r"tokens \(")
        first.wait_for(PROMPT)
        assert run(*options, "-c", "--once", "two", **provider.key).code == 0
        first.type("three\n")
        first.wait_for("continued elsewhere")
        load = re.search(r"/load conv_\w+", first.seen)
        assert load is not None
        first.wait_for(PROMPT)
        first.type(f"{load[0]}\n")
        first.wait_for("Continues after 5 items")
        first.wait_for(PROMPT)
        provider.server.script(Answer(fault=Fault.STALL_MID_STREAM, after=1))
        first.type("four\n")
        first.wait_for("Hello")
        time.sleep(1.5)  # what was heard is written every half second
        os.kill(first.pid, signal.SIGKILL)
        assert first.leave() == -signal.SIGKILL
    shown = run("log", "show").out
    assert "user: four\nassistant: Hello [interrupted]\n" in shown
    assert "three" not in shown


def test_the_history_of_lines_is_private(provider: Provider, home: Path) -> None:
    pytest.importorskip("prompt_toolkit")
    with Terminal("chat", *provider.options, **provider.key) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("remember me\n")
        terminal.wait_for(r"tokens \(")
        terminal.wait_for(PROMPT)
        terminal.press("d")
        assert terminal.leave() == 0
    history = home / "history"
    assert "remember me" in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
