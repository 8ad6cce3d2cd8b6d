"""What a usage costs: known prices, own prices, and what is not known."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder import prices
from rejoinder._core.hosts import HOSTS
from rejoinder._core.prices import _holds, _table
from rejoinder._core.usage import Buckets
from rejoinder.errors import ConfigurationError
from rejoinder.llm import CompletionUsage

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_own_prices() -> Iterator[None]:
    yield
    prices.set_prices({})


def usage(prompt: int, completion: int, **more: int | str) -> CompletionUsage:
    return CompletionUsage.model_validate(
        {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            **more,
        }
    )


def cost(counted: CompletionUsage, provider: str, model: str) -> float | None:
    return prices.cost_of(counted, provider=provider, model=model, at=NOW.timestamp())


def test_each_kind_of_token_has_its_price() -> None:
    price = prices.Price(
        input=1.0,
        output=10.0,
        cache_read=0.1,
        cache_write=1.25,
        input_audio=40.0,
        output_audio=80.0,
        reasoning=20.0,
        request=0.005,
    )
    counted = Buckets(
        input=1_000_000,
        cache_read=10_000_000,
        cache_write=4_000_000,
        input_audio=100_000,
        output=1_000_000,
        output_audio=10_000,
        reasoning=50_000,
    )
    assert price.cost(counted) == pytest.approx(1 + 1 + 5 + 4 + 10 + 0.8 + 1 + 0.005)


def test_a_part_without_a_price_costs_what_its_whole_costs() -> None:
    price = prices.Price(input=2.0, output=8.0, cache_read=0.5)
    counted = Buckets(input=10, input_audio=10, cache_write=10, reasoning=10, output_audio=10)
    assert price.cost(counted) == pytest.approx((30 * 2 + 20 * 8) / 1e6)
    assert price.cost(Buckets(cache_read=10), cached_audio=4) == pytest.approx(5 / 1e6)


@pytest.mark.parametrize(("prompt", "rate"), [(200_000, 3.0), (200_001, 6.0), (500_001, 9.0)])
def test_long_prompts_cost_more(prompt: int, rate: float) -> None:
    price = prices.Price(input=(3.0, ((200_000, 6.0), (500_000, 9.0))), output=1.0)
    assert price.cost(Buckets(input=prompt)) == pytest.approx(prompt * rate / 1e6)


@given(st.lists(st.integers(0, 10**7), min_size=7, max_size=7))
def test_more_tokens_never_cost_less(counts: list[int]) -> None:
    found = prices.find_prices("api.openai.com", "gpt-4o-audio-preview")
    assert found is not None
    price = found.at(NOW)
    assert price is not None
    buckets = Buckets(*counts)
    assert 0 <= price.cost(buckets) <= price.cost(buckets + buckets)


@pytest.mark.parametrize(
    ("provider", "model", "family"),
    [
        ("api.openai.com", "gpt-4.1", "gpt-4.1"),
        ("api.openai.com", "gpt-4.1-2025-04-14", "gpt-4.1"),
        ("prod.openai.azure.com", "gpt-4o", "gpt-4o"),
        ("prod.openai.azure.com", "prod_gpt4omini", "gpt-4o-mini"),
        ("api.anthropic.com", "claude-sonnet-4-5", "claude-sonnet-4-5"),
        ("Vertex AI", "claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("Gemini", "gemini-2.5-flash", "gemini-2.5-flash"),
        ("AWS Bedrock", "amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0"),
        ("openrouter.ai", "anthropic/claude-sonnet-4.5", "anthropic/claude-sonnet-4.5"),
    ],
)
def test_models_are_found_by_the_names_of_their_hosts(
    provider: str, model: str, family: str
) -> None:
    found = prices.find_prices(provider, model)
    assert found is not None
    assert found.model == family
    assert (cost(usage(1000, 100), provider, model) or 0) > 0


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("127.0.0.1:8000", "gpt-4.1"),  # an unknown server may ask any price
        ("local", "anything"),
        ("unknown", "unknown"),
        ("api.openai.com", "ft:secret"),
        ("api.openai.com", "text-embedding-3-small"),  # not paid by the token of a reply
        ("prod.openai.azure.com", "my-gpt-4o-pro"),  # another model than gpt-4o
        ("prod.openai.azure.com", "production"),
    ],
)
def test_what_is_not_known_is_none(provider: str, model: str) -> None:
    assert cost(usage(1000, 100), provider, model) is None


def test_a_service_tier_has_its_price() -> None:
    plain = cost(usage(1000, 100), "api.openai.com", "gpt-5.1")
    flex = cost(usage(1000, 100, service_tier="flex"), "api.openai.com", "gpt-5.1")
    assert plain is not None
    assert flex is not None
    assert flex < plain


def test_own_prices_come_first() -> None:
    own = prices.Price(input=1.0, output=2.0)
    prices.set_prices({"127.0.0.1:8000/mine": own, "gpt-4.1": prices.Price(input=0.0, output=0.0)})
    million = usage(1_000_000, 1_000_000)
    assert cost(million, "127.0.0.1:8000", "mine") == pytest.approx(3.0)
    assert cost(million, "127.0.0.1:9000", "mine") is None
    assert cost(million, "api.openai.com", "gpt-4.1") == 0.0


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), "2", (1.0, ((1, -1.0),)), None])
def test_wrong_prices_are_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match=r"Price\.input"):
        prices.Price(input=wrong, output=1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("condition", "hour", "holds"),
    [
        ((), 3, True),
        (("from", "2026-12-01"), 0, True),
        (("from", "2026-12-02"), 23, False),
        (("daily", "16:30:00", "00:30:00"), 23, True),
        (("daily", "16:30:00", "00:30:00"), 0, True),
        (("daily", "16:30:00", "00:30:00"), 12, False),
        (("daily", "01:00:00", "04:00:00"), 4, False),
    ],
)
def test_when_a_price_holds(condition: tuple[str, ...], hour: int, holds: bool) -> None:
    assert _holds(condition, datetime(2026, 12, 1, hour, tzinfo=UTC)) is holds


def test_every_host_with_prices_has_a_table() -> None:
    for host in HOSTS.values():
        if host.prices:
            assert _table(host.prices)["models"]
    assert prices.prices_date().startswith("20")
