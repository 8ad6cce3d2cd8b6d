"""How far something has come, on a terminal and elsewhere."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from rejoinder.cli import screen as screens
from rejoinder.cli.screen import Screen

MB = 1 << 20


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    now = 100.0
    monkeypatch.setattr(screens, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    screen = Screen()
    screen.progress("fetching", 50 * MB, 400 * MB)
    assert "50 MB of 400 MB" in terminal.getvalue()
    assert "/s" not in terminal.getvalue()
    now += 10
    screen.progress("fetching", 100 * MB, 400 * MB)
    assert " 25%  100 MB of 400 MB  5 MB/s" in terminal.getvalue()
    # What had come was wrong, and it starts again.
    now += 10
    screen.progress("fetching", 0, 400 * MB)
    now += 10
    screen.progress("fetching", 400 * MB, 400 * MB)
    assert "100%  400 MB of 400 MB  40 MB/s" in terminal.getvalue()
    assert "-" not in terminal.getvalue().rpartition("\r")[2]


def test_a_line_now_and_then_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", written := io.StringIO())
    screen = Screen()
    for done in range(101):
        screen.progress("fetching", done * MB, 100 * MB)
    assert written.getvalue().splitlines() == [
        f"fetching: {share} % of 100 MB" for share in (0, 25, 50, 75, 100)
    ]
