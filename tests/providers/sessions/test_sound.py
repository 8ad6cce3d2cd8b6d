"""The user's sound before it is sent."""

from __future__ import annotations

from rejoinder.providers.sessions.sound import is_loud


def test_quiet_sound_is_not_loud() -> None:
    assert not is_loud(bytes(1600))
    assert not is_loud(b"")
    assert not is_loud(b"\x40\x00" * 800)
    assert not is_loud(b"\x00\xff" * 800)
    assert is_loud(b"\x00\x10" * 800)
    assert is_loud(memoryview(b"\x00\xf0" * 800).cast("h"))
