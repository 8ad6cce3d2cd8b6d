"""A loop that stands still: what a blocking call, a suspended process or a sleeping machine does to it."""

from __future__ import annotations

import asyncio


class Stalls:
    """Lets the clock of the running loop jump, as if nothing had run for a while. To be made before
    what is tested takes hold of the clock; with ``@pytest.mark.looptime`` nobody waits."""

    def __init__(self) -> None:
        self._total = 0.0
        loop = asyncio.get_running_loop()
        time = loop.time
        loop.time = lambda: time() + self._total  # type: ignore[method-assign]

    def stand_still(self, seconds: float) -> None:
        self._total += seconds
