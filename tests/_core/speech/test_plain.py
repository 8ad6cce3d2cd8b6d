"""What of Markdown is spoken, for every cut of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.speech.plain import Plain, Run

MARKS = "*_~`[]()\\<>&#+-|!\n \t.:;/x1^"
MARKDOWN = st.text(st.sampled_from(MARKS), max_size=60) | st.lists(
    st.sampled_from(
        [
            "word ",
            "**bold** ",
            "`code` ",
            "\n- item",
            "\n\n```py\nx = 1\n```\n",
            "[label](http://a.b/c) ",
            "![picture](p.png)",
            "\n| a | b |\n|---|---|\n| 1 | 2 |\n",
            "\n## Head\n",
            "&amp;",
            "<br>",
            "<https://a.b>",
            "\n> quote",
            "\n---\n",
            "[^1]",
            "snake_case",
            "\\*",
            "~~~\nz",
            "- [ ] todo",
        ]
    ),
    max_size=12,
).map("".join)


def spoken(text: str, *cuts: int, code: str = "") -> str:
    plain = Plain(code)
    runs: list[Run] = []
    start = 0
    for cut in (*cuts, len(text)):
        runs += plain.feed(text[start:cut])
        start = cut
    runs += plain.feed("", final=True)
    assert sum(source for _, source in runs) == len(text)
    return "".join(run for run, _ in runs)


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("**Bold** and *thin* and ~~gone~~.", "Bold and thin and gone."),
        ("__Bold__ and _thin_ and **_both_**", "Bold and thin and both"),
        ("snake_case_name stays", "snake_case_name stays"),
        ("2 * 3 = 6, 2*3 too, ~5", "2 * 3 = 6, 2*3 too, ~5"),
        ("# Title\nText", " Title\nText"),
        ("#tag stays", "#tag stays"),
        ("- one\n* two\n+ three", "one\ntwo\nthree"),
        ("- [x] done\n- [ ] open", "done\nopen"),
        ("- 5 degrees", "5 degrees"),
        ("-5 degrees", "-5 degrees"),
        ("> quoted\n> > twice", " quoted\n  twice"),
        ("a\n---\nb", "a\n\nb"),
        ("a\n***\nb", "a\n\nb"),
        ("see [the page](https://a.b/c_d) now", "see the page now"),
        ("see [**the** page](https://a.b) now", "see the page now"),
        ("![a cat](cat.png) sits", "a cat sits"),
        ("Really![no link]", "Really![no link]"),
        ("noted[^1]. And [1].", "noted. And [1]."),
        ("array[0] = x", "array[0] = x"),
        ("run `a*b*c` now", "run a*b*c now"),
        ("run ``a`b`` now", "run a`b now"),
        ("a ` alone", "a  alone"),
        ("x\n```python\nprint('*')\n```\ny", "x\n\ny"),
        ("x\n~~~\n```\n~~~\ny", "x\n\ny"),
        ("x\n```\nnever closed", "x\n"),
        ("| a | **b** |\n|:--|--:|\n| 1 | 2 |\nend", "a, b\n\n1, 2\nend"),
        ("a | b", "a | b"),
        ("Tom &amp; Jerry &lt;3 AT&T &x", "Tom & Jerry <3 AT&T &x"),
        ("H<sub>2</sub>O<br/>x < y, a <b and c", "H2Ox < y, a <b and c"),
        ("at <https://a.b/c>!", "at https://a.b/c!"),
        (r"\*not\* C:\dir", r"*not* C:\dir"),
        ("Well!", "Well!"),
    ],
)
def test_marks_go_and_words_stay(markdown: str, expected: str) -> None:
    assert spoken(markdown) == expected
    assert spoken(markdown, *range(len(markdown))) == expected


def test_a_block_of_code_is_announced_where_that_is_asked_for() -> None:
    assert spoken("x\n```\ny\n```\nz", code="Here is code.") == "x\nHere is code.\nz"


@given(MARKDOWN, st.lists(st.integers(0, 80), max_size=12))
def test_the_same_for_every_cut(text: str, cuts: list[int]) -> None:
    assert spoken(text, *sorted(min(cut, len(text)) for cut in cuts)) == spoken(text)


@pytest.mark.parametrize("opening", ["[", "`", "<a ", "| ", "&", "![x](", "```", "---", "**"])
def test_no_mark_waits_for_ever(opening: str) -> None:
    plain = Plain()
    plain.feed(opening)
    said = sum(source for _ in range(30) for _, source in plain.feed(" " * 50 + "a" * 50))
    assert said > 500 or opening == "```"
