"""Draws the states of a reply request from the transition table.

python -m rejoinder._core.realtime.picture docs/realtime-states.svg
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rejoinder._core.realtime.replies import TRANSITIONS, RequestState

__all__ = ["draw"]

_WIDTH: Final = 860
_HEIGHT: Final = 340
_BOX: Final = (176, 44)
_PLACES: Final = {
    RequestState.WAITING: (100, 100),
    RequestState.ASKED: (420, 100),
    RequestState.STARTED: (760, 100),
    RequestState.OWED: (420, 290),
    RequestState.FAILED: (760, 290),
}
_NOTES: Final = {
    RequestState.WAITING: "for its turn",
    RequestState.ASKED: "sent",
    RequestState.STARTED: "its reply runs",
    RequestState.OWED: "reported as failed; may still begin",
    RequestState.FAILED: "reported as failed",
}
_APART: Final = 9.0
"""Distance between the two arrows that connect the same states."""


def draw() -> str:
    """The picture, as SVG."""
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
            'font-family="sans-serif" font-size="12" role="img" '
            'aria-label="The states of a request for a reply">'
        ),
        (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
            'markerHeight="8" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#456"/></marker></defs>'
        ),
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
    ]
    for start, end, events in _arrows():
        lines += _loop(start, events) if start is end else _arrow(start, end, events)
    for state, (x, y) in _PLACES.items():
        width, height = _BOX
        over = not TRANSITIONS[state]
        lines.append(
            f'<rect x="{x - width // 2}" y="{y - height // 2}" width="{width}" height="{height}" '
            f'rx="8" fill="{"#e8eef4" if over else "#d5ecd9"}" stroke="#456"/>'
        )
        lines.append(_text(x, y - 3, state.name, bold=True))
        lines.append(_text(x, y + 13, _NOTES[state], small=True))
    return "\n".join([*lines, "</svg>", ""])


def _arrows() -> Iterator[tuple[RequestState, RequestState, list[str]]]:
    """The transitions between states, with the events that cause them."""
    for start, row in TRANSITIONS.items():
        ends: dict[RequestState, list[str]] = {}
        for event, end in row.items():
            ends.setdefault(end, []).append(event)
        for end, events in ends.items():
            yield start, end, events


def _arrow(start: RequestState, end: RequestState, events: list[str]) -> list[str]:
    (x1, y1), (x2, y2) = _PLACES[start], _PLACES[end]
    if y1 == y2 and any(y == y1 and x1 < x < x2 for x, y in _PLACES.values()):
        return _over(x1, x2, y1 - _BOX[1] // 2, ", ".join(events))
    length = math.hypot(x2 - x1, y2 - y1)
    dx, dy = (x2 - x1) / length, (y2 - y1) / length
    aside = _APART if start in TRANSITIONS[end].values() else 0.0
    x1, y1, x2, y2 = (x1 - dy * aside, y1 + dx * aside, x2 - dy * aside, y2 + dx * aside)
    cut = _to_edge(dx, dy)
    x1, y1, x2, y2 = (x1 + dx * cut, y1 + dy * cut, x2 - dx * cut, y2 - dy * cut)
    label = ", ".join(events)
    below = bool(aside) and dx > 0  # the two directions keep their labels outside
    part = 0.5 if abs(dx) < 0.1 or abs(dy) < 0.1 else 0.28  # off the middle, where lines cross
    x, y = x1 + (x2 - x1) * part, y1 + (y2 - y1) * part + (16 if below else -6)
    shift = 0.0 if abs(dx) > 0.1 else 3.3 * len(label) + 8
    return [
        (
            f'<line x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}" stroke="#456" '
            'marker-end="url(#tip)"/>'
        ),
        _text(x + shift, y, label),
    ]


def _over(x1: int, x2: int, top: int, label: str) -> list[str]:
    """An arrow over the box between two others."""
    return [
        (
            f'<path d="M{x1 + 60} {top} C{x1 + 160} {top - 62} {x2 - 160} {top - 62} {x2 - 30} {top}" '
            'fill="none" stroke="#456" marker-end="url(#tip)"/>'
        ),
        _text((x1 + x2) / 2, top - 40, label),
    ]


def _loop(state: RequestState, events: list[str]) -> list[str]:
    x, y = _PLACES[state]
    top = y - _BOX[1] // 2
    return [
        (
            f'<path d="M{x - 18} {top} C{x - 30} {top - 34} {x + 30} {top - 34} {x + 18} {top}" '
            'fill="none" stroke="#456" marker-end="url(#tip)"/>'
        ),
        _text(x, top - 30, ", ".join(events)),
    ]


def _to_edge(dx: float, dy: float) -> float:
    """From the middle of a box to its edge, in this direction."""
    width, height = _BOX
    across = width / 2 / abs(dx) if dx else math.inf
    down = height / 2 / abs(dy) if dy else math.inf
    return min(across, down)


def _text(x: float, y: float, text: str, *, bold: bool = False, small: bool = False) -> str:
    style = ' font-weight="bold"' if bold else ' font-size="10" fill="#345"' if small else ""
    halo = "" if bold or small else ' stroke="#fff" stroke-width="4" paint-order="stroke"'
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle"{style}{halo}>{text}</text>'


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(), encoding="utf-8")
