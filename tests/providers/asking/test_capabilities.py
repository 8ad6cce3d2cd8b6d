"""The table of capabilities."""

from __future__ import annotations

from pathlib import Path

from rejoinder._core.families.page import with_tables
from rejoinder.providers.asking.capabilities import CAPABILITIES, render_table


def test_the_docs_show_the_table() -> None:
    page = Path(__file__).parents[3] / "docs" / "capabilities.md"
    text = page.read_text("utf-8")
    assert render_table() in text
    assert with_tables(text) == text, "run python -m rejoinder._core.families.page on the page"


def test_every_provider_is_in_the_table() -> None:
    assert set(CAPABILITIES) == {"anthropic", "aws", "google", "inference", "mistralai", "openai"}
