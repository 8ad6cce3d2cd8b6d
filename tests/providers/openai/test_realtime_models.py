"""What is known of realtime models is told before anything is sent."""

from __future__ import annotations

import logging

import pytest

from rejoinder.errors import ConfigurationError
from rejoinder.providers.openai.realtime import RealtimeModel
from rejoinder.providers.openai.realtime_dialects import MODELS, facts_of


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("gpt-realtime", "gpt-realtime"),
        ("gpt-realtime-2025-08-28", "gpt-realtime"),
        ("gpt-realtime-2.1", "gpt-realtime-2.1"),
        ("gpt-realtime-2.1-mini", "gpt-realtime-2.1"),
        ("gpt-realtime-mini-2025-10-06", "gpt-realtime-mini"),
        ("gpt-live-1", "gpt-live"),
    ],
)
def test_the_longest_name_counts(name: str, row: str) -> None:
    assert facts_of(name) is MODELS[row]


def test_of_an_unknown_model_nothing_is_refused() -> None:
    RealtimeModel(model="voice-of-tomorrow", api_key="k", reasoning={"effort": "low"})


@pytest.mark.parametrize(
    "option", [{"reasoning": {"effort": "low"}}, {"parallel_tool_calls": True}]
)
def test_options_that_a_model_refuses(option: dict[str, object]) -> None:
    RealtimeModel(api_key="k", **option)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"'gpt-realtime-1\.5' does not accept"):
        RealtimeModel(model="gpt-realtime-1.5", api_key="k", **option)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["gpt-live-1", "gpt-4.1", "gpt-transcribe"])
def test_a_model_of_another_api(model: str) -> None:
    with pytest.raises(ConfigurationError, match=model):
        RealtimeModel(model=model, api_key="k")


def test_a_model_that_is_switched_off_soon(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "rejoinder"):
        RealtimeModel(model="gpt-realtime", api_key="k")
    assert "2027-01-20" in caplog.text
    assert "gpt-realtime-2.1" in caplog.text
