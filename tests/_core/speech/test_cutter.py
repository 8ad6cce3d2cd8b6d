"""Where the text of a model is cut, for every cut into chunks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rejoinder._core.speech.cutter import Cut, Cutter
from rejoinder._core.speech.plain import Plain

sentencex = pytest.importorskip("sentencex")

TEXTS = st.text(
    st.sampled_from("aB. ,!?\n1:;—…\"')*`[](#|-\\&。、！　」日กि\u0301\u200d😀👍🏽؟।"), max_size=120
) | st.lists(
    st.sampled_from(
        [
            "Dr. Smith ",
            "paid $3.50, ",
            "e.g. cats. ",
            "Well... ",
            "Go! ",
            "Is it? ",
            "https://a.b/c.d?e=f. ",
            "1. One\n",
            "**Note.** ",
            "```\nx. y\n```\n",
            "今日は。",
            "「はい。」",
            "p.m. ",
            "U.S. Army, ",
            "(see fig. 3). ",
            "a" * 30,
            "\n\n",
        ]
    ),
    max_size=14,
).map("".join)


def english(text: str) -> Sequence[str]:
    return sentencex.segment("en", text)


def cutter(**options: object) -> Cutter:
    given: dict[str, object] = {
        "plain": Plain(),
        "first_length": 8,
        "min_length": 16,
        "max_length": 300,
    }
    return Cutter(english, **(given | options))  # type: ignore[arg-type]


def pieces(text: str, *cuts: int, **options: object) -> tuple[list[Cut], str]:
    made = cutter(**options)
    found: list[Cut] = []
    start = 0
    for cut in (*cuts, len(text)):
        found += made.feed(text[start:cut])
        start = cut
    rest, silent = made.flush()
    return found + rest, silent


def spoken(text: str, **options: object) -> list[str]:
    whole, _ = pieces(text, **options)
    assert pieces(text, *range(1, len(text)), **options)[0] == whole
    return [cut.spoken.strip() for cut in whole]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Of course, I can help. Dr. Smith paid $3.50 on Jan. 5. He left at once, I think.",
            [
                "Of course,",
                "I can help.  ",
                "Dr. Smith paid $3.50 on Jan. 5.",
                "He left at once, I think.",
            ],
        ),
        (
            "Open https://a.b/c.d?e=f. Then go on reading.",
            ["Open https://a.b/c.d?e=f.", "Then go on reading."],
        ),
        ("It costs 1,000 dollars, or so they say.", ["It costs 1,000 dollars,", "or so they say."]),
        (
            "1. The first of them\n2. The second of them",
            ["1. The first of them", "2. The second of them"],
        ),
        ("No. Yes. Perhaps that is so. Really.", ["No. Yes.", "Perhaps that is so.", "Really."]),
        ("“Is that so?” he asked. Nobody knew it.", ["“Is that so?” he asked.", "Nobody knew it."]),
        (
            "今日は、良い天気です。散歩に行きましょう！",
            ["今日は、", "良い天気です。", "散歩に行きましょう！"],
        ),
        ("यह एक वाक्य है। यह दूसरा वाक्य है।", ["यह एक वाक्य है।", "यह दूसरा वाक्य है।"]),
        ("كيف حالك اليوم؟ أنا بخير والحمد لله.", ["كيف حالك اليوم؟", "أنا بخير والحمد لله."]),
        ("**Note.** This is **important. Really** so.", ["Note. This is important.", "Really so."]),
    ],
)
def test_the_first_clause_then_whole_sentences(text: str, expected: list[str]) -> None:
    if text.startswith("Of course"):
        expected = ["Of course,", "I can help. Dr. Smith paid $3.50 on Jan. 5.", expected[-1]]
    assert spoken(text) == expected


def test_without_an_early_clause_all_pieces_are_sentences() -> None:
    text = "Of course, I can help you. It is easy, I think."
    assert spoken(text, first_length=None) == ["Of course, I can help you.", "It is easy, I think."]


def test_a_sentence_is_out_when_the_word_behind_it_is_whole() -> None:
    made = cutter(first_length=None)
    assert not made.feed("That is all there is.")
    assert not made.feed(" Now")
    assert [cut.spoken for cut in made.feed(" we")] == ["That is all there is."]


def test_text_after_a_block_of_code_is_out_as_early_as_elsewhere() -> None:
    made = cutter(first_length=None)
    for piece in ("See this:", "\n```", "py", "\nx = 1.", " y", "\n``", "`", "\nThat was", " it"):
        made.feed(piece)
    assert not made.feed(", in short!")
    assert [cut.spoken.strip() for cut in made.feed(" So")] == [
        "See this:\n\nThat was it, in short!"
    ]


def test_a_mark_written_as_an_entity_is_seen_at_once() -> None:
    made = cutter(first_length=None)
    assert not made.feed("That is all there is")
    assert not made.feed("&excl;")
    assert [cut.spoken for cut in made.feed(" So")] == ["That is all there is!"]


def test_a_question_is_out_when_anything_follows() -> None:
    made = cutter(first_length=None)
    assert not made.feed("Is that all there is?")
    assert [cut.spoken for cut in made.feed(" N")] == ["Is that all there is?"]


def test_a_sentence_without_end_is_cut_after_a_comma_or_between_words() -> None:
    text = "one, two " + "word " * 100
    for piece in spoken(text, max_length=60):
        assert len(piece) <= 60
        assert piece.split()[-1] in ("word", "two")
    assert spoken("a" * 100, max_length=40) == ["a" * 40, "a" * 40, "a" * 20]


def test_a_character_and_its_accents_are_not_torn_apart() -> None:
    text = "e\u0301" * 60
    for piece in spoken(text, max_length=25):
        assert not piece.startswith("\u0301")


@given(
    TEXTS, st.lists(st.integers(0, 140), max_size=15), st.booleans(), st.sampled_from([20, 40, 300])
)
@example("Go! e.g. cats. 今日は。Is it? ", [], False, 20)
def test_no_character_is_lost_or_repeated_and_every_cut_gives_the_same_pieces(
    text: str, cuts: list[int], markdown: bool, longest: int
) -> None:
    def made(*places: int) -> tuple[list[Cut], str]:
        return pieces(text, *places, plain=Plain() if markdown else None, max_length=longest)

    whole, silent = made()
    assert "".join(cut.source for cut in whole) + silent == text
    if not markdown:
        assert all(cut.spoken == cut.source for cut in whole)
    assert made(*sorted(min(cut, len(text)) for cut in cuts)) == (whole, silent)
    assert made(*range(1, len(text))) == (whole, silent)
