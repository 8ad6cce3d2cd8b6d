"""The prices of models by provider, as data, and the cost of a usage.

Pure. ``scripts/prices.py`` makes the tables in ``price_tables`` from the package genai-prices, which
names the source of each price. Each table is read on first use.

An unknown price is ``None``, never 0.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, Final, TypeAlias, cast

from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.families import words_of
from rejoinder._core.hosts import known_host
from rejoinder._core.usage import Buckets
from rejoinder._options import Rule, check_fields, checked

__all__ = [
    "ModelPrices",
    "Price",
    "Tiers",
    "cost_of",
    "find_prices",
    "prepare_prices",
    "price_usage",
    "prices_date",
    "set_prices",
]


Tiers: TypeAlias = tuple[float, tuple[tuple[int, float], ...]]
"""A price, and steps: above this many prompt tokens, another price applies to all tokens."""


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_price(value: object) -> bool:
    """An amount, or an amount and pairs of a number of tokens and an amount."""
    if not isinstance(value, tuple):
        return _is_amount(value)
    parts = cast("tuple[Any, ...]", value)
    if len(parts) != 2 or not _is_amount(parts[0]) or not isinstance(parts[1], tuple):
        return False
    return all(map(_is_step, cast("tuple[Any, ...]", parts[1])))


def _is_step(value: object) -> bool:
    if not isinstance(value, tuple):
        return False
    parts = cast("tuple[Any, ...]", value)
    return len(parts) == 2 and type(parts[0]) is int and _is_amount(parts[1])


def _is_in_range(value: Any) -> bool:
    amounts = [value] if _is_amount(value) else [value[0], *(price for _, price in value[1])]
    return all(0 <= amount < 1e9 for amount in amounts)


DOLLARS: Final = Rule("US dollars for a million tokens, or steps of them", _is_price, _is_in_range)


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens of each kind, or steps by the prompt's length.

    ``None``: tokens of this kind have the price of the kind to which they belong. `cache_read`,
    `cache_write` and `input_audio` belong to the input, `cache_read_audio` to `cache_read`,
    `reasoning` and `output_audio` to the output.
    """

    input: float | Tiers
    output: float | Tiers
    cache_read: float | Tiers | None = None
    cache_write: float | Tiers | None = None
    input_audio: float | Tiers | None = None
    cache_read_audio: float | Tiers | None = None
    output_audio: float | Tiers | None = None
    reasoning: float | Tiers | None = None
    request: float = 0.0
    """US dollars for each request."""

    def __post_init__(self) -> None:
        needed = ("input", "output", "request")
        rules = {f.name: DOLLARS if f.name in needed else DOLLARS.optional for f in fields(self)}
        check_fields(self, **rules)

    def cost(self, buckets: Buckets, *, cached_audio: int = 0) -> float:
        """US dollars for one request with these tokens.

        Args:
            cached_audio: tokens of `Buckets.cache_read` that are sound.
        """
        prompt = buckets.prompt
        given, made = _at(self.input, prompt), _at(self.output, prompt)
        cached = _part(self.cache_read, prompt, given)
        cached_audio = min(max(0, cached_audio), buckets.cache_read)
        total = (
            given * buckets.input
            + cached * (buckets.cache_read - cached_audio)
            + _part(self.cache_read_audio, prompt, cached) * cached_audio
            + _part(self.cache_write, prompt, given) * buckets.cache_write
            + _part(self.input_audio, prompt, given) * buckets.input_audio
            + made * buckets.output
            + _part(self.reasoning, prompt, made) * buckets.reasoning
            + _part(self.output_audio, prompt, made) * buckets.output_audio
        )
        return total / 1e6 + self.request


def _at(price: float | Tiers, prompt: int) -> float:
    if not isinstance(price, tuple):
        return price
    found = price[0]
    for start, step in price[1]:
        if prompt > start:
            found = step
    return found


def _part(price: float | Tiers | None, prompt: int, whole: float) -> float:
    return whole if price is None else _at(price, prompt)


@dataclass(frozen=True, slots=True)
class ModelPrices:
    """The prices of one model at one provider.

    Attributes:
        context: its window in tokens, if known.
    """

    model: str
    context: int | None
    _terms: tuple[tuple[tuple[str, ...], Price], ...]
    _tiers: tuple[tuple[str, tuple[str, ...], Price], ...]

    def at(self, moment: datetime, service_tier: str | None = None) -> Price | None:
        """The price for a service tier at a given time; ``None`` for a model that is not paid by the
        token, or whose price is unknown."""
        if not self._terms:
            return None
        for tier, condition, price in self._tiers:
            if tier == service_tier and _holds(condition, moment):
                return price
        # The last price whose conditions hold applies; if none does, the first.
        found = self._terms[0][1]
        for condition, price in self._terms:
            if _holds(condition, moment):
                found = price
        return found


def _holds(condition: tuple[str, ...], moment: datetime) -> bool:
    if not condition:
        return True
    if condition[0] == "from":
        return moment.date() >= date.fromisoformat(condition[1])
    now = moment.strftime("%H:%M:%S")
    start, end = condition[1:]
    return start <= now < end if start <= end else now >= start or now < end


# -- the table -------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _table(provider: str) -> Mapping[str, Any]:
    from rejoinder._core import jsontext

    module = importlib.import_module(f"rejoinder._core.price_tables.{provider.replace('-', '_')}")
    return jsontext.decode(module.TABLE)


def prices_date() -> str:
    """The day of the tables, and their source."""
    table = _table("openai")
    return f"{table['date']}, {table['source']}"


def _matches(clause: Sequence[Any], name: str) -> bool:
    kind = clause[0]
    match kind:
        case "=":
            return name == clause[1]
        case "^":
            return name.startswith(clause[1])
        case "$":
            return name.endswith(clause[1])
        case "*":
            return clause[1] in name
        case "~":
            return re.search(clause[1], name) is not None
        case "|":
            return any(_matches(one, name) for one in clause[1:])
        case _:
            return all(_matches(one, name) for one in clause[1:])


_DATED: Final = re.compile(r"-(20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


def _row(provider: str, name: str) -> list[Any] | None:
    name = name.lower()
    for spelling in (name, _DATED.sub(r"-\1-\2-\3", name)):
        for owner in (provider, *_table(provider)["others"]):
            for row in _table(owner)["models"]:
                if _matches(row[1], spelling):
                    # The tiers of a model belong to its owner.
                    return row if owner == provider else [*row[:4], []]
    return None


def _row_of_deployment(provider: str, name: str) -> list[Any] | None:
    """The model in the name of a deployment, such as ``prod-gpt4omini``. The other words of the name
    must not name another model: ``gpt-4o-transcribe-2`` is not priced as ``gpt-4o``."""
    said = words_of(name)
    telling: set[str] = set()
    best: tuple[str, list[Any]] = ("", [])
    for owner in _table(provider)["others"]:
        for row in _table(owner)["models"]:
            words = words_of(row[0])
            telling.update(words.split("-"))
            if words in said and len(words) > len(best[0]):
                best = words, row
    words, row = best
    if not words:
        return None
    rest = said.replace(words, "-", 1).strip("-").split("-")
    return None if telling.intersection(rest) - {""} else [*row[:4], []]


def _price(cells: Mapping[str, Any]) -> Price:
    def tiers(value: Any) -> Any:
        if isinstance(value, list):
            base, steps = cast("list[Any]", value)
            return base, tuple(tuple(step) for step in steps)
        return value

    return Price(**{name: tiers(value) for name, value in cells.items()})


@checked()
def find_prices(provider: str, model: str) -> ModelPrices | None:
    """The prices of a model.

    Args:
        provider: the value of `LLM.provider`: a host, such as ``api.openai.com``, or a name.
        model: its name there.

    Returns:
        ``None`` if the prices or the server are unknown.
    """
    return _found(provider, model)


def prepare_prices(provider: str, model: str) -> None:
    """Look up the prices of a model now, so that its first reply does not have to."""
    _found(provider, model)


@lru_cache(maxsize=256)
def _found(provider: str, model: str) -> ModelPrices | None:
    host = known_host(provider)
    if host is None or not host.prices:
        return None
    row = _row(host.prices, model)
    if row is None and host.key == "azure":
        row = _row_of_deployment(host.prices, model)
    if row is None:
        return None
    _, _, context, terms, variants = row
    return ModelPrices(
        model=row[0],
        context=context,
        _terms=tuple((tuple(condition), _price(cells)) for condition, cells in terms or ()),
        _tiers=tuple((tier, tuple(held), _price(cells)) for tier, held, cells in variants),
    )


_own: dict[str, Price] = {}


@checked()
def set_prices(prices: Mapping[str, Price]) -> None:
    """Set your own prices, by the name of a model or by ``provider/model``; they take precedence over
    the built-in ones. Each call replaces the prices of the previous call."""
    global _own
    _own = dict(prices)


@checked()
def cost_of(
    usage: CompletionUsage,
    *,
    provider: str | None,
    model: str | None,
    at: float | None = None,
    cached_audio: int = 0,
) -> float | None:
    """US dollars for the tokens of one request; ``None`` if the price is unknown.

    Args:
        usage: usage of the request; its `service_tier` counts.
        provider, model: as in `find_prices`.
        at: seconds since the epoch; default now.
        cached_audio: number of cached tokens that are sound.
    """
    return price_usage(usage, provider=provider, model=model, at=at, cached_audio=cached_audio)


def price_usage(
    usage: CompletionUsage,
    *,
    provider: str | None,
    model: str | None,
    at: float | None = None,
    cached_audio: int = 0,
) -> float | None:
    """`cost_of` for `Buckets`."""
    if provider is None or model is None:
        return None
    own = _own.get(f"{provider}/{model}") or _own.get(model)
    if own is not None:
        return own.cost(Buckets.of(usage), cached_audio=cached_audio)
    found = _found(provider, model)
    if found is None:
        return None
    moment = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    price = found.at(moment, usage.service_tier)
    if price is None:
        return None
    return price.cost(Buckets.of(usage), cached_audio=cached_audio)
