"""A model that is passed to the API of another maker: the error tells where it belongs, before anything
is sent."""

from __future__ import annotations

import pytest

from rejoinder._core.realtime.makers import elsewhere
from rejoinder.errors import ConfigurationError
from rejoinder.providers.aws.realtime import RealtimeModel as NovaSonic
from rejoinder.providers.google.realtime import RealtimeModel as GeminiLive
from rejoinder.providers.openai.live import GPTLiveModel
from rejoinder.providers.openai.realtime import RealtimeModel as OpenAIRealtime

HERE = {
    "google": lambda model: GeminiLive(model=model, api_key="k"),
    "openai": lambda model: OpenAIRealtime(model=model, api_key="k"),
    "live": lambda model: GPTLiveModel(model=model, api_key="k"),
    "aws": lambda model: NovaSonic(model=model, api_key="k", api_secret="s", region="us-east-1"),
}


@pytest.mark.parametrize(
    ("here", "model", "told"),
    [
        ("google", "gpt-4", "providers.openai.LLM"),
        ("google", "models/gpt-4.1-mini", "providers.openai.LLM"),
        ("google", "gpt-realtime-2.1", "providers.openai.realtime"),
        ("google", "claude-sonnet-4-5", "providers.anthropic.LLM"),
        ("google", "us.amazon.nova-2-sonic-v1:0", "providers.aws.realtime"),
        ("openai", "gpt-4", "providers.openai.LLM"),
        ("openai", "o3-mini", "providers.openai.LLM"),
        ("openai", "gemini-3.8-live", "providers.google"),
        ("openai", "amazon.nova-2-sonic-v1:0", "providers.aws.realtime"),
        ("live", "claude-sonnet-4-5", "providers.anthropic.LLM"),
        ("live", "gpt-4", "providers.openai.LLM"),
        ("live", "gpt-realtime-2.1", "openai.realtime"),
        ("aws", "gpt-realtime-2.1", "providers.openai.realtime"),
        ("aws", "gemini-3.8-live", "providers.google"),
    ],
)
def test_a_model_of_another_api_is_refused_with_its_place(here: str, model: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HERE[here](model)
    assert repr(model) in str(caught.value)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("here", "model"),
    [
        ("google", "a-model-of-ours"),
        ("google", "gpto"),
        ("openai", "a-model-of-ours"),
        ("openai", "gpt-realtime-3"),
        ("openai", "gpt-4o-realtime-preview"),
        ("live", "gpt-live-2"),
    ],
)
def test_an_unknown_model_goes_to_the_service(here: str, model: str) -> None:
    HERE[here](model)


def test_another_server_of_the_protocol_may_have_any_model() -> None:
    OpenAIRealtime(model="gemini-3.8-live", api_key="k", base_url="http://localhost:4000/v1")


def test_the_own_models_are_at_home() -> None:
    assert elsewhere("gemini-3.8-live", "gemini") == ""
    assert elsewhere("gpt-4") != ""
