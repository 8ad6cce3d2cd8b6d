"""Documentation that cannot rot: examples run, links lead somewhere, the project speaks of itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SKILL = ROOT / "src" / "rejoinder" / ".agents" / "skills" / "rejoinder" / "SKILL.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md"), SKILL])
IMPORT = re.compile(r"`((?:from rejoinder[\w.]* )?import [^`]+)`")
LINK = re.compile(r"\[[^\]]*\]\((?!https?://)([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page: Path) -> None:
    if "```python" not in page.read_text(encoding="utf-8"):
        return
    runner = Path(__file__).with_name("run_examples.py")
    result = subprocess.run(
        [sys.executable, "-W", "error", str(runner), str(page)],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_new_names_are_there() -> None:
    page = (ROOT / "docs" / "compat.md").read_text(encoding="utf-8")
    rows = [line.split("|")[2] for line in page.splitlines() if line.startswith("| ")]
    imports = [found for row in rows for found in IMPORT.findall(row)]
    assert len(imports) > 10
    for statement in imports:
        exec(statement, {})


def test_the_skill_tells_an_assistant_when_to_read_it() -> None:
    head = re.match(
        r"---\nname: (\S+)\ndescription: (.+)\n---\n", SKILL.read_text(encoding="utf-8")
    )
    assert head is not None
    assert head[1] == SKILL.parent.name
    assert 50 < len(head[2]) < 1024
