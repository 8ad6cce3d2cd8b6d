"""The provider that docs/adding-a-provider.md writes works: one folder, one line, and its tests."""

from __future__ import annotations

import asyncio
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import rejoinder.providers
from rejoinder._core import dialects

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-provider.md"
BLOCK = re.compile(
    r"^<!-- not run: (?P<what>file (?P<name>\S+)|line) -->\n```python\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
PACKAGE = "rejoinder.providers.parley"


@pytest.fixture
def parley(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The package of the page, in the place where the page says it is; returns its tests."""
    folder = tmp_path / "parley"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    row: dict[str, str] = {}
    for block in BLOCK.finditer(PAGE.read_text("utf-8")):
        if block["what"] == "line":
            exec(block["code"], scope := {})
            row = scope["ROW"]
        else:
            (folder / block["name"]).write_text(block["code"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "__init__.py",
        "dialect.py",
        "format.py",
        "llm.py",
        "test_parley.py",
        "wire.py",
    ]
    places = [*rejoinder.providers.__path__, str(tmp_path)]
    monkeypatch.setattr(rejoinder.providers, "__path__", places)
    for name, target in row.items():
        monkeypatch.setitem(dialects.BUILT_IN, name, target)
    yield importlib.import_module(f"{PACKAGE}.test_parley")
    for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
        del sys.modules[name]
    dialects._found.pop("parley", None)


def test_the_line_is_all_that_the_table_needs(parley: ModuleType) -> None:
    from rejoinder import catalog
    from rejoinder.llm import ChatContext, ToolContext
    from rejoinder.llm.formats import repair

    assert "parley" in catalog.provider_names()
    context = ChatContext.empty()
    context.add_message(role="assistant", content="Hello.")
    turns, _ = context.to_provider_format("parley")
    assert turns == [{"who": "model", "says": "Hello."}]
    mended, changes = repair(context.items, "parley")
    assert [change.kind for change in changes] == ["added"]
    assert [item.type for item in mended] == ["message", "message"]
    (spec,) = ToolContext([parley.get_weather]).parse_function_tools("parley")
    assert spec["takes"]["properties"]["city"]["type"] == "string"


def test_its_decoder(parley: ModuleType) -> None:
    parley.test_the_decoder()


async def test_its_model(parley: Any) -> None:
    async with asyncio.timeout(30):
        await parley.test_the_model()
        await parley.test_a_turn_with_a_tool()
