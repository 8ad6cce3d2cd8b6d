"""A provider on the loopback that the command can be pointed at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rejoinder.cli.loop import LoopThread
from rejoinder.testing.faults import FaultServer


class Provider:
    """A `FaultServer` in a thread of its own, and the options that lead to it."""

    def __init__(self, loop: LoopThread, server: FaultServer) -> None:
        self.loop = loop
        self.server = server
        self.options = ["--model", "openai/any", "--base-url", f"{server.url}/v1"]
        self.key: dict[str, Any] = {"OPENAI_API_KEY": "sk-test"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command keeps things in a test."""
    folder = tmp_path / "home"
    monkeypatch.setenv("REJOINDER_HOME", str(folder))
    monkeypatch.setenv("PROMPT_TOOLKIT_NO_CPR", "1")  # nobody answers where the cursor is
    return folder


@pytest.fixture
def provider() -> Iterator[Provider]:
    with LoopThread() as loop:
        server = FaultServer()
        loop.run(server.start())
        try:
            yield Provider(loop, server)
        finally:
            loop.run(server.aclose())


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A file with tools of all tempers."""
    file = tmp_path / "my_tools.py"
    file.write_text(
        "import asyncio, os, sys, time\n"
        "def add(a: int, b: int) -> int:\n"
        "    '''Add two numbers.'''\n"
        "    return a + b\n"
        "async def fail(why: str) -> str:\n"
        "    '''Fail.'''\n"
        "    raise RuntimeError(why)\n"
        "async def hang() -> str:\n"
        "    '''Never end.'''\n"
        "    await asyncio.sleep(1000)\n"
        "def hang_hard() -> str:\n"
        "    '''Never end, and listen to nobody.'''\n"
        "    time.sleep(1000)\n"
        "async def block() -> str:\n"
        "    '''Block the event loop.'''\n"
        "    time.sleep(1000)\n"
        "def leave() -> str:\n"
        "    sys.exit(5)\n"
        "async def leave_too() -> str:\n"
        "    sys.exit(5)\n"
        "async def press_keys() -> str:\n"
        "    raise KeyboardInterrupt\n"
        "def chatter() -> str:\n"
        "    '''Print.'''\n"
        "    print('from the tool')\n"
        "    os.system('echo from its child')\n"
        "    return 'ok'\n"
        "def unknown_type(a: 'Nowhere') -> int:\n"
        "    return 1\n"
        "nameless = lambda: 1\n"
        "class Opaque: pass\n"
        "def opaque(a: Opaque) -> int:\n"
        "    return 1\n"
        "from rejoinder.llm import function_tool\n"
        "@function_tool(interruptible=False)\n"
        "async def book(until: str) -> str:\n"
        "    '''Book.'''\n"
        "    while not os.path.exists(until): await asyncio.sleep(0.02)\n"
        "    os.rename(until, until + '.booked')\n"
        "    return 'booked'\n"
        "number = 5\n"
    )
    return file
