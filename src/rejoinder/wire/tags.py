"""Marked passages in streamed text: ``<think>`` ... ``</think>``, and texts that end a reply.

Text in, text out, the same for every cut of the same text. Text that may begin a mark is held back: at
most the length of the mark minus one. Raises nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, cast

from rejoinder._options import checked

__all__ = [
    "THINK_TAG_END",
    "THINK_TAG_START",
    "StopFilter",
    "TagSplitter",
    "ThinkingTokenFilter",
    "strip_thinking_tokens",
]

THINK_TAG_START: Final = "<think>"
THINK_TAG_END: Final = "</think>"


def held_back(text: str, mark: str) -> int:
    """The number of characters at the end of `text` that may be the beginning of `mark`."""
    for size in range(min(len(text), len(mark) - 1), 0, -1):
        if mark.startswith(text[-size:]):
            return size
    return 0


class TagSplitter:
    """Splits a stream of text at two tags, into the text outside and inside.

    Args:
        start_tag: opens the inside.
        end_tag: closes it.
        inside: begin inside, for models whose prompt ends with the opening tag.

    Raises:
        ValueError: a tag is empty.
    """

    __slots__ = ("_end", "_inside", "_pending", "_start")

    @checked()
    def __init__(
        self,
        start_tag: str = THINK_TAG_START,
        end_tag: str = THINK_TAG_END,
        *,
        inside: bool = False,
    ) -> None:
        if not start_tag or not end_tag:
            raise ValueError(
                f"expected two tags that are not empty, got {start_tag!r} and {end_tag!r}"
            )
        self._start: str = start_tag
        self._end: str = end_tag
        self._inside: bool = inside
        self._pending: str = ""

    @property
    def inside(self) -> bool:
        """Whether the stream is between the tags now."""
        return self._inside

    @property
    def pending(self) -> str:
        """The text that is held back because it may be the beginning of a tag."""
        return self._pending

    def feed(self, text: str) -> tuple[str, str]:
        """The parts of the text so far that are certain: (outside, inside)."""
        if not self._pending and (self._end if self._inside else self._start)[0] not in text:
            return ("", text) if self._inside else (text, "")
        text = self._pending + text
        outside: list[str] = []
        inside: list[str] = []
        while True:
            mark = self._end if self._inside else self._start
            into = inside if self._inside else outside
            at = text.find(mark)
            if at < 0:
                keep = held_back(text, mark)
                into.append(text[: len(text) - keep])
                self._pending = text[len(text) - keep :]
                return "".join(outside), "".join(inside)
            into.append(text[:at])
            text = text[at + len(mark) :]
            self._inside = not self._inside

    def close(self) -> tuple[str, str]:
        """No more text follows. Returns what was held back: (outside, inside)."""
        rest, self._pending = self._pending, ""
        return ("", rest) if self._inside else (rest, "")


class StopFilter:
    """Ends a stream of text before the first of several stop texts.

    Args:
        stops: the texts; empty ones are ignored.
    """

    __slots__ = ("_pending", "_stops", "stopped")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._pending = ""
        self.stopped: str | None = None
        """The stop text that was found."""

    def feed(self, text: str) -> str:
        """The part of the text so far that certainly precedes every stop text."""
        if self.stopped is not None:
            return ""
        text = self._pending + text
        found = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            # If two begin at the same place, the longer one counts; which one came does not matter.
            at, self.stopped = min(found, key=lambda hit: (hit[0], -len(hit[1])))
            self._pending = ""
            return text[:at]
        keep = max((held_back(text, stop) for stop in self._stops), default=0)
        self._pending = text[len(text) - keep :]
        return text[: len(text) - keep]

    def close(self) -> str:
        """No more text follows. Returns what was held back."""
        rest, self._pending = self._pending, ""
        return rest


class ThinkingTokenFilter(TagSplitter):
    """The state of `strip_thinking_tokens` for one stream."""

    __slots__ = ()


class _Flag(Protocol):
    def is_set(self) -> bool: ...
    def set(self) -> None: ...
    def clear(self) -> None: ...


def strip_thinking_tokens(
    content: str | Sequence[Any] | None,
    thinking: ThinkingTokenFilter | _Flag,
    *,
    final: bool = False,
) -> str | None:
    """`content` without the text between the thinking tags.

    Args:
        content: the next piece of a stream; a list of parts counts as the texts in it.
        thinking: the state of the stream: a `ThinkingTokenFilter`, or an `asyncio.Event` that is
            set between the tags.
        final: no more pieces follow; return what was held back, too.

    Returns:
        The visible text; ``None`` if a non-empty piece has none.
    """
    text = _text_of(content)
    if isinstance(thinking, ThinkingTokenFilter):
        state = thinking
    else:
        state = _filter_of(thinking)
    if text is None:
        visible = None
    elif text == "":
        visible = None if state.inside else ""
    else:
        visible = state.feed(text)[0] or None
    if final:
        visible = ((visible or "") + state.close()[0]) or None
    if state is not thinking:
        event = cast("_Flag", thinking)
        (event.set if state.inside else event.clear)()
    return visible


def _filter_of(event: _Flag) -> ThinkingTokenFilter:
    # The event itself carries the filter, so that a tag cut in two is seen here too.
    state: ThinkingTokenFilter | None = getattr(event, "_rejoinder_filter", None)
    if state is None or state.inside != event.is_set():
        state = ThinkingTokenFilter(inside=event.is_set())
        try:
            event._rejoinder_filter = state  # type: ignore[attr-defined]  # see above
        except AttributeError:
            pass
    return state


def _text_of(content: object) -> str | None:
    if content is None or isinstance(content, str):
        return content
    texts: list[str] = []
    for part in cast("Sequence[Any]", content):
        text = part if isinstance(part, str) else None
        if isinstance(part, dict):
            text = cast("dict[str, Any]", part).get("text")
        if isinstance(text, str):
            texts.append(text)
    return "".join(texts)
