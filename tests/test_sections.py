"""Errors that docs/troubleshooting.md explains end with the place of their section."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from rejoinder import ChatContext, create, function_tool
from rejoinder._sections import explained, extended, plain, section_of_status
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    EmptyResponseError,
    RefusalError,
)
from rejoinder.llm import ToolContext
from rejoinder.store import SqliteStore, StoreError
from rejoinder.testing import ScriptedLLM
from rejoinder.turn import run_turn

PLACE = "docs/troubleshooting.md#"


def test_the_sentence_is_the_last_one_and_stands_once() -> None:
    told = explained("no API key; pass one", "no key")
    assert told == f"no API key; pass one. More: {PLACE}no-api-key"
    assert explained(f"it failed: {told}", "store") == (
        f"it failed: no API key; pass one. More: {PLACE}the-store-cannot-be-used"
    )
    assert plain(told) == "no API key; pass one"
    assert plain(f"({told}; and more)") == "(no API key; pass one; and more)"
    assert extended(told, " there") == f"no API key; pass one there. More: {PLACE}no-api-key"
    assert extended("no key", " there") == "no key there"
    assert explained("Really?", "no key") == f"Really? More: {PLACE}no-api-key"
    assert explained("unknown", None) == "unknown"
    assert section_of_status(418) is None


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (APIError("a"), "a"),
        (APIStatusError("a", status_code=500), "a (status_code=500)"),
        (
            APIStatusError("a", status_code=401, request_id="r"),
            f"a (status_code=401, request_id=r). More: {PLACE}status-401",
        ),
        (
            APIStatusError("a", status_code=400).but(section="context too long"),
            f"a (status_code=400). More: {PLACE}the-conversation-is-too-long",
        ),
        (
            RefusalError("a", status_code=403),
            f"a (status_code=403). More: {PLACE}the-model-refuses",
        ),
        (EmptyResponseError("a"), f"a. More: {PLACE}an-empty-reply"),
        (APITimeoutError("a").but(section="no output"), f"a. More: {PLACE}no-output-in-time"),
        (APIConnectionError("a").but(section="cut"), f"a. More: {PLACE}the-reply-was-cut"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_error_of_a_provider_has_its_section_in_its_text_alone(
    error: APIError, text: str
) -> None:
    assert str(error) == text
    assert (error.message, error.args[0]) == ("a", "a")
    assert str(pickle.loads(pickle.dumps(error))) == text
    assert str(error.but(message="b")) == "b" + text[1:]


def test_a_cause_is_quoted_without_its_section() -> None:
    error = APIConnectionError("it broke")
    error.__cause__ = ValueError(explained("no key", "no key"))
    assert str(error) == "it broke [ValueError: no key]"


def _no_key() -> None:
    create("openai/gpt-4.1")


def _no_provider() -> None:
    create("nowhere/gpt-4.1")


def _no_slash() -> None:
    create("gpt-4.1")


def _no_address() -> None:
    create("openai/gpt-4.1", api_key="k", base_url="localhost:1")


def _two_tools() -> None:
    def make() -> Any:
        @function_tool
        async def look() -> str:
            """Look."""
            return ""

        return look

    ToolContext([make(), make()])


def _asked_too_often() -> None:
    async def ask() -> None:
        async with ScriptedLLM() as llm:
            await run_turn(llm, ChatContext.empty()).collect()

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("fail", "place"),
    [
        (_no_key, "no-api-key"),
        (_no_provider, "unknown-provider"),
        (_no_slash, "the-model-name-has-no-provider"),
        (_no_address, "not-an-address"),
        (_two_tools, "two-tools-with-one-name"),
        (_asked_too_often, "the-script-is-over"),
    ],
    ids=lambda value: value.strip("_") if isinstance(value, str) else value.__name__,
)
def test_what_a_newcomer_meets(
    fail: Callable[[], None], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(Exception, match=rf"[.?] More: {PLACE}{place}$") as caught:
        fail()
    assert "\n" not in str(caught.value)


async def test_a_store_in_a_folder_that_does_not_exist(tmp_path: Any) -> None:
    store = SqliteStore(tmp_path / "no" / "where.db")
    with pytest.raises(StoreError, match=rf"\. More: {PLACE}the-store-cannot-be-used$"):
        await store.conversations()
    await store.aclose()
