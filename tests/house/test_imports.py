"""What importing costs, told by the modules that are there afterwards, and what it exports."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

HEAVY = [
    "aiohttp",
    "anthropic",
    "av",
    "botocore",
    "docstring_parser",
    "google.auth",
    "httpx",
    "langchain_core",
    "livekit",
    "mcp",
    "mistralai",
    "msgspec",
    "numpy",
    "openai",
    "opentelemetry",
    "PIL",
    "rich",
    "sqlite3",
    "xllamacpp",
]


def loaded_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter holds after `code`."""
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(result.stdout.split())


def test_importing_the_llm_layer_is_light() -> None:
    loaded = loaded_after("import rejoinder.llm")
    assert not loaded & set(HEAVY)
    assert not {name for name in loaded if name.startswith("rejoinder.providers")}
    assert not {
        name for name in loaded if name.startswith(("rejoinder.transport", "rejoinder.mcp"))
    }
    assert "rejoinder.llm.realtime" not in loaded


def test_importing_the_llm_layer_adds_little_to_pydantic_and_asyncio() -> None:
    base = loaded_after("import asyncio, logging; from pydantic import BaseModel, Field")
    loaded = loaded_after("import rejoinder.llm")
    # The last is imported by pydantic when the first model is built, which can wait until it is used.
    needless = {"difflib", "email.utils", "http", "json", "pydantic.type_adapter"}
    assert not (loaded - base) & {*needless, "importlib.metadata"}
    assert len({name for name in loaded - base if not name.startswith("rejoinder")}) <= 3


def test_importing_the_package_imports_nothing_else() -> None:
    loaded = loaded_after("import rejoinder")
    assert {name for name in loaded if name.startswith("rejoinder")} == {
        "rejoinder",
        "rejoinder.__about__",
    }
    assert "pydantic" not in loaded


ASKING = """
import asyncio, sys
from rejoinder.llm import ChatContext, function_tool
from rejoinder.providers.{provider} import LLM
from rejoinder.types import APIConnectOptions

@function_tool
async def weather(city: str) -> str:
    "Tell the weather.\\n\\nArgs:\\n    city: where"
    return "sunny"

async def main():
    llm = LLM({arguments})
    context = ChatContext.empty()
    context.add_message(role="user", content="hi")
    before = set(sys.modules)
    stream = llm.chat(chat_ctx=context, tools=[weather], conn_options=APIConnectOptions(max_retry=0))
    try:
        async for _ in stream:
            pass
    except Exception:
        pass
    print("NEW", *sorted(set(sys.modules) - before))
    await llm.aclose()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("provider", "arguments"),
    [
        ("openai", "api_key='k', base_url='http://127.0.0.1:9/v1'"),
        ("openai", "api='responses', api_key='k', base_url='http://127.0.0.1:9/v1'"),
        ("anthropic", "api_key='k', base_url='http://127.0.0.1:9'"),
        ("google", "api_key='k', base_url='http://127.0.0.1:9'"),
        ("mistralai", "api_key='k', base_url='http://127.0.0.1:9'"),
        ("aws", "api_key='k', api_secret='s', base_url='http://127.0.0.1:9'"),
        ("inference", "'m', api_key='k', api_secret='s', base_url='http://127.0.0.1:9'"),
    ],
)
def test_the_first_chat_imports_nothing(provider: str, arguments: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", ASKING.format(provider=provider, arguments=arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("NEW")]
    assert line == "NEW", f"imported by the first chat: {line}"


@pytest.mark.parametrize("module", ["rejoinder", "rejoinder.llm"])
def test_exports(module: str) -> None:
    home = importlib.import_module(module)
    assert len(set(home.__all__)) == len(home.__all__)
    for name in home.__all__:
        assert getattr(home, name) is not None, name
    assert set(home.__all__) <= set(dir(home))
    with pytest.raises(AttributeError, match="no_such_name"):
        home.no_such_name


def test_star_import() -> None:
    names: dict[str, object] = {}
    exec("from rejoinder.llm import *", names)
    assert {"ChatContext", "RealtimeSession", "FallbackAdapter", "function_tool"} <= names.keys()
