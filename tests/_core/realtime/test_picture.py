"""The picture in the documentation is that of the table, and so are the deadlines."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from rejoinder._core.realtime.picture import draw
from rejoinder._core.realtime.replies import TRANSITIONS

PAGE = Path(__file__).parents[3] / "docs"


def test_the_picture_is_up_to_date() -> None:
    told = "run: python -m rejoinder._core.realtime.picture docs/realtime-states.svg"
    assert (PAGE / "realtime-states.svg").read_text("utf-8") == draw(), told
    assert "realtime-states.svg" in (PAGE / "realtime.md").read_text("utf-8")


def test_every_state_and_every_event_is_in_it() -> None:
    texts = " ".join(ET.fromstring(draw()).itertext())
    for state, row in TRANSITIONS.items():
        assert state.name in texts
        for event in row:
            assert event in texts
