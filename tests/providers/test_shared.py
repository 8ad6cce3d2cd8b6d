"""What several providers share: the table of capabilities, options, attachments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rejoinder.catalog import create
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


@pytest.mark.parametrize(
    ("name", "label", "options"),
    [
        ("anthropic/claude-x", "anthropic", {"api_key": "k"}),
        ("anthropic.azure/claude-x", "anthropic", {"api_key": "k", "resource": "r"}),
        ("anthropic.bedrock/claude-x", "anthropic", {"bearer_token": "k"}),
        ("anthropic.vertex/claude-x", "anthropic", {"access_token": "k"}),
        ("aws/nova:0", "aws", {"bearer_token": "k"}),
        ("bedrock/nova:0", "aws", {"bearer_token": "k"}),
        ("google/gemini-x", "google", {"api_key": "k"}),
        ("vertex/gemini-x", "google", {"project": "p"}),
        ("mistralai/m", "mistralai", {"api_key": "k"}),
        ("inference/openai/gpt", "inference", {"api_key": "k", "api_secret": "s"}),
    ],
)
def test_names_of_the_catalog(name: str, label: str, options: dict[str, Any]) -> None:
    llm = create(name, **options)
    assert llm.model == name.partition("/")[2]
    assert llm.label == f"rejoinder.providers.{label}.llm.LLM"


def test_a_name_imports_one_provider_and_no_vendor() -> None:
    code = (
        "import sys; from rejoinder.catalog import create; "
        "create('aws/x', api_key='a', api_secret='b'); create('anthropic/x', api_key='k'); "
        "create('vertex/x', project='p'); create('mistralai/x', api_key='k'); "
        "heavy = {'botocore', 'boto3', 'anthropic', 'google.auth', 'google.genai', 'mistralai'}; "
        "print(sorted(heavy & set(sys.modules)), 'rejoinder.providers.openai.llm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.stdout.strip() == "[] False", done.stderr
