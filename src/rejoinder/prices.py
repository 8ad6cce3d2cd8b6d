"""What models cost: built-in prices, your own prices, and the cost of a usage.

    from rejoinder import prices

    prices.set_prices({"my-deployment": prices.Price(input=2.0, output=8.0)})

`LLMMetrics.cost`, `UsageCollector` and `Done.cost` use them. A price that is not known is ``None``.
"""

from __future__ import annotations

from rejoinder._core.prices import (
    ModelPrices,
    Price,
    cost_of,
    find_prices,
    prices_date,
    set_prices,
)

__all__ = ["ModelPrices", "Price", "cost_of", "find_prices", "prices_date", "set_prices"]

for _public in (ModelPrices, Price):
    _public.__module__ = __name__
