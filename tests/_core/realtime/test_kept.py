"""Which of the user's sound is kept for a next connection."""

from __future__ import annotations

from rejoinder._core.realtime.kept import KeptSound

PIECE = "piece"


def kept_sound(longest: float = 30_000, slow: float = 0) -> KeptSound[str]:
    return KeptSound(longest, slow=slow)


def test_a_second_is_kept_while_the_user_is_silent() -> None:
    kept = kept_sound()
    for _ in range(100):
        kept.add(50, PIECE, wanted=False)
    assert len(kept.entries()) == 20
    assert kept.dropped_ms == 0


def test_of_quiet_only_the_lead_is_kept() -> None:
    kept = kept_sound()
    for _ in range(100):
        kept.add(50, PIECE, wanted=False, loud=False)
    assert len(kept.entries()) == 6
    kept.add(50, PIECE, wanted=False, loud=True)
    for _ in range(10):
        kept.add(50, PIECE, wanted=False, loud=False)
    assert len(kept.entries()) == 6 + 11, "what is loud, the moment before it, and all since"
    for _ in range(20):
        kept.add(50, PIECE, wanted=False, loud=False)
    assert len(kept.entries()) == 6, "the service has not reported it within a second"


def test_sound_that_the_service_may_not_have_heard_is_kept() -> None:
    kept = kept_sound()
    for number in range(1, 301):
        kept.add(50, PIECE, wanted=False, loud=True, unheard_ms=50 * number)
    assert len(kept.entries()) == 300
    kept.add(50, PIECE, wanted=False, loud=True, unheard_ms=50)
    assert len(kept.entries()) == 21


def test_a_turn_is_kept_until_it_has_its_words() -> None:
    kept = kept_sound()
    for number in range(10):
        kept.add(50, f"one {number}", wanted=True, loud=True)
    kept.add(50, "pause", wanted=True, loud=False)
    kept.add(50, "two", wanted=True, loud=True)
    kept.committed("turn")
    assert kept.entries() == ["two"], "it began while the commit was reported"
    assert kept.turns == ["turn"]
    assert kept.sound_of("turn") == [f"one {number}" for number in range(10)] + ["pause"]
    kept.written("turn")
    assert kept.turns == []
    assert kept.sound_of("turn") == []


def test_a_turn_is_pushed_again_in_its_order() -> None:
    kept = kept_sound()
    for number in range(3):
        kept.add(50, f"sound {number}", wanted=True, loud=True)
        kept.add_commit(f"commit {number}")
        kept.committed(f"turn {number}")
    kept.add(50, "sound 3", wanted=True, loud=True)
    kept.recall("turn 2", "commit")
    kept.recall("turn 1", "commit")
    assert kept.turns == ["turn 0"]
    assert kept.entries() == ["sound 1", "commit", "sound 2", "commit", "sound 3"]
    kept.committed("again 1")
    kept.committed("again 2")
    assert kept.entries() == ["sound 3"]


def test_the_oldest_turns_give_way() -> None:
    kept = kept_sound(500)
    for number in range(4):
        for _ in range(4):
            kept.add(50, PIECE, wanted=True, loud=True)
        kept.committed(f"turn {number}")
    assert kept.turns == ["turn 2", "turn 3"]
    for _ in range(3):
        kept.add(50, PIECE, wanted=True, loud=True)
    assert kept.turns == ["turn 3"]
    assert kept.dropped_ms == 0


def test_loud_sound_is_kept_until_a_slow_service_tells_of_it() -> None:
    kept = kept_sound(slow=6000)
    for loud in [False] * 40 + [True] * 10 + [False] * 40:
        kept.add(50, PIECE, wanted=False, loud=loud)
    assert kept.loud
    assert len(kept.entries()) == 6 + 50  # the moment before it, and all since
    kept.committed()
    assert not kept.loud
    assert kept.entries() == []


def test_a_noise_is_forgotten() -> None:
    kept = kept_sound(slow=6000)
    kept.add(50, PIECE, wanted=False, loud=True)
    for _ in range(200):
        kept.add(50, PIECE, wanted=False, loud=False)
    assert not kept.loud
    assert len(kept.entries()) == 6


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
