"""What the command says where it is used in a way that it cannot follow, and how that goes on."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cli.commands import Terminal, run
from rejoinder import prices
from rejoinder.cli.render import Stats, dollars, render_stats

if TYPE_CHECKING:
    from cli.conftest import Provider

PROMPT = r">(?: |\x08?\x1b\[2?C)"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("chat --timeout abc", "--timeout: expected seconds greater than 0, got 'abc'"),
        ("chat --timeout 0", "--timeout: expected seconds greater than 0, got '0'"),
        ("chat --tool-timeout inf", "expected seconds greater than 0, got 'inf'"),
        ("chat --temperature hot", "--temperature: expected a number of at least 0, got 'hot'"),
        ("chat --max-tokens 1.5", "--max-tokens: expected a whole number of at least 1, got '1.5'"),
        ("chat --context 0", "expected a whole number of at least 1, got '0'"),
        ("log -n x", "-n/--limit: expected a whole number of at least 1, got 'x'"),
        ("web --port 70000", "--port: expected a port from 0 to 65535, got '70000'"),
        ("doctor openai/x --timeout soon", "expected seconds greater than 0, got 'soon'"),
        ("talk --timeout nan", "expected seconds greater than 0, got 'nan'"),
        ("log list tower", "takes no 'tower'; rejoinder log search looks for words"),
        ("log path tower", "takes no 'tower'"),
        ("models list smol", "takes no 'smol'; rejoinder models show NAME"),
        ("models fetch openai/gpt-4.1", "'openai/gpt-4.1' does not run on this machine"),
        ("models show gpt-4.1", "for a provider's model write provider/model"),
        ("keys list openai", "takes no 'openai'; it lists all keys"),
        ("chat --once x --record /dev/null/x --base-url http://127.0.0.1:9 -m x", "--record:"),
    ],
)
def test_wrong_usage_is_one_sentence(arguments: str, told: str) -> None:
    ran = run(*arguments.split(), OPENAI_API_KEY="sk-test")
    assert ran.code == 2
    assert told in ran.err
    assert ran.err.count("\n") == 1
    assert ran.out == ""


def test_a_key_that_is_missing() -> None:
    for model, provider in (
        ("openai/gpt-4.1", "openai"),
        ("openai.responses/gpt-4.1", "openai"),
        ("anthropic/claude-haiku-4-5", "anthropic"),
        ("groq/x", "groq"),
    ):
        ran = run("chat", "-m", model, "--once", "x", GROQ_API_KEY="")
        assert ran.code == 3 or "known are" in ran.err
        if ran.code == 3:
            assert f"`rejoinder keys set {provider}`" in ran.err


def test_keys_of_several_lines_are_refused(home: Path) -> None:
    ran = run("keys", "set", "openai", input=b"sk-one\nsk-two\n")
    assert ran.code == 2
    assert "copy only the key" in ran.err
    assert "sk-" not in ran.err
    assert not home.exists()


def test_no_folder_is_needed_where_nothing_is_kept(provider: Provider) -> None:
    ran = run("chat", *provider.options, "-q", "--no-keep", "--once", "x",
              REJOINDER_HOME="/dev/null/x", OPENAI_API_KEY="sk-test")  # fmt: skip
    assert (ran.code, ran.out) == (0, "Hello wörld 👋.\n")
    url = provider.options[-1]
    ran = run("chat", "-m", "ollama/x", "--base-url", url, "-q", "--no-keep", "--once", "x",
              REJOINDER_HOME="/dev/null/x")  # fmt: skip
    assert (ran.code, ran.out) == (0, "Hello wörld 👋.\n")
    assert run("keys", REJOINDER_HOME="/dev/null/x").code == 0


def test_a_local_model_may_be_named_as_a_provider_s(tmp_path: Path) -> None:
    shown = run("models", "show", "local/smol", REJOINDER_CACHE=str(tmp_path))
    assert "SHA-256" in shown.out


@pytest.mark.slow
def test_a_store_that_breaks_in_between(provider: Provider, home: Path) -> None:
    with Terminal("chat", *provider.options, **provider.key) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("one\n")
        terminal.wait_for(r"tokens \(")
        terminal.wait_for(PROMPT)
        terminal.type("/reset\n")
        terminal.wait_for("A new conversation begins")
        terminal.wait_for(PROMPT)
        other = sqlite3.connect(home / "conversations.sqlite")
        other.execute("BEGIN EXCLUSIVE")  # from now on nothing can be written
        terminal.type("two\n")  # it cannot be kept, and is answered
        terminal.wait_for("is not kept", timeout=60)
        terminal.wait_for(r"tokens \(")
        terminal.wait_for(PROMPT)
        terminal.type("/hepl\n")
        terminal.wait_for(r"did you mean /help\?")
        terminal.press("d")
        assert terminal.leave() == 0
    other.close()
    asked = [request.json()["messages"][-1]["content"] for request in provider.server.requests]
    assert asked == ["one", "two"]


def test_what_a_turn_cost() -> None:
    stats: dict[str, Any] = {
        "first": None,
        "speed": None,
        "prompt": 10,
        "cached": 0,
        "completion": 5,
    }
    assert render_stats(Stats(**stats, cost=0.00123)) == "15 tokens (10 in, 5 out), $0.0012"
    assert "$" not in render_stats(Stats(**stats))
    assert [dollars(cost) for cost in (0, 0.0000034, 0.012345, 1.5)] == [
        "$0.000000", "$0.000003", "$0.0120", "$1.50",
    ]  # fmt: skip


def test_the_cost_in_json(provider: Provider, tmp_path: Path) -> None:
    # A program may set prices of its own; the command uses those of the package.
    ran = run("chat", *provider.options, "--json", "--once", "x", **provider.key)
    done = json.loads(ran.out.splitlines()[-1])
    assert "cost" not in done  # what the server asks is not known
    assert prices.find_prices("openai", "gpt-4.1") is not None
