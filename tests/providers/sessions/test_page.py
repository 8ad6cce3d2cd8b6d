"""``docs/realtime.md`` lists every deadline with the value in the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from rejoinder._core.realtime import replies
from rejoinder.providers.openai import realtime
from rejoinder.providers.sessions import connections, link, uplink
from rejoinder.providers.sessions.options import SessionOptions
from rejoinder.transport import _aiohttp_ws

PAGE = (Path(__file__).parents[3] / "docs" / "realtime.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ")]
OPTIONS = SessionOptions()

DEADLINES = {
    "opening a connection": OPTIONS.conn_options.connect_timeout,
    "the service confirming the history": connections._FURNISH_TIMEOUT,
    "from sending a request": OPTIONS.reply_timeout,
    "silence of a reply or of the service": OPTIONS.silence,
    "a sign of life": connections._DOUBT,
    "the confirmation of a change": OPTIONS.update_timeout,
    "the end of a reply that was cancelled": replies._STOP_TIMEOUT,
    "the age at which": realtime._MAX_DURATION,
    "how long the replacement waits": connections._FORCE_AFTER,
    "speech whose sound has stopped": uplink._UNREPORTED_TIMEOUT,
    "retrying a replacement": connections._RETRY_SWAP,
    "time before an announced end of a connection": connections._MARGIN,
    "the end of the old connection": connections._HANG_UP,
    "sound kept for the next connection: turns": OPTIONS.kept_sound,
    "`aclose()`": link._FAREWELL_TIMEOUT,
}


@pytest.mark.parametrize("what", DEADLINES)
def test_a_deadline_is_told_as_it_is(what: str) -> None:
    [row] = [row for row in ROWS if row.startswith(f"| {what}")]
    assert f"{DEADLINES[what]:g} s" in row


def test_the_other_figures() -> None:
    assert f"fails or ends within {connections._GOOD_LIFE:g} s" in PAGE
    assert f"| {OPTIONS.conn_options.max_retry} | `conn_options.max_retry` |" in PAGE
    assert f"{_aiohttp_ws._CLOSE_TIMEOUT:g} s |" in PAGE
