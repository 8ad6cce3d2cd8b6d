"""Replies drawn as Markdown: what a terminal shows, however the text is cut and the window is sized."""

from __future__ import annotations

import io
import os
from itertools import pairwise

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rejoinder.cli.markdown import MarkdownReply, find_markdown

REPLY = """\
# Answer

Some **bold** text that is long enough to be wrapped by a narrow window, and `code`.

- one
- two

```python
def f(x):

    return x
```

The end."""


class Shown(MarkdownReply):
    """On an emulated terminal."""

    def __init__(self, columns: int = 60, rows: int = 24) -> None:
        self.screen = pyte.Screen(columns, rows)
        self.size = (columns, rows)
        self.out = io.StringIO()
        feed = pyte.Stream(self.screen)
        self.out.write = lambda text: feed.feed(text.replace("\n", "\r\n")) or len(text)  # type: ignore[method-assign]
        super().__init__(
            self.out, lambda width: Console(file=self.out, force_terminal=True, width=width)
        )

    def _now(self) -> tuple[int, int]:
        return self.size

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).strip()


def drawn(pieces: list[str], columns: int = 60) -> str:
    shown = Shown(columns)
    for piece in pieces:
        shown.write(piece)
    shown.end()
    return shown.text


def test_what_is_shown() -> None:
    text = drawn([REPLY])
    assert "**" not in text
    assert "```" not in text
    assert "Answer" in text
    assert " • one\n • two" in text
    assert "def f(x):" in text
    assert text.endswith("The end.")


@given(st.lists(st.integers(0, len(REPLY)), max_size=12), st.sampled_from([20, 34, 60, 80]))
def test_the_cuts_make_no_difference(cuts: list[int], columns: int) -> None:
    places = [0, *sorted(cuts), len(REPLY)]
    pieces = [REPLY[a:b] for a, b in pairwise(places)]
    assert drawn(pieces, columns) == drawn([REPLY], columns)


def test_words_are_shown_as_they_come() -> None:
    shown = Shown()
    shown.write("Hello **wor")
    assert shown.text == "Hello **wor"
    shown.write("ld**")
    shown.end()
    assert shown.text == "Hello world"


def test_a_window_that_was_resized_keeps_what_it_shows() -> None:
    shown = Shown()
    shown.write("Before\n\nHello **wor")
    shown.size = (40, 24)
    shown.write("ld**\n\nAnd **on**")
    shown.end()
    assert shown.text == "Before\n\nHello **world**\n\nAnd on"


def test_a_block_that_has_scrolled_off_stays() -> None:
    shown = Shown(rows=5)
    shown.write("Above\n\n" + "".join(f"- **{n}**\n" for n in range(10)))
    shown.end()
    assert shown.text == "\n".join(f"- **{n}**" for n in range(6, 10))
    shown.write("x **y**")
    shown.end()
    assert shown.text.endswith("x y")


def test_only_where_a_terminal_can() -> None:
    assert find_markdown(io.StringIO(), colour=False) is None
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        reply = find_markdown(stream, colour=True)
        assert reply is not None
        reply.write("a **b**")
        reply.end()
    os.close(reader)


def test_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rich.console", None)
    assert find_markdown(io.StringIO(), colour=True) is None
