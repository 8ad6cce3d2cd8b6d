"""Which text was heard, by how much of its sound was played."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.speech.playback import SoundMap


def sounds(*pieces: tuple[str, str, float]) -> SoundMap:
    made = SoundMap()
    for number, (spoken, source, ms) in enumerate(pieces):
        made.add_piece(spoken, source)
        if ms:
            made.add_sound(number, ms)
    return made


def test_whole_pieces_and_words_of_the_one_that_was_cut() -> None:
    made = sounds(("One two.", "One two.", 800), ("Three four five.", " Three four five.", 1600))
    made.end(1)
    assert made.heard(0) == ""
    assert made.heard(800) == "One two."
    assert made.heard(1500) == "One two. Three"
    assert made.heard(99999) == "One two. Three four five."


def test_a_piece_without_sound_was_not_heard() -> None:
    made = sounds(("One.", "One.", 500), ("Two.", " Two.", 0))
    assert made.heard(99999) == "One."


def test_a_piece_whose_sound_still_comes_is_longer_than_what_came() -> None:
    made = sounds(
        ("One two three.", "One two three.", 1400), ("Four five six.", " Four five six.", 200)
    )
    assert made.heard(1700) == "One two three. Four"
    assert made.heard(99999) == "One two three. Four five six."


def test_times_of_words_count_where_there_are_some() -> None:
    made = sounds(("Wait. And go.", "Wait. **And** go.", 3000))
    made.add_words(0, [("Wait", 0), ("And", 2500), ("go", 2800)])
    made.end(0)
    assert made.heard(1300) == "Wait."
    assert made.heard(2700) == "Wait. **And**"


def test_text_that_is_not_spoken_counts_with_the_words_behind_it() -> None:
    made = sounds(("Look. Done.", "Look.\n```\nx = 1\n```\nDone.", 2000))
    made.end(0)
    assert made.heard(900) == "Look."
    assert made.heard(2000) == "Look.\n```\nx = 1\n```\nDone."


def test_numbers_that_were_spelled_out_are_heard_with_the_word_behind_them() -> None:
    made = sounds(("It costs twenty-one coins today.", "It costs 21 coins today.", 3200))
    made.end(0)
    assert made.heard(2700) == "It costs 21 coins"


@given(
    st.lists(st.tuples(st.text("ab 日。*\n", max_size=20), st.integers(0, 900)), max_size=6),
    st.integers(-10, 5000),
    st.integers(0, 500),
)
def test_what_was_heard_is_a_beginning_and_only_grows(
    pieces: list[tuple[str, int]], ms: int, more: int
) -> None:
    made = sounds(*((text, text, ms) for text, ms in pieces))
    first, then = made.heard(ms), made.heard(ms + more)
    whole = "".join(text for text, _ in pieces)
    assert whole.startswith(then)
    assert then.startswith(first)
