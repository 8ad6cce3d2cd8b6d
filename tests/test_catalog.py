"""Names of models."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from rejoinder import catalog
from rejoinder._core import dialects
from rejoinder.errors import ConfigurationError
from rejoinder.llm.llm import LLM
from rejoinder.providers import openai


@pytest.fixture
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialects, "_registered", {})
    monkeypatch.setattr(dialects, "_found", {})
    return


async def test_a_name_makes_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    async with catalog.create("openai/gpt-4.1", temperature=0.1) as llm:
        assert isinstance(llm, openai.LLM)
        assert llm.model == "gpt-4.1"
        assert llm.provider == "api.openai.com"


async def test_a_model_may_hold_slashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "k")
    async with catalog.create("openrouter/qwen/qwen3-32b") as llm:
        assert llm.model == "qwen/qwen3-32b"


async def test_base_url_goes_to_any_compatible_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    async with catalog.create("openai/any", base_url="http://127.0.0.1:9/v1") as llm:
        assert llm.provider == "127.0.0.1:9"


async def test_responses_have_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    async with catalog.create("openai.responses/gpt-5") as llm:
        assert isinstance(llm, openai.LLM)
        assert llm._responses


@pytest.mark.parametrize("name", ["", "openai", "openai/", "/gpt-4.1"])
def test_half_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="slash"):
        catalog.create(name)


def test_a_typing_error_is_noticed() -> None:
    with pytest.raises(ConfigurationError, match="'anthropic'"):
        catalog.create("antropic/claude")


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        catalog.create("openai/gpt-4.1")


def test_own_providers_can_be_registered(own_names: None) -> None:
    made: list[Any] = []

    def make(**options: Any) -> LLM[Any]:
        made.append(options)
        return openai.LLM(model="x", api_key="k")

    catalog.register("mine", make, model_option="name")
    catalog.create("mine/a/b", base_url="http://h", x=1)
    assert made == [{"name": "a/b", "base_url": "http://h", "x": 1}]
    assert "mine" in catalog.provider_names()
    for provider, target in (("", make), ("a/b", make), ("c", "no colon")):
        with pytest.raises(ConfigurationError):
            catalog.register(provider, target)


def test_nothing_is_imported_before_it_is_named() -> None:
    code = (
        "import sys, rejoinder.catalog as c; c.provider_names(); "
        "print([m for m in sys.modules if m.startswith('rejoinder.providers.') or m == 'aiohttp'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_name_makes_a_realtime_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("XAI_API_KEY", "other")
    model = catalog.create_realtime("openai/gpt-realtime-2.1", voice="cedar")
    assert (model.model, model.provider) == ("gpt-realtime-2.1", "api.openai.com")
    model = catalog.create_realtime("xai/grok-voice-latest")
    assert (model.model, model.provider) == ("grok-voice-latest", "api.x.ai")
    assert model._server.access.key == "other"  # type: ignore[attr-defined]
    model = catalog.create_realtime("azure/mine", base_url="https://a.b", api_key="k")
    assert "deployment" not in model._server.query  # type: ignore[attr-defined]
    assert model._server.query["model"] == "mine"  # type: ignore[attr-defined]


def test_who_has_realtime_models_is_known() -> None:
    names = catalog.realtime_provider_names()
    assert {"aws", "azure", "google", "openai", "openai.live", "vertex", "x_ai"} <= set(names)
    assert "anthropic" not in names
    for wrong, told in (
        ("anthropic/claude", "no provider of realtime models"),
        ("gogle/x", "'google'"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            catalog.create_realtime(wrong)


def test_an_own_dialect_may_have_realtime_models(own_names: None) -> None:
    made: list[dict[str, Any]] = []
    mine = dialects.Dialect("mine", realtime=lambda **options: made.append(options))
    dialects.register("mine", mine)
    catalog.create_realtime("mine/loud", volume=11)
    assert made == [{"model": "loud", "volume": 11}]
