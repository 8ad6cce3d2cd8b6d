"""The documentation site: built from a copy of the checkout, then opened in a browser from its files."""

from __future__ import annotations

import html.parser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from outside.environment import python

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
LOADS = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}


def clone(folder: Path) -> Path:
    """The files of the checkout that git knows or would add, as a fresh clone has them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    for name in listed:
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/docs.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    python("docs")  # skips, or fails, where it cannot be made
    return clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def site(tree: Path) -> Path:
    done = build(tree)
    assert done.returncode == 0, done.stdout + done.stderr
    return tree / "site"


class Loads(html.parser.HTMLParser):
    """What a page loads when it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name == LOADS.get(tag)]


@pytest.mark.timeout(400)
def test_no_page_loads_anything_from_a_foreign_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text("utf-8"))
        foreign = [url for url in loads.found if re.match(r"(https?:)?//", url)]
        assert not foreign, f"{page.name} loads {foreign}"
    for style in site.rglob("*.css"):
        found = re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"']+", style.read_text())
        assert not found, f"{style.name} loads {found}"


@pytest.mark.timeout(400)
def test_markdown_is_rendered_and_lies_beside_each_page(site: Path) -> None:
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        text = page.with_suffix(".md").read_text("utf-8")
        if page.parent.name == "api":  # the marks of docstrings have become Markdown
            assert not re.findall(
                r"(?m)::$|^(?:Args|Raises|Returns|Attributes):$|(?<!`)``[^`\n]", text
            )
        assert text.startswith("# "), f"{page.name} begins with {text[:40]!r}"
        shown = re.sub(
            r"<pre.*?</pre>|<code>.*?</code>", "", page.read_text("utf-8"), flags=re.DOTALL
        )
        unread = re.findall(r"<p>[^<]*\n(?:[-*] |\d\. |\|)[^\n]*|```", shown)
        assert not unread, f"{page.name}: Markdown is shown as text: {unread[:3]}"


@pytest.mark.timeout(400)
def test_language_models_find_every_page(site: Path) -> None:
    index = (site / "llms.txt").read_text("utf-8")
    links = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): \S", index, re.MULTILINE)
    assert len(links) == index.count("\n- "), "a page has no summary"
    whole = (site / "llms-full.txt").read_text("utf-8")
    for link in links:
        text = (site / link).read_text("utf-8")
        assert text.strip() in whole
    assert "FallbackAdapter(" in whole


@pytest.mark.timeout(500)
def test_a_browser_reads_and_searches_it_from_its_files(site: Path) -> None:
    command = [str(python("playwright")), str(HERE / "inside_docs.py"), str(site)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=450, env={**os.environ})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[broken](nowhere.md)", "nowhere.md"),
        ("[broken](tools.md#no-such-heading)", "no-such-heading"),
    ],
)
def test_a_broken_link_fails_the_build(tree: Path, site: Path, text: str, told: str) -> None:
    page = tree / "docs" / "glossary.md"
    before = page.read_text("utf-8")
    page.write_text(f"{before}\n{text}\n", "utf-8")
    try:
        done = build(tree)
    finally:
        page.write_text(before, "utf-8")
    assert done.returncode != 0
    assert told in done.stdout + done.stderr
