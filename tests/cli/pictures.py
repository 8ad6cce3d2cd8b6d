"""Pictures of the command line for the documentation, from a real terminal::

PYTHONPATH=tests python tests/cli/pictures.py docs/pictures
"""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

from cli.commands import Terminal
from cli.test_terminal import PROMPT
from rejoinder.cli.loop import LoopThread
from rejoinder.testing.faults import Answer, Call, FaultServer

COLUMNS, ROWS = 84, 27
ANSWER = """\
It is **Tuesday afternoon** in Tokyo. In a program:

```python
done = await run_turn(llm, "What time is it in Tokyo?", tools=[time_in]).collect()
print(done.text)
```
"""


def picture(seen: str, title: str) -> str:
    """What a terminal shows after `seen`, as SVG."""
    screen = pyte.Screen(COLUMNS, ROWS)
    pyte.Stream(screen).feed(seen)
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    last = max(row for row in range(ROWS) if screen.display[row].strip())
    for row in range(last + 1):
        line = Text()
        cells: list[Any] = [screen.buffer[row][column] for column in range(COLUMNS)]
        for style, run in groupby(cells, _style):
            line.append("".join(cell.data for cell in run), style)
        console.print(line, overflow="crop", no_wrap=True)
    svg = console.export_svg(title=title, unique_id="rejoinder")
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # no foreign host


def _style(cell: Any) -> Style:
    def colour(name: str) -> str | None:
        if name == "default":
            return None
        return (
            f"#{name}"
            if len(name) == 6 and name not in ("yellow",)
            else name.replace("bright", "bright_").replace("brown", "yellow")
        )

    return Style(
        color=colour(cell.fg), bgcolor=colour(cell.bg), bold=cell.bold, italic=cell.italics
    )


def main(folder: Path) -> None:
    os.environ["PROMPT_TOOLKIT_NO_CPR"] = "1"
    with tempfile.TemporaryDirectory() as home, LoopThread() as loop:
        os.environ["REJOINDER_HOME"] = home
        server = FaultServer()
        loop.run(server.start())
        server.script(
            Answer(text=(), calls=(Call("time_in", '{"place": "Tokyo"}', "call_1"),)),
            Answer(text=tuple(ANSWER.splitlines(keepends=True))),
        )
        key: dict[str, Any] = {
            "OPENAI_API_KEY": "sk-test",
            "COLORTERM": "",
            "TERM": "xterm-256color",
        }
        with Terminal(
            "chat", "--model", "openai/gpt-4.1", "--base-url", f"{server.url}/v1", **key
        ) as terminal:
            terminal.resize(COLUMNS, ROWS)
            terminal.wait_for(PROMPT)
            terminal.type("What time is it in Tokyo, and how do I ask in a program?\n")
            terminal.wait_for(r"tokens \(")
            terminal.wait_for(PROMPT)
            seen = terminal.seen
        loop.run(server.aclose())
    (folder / "chat.svg").write_text(picture(seen, "rejoinder chat"), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
