"""From any history a legal request, for every provider, with nothing said lost or said twice.

The seeds 0 to 999 run always; hypothesis looks further, and further still with the profile
"thorough".
"""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import vendors
from fuzz.histories import History, random_history
from rejoinder._core.dialects import to_provider_format
from rejoinder._core.repair import repair
from rejoinder.llm.chat_context import ChatItem
from rejoinder.testing.history import PROVIDERS, check_history

pytestmark = pytest.mark.slow

# Marks in `histories.STATES` of what one provider sealed, and who may see it again.
SEALED = {
    "SIG_ant": ("anthropic",),
    "SIG_aws": ("aws",),
    "SIG_lk": (),
    "SIG_oai": ("openai.responses",),
    "SIG_xai": (),
    "c2lnbmF0dXJl": (),
}
VARIANTS: list[tuple[str, dict[str, bool]]] = [
    *((provider, {}) for provider in PROVIDERS),
    ("google", {"signatures": True}),
    ("anthropic", {"prefill": True}),
    ("aws", {"prefill": True}),
]


@pytest.fixture(autouse=True)
def quiet() -> Any:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def converted(provider: str, items: list[ChatItem]) -> tuple[Any, list[str]]:
    messages, data = to_provider_format(provider, items)
    if provider == "mistralai.conversations":
        return messages, [data.instructions] if data.instructions else []
    return messages, [] if data is None else data.system_messages


def as_text(*values: Any) -> str:
    def plain(value: Any) -> Any:
        assert isinstance(value, bytes), f"{type(value).__name__} is not data"
        return value.decode("latin-1")

    return json.dumps(values, default=plain, ensure_ascii=False)


def picture(items: list[ChatItem]) -> list[str]:
    return [repr(item) for item in items]


def check(history: History, provider: str, options: dict[str, bool]) -> None:
    before = picture(history.items)
    items, changes = repair(history.items, provider, **options)
    messages, system = converted(provider, items)

    assert picture(history.items) == before, "the history itself was changed"
    assert check_history(provider, messages, system=system, **options) == []
    text = as_text(messages, system)
    assert [token for token in history.tokens if text.count(token) != 1] == []
    for mark, owners in SEALED.items():
        if provider not in owners:
            assert mark not in text

    # Nothing is left to do, and nothing is told when nothing is done.
    again, more = repair(items, provider, **options)
    assert more == []
    assert as_text(*converted(provider, again)) == text
    if not changes:
        assert as_text(*converted(provider, history.items)) == text
    for change in changes:
        assert change.item_id is not None
        assert change.detail


@pytest.mark.parametrize(("provider", "options"), VARIANTS, ids=lambda value: str(value))
def test_a_thousand_histories(provider: str, options: dict[str, bool]) -> None:
    for seed in range(1000):
        check(random_history(seed), provider, options)


@given(seed=st.integers(0, 2**32), longest=st.integers(1, 60))
def test_any_history_for_any_provider(seed: int, longest: int) -> None:
    history = random_history(seed, longest=longest)
    for provider, options in VARIANTS:
        check(history, provider, options)


@given(seed=st.integers(0, 2**32), order=st.lists(st.sampled_from(PROVIDERS), max_size=5))
def test_the_model_may_change_at_every_turn(seed: int, order: list[str]) -> None:
    """What was repaired for one provider is repaired for the next."""
    history = random_history(seed)
    items = history.items
    for provider in order:
        items, _ = repair(items, provider)
        messages, system = converted(provider, items)
        assert check_history(provider, messages, system=system) == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_vendors_types_fit(provider: str) -> None:
    judge = vendors.judge(provider)
    for seed in range(60):
        items, _ = repair(random_history(seed).items, provider)
        judge(*converted(provider, items))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_checkers_have_something_to_find(provider: str) -> None:
    """The same histories without repair: nearly all are refused, or cannot even be converted."""
    refused = 0
    for seed in range(200):
        try:
            messages, system = converted(provider, random_history(seed).items)
        except ValueError:
            refused += 1
            continue
        refused += bool(check_history(provider, messages, system=system))
    assert refused > 100
