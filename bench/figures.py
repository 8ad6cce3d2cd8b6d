"""What benchmarks have in common: their figures as JSON, the tables of docs/benchmarks.md, and charts.

*Rows* are figures by what was measured and by whom: ``{"a chunk, CPU µs": {"bare": 7.1, ...}}``. A
value that is no number is what happened instead, such as ``"for ever"``.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["PAGE", "Rows", "add_json_option", "bars", "page_tables", "write_rows"]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
Rows: TypeAlias = dict[str, dict[str, float | str]]


def add_json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")


def write_rows(path: Path | None, rows: Mapping[str, Mapping[str, Any]], **more: Any) -> None:
    """Write the figures, where a file for them was named."""
    if path is not None:
        text = json.dumps({"rows": rows, **more}, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


# -- the page --------------------------------------------------------------------------------------


def page_tables(text: str) -> dict[str, list[Rows]]:
    """The tables of a page in Markdown, by the heading that they stand under."""
    found: dict[str, list[Rows]] = {}
    heading, columns = "", []
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("|"):
            columns = []
            continue
        first, *cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        if set(line) <= set("|-: "):
            continue
        if not columns:
            columns = cells
            found.setdefault(heading, []).append({})
            continue
        values = {name: _value(cell) for name, cell in zip(columns, cells, strict=True) if cell}
        found[heading][-1][first] = values
    return found


def _value(cell: str) -> float | str:
    """A number, also with a unit behind it; ``1/482`` as 482 times less."""
    match = re.fullmatch(r"(1/)?([\d,]+(?:\.\d+)?)(?: (?:ms|s|µs|MB))?", cell)
    if match is None:
        return cell
    number = float(match[2].replace(",", ""))
    return 1 / number if match[1] else number


# -- charts ----------------------------------------------------------------------------------------

WIDTH, LABEL, BAR, STEP = 760, 250, 380, 20
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.h{font-weight:600}.o{fill:#2a7de1}"
    ".p{fill:#9aa7b4}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.o{fill:#4c9bff}"
    ".p{fill:#5c6975}}"
)


def bars(title: str, rows: Rows, *, ours: str = "rejoinder", logarithmic: bool = False) -> str:
    """Rows as groups of bars, in an SVG that light and dark pages can show.

    Args:
        title: what is drawn, and in which unit.
        rows: a group each; their bars have one scale.
        ours: starts the names whose bars stand out.
        logarithmic: for values of several powers of ten, and the title says so.
    """
    numbers = [v for row in rows.values() for v in row.values() if isinstance(v, int | float)]
    most, least = max(numbers), min(v for v in numbers if v > 0) / 2
    if any(isinstance(v, str) for row in rows.values() for v in row.values()):
        most *= 3  # what never ended shall not look like the longest of those that did
    parts = [f'<text class="h" x="0" y="16">{escape(title)}</text>']
    y = 30
    for label, row in rows.items():
        if len(rows) > 1:
            parts.append(f'<text class="h" x="0" y="{y + 13}">{escape(label)}</text>')
            y += STEP
        for name, value in row.items():
            length = _length(value, least, most, logarithmic=logarithmic)
            kind = "o" if name.startswith(ours) else "p"
            shown = value if isinstance(value, str) else _shown(value)
            parts += [
                f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>',
                f'<rect class="{kind}" x="{LABEL}" y="{y + 2}" width="{length:.0f}" height="14"/>',
                f'<text x="{LABEL + length + 6:.0f}" y="{y + 13}">{escape(shown)}</text>',
            ]
            y += STEP
        y += 8
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img" '
        f'aria-label="{escape(title)}">'
    )
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _length(value: float | str, least: float, most: float, *, logarithmic: bool) -> float:
    if isinstance(value, str):
        return BAR
    share = math.log(value / least) / math.log(most / least) if logarithmic else value / most
    return max(1.0, BAR * share)


def chosen(rows: Rows, names: Sequence[str]) -> Rows:
    """These rows of a table, in this order, as far as it has them."""
    return {name: rows[name] for name in names if name in rows}
