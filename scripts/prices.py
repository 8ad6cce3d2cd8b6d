"""Make the tables of prices from the package genai-prices.

    python scripts/prices.py            write prices.json
    python scripts/prices.py --check    fail if they are not what the package says

genai-prices is needed here only, in an environment of its own (``requirements/outside/prices.lock``).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "src/rejoinder/_core/price_tables"
WIDTH = 1000
"""Characters of a line of a table."""
sys.path.insert(0, str(ROOT / "requirements"))

PROVIDERS = (
    *("anthropic", "aws", "azure", "cerebras", "databricks", "deepseek", "fireworks", "google"),
    *("groq", "mistral", "moonshotai", "openai", "openrouter", "ovhcloud", "perplexity"),
    *("together", "x-ai", "zai"),
)
"""Those of the hosts in `rejoinder._core.hosts`, and those whose models they serve."""

UNITS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "input_audio_mtok": "input_audio",
    "cache_audio_read_mtok": "cache_read_audio",
    "output_audio_mtok": "output_audio",
    "output_reasoning_mtok": "reasoning",
}
"""What is counted in replies. Searches, pages and hours of sound are not."""


def clause(match: Any) -> list[Any]:
    kind = type(match).__name__
    simple = {
        "ClauseEquals": ("=", "equals"),
        "ClauseStartsWith": ("^", "starts_with"),
        "ClauseEndsWith": ("$", "ends_with"),
        "ClauseContains": ("*", "contains"),
    }
    if kind in simple:
        sign, field = simple[kind]
        return [sign, getattr(match, field).lower()]
    if kind == "ClauseRegex":
        return ["~", match.regex]
    sign, members = ("|", match.or_) if kind == "ClauseOr" else ("&", match.and_)
    return [sign, *map(clause, members)]


def number(value: Any) -> int | float:
    return int(value) if value == int(value) else float(value)


def cells(prices: Any) -> dict[str, Any] | None:
    """A price of ours; ``None`` for a model that is not paid by the token."""
    found: dict[str, Any] = {}
    for key, value in vars(prices).items():
        if value is None:
            continue
        if key == "requests_kcount":
            found["request"] = number(value) / 1000
        elif key in UNITS:
            tiers = getattr(value, "tiers", None)
            if tiers is None:
                found[UNITS[key]] = number(value)
            else:
                steps = [[tier.start, number(tier.price)] for tier in tiers]
                found[UNITS[key]] = [number(value.base), steps]
    return found if {"input", "output"} <= found.keys() else None


def condition(constraint: Any) -> list[str]:
    if constraint is None:
        return []
    if hasattr(constraint, "start_date"):
        return ["from", constraint.start_date.isoformat()]
    start, end = (
        datetime.combine(date(1970, 1, 1), moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        .astimezone(UTC)
        .strftime("%H:%M:%S")
        for moment in (constraint.start_time, constraint.end_time)
    )
    return ["daily", start, end]


def terms(model: Any, today: date) -> Iterator[tuple[list[str], dict[str, Any] | None]]:
    """The prices that hold today or later."""
    prices = model.prices
    if not isinstance(prices, list):
        yield [], cells(prices)
        return
    begun = [
        index
        for index, entry in enumerate(prices)
        if (start := getattr(entry.constraint, "start_date", None)) is None or start <= today
    ]
    # What began before the last price that holds always is over.
    first = max((i for i in begun if not hasattr(prices[i].constraint, "start_time")), default=0)
    for index, entry in enumerate(prices):
        if index >= first:
            held = condition(entry.constraint)
            yield ([] if index == first else held), cells(entry.prices)


def variants(model: Any, base: dict[str, Any]) -> Iterator[tuple[str, list[str], dict[str, Any]]]:
    for variant in model.price_variants or ():
        if set(variant.when) != {"service_tier"}:
            continue  # batches and modes that replies never tell
        found = {
            UNITS[key]: value
            for key, value in (
                (key, cells_of_one(price)) for key, price in vars(variant.prices).items() if price
            )
            if key in UNITS
        }
        yield variant.when["service_tier"], condition(variant.constraint), {**base, **found}


def cells_of_one(value: Any) -> Any:
    tiers = getattr(value, "tiers", None)
    if tiers is None:
        return number(value)
    return [number(value.base), [[tier.start, number(tier.price)] for tier in tiers]]


def compiled(today: date) -> dict[str, Any]:
    import genai_prices
    from genai_prices.data import providers

    known = {provider.id: provider for provider in providers}
    table: dict[str, Any] = {}
    for name in PROVIDERS:
        provider = known[name]
        rows: list[Any] = []
        for model in provider.models:
            prices = list(terms(model, today))
            if any(price is None for _, price in prices):
                rows.append([model.id, clause(model.match), model.context_window, None, []])
                continue
            tiers = list(variants(model, prices[-1][1]))
            rows.append([model.id, clause(model.match), model.context_window, prices, tiers])
        table[name] = {
            "others": [
                other for other in provider.fallback_model_providers or () if other in PROVIDERS
            ],
            "models": rows,
        }
    source = f"genai-prices {genai_prices.__version__} (MIT)"
    return {
        name: {"source": source, "date": today.isoformat(), **provider}
        for name, provider in table.items()
    }


def written(name: str, provider: dict[str, Any]) -> str:
    """A module that holds the table as JSON: importing it blocks no event loop for long."""
    head = json.dumps({key: provider[key] for key in ("source", "date", "others")})
    lines = [""]
    for row in provider["models"]:
        text = json.dumps(row, separators=(",", ":"))
        if lines[-1] and len(lines[-1]) + len(text) > WIDTH:
            lines[-1] += ","
            lines.append(text)
        else:
            lines[-1] += f",{text}" if lines[-1] else text
    body = "\n".join(lines)
    assert '"""' not in body
    return (
        f'"""Prices at {name}, made by ``scripts/prices.py``."""\n\n'
        f'TABLE = r"""{head[:-1]}, "models": [\n{body}\n]}}"""\n'
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.inside:
        import foreign

        interpreter = str(foreign.python("outside/prices"))
        return subprocess.run(
            [interpreter, __file__, "--inside", *sys.argv[1:]], check=False
        ).returncode
    files = sorted(TABLES.glob("[a-z]*.py"))
    today = datetime.now(UTC).date()
    if args.check:
        told = re.search(r'"date": "(.*?)"', files[0].read_text("utf-8"))
        assert told is not None
        today = date.fromisoformat(told[1])
    texts = {
        TABLES / f"{name.replace('-', '_')}.py": written(name, table)
        for name, table in compiled(today).items()
    }
    if args.check:
        if files == sorted(texts) and all(f.read_text("utf-8") == texts[f] for f in files):
            return 0
        print("the tables differ from genai-prices: python scripts/prices.py writes them")
        return 1
    TABLES.mkdir(exist_ok=True)
    (TABLES / "__init__.py").write_text('"""Prices of models, a module a provider."""\n', "utf-8")
    for file, text in texts.items():
        file.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
