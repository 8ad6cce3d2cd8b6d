"""Which of the user's sound is kept for a next connection."""

from __future__ import annotations

from rejoinder._core.realtime.messages import AppendAudio, CommitAudio
from rejoinder.providers.sessions.sound import KeptSound, is_loud

PIECE = AppendAudio(bytes(1600))


def test_quiet_sound_is_not_loud() -> None:
    assert not is_loud(bytes(1600))
    assert not is_loud(b"")
    assert not is_loud(b"\x40\x00" * 800)
    assert is_loud(b"\x00\x10" * 800)
    assert is_loud(memoryview(b"\x00\xf0" * 800).cast("h"))


def test_a_second_is_kept_while_the_user_is_silent() -> None:
    kept = KeptSound(30_000)
    for _ in range(100):
        kept.add(50, PIECE, wanted=False)
    assert len(kept.commands()) == 20
    assert kept.dropped_ms == 0


def test_loud_sound_is_kept_until_the_service_tells_of_it() -> None:
    kept = KeptSound(30_000)
    for loud in [False] * 40 + [True] * 10 + [False] * 40:
        kept.add(50, PIECE, wanted=False, loud=loud)
    assert kept.loud
    assert len(kept.commands()) == 20 + 50  # the second before it, and all since
    kept.committed()
    assert not kept.loud
    assert kept.commands() == []


def test_a_noise_is_forgotten() -> None:
    kept = KeptSound(30_000)
    kept.add(50, PIECE, wanted=False, loud=True)
    for _ in range(200):
        kept.add(50, PIECE, wanted=False)
    assert not kept.loud
    assert len(kept.commands()) == 20


def test_a_commit_ends_what_was_kept_before_it() -> None:
    kept = KeptSound(30_000)
    kept.add(50, PIECE, wanted=True)
    kept.add_commit(CommitAudio("commit_1"))
    kept.add(50, PIECE, wanted=True)
    assert len(kept.commands()) == 3
    kept.committed()
    assert kept.commands() == [PIECE]


def test_what_no_longer_fits_is_counted() -> None:
    kept = KeptSound(100)
    for _ in range(3):
        kept.add(50, PIECE, wanted=True)
    assert kept.dropped_ms == 50
