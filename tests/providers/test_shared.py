"""What several providers share: the table of capabilities, options, attachments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rejoinder.errors import ConfigurationError
from rejoinder.providers._capabilities import CAPABILITIES, render_table
from rejoinder.providers._requests import add_query, response_schema, tool_choice_name
from rejoinder.providers._shell import check_base_url


def test_the_docs_show_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "capabilities.md"
    assert render_table() in page.read_text("utf-8")


def test_every_provider_is_in_the_table() -> None:
    assert set(CAPABILITIES) == {"anthropic", "aws", "google", "inference", "mistralai", "openai"}


@pytest.mark.parametrize(
    "url", ["", "host/path", "ftp://host", "http://", "https:///x", "http://[::1"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url"):
        check_base_url(url)


def test_addresses() -> None:
    assert check_base_url(" https://host/v1/ ") == "https://host/v1"


def test_queries() -> None:
    assert add_query("http://x/y", {}) == "http://x/y"
    assert add_query("http://x/y?a=1", {"b": "c d&e"}) == "http://x/y?a=1&b=c%20d%26e"


@pytest.mark.parametrize("choice", [{}, {"type": "function"}, {"function": {"name": ""}}])
def test_choices_that_name_nothing(choice: Any) -> None:
    with pytest.raises(ConfigurationError, match="tool_choice"):
        tool_choice_name(choice)


def test_schemas_for_answers() -> None:
    own = {"title": "T", "type": "object", "properties": {}}
    assert response_schema(own) == ("T", own)
    wrapped = {"type": "json_schema", "json_schema": {"name": "n", "schema": own}}
    assert response_schema(wrapped) == ("n", own)
    for wrong in ({"type": "json_object"}, {"type": "json_schema"}, 5, object()):
        with pytest.raises(ConfigurationError, match="response_format"):
            response_schema(wrong)
