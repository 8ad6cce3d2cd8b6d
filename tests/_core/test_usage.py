"""Token counts mean one thing, whoever counted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.usage import Buckets
from rejoinder.providers.anthropic.usage import usage_from_anthropic
from rejoinder.providers.aws.usage import usage_from_bedrock
from rejoinder.providers.completions.usage import usage_from_openai
from rejoinder.providers.google.usage import usage_from_google
from rejoinder.providers.openai.usage import usage_from_responses

CONVERTERS = [
    usage_from_anthropic,
    usage_from_bedrock,
    usage_from_google,
    usage_from_openai,
    usage_from_responses,
]


def of(usage: CompletionUsage | None) -> Buckets:
    assert usage is not None
    return Buckets.of(usage)


# The same reply, as each provider would count it: 100 read (40 from the cache, 10 written to it),
# 30 generated (20 of them thoughts).
ONE_REPLY = Buckets(input=50, cache_read=40, cache_write=10, output=10, reasoning=20)


@pytest.mark.parametrize(
    "usage",
    [
        pytest.param(
            usage_from_openai(
                {
                    "prompt_tokens": 100,
                    "completion_tokens": 30,
                    "total_tokens": 130,
                    "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 10},
                    "completion_tokens_details": {"reasoning_tokens": 20},
                }
            ),
            id="openai",
        ),
        pytest.param(
            usage_from_openai(
                {
                    "prompt_tokens": 100,
                    "completion_tokens": 10,
                    "total_tokens": 130,
                    "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 10},
                    "completion_tokens_details": {"reasoning_tokens": 20},
                }
            ),
            id="xai",
        ),
        pytest.param(
            usage_from_responses(
                {
                    "input_tokens": 100,
                    "output_tokens": 30,
                    "total_tokens": 130,
                    "input_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 10},
                    "output_tokens_details": {"reasoning_tokens": 20},
                }
            ),
            id="responses",
        ),
        pytest.param(
            usage_from_anthropic(
                {
                    "input_tokens": 50,
                    "cache_read_input_tokens": 40,
                    "cache_creation_input_tokens": 10,
                    "output_tokens": 30,
                    "output_tokens_details": {"thinking_tokens": 20},
                }
            ),
            id="anthropic",
        ),
    ],
)
def test_one_reply_by_everybody(usage: CompletionUsage | None) -> None:
    assert of(usage) == ONE_REPLY
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (100, 30, 130)


def test_google_counts_thoughts_and_tools_beside() -> None:
    usage = usage_from_google(
        {
            "promptTokenCount": 90,
            "toolUsePromptTokenCount": 10,
            "cachedContentTokenCount": 40,
            "candidatesTokenCount": 10,
            "thoughtsTokenCount": 20,
            "totalTokenCount": 130,
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 30}],
        }
    )
    assert of(usage) == Buckets(input=30, input_audio=30, cache_read=40, output=10, reasoning=20)


def test_bedrock_counts_the_cache_beside() -> None:
    usage = usage_from_bedrock(
        {
            "inputTokens": 50,
            "cacheReadInputTokens": 40,
            "cacheWriteInputTokens": 10,
            "outputTokens": 30,
            "totalTokens": 130,
        }
    )
    assert of(usage) == Buckets(input=50, cache_read=40, cache_write=10, output=30)


def test_mistral_counts_sound_beside() -> None:
    usage = usage_from_openai(
        {
            "prompt_tokens": 9,
            "completion_tokens": 248,
            "total_tokens": 632,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 375},
        }
    )
    assert of(usage) == Buckets(input=9, input_audio=375, output=248)


def test_thoughts_beside_and_sound_within() -> None:
    usage = usage_from_openai(
        {
            "prompt_tokens": 20,
            "completion_tokens": 5,
            "total_tokens": 32,
            "prompt_tokens_details": {"audio_tokens": 12},
            "completion_tokens_details": {"reasoning_tokens": 7},
        }
    )
    assert of(usage) == Buckets(input=8, input_audio=12, output=5, reasoning=7)


def test_caches_by_other_names() -> None:
    for raw in (
        {"prompt_cache_hit_tokens": 5},
        {"num_cached_tokens": 5},
        {"prompt_tokens_details": {"cached_tokens": 5}},
    ):
        usage = usage_from_openai({"prompt_tokens": 9, "completion_tokens": 1, **raw})
        assert usage is not None
        assert usage.prompt_cached_tokens == usage.cache_read_tokens == 5
        assert usage.total_tokens == 10


@pytest.mark.parametrize("convert", CONVERTERS, ids=lambda convert: convert.__name__)
@pytest.mark.parametrize("raw", [None, {}, [], "x", 7, {"prompt_tokens": None}], ids=repr)
def test_what_counts_nothing_is_nothing(convert: Any, raw: Any) -> None:
    assert convert(raw) is None


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((5, None, 7), (5, 2)), ((None, 2, 7), (5, 2)), ((5, 2, None), (5, 2)), ((5, 2, 99), (5, 2))],
)
def test_a_missing_count_is_told_by_the_total(
    counts: tuple[int | None, ...], expected: tuple[int, int]
) -> None:
    prompt, completion, total = counts
    chat = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
    response = {"input_tokens": prompt, "output_tokens": completion, "total_tokens": total}
    for usage in (usage_from_openai(chat), usage_from_responses(response)):
        assert usage is not None
        assert (usage.prompt_tokens, usage.completion_tokens) == expected
        assert usage.total_tokens == sum(expected)


@pytest.mark.parametrize(
    "many", [10**400, 1e300, "1e300", 10**20], ids=["int", "float", "text", "less"]
)
def test_a_number_that_no_reply_has_can_still_be_reckoned_with(many: Any) -> None:
    usage = usage_from_openai({"prompt_tokens": many, "completion_tokens": many})
    assert usage is not None
    assert usage.completion_tokens / 0.5 > 1e15
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_buckets_add() -> None:
    assert (ONE_REPLY + ONE_REPLY).total == 2 * ONE_REPLY.total
    assert sum([ONE_REPLY, ONE_REPLY], Buckets()) == ONE_REPLY + ONE_REPLY


KEYS = [
    *("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details"),
    *("completion_tokens_details", "cached_tokens", "audio_tokens", "reasoning_tokens"),
    *("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
    *("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount"),
    *("cachedContentTokenCount", "promptTokensDetails", "modality", "tokenCount"),
    *("inputTokens", "outputTokens", "cacheReadInputTokens", "input_tokens_details"),
]
counts = st.one_of(
    st.integers(-5, 1000), st.none(), st.floats(), st.text(max_size=3), st.booleans()
)
raws = st.recursive(
    st.dictionaries(st.sampled_from(KEYS), counts, max_size=6),
    lambda inner: st.dictionaries(
        st.sampled_from(KEYS), counts | inner | st.lists(inner, max_size=2), max_size=6
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("convert", CONVERTERS, ids=lambda convert: convert.__name__)
@given(raw=raws)
def test_the_buckets_are_the_totals(convert: Any, raw: Any) -> None:
    usage = convert(raw)
    if usage is None:
        return
    buckets = Buckets.of(usage)
    assert min(getattr(buckets, name) for name in Buckets.__slots__) >= 0
    assert buckets.prompt == usage.prompt_tokens
    assert buckets.completion == usage.completion_tokens
    assert buckets.total == usage.total_tokens
    assert buckets.usage(service_tier=usage.service_tier) == usage
