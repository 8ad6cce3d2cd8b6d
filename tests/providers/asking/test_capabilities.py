"""The table of capabilities."""

from __future__ import annotations

from pathlib import Path

from rejoinder.providers.asking.capabilities import CAPABILITIES, render_table


def test_the_docs_show_the_table() -> None:
    page = Path(__file__).parents[3] / "docs" / "capabilities.md"
    assert render_table() in page.read_text("utf-8")


def test_every_provider_is_in_the_table() -> None:
    assert set(CAPABILITIES) == {"anthropic", "aws", "google", "inference", "mistralai", "openai"}
