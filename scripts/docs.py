"""Build the documentation site in ``site/``.

    python scripts/docs.py

1. Gathers the pages in ``.docs/pages``: those of ``docs/``, those at the root of the checkout that
   `zensical.toml` names, what they link to, and a page for each public module (`docs_api.py`).
2. Builds the site, where a broken link is an error.
3. Puts the Markdown of each page beside it, and writes ``llms.txt`` (a list of the pages) and
   ``llms-full.txt`` (all of their text).

Zensical lies in an environment of its own, `requirements/outside/docs.lock`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "requirements"))

import foreign  # noqa: E402

DOCS = ROOT / "docs"
PAGES = ROOT / ".docs" / "pages"
SITE = ROOT / "site"
API = "api/"
SHIM = "https://unpkg.com/iframe-worker/shim"
LINK = re.compile(r"(?<!`)(\]\()(?![a-z]+:|#)([^)#\s]+)([^)]*\))")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
FENCED = re.compile(r"^(```.*?^```[^\n]*$)", re.DOTALL | re.MULTILINE)


class DocsError(Exception):
    """The site cannot be built from what is there."""


@dataclass(frozen=True)
class Page:
    section: str
    title: str
    path: str
    """Below the folder of the pages."""

    @property
    def module(self) -> str | None:
        """The module that an API page describes."""
        return self.path[len(API) : -len(".md")] if self.path.startswith(API) else None

    @property
    def source(self) -> Path:
        """Where the text is written by hand."""
        page = DOCS / self.path
        if page.exists():
            return page
        page = ROOT / self.path
        # The README of a folder is what a site calls the index of one.
        return page.with_name("README.md") if page.name == "index.md" else page


def pages(config: dict[str, Any]) -> Iterator[Page]:
    """The pages that `zensical.toml` lists, in order."""
    for group in config["project"]["nav"]:
        for section, entries in group.items():
            for entry in entries:
                for title, path in entry.items():
                    yield Page(section, title, path)


def check(listed: list[Page]) -> None:
    """Each page is listed once, and each listed page exists."""
    paths = [page.path for page in listed]
    missing = [page.path for page in listed if not page.module and not page.source.exists()]
    unlisted = [
        str(file.relative_to(DOCS))
        for file in sorted(DOCS.rglob("*.md"))
        if str(file.relative_to(DOCS)) not in paths
    ]
    sources = [page.module or page.source for page in listed]
    if missing or unlisted or len(set(sources)) < len(sources):
        raise DocsError(
            f"zensical.toml lists pages that do not exist: {missing}, or twice; "
            f"or leaves out pages of docs/: {unlisted}"
        )


def gather(listed: list[Page]) -> None:
    """Copy what the site is made of to one folder, with links that lead there."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(DOCS, PAGES)
    shutil.copy(ROOT / "scripts" / "docs.css", PAGES / "site.css")
    for page in listed:
        if not page.module:
            text = page.source.read_text("utf-8")
            (PAGES / page.path).parent.mkdir(parents=True, exist_ok=True)
            (PAGES / page.path).write_text(relinked(text, page), "utf-8")


def relinked(text: str, page: Page) -> str:
    """The text of a page, with links to files outside ``docs/`` led to copies of them."""
    here = (PAGES / page.path).parent

    def lead(link: re.Match[str]) -> str:
        target = (page.source.parent / link[2]).resolve()
        if target.is_relative_to(DOCS):
            there = PAGES / target.relative_to(DOCS)
        else:
            there = PAGES / target.relative_to(ROOT)
            if target.name == "README.md":
                there = there.with_name("index.md")
            if target.is_file() and not there.exists():
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(target, there)
        return f"{link[1]}{os.path.relpath(there, here)}{link[3]}"

    parts = FENCED.split(text)
    return "".join(part if part.startswith("```") else LINK.sub(lead, part) for part in parts)


def summary(text: str) -> str:
    """The first sentence of a page, as text."""
    body = re.sub(r"<!--.*?-->", "", FENCED.sub("", text), flags=re.DOTALL)
    for block in re.split(r"\n\s*\n", body):
        line = " ".join(block.split())
        if line and not line.startswith(("#", "|", "-", "!", "<", "=")):
            line = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line)
            return re.split(r"(?<=[.:])\s", line, maxsplit=1)[0].rstrip(":")
    return ""


def replace_shim() -> None:
    """Let the search from files use a script of ours, where Zensical names one on a foreign host."""
    shutil.copy(ROOT / "scripts" / "docs_worker.js", SITE / "assets" / "worker.js")
    for file in SITE.rglob("*.html"):
        base = os.path.relpath(SITE, file.parent)
        text = file.read_text("utf-8")
        if SHIM not in text:
            raise DocsError(f"{file.name} does not load {SHIM}: see how this Zensical searches")
        file.write_text(text.replace(SHIM, f"{base}/assets/worker.js"), "utf-8")


def write_texts(listed: list[Page]) -> None:
    """The Markdown beside each page, and the two files for language models."""
    whole: list[str] = []
    index = ["# rejoinder", "", "> The LLM layer for real-time voice and chat agents, in Python."]
    section = ""
    for page in listed:
        text = (PAGES / page.path).read_text("utf-8")
        (SITE / page.path).parent.mkdir(parents=True, exist_ok=True)
        (SITE / page.path).write_text(text, "utf-8")
        if page.section != section:
            section = page.section
            index += ["", f"## {section}", ""]
        index.append(f"- [{page.title}]({page.path}): {summary(text)}")
        whole.append(f"<!-- {page.path} -->\n\n{text.strip()}\n")
    (SITE / "llms.txt").write_text("\n".join(index) + "\n", "utf-8")
    (SITE / "llms-full.txt").write_text("\n\n".join(whole), "utf-8")


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        told = COLOUR.sub("", done.stdout + done.stderr)
        raise DocsError(told.partition("Traceback (most recent")[0][-6000:])


def build() -> int:
    """Returns the number of pages."""
    with (ROOT / "zensical.toml").open("rb") as file:
        listed = list(pages(tomllib.load(file)))
    check(listed)
    python = foreign.python("outside/docs")
    gather(listed)
    modules = [page.module for page in listed if page.module]
    run(str(python), "scripts/docs_api.py", str(PAGES / API), *modules)
    shutil.rmtree(SITE, ignore_errors=True)
    run(str(python.with_name("zensical")), "build", "--clean", "--strict")
    replace_shim()
    write_texts(listed)
    return len(listed)


if __name__ == "__main__":
    try:
        count = build()
    except (DocsError, foreign.NotMadeError) as error:
        sys.exit(f"the site was not built: {error}")
    print(f"{count} pages in {SITE.relative_to(ROOT)}/index.html")
