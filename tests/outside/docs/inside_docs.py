"""The built site in a real browser, from its files. The argument is its folder."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Request, expect, sync_playwright

site = Path(sys.argv[1])
foreign: list[str] = []
problems: list[str] = []
BROKEN = """[...document.querySelectorAll("article img")].filter((img) => !img.naturalWidth).map((img) => img.src)"""


def asked(request: Request) -> None:
    if not request.url.startswith((site.as_uri(), "data:", "blob:")):
        foreign.append(request.url)


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(
        executable_path=shutil.which("chromium"), args=["--no-sandbox"]
    )
    page = browser.new_page()
    page.on("request", asked)
    page.on("pageerror", lambda error: problems.append(str(error)))
    # 404.html is for servers: its addresses begin at the root.
    for file in sorted(set(site.rglob("*.html")) - {site / "404.html"}):
        if file.parent.name == "api" and file.name != "rejoinder.llm.html":
            continue  # made by one script: one of them shows what all are like
        page.goto(file.as_uri(), wait_until="load")
        problems += [f"{file.name}: a picture is missing: {one}" for one in page.evaluate(BROKEN)]
    # As a reader does: "/" opens the search, Enter opens the first result.
    page.goto((site / "index.html").as_uri())
    page.keyboard.press("/")
    page.keyboard.type("FallbackAdapter")
    expect(page.get_by_text(re.compile(r"^\d+ results$"))).to_be_visible(timeout=30_000)
    page.keyboard.press("Enter")
    expect(page.locator("h1")).not_to_have_text("rejoinder", timeout=30_000)
    assert "FallbackAdapter" in page.locator("article").inner_text()
    browser.close()

assert not foreign, f"the site asks foreign hosts: {sorted(set(foreign))[:10]}"
assert not problems, "\n".join(problems[:20])
