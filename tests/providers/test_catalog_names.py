"""Names of models lead to providers."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from rejoinder.catalog import create


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
