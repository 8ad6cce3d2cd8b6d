"""Runs the program of one framework from docs/integrations.md, with its providers played here."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from rejoinder.testing import Answer, FaultServer, RealtimeServer

PAGE = Path(__file__).resolve().parents[3] / "docs" / "integrations.md"


async def run_program(heading: str, folder: Path, *, number: int = 0) -> str:
    """What a program below `heading` prints. The models answer "Hello from here."."""
    section = PAGE.read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    programs = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    script = folder / "program.py"
    script.write_text(programs[number], "utf-8")
    async with FaultServer() as server, RealtimeServer() as speaking:
        server.always(Answer(text=("Hello ", "from ", "here.")))
        speaking.say("Hello from here.")
        live = "realtime" in programs[number]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(script)),
            env={
                **os.environ,
                "OPENAI_API_KEY": "example",
                "OPENAI_BASE_URL": speaking.url if live else f"{server.url}/v1",
                "ANTHROPIC_API_KEY": "example",
                "ANTHROPIC_BASE_URL": server.url,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    for leak in ("Unclosed", "never awaited", "was destroyed"):
        assert leak not in err.decode()
    return out.decode()
