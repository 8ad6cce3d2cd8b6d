from __future__ import annotations

from collections.abc import Iterator

import pytest

from telemetry.recorded import Recorded, recording


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    with recording() as found:
        yield found
