"""What the command line writes, as text."""

from __future__ import annotations

import os
import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.cli.render import (
    PLAIN,
    Stats,
    Style,
    bar,
    fitting_bar,
    one_line,
    printable,
    render_call,
    render_error,
    render_result,
    render_stats,
    sentence,
    size,
    table,
)
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, APITimeoutError
from rejoinder.providers.local.wire import ContextOverflowError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext é 😀", "plain\n\ttext é 😀"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]52;c;aGk=\x1b\\after", "after"),
        ("a\rb\r\nc", "ab\nc"),
        ("bell\x07 back\x08 c1\x9b31m", "bell back c131m"),
        ("safe\u202egnp.exe", "safegnp.exe"),
        ("half \ud83d", "half ?"),
    ],
)
def test_a_model_gives_no_orders_to_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    left = {char for char in printable(text) if ord(char) < 32 or 127 <= ord(char) < 160}
    assert left <= {"\n", "\t"}
    printable(text).encode()


def test_lines_and_sentences() -> None:
    assert one_line("a\n  b\tc") == "a b c"
    assert len(one_line("x" * 500)) == 200
    assert sentence("it broke") == "it broke."
    assert sentence("why?") == "why?"


def test_calls_and_results() -> None:
    assert render_call("f", '{"a": "x", "b": 2}') == "f(a='x', b=2)"
    assert render_call("f", "not json") == "f(not json)"
    assert render_result("done", is_error=False, seconds=0.26) == "done  [0.3 s]"
    assert render_result("", is_error=True, seconds=1) == "failed: (nothing)  [1.0 s]"


def test_numbers() -> None:
    stats = Stats(first=0.314, speed=41.25, prompt=29, cached=22, completion=9)
    assert render_stats(stats) == (
        "0.31 s to first token, 41.2 tok/s, 38 tokens (29 in, 22 of them cached, 9 out)"
    )
    cut = Stats(first=None, speed=None, prompt=3, cached=0, completion=1, estimated=True)
    assert render_stats(cut) == "about 4 tokens (3 in, 1 out)"

    silent = Stats(first=0.1, speed=None, prompt=0, cached=0, completion=0)
    assert render_stats(silent) == "0.10 s to first token, tokens not reported"


def caused(error: APIError, cause: BaseException) -> APIError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (APIStatusError("Too hot", status_code=400), "Too hot (status_code=400)"),
        (
            APITimeoutError("rejoinder.providers.openai.LLM: no output within 60 s"),
            "no output within 60 s",
        ),
        (
            caused(
                APIConnectionError("POST http://x: cannot connect"),
                ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 9)"),
            ),
            f"POST http://x: cannot connect ({os.strerror(111).lower()})",
        ),
        (
            caused(
                APIConnectionError("the host name cannot be resolved"),
                socket.gaierror(-2, "Name or service not known"),
            ),
            "the host name cannot be resolved",
        ),
        (
            caused(APIConnectionError("no TLS"), ssl.SSLCertVerificationError("bad name")),
            "no TLS [SSLCertVerificationError: ('bad name',)]",
        ),
        (
            caused(
                APIConnectionError("mine.LLM: no reply after 3 attempts"),
                APIStatusError("Overloaded", status_code=503, request_id="r1"),
            ),
            (
                "Overloaded (status_code=503, request_id=r1); no reply after 3 attempts. "
                "More: docs/troubleshooting.md#status-503"
            ),
        ),
        (
            ContextOverflowError(9000, 8192),
            (
                "the conversation has 9000 tokens, the model's context holds 8192: say less, begin "
                "anew with /clear, or allow more with --context"
            ),
        ),
    ],
)
def test_errors(error: APIError, told: str) -> None:
    assert render_error(error) == told


def test_sizes_and_bars() -> None:
    assert [size(10_240), size(98_362_432), size(2 << 30)] == ["10 KB", "94 MB", "2.0 GB"]
    assert bar(50 << 20, 100 << 20, width=4) == "[##--]  50%  50 MB of 100 MB"
    assert bar(0, 0, width=4).startswith("[----]")
    assert bar(1 << 20, 2 << 20, rate=3 << 20).endswith("3 MB/s")


@pytest.mark.parametrize("columns", range(12, 120, 7))
def test_a_bar_fits(columns: int) -> None:
    half = fitting_bar("fetching the model", 200 << 20, 400 << 20, rate=9e6, columns=columns)
    assert len(half) <= max(columns, 16)
    assert "50%" in half


def test_colours_or_none() -> None:
    assert Style(colour=True).dim("x") == "\x1b[2mx\x1b[22m"
    assert PLAIN.red("x") == PLAIN.bold("x") == PLAIN.green("x") == PLAIN.dim("x") == "x"


def test_columns() -> None:
    assert table([("a", "bb"), ("ccc", "d")]) == "a    bb\nccc  d"
    assert table([]) == ""
