"""The checker of realtime events finds what the service would refuse."""

from __future__ import annotations

from typing import Any

import pytest

from published import client_faults, server_faults

UPDATE: dict[str, Any] = {"type": "session.update", "session": {"type": "realtime"}}


def test_what_is_right_has_no_fault() -> None:
    assert client_faults(UPDATE) == []
    assert client_faults({"type": "response.create", "response": {"metadata": {"a": "b"}}}) == []
    assert server_faults({"type": "input_audio_buffer.cleared", "event_id": "e"}) == []


@pytest.mark.parametrize(
    ("event", "fault"),
    [
        ({"type": "response.creat"}, "no event 'response.creat'"),
        ({}, "no event None"),
        (
            {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0},
            "audio_end_ms: Field required",
        ),
        ({**UPDATE, "session": {"type": "realtime", "voice": "marin"}}, "voice: no such field"),
        (
            {**UPDATE, "session": {"type": "realtime", "audio": {"output": {"speeed": 1.0}}}},
            "session.audio.output.speeed: no such field",
        ),
        ({"type": "input_audio_buffer.append", "audio": 7}, "audio"),
    ],
)
def test_what_is_wrong_is_named(event: dict[str, Any], fault: str) -> None:
    assert fault in " ".join(client_faults(event))
