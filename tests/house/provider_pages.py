"""The tables of capabilities on the page of each provider, from the tables that the code reads.

PYTHONPATH=src:tests python -m house.provider_pages    # writes them
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from rejoinder._core.families.page import render_families
from rejoinder.providers.asking.capabilities import CAPABILITIES, Capabilities

DOCS = Path(__file__).parents[2] / "docs"
START = "<!-- capabilities: made by tests/house/provider_pages.py -->"
END = "<!-- end of capabilities -->"
MAKERS = {
    "anthropic": "anthropic",
    "aws": "amazon",
    "google": "google",
    "inference": None,
    "mistralai": "mistral",
    "openai": "openai",
}
"""Each provider, and whose models are listed on its page."""
WORDS = {
    "image_bytes": "images, as `data:` URLs, files or frames",
    "image_urls": "images by URL",
    "http_images": "image URLs without encryption (`http://`)",
    "audio": "sound in user messages",
    "documents": "PDF and other documents",
    "response_format": "a JSON schema for the answer",
    "tool_choice_none": '`tool_choice="none"` while the model still sees the tools',
    "parallel_tool_calls": "an option for several calls in one reply",
    "built_in_tools": "tools that run at the provider",
    "thinking": "visible thinking",
    "prompt_caching": "marks for the prompt cache",
    "system_in_place": "system messages in the middle of a conversation",
}


def section(name: str) -> Iterator[str]:
    able = CAPABILITIES[name]
    yield "## What the API takes\n"
    yield "| | |"
    yield "| --- | --- |"
    for entry in fields(Capabilities):
        yield f"| {WORDS[entry.name]} | {'yes' if getattr(able, entry.name) else 'no'} |"
    yield ""
    yield "[What each model takes](capabilities.md) explains the rows, and has all models and hosts."
    maker = MAKERS[name]
    if maker is not None:
        yield "\n## Models\n"
        yield "A family is a group of models that follow the same rules, found by the name of the model.\n"
        yield render_families(maker).rstrip("\n")


def page(name: str, text: str) -> str:
    """The page of a provider with today's tables."""
    body = f"{START}\n\n" + "\n".join(section(name)) + f"\n\n{END}"
    found, count = re.subn(
        f"{re.escape(START)}.*{re.escape(END)}", lambda _: body, text, flags=re.DOTALL
    )
    assert count == 1, f"docs/{name}.md has no mark {START}"
    return found


if __name__ == "__main__":
    for name in MAKERS:
        path = DOCS / f"{name}.md"
        path.write_text(page(name, path.read_text("utf-8")), "utf-8")
