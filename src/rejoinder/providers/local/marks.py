"""Disarms the marks of a chat template in texts of users and tools.

The engine treats marks in the rendered prompt as structure, wherever they come from. So a user who
writes ``<|im_end|>``, or a web page that a tool returns, could end its own turn and begin a system
message. Marks are the control tokens of the vocabulary, and the texts that the template itself writes.
A space after the first character turns a mark into text. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from rejoinder._core import jsontext

__all__ = ["Marks"]

_SHORTEST: Final = 3
_IN_TEMPLATES: Final = re.compile(r"<[^<>\s{}'\"]{1,60}>|<<[^<>\s]{1,60}>>|\[/?[A-Z_]{2,30}\]")
"""A pattern for marks in the texts of a template."""


class Marks:
    """The marks of a model.

    Args:
        tokens: texts of the control tokens of its vocabulary.
        template: its chat template, in Jinja.
    """

    def __init__(self, tokens: Iterable[str] = (), template: str = "") -> None:
        found = {*tokens, *_IN_TEMPLATES.findall(template)}
        self._marks = frozenset(
            mark for mark in found if len(mark) >= _SHORTEST and not mark.isalnum()
        )
        self._lengths: dict[str, list[int]] = {}
        for first, length in sorted({(mark[0], len(mark)) for mark in self._marks}):
            self._lengths.setdefault(first, []).append(length)
        firsts = "".join(map(re.escape, self._lengths))
        self._begin = re.compile(f"[{firsts}]") if firsts else None

    def __contains__(self, text: object) -> bool:
        return text in self._marks

    def in_text(self, text: str) -> str:
        """`text` without marks."""
        if self._begin is None:
            return text
        parts: list[str] = []
        done = 0
        for match in self._begin.finditer(text):
            start = match.start()
            lengths = self._lengths[match[0]]
            if any(text[start : start + length] in self._marks for length in lengths):
                parts.append(text[done : start + 1])
                done = start + 1
        if not parts:
            return text
        parts.append(text[done:])
        return " ".join(parts)

    def in_arguments(self, text: str) -> str:
        """`text`, the JSON of a call's arguments, without marks, even escaped ones: templates, and
        descriptions of calls in words, contain the unescaped values."""
        if "\\" in text:
            try:
                value = jsontext.decode(text)
            except (ValueError, RecursionError):
                return self.in_text(text)  # not JSON, so it is shown unchanged
            text = jsontext.encode(self.in_value(value)).decode()
        return self.in_text(text)

    def in_messages(self, messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """`messages` of chat completions, without marks."""
        out: list[dict[str, Any]] = []
        for message in messages:
            made = self.in_value(message)
            for call, given in zip(
                made.get("tool_calls") or (), message.get("tool_calls") or (), strict=True
            ):
                call["function"]["arguments"] = self.in_arguments(given["function"]["arguments"])
            out.append(made)
        return out

    def in_value(self, value: Any) -> Any:
        """The JSON value `value`, without marks in its strings and names."""
        if isinstance(value, str):
            return self.in_text(value)
        if isinstance(value, Mapping):
            members = cast("Mapping[str, Any]", value)
            return {self.in_text(name): self.in_value(entry) for name, entry in members.items()}
        if isinstance(value, list):
            return [self.in_value(entry) for entry in cast("list[Any]", value)]
        return value
