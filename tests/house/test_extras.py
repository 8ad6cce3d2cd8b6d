"""Whoever lacks an extra is told which one, in one sentence, and everything else works without it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

# What is asked for; the modules that are missing; the extra.
CASES = {
    "local": ("from rejoinder.providers import local; local.LLM()", ["xllamacpp"]),
    "mcp": ("from rejoinder.llm.mcp import MCPServerStdio; MCPServerStdio('x', [])", ["mcp"]),
    "aws": ("from rejoinder.providers import aws; ask(aws.LLM(region='us-east-1'))", ["botocore"]),
    "aws-for-speech": (
        (
            "from rejoinder.providers.aws.realtime import RealtimeModel; "
            "speak(RealtimeModel(api_key='k', api_secret='s'))"
        ),
        ["h2"],
    ),
    "google": (
        (
            "from rejoinder.providers import google; "
            "ask(google.LLM(vertexai=True, project='p', location='us-central1'))"
        ),
        ["google.auth"],
    ),
    "google-for-claude": (
        (
            "from rejoinder.providers import anthropic; "
            "ask(anthropic.LLM.with_vertex(model='claude-sonnet-4-5', project='p'))"
        ),
        ["google.auth"],
    ),
    "langchain": ("from rejoinder.providers.langchain import LLMAdapter", ["langchain_core"]),
    "langchain-other-way": (
        "from rejoinder.providers.langchain import as_langchain",
        ["langchain_core"],
    ),
    "images": (
        (
            "from rejoinder.llm import ImageContent; from rejoinder.media import VideoFrame; "
            "from rejoinder.providers import openai; "
            "picture = ImageContent(image=VideoFrame(1, 1, 'RGBA', bytes(4))); "
            "ask(openai.LLM(api_key='k', base_url='http://127.0.0.1:9'), picture)"
        ),
        ["PIL"],
    ),
    "speech": (
        "from rejoinder.speech import speakable; speakable(type('S', (), {'__aiter__': id})())",
        ["sentencex"],
    ),
    "speech-numbers": (
        "from rejoinder.speech import numbers_as_words; numbers_as_words()",
        ["unicode_rbnf"],
    ),
}

ASK = """
import asyncio, os, sys
for name in {missing!r}:
    sys.modules[name] = None
for name in list(os.environ):
    if name.startswith(("AWS_", "GOOGLE_")):
        del os.environ[name]

def ask(llm, *content):
    from rejoinder.llm import ChatContext
    from rejoinder.types import APIConnectOptions

    async def main():
        context = ChatContext.empty()
        context.add_message(role="user", content=["hi", *content])
        options = APIConnectOptions(max_retry=0)
        await llm.chat(chat_ctx=context, conn_options=options).collect()

    asyncio.run(main())

def speak(model):
    async def main():
        await model.session().generate_reply()

    asyncio.run(main())

try:
    {code}
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("case", CASES)
def test_a_missing_extra_is_named(case: str) -> None:
    code, missing = CASES[case]
    result = subprocess.run(
        [sys.executable, "-c", ASK.format(code=code, missing=missing)],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert result.returncode == 0, result.stderr
    extra = case.partition("-")[0]
    assert f"pip install 'rejoinder[{extra}]'" in result.stdout.replace('"', "'"), result.stdout
    assert result.stdout.count("\n") == 1, "one sentence"


def test_the_quick_start_lists_each_extra() -> None:
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    page = (root / "docs" / "quick-start.md").read_text("utf-8")
    table = page[page.index("| extra |") : page.index("With an extra")]
    cells = [row.split("|")[1] for row in table.splitlines()[2:] if row]
    assert set(re.findall(r"`([\w-]+)`", "".join(cells))) == set(project["optional-dependencies"])
