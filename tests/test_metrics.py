"""What many replies cost together."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from rejoinder.llm import ChatChunk, ChatContext, CompletionUsage
from rejoinder.metrics import (
    LLMMetrics,
    Metadata,
    RealtimeModelMetrics,
    UsageCollector,
    UsageSummary,
    log_metrics,
)
from rejoinder.testing import ScriptedLLM


def llm_metrics(**given: Any) -> LLMMetrics:
    fields: dict[str, Any] = {
        "label": "x",
        "request_id": "r",
        "timestamp": 1.0,
        "duration": 1.0,
        "ttft": 0.1,
        "cancelled": False,
        "completion_tokens": 3,
        "prompt_tokens": 20,
        "prompt_cached_tokens": 5,
        "total_tokens": 23,
        "tokens_per_second": 3.0,
    }
    return LLMMetrics(**fields | given)


def test_replies_are_added_up_in_all_and_for_each_model() -> None:
    usage = UsageCollector()
    one = Metadata(model_name="one", model_provider="p")
    usage.collect(llm_metrics(metadata=one, cache_creation_tokens=4, reasoning_tokens=2))
    usage.collect(llm_metrics(metadata=one, completion_tokens=7, estimated=True))
    usage.collect(llm_metrics())
    assert usage.get_summary() == UsageSummary(
        llm_prompt_tokens=60,
        llm_prompt_cached_tokens=15,
        llm_completion_tokens=13,
        llm_cache_creation_tokens=4,
        llm_reasoning_tokens=2,
        llm_requests=3,
        estimated=True,
        unpriced=3,
    )
    models = usage.by_model()
    assert models["p", "one"].llm_completion_tokens == 10
    assert models["p", "one"].estimated
    assert models[None, None] == UsageSummary(
        llm_prompt_tokens=20,
        llm_prompt_cached_tokens=5,
        llm_completion_tokens=3,
        llm_requests=1,
        unpriced=1,
    )


def test_speech_models_count_with_their_audio() -> None:
    usage = UsageCollector()
    usage.collect(
        RealtimeModelMetrics(
            request_id="r",
            timestamp=1.0,
            input_tokens=10,
            output_tokens=20,
            total_tokens=30,
            input_token_details=RealtimeModelMetrics.InputTokenDetails(
                audio_tokens=8, text_tokens=2, cached_tokens=1
            ),
            output_token_details=RealtimeModelMetrics.OutputTokenDetails(audio_tokens=15),
        )
    )
    assert usage.get_summary() == UsageSummary(
        llm_prompt_tokens=10,
        llm_prompt_cached_tokens=1,
        llm_input_audio_tokens=8,
        llm_completion_tokens=20,
        llm_output_audio_tokens=15,
        llm_requests=1,
        unpriced=1,
    )


def test_what_is_handed_out_does_not_change() -> None:
    usage = UsageCollector()
    before, models = usage.get_summary(), usage.by_model()
    usage.collect(llm_metrics())
    usage.collect("of a transcriber, say")  # type: ignore[arg-type]
    assert before == UsageSummary()
    assert models == {}
    assert usage.get_summary().llm_requests == 1


async def test_it_listens_to_a_model() -> None:
    usage = UsageCollector()
    told = CompletionUsage(prompt_tokens=2, completion_tokens=1, total_tokens=3)
    llm = ScriptedLLM(["Hello.", ChatChunk(id="1", usage=told)])
    llm.on("metrics_collected", usage.collect)
    await llm.chat(chat_ctx=ChatContext.empty()).collect()
    assert usage.get_summary().llm_prompt_tokens == 2
    assert usage.by_model()[llm.provider, llm.model].llm_requests == 1


def test_metrics_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    metadata = Metadata(model_name="gpt", model_provider="openai")
    with caplog.at_level(logging.INFO, "rejoinder"):
        log_metrics(llm_metrics(ttft=0.12345, prompt_tokens=7, metadata=metadata))
    (record,) = caplog.records
    assert record.getMessage().startswith("LLM metrics: model_name=gpt model_provider=openai ")
    assert "ttft=0.123 prompt_tokens=7" in record.getMessage()
    assert record.__dict__["prompt_tokens"] == 7
    assert "estimated" not in record.getMessage()


def test_metrics_in_a_log_of_ones_own(caplog: pytest.LogCaptureFixture) -> None:
    mine = logging.getLogger("mine")
    with caplog.at_level(logging.INFO, "mine"):
        log_metrics(llm_metrics(estimated=True, cancelled=True), logger=mine)
        log_metrics(
            RealtimeModelMetrics(
                request_id="r",
                timestamp=1.0,
                input_token_details=RealtimeModelMetrics.InputTokenDetails(),
                output_token_details=RealtimeModelMetrics.OutputTokenDetails(),
            ),
            logger=mine,
        )
        log_metrics(object(), logger=mine)  # type: ignore[arg-type]
    assert [record.name for record in caplog.records] == ["mine", "mine"]
    assert "cancelled=True estimated=True" in caplog.text
    assert "RealtimeModel metrics" in caplog.text


async def test_metrics_of_a_model(caplog: pytest.LogCaptureFixture) -> None:
    llm = ScriptedLLM("Hello")
    llm.on("metrics_collected", log_metrics)
    with caplog.at_level(logging.INFO, "rejoinder"):
        await llm.chat(chat_ctx=ChatContext.empty()).collect()
    assert "LLM metrics: model_name=scripted" in caplog.text


def test_money_for_each_model_and_each_purpose() -> None:
    usage = UsageCollector()
    one = Metadata(model_name="one", model_provider="p")
    usage.collect(llm_metrics(metadata=one, cost=0.25))
    usage.collect(llm_metrics(metadata=one, cost=0.5, purpose="hedge"))
    usage.collect(llm_metrics(purpose="probe"))
    summary = usage.get_summary()
    assert summary.cost == pytest.approx(0.75)
    assert summary.unpriced == 1
    assert usage.by_model()["p", "one"].cost == pytest.approx(0.75)
    purposes = usage.by_purpose()
    assert purposes["reply"].cost == pytest.approx(0.25)
    assert purposes["hedge"].cost == pytest.approx(0.5)
    assert purposes["probe"].cost is None, "not known is not free"
    assert purposes["probe"].unpriced == 1
