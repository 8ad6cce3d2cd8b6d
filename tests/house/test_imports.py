"""What importing costs, told by the modules that are there afterwards, and what it exports."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys

import pytest

from rejoinder.testing.faults import Answer, Call, Fault, FaultServer

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
from rejoinder.llm import ChatContext, ImageContent, function_tool
from rejoinder.providers.{provider} import LLM

@function_tool
async def weather(city: str) -> str:
    "Tell the weather.\\n\\nArgs:\\n    city: where"
    return "sunny"

async def main():
    llm = LLM({arguments})
    context = ChatContext.empty()
    for _ in range(201):  # so many that the body is made in a thread
        context.add_message(role="user", content="hi")
    context.add_message(role="user", content=[ImageContent(image="data:image/png;base64,{png}")])
    before = set(sys.modules)
    reply = await llm.chat(chat_ctx=context, tools=[weather]).collect()
    print("SAID", reply.text, *(call.name for call in reply.tool_calls))
    print("NEW", *sorted(set(sys.modules) - before))
    await llm.aclose()

asyncio.run(main())
"""
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


@pytest.mark.parametrize(
    ("provider", "arguments"),
    [
        ("openai", "api_key='k', base_url='{url}/v1'"),
        ("openai", "api='responses', api_key='k', base_url='{url}/v1'"),
        ("anthropic", "api_key='k', base_url='{url}'"),
        ("google", "api_key='k', base_url='{url}'"),
        ("mistralai", "api_key='k', base_url='{url}'"),
        ("aws", "api_key='k', api_secret='s', base_url='{url}'"),
        ("inference", "'m', api_key='k', api_secret='s', base_url='{url}/v1'"),
    ],
)
async def test_the_first_chat_imports_nothing(provider: str, arguments: str) -> None:
    async with FaultServer() as server:
        # An attempt that is refused first, and a host by name, whose address is looked up.
        server.script(
            Fault.STATUS_503, Answer(text=("Hi",), calls=(Call("weather", '{"city": "Oslo"}'),))
        )
        arguments = arguments.format(url=server.url.replace("127.0.0.1", "localhost"))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            ASKING.format(provider=provider, arguments=arguments, png=PNG),
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await process.communicate()
    assert printed.decode().splitlines() == ["SAID Hi weather", "NEW"]


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
