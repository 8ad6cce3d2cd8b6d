"""Prices usages with genai-prices: reads them as JSON, writes dollars or null for each."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

from genai_prices import Usage, calc_price


def price(case: dict[str, Any]) -> str | None:
    moment = datetime.fromtimestamp(case["at"], UTC)
    context = {"service_tier": case["tier"]} if case["tier"] else None
    try:
        found = calc_price(
            Usage(**case["usage"]),
            case["model"],
            provider_id=case["provider"],
            genai_request_timestamp=moment,
            price_context=context,
        )
    except LookupError:
        return None
    return str(found.total_price)


json.dump([price(case) for case in json.load(sys.stdin)], sys.stdout)
