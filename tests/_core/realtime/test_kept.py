"""Which of the user's sound is kept for a next connection."""

from __future__ import annotations

from rejoinder._core.realtime.kept import KeptSound

PIECE = "piece"


def kept_sound(longest: float = 30_000) -> KeptSound[str]:
    return KeptSound(longest)


def test_a_second_is_kept_while_the_user_is_silent() -> None:
    kept = kept_sound()
    for _ in range(100):
        kept.add(50, PIECE, wanted=False)
    assert len(kept.entries()) == 20
    assert kept.dropped_ms == 0


def test_loud_sound_is_kept_until_the_service_tells_of_it() -> None:
    kept = kept_sound()
    for loud in [False] * 40 + [True] * 10 + [False] * 40:
        kept.add(50, PIECE, wanted=False, loud=loud)
    assert kept.loud
    assert len(kept.entries()) == 20 + 50  # the second before it, and all since
    kept.committed()
    assert not kept.loud
    assert kept.entries() == []


def test_a_noise_is_forgotten() -> None:
    kept = kept_sound()
    kept.add(50, PIECE, wanted=False, loud=True)
    for _ in range(200):
        kept.add(50, PIECE, wanted=False)
    assert not kept.loud
    assert len(kept.entries()) == 20


def test_a_commit_ends_what_was_kept_before_it() -> None:
    kept = kept_sound()
    kept.add(50, PIECE, wanted=True)
    kept.add_commit("commit")
    kept.add(50, PIECE, wanted=True)
    assert len(kept.entries()) == 3
    kept.committed()
    assert kept.entries() == [PIECE]


def test_what_no_longer_fits_is_counted() -> None:
    kept = kept_sound(100)
    for _ in range(3):
        kept.add(50, PIECE, wanted=True)
    assert kept.dropped_ms == 50


def test_marks_of_one_kind_are_forgotten() -> None:
    kept = kept_sound()
    for mark in ("turn", "commit", "turn"):
        kept.add(50, PIECE, wanted=True)
        kept.add_commit(mark)
    assert kept.forget("turn") == 1
    assert kept.entries() == [PIECE, PIECE, "commit", PIECE]
    kept.committed()
    assert kept.entries() == [PIECE]
