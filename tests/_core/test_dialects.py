"""The table of formats: what is in it, what gets in, and what an unknown name is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rejoinder._core import dialects
from rejoinder._core.dialects import find, format_names, register_format, to_provider_format
from rejoinder.llm.chat_context import ChatContext, ChatItem, ChatMessage, ImageContent
from rejoinder.testing.history import PROVIDERS as CHECKED

BUILT_IN = [
    "anthropic",
    "aws",
    "google",
    "inference",
    "local",
    "mistralai",
    "mistralai.conversations",
    "openai",
    "openai.responses",
]
HELLO: list[ChatItem] = [ChatMessage(role="user", content=["Hello"])]


@pytest.fixture(autouse=True)
def clean_table() -> Iterator[None]:
    registered, loaded = dict(dialects._registered), dict(dialects._found)
    yield
    dialects._registered.clear()
    dialects._registered.update(registered)
    dialects._found.clear()
    dialects._found.update(loaded)


def shout(
    items: Sequence[ChatItem], *, inject_dummy_user_message: bool, times: int = 1
) -> tuple[Any, Any]:
    """A third-party format."""
    texts = [item.text_content for item in items if item.type == "message"]
    return [str(text).upper() * times for text in texts], inject_dummy_user_message


def test_every_format_has_its_repair_and_its_checker() -> None:
    assert format_names() == BUILT_IN
    assert all(find(name).rules is not None for name in BUILT_IN)
    clones = {"inference", "local"}  # they speak the dialect of OpenAI
    assert sorted({*CHECKED, *clones}) == BUILT_IN


@pytest.mark.parametrize("name", BUILT_IN)
def test_content_that_was_set_to_one_text(name: str) -> None:
    """Nobody stops that; what goes through it would see its characters."""
    context = ChatContext.empty()
    for role in ("system", "user", "assistant", "system", "user"):
        context.add_message(role=role, content="Hello there")  # type: ignore[arg-type]
    expected = context.to_provider_format(name)
    for message in context.messages():
        message.content = "Hello there"  # type: ignore[assignment]
    assert context.to_provider_format(name) == expected


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_converts(name: str) -> None:
    context = ChatContext(list(HELLO))
    messages, _ = context.to_provider_format(name)
    assert "Hello" in str(messages)
    with pytest.raises(TypeError, match="unexpected keyword argument 'surprise'"):
        context.to_provider_format(name, surprise=True)


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"unknown provider format 'opnai'.*anthropic, aws.*openai"
    ):
        to_provider_format("opnai", HELLO)


def test_a_function_can_be_registered() -> None:
    register_format("shout", shout)
    assert "shout" in format_names()
    assert to_provider_format("shout", HELLO, times=2) == (["HELLOHELLO"], True)
    register_format("shout", lambda items, **kwargs: ([], None))
    assert to_provider_format("shout", HELLO) == ([], None)


def test_a_name_can_be_registered_and_is_imported_when_used() -> None:
    register_format("json", "json:no_such_function")
    assert "json" in format_names()
    with pytest.raises(ImportError, match=r"format 'json': 'json:no_such_function' cannot be"):
        to_provider_format("json", HELLO)
    register_format("gone", "no_such_module:function")
    with pytest.raises(ImportError, match=r"format 'gone': 'no_such_module:function' cannot be"):
        to_provider_format("gone", HELLO)
    register_format("mine", f"{dialects.__name__}:to_provider_format")
    assert dialects._found.get("mine") is None


def test_entry_points_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As an installed package names them."""
    monkeypatch.setitem(sys.modules, "a_plugin", sys.modules[__name__])
    installed = tmp_path / "a_plugin-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: a-plugin\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[rejoinder.formats]\nshout = a_plugin:shout\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "shout" in format_names()
    assert to_provider_format("shout", HELLO) == (["HELLO"], True)


@pytest.mark.parametrize("target", ["nothing", ":f", "m:"])
def test_a_target_must_name_module_and_function(target: str) -> None:
    with pytest.raises(ValueError, match="'module:function'"):
        register_format("bad", target)
    with pytest.raises(ValueError, match="expected a name"):
        register_format("", "m:f")


def test_what_is_no_name_and_no_target() -> None:
    with pytest.raises(TypeError, match="expected a name, got 5"):
        register_format(5, "m:f")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="or a function, got 5"):
        register_format("bad", 5)  # type: ignore[arg-type]
    assert format_names() == BUILT_IN


def test_a_provider_is_imported_when_it_is_named() -> None:
    script = (
        "import sys, rejoinder._core.dialects as f;"
        "assert not any(m.startswith('rejoinder.providers') for m in sys.modules);"
        "f.to_provider_format('google', []);"
        "assert 'rejoinder.providers.google.format' in sys.modules;"
        "assert not any(m.startswith('rejoinder.providers.aws') for m in sys.modules);"
        "assert 'aiohttp' not in sys.modules and 'asyncio' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("name", ["anthropic", "aws", "google"])
@pytest.mark.parametrize("empty", [[], [""], [ImageContent(image="data:image/png;base64,YWJj")]])
def test_instructions_without_text_do_not_take_the_place_of_those_with(
    name: str, empty: list[Any]
) -> None:
    items: list[ChatItem] = [
        ChatMessage(role="system", content=empty),
        ChatMessage(role="system", content=["Be brief."]),
        *HELLO,
        ChatMessage(role="system", content=["In French."]),
    ]
    turns, data = to_provider_format(name, items)
    assert data.system_messages == ["Be brief."]
    assert "Be brief." not in repr(turns)
    assert "<instructions>\\nIn French.\\n</instructions>" in repr(turns)
