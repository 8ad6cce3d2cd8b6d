"""Credentials are used no longer than they last, whatever happens to a clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from rejoinder import _stamps
from rejoinder.clouds.aws import AWSCredentials
from rejoinder.clouds.google import GoogleCredentials
from rejoinder.clouds.lease import Lease
from rejoinder.errors import ConfigurationError

HOUR, DAY = 3600.0, 86_400.0


class Clocks:
    """Both clocks of the machine."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.wall, self.steady = 1.7e9, 50.0
        patch.setattr(_stamps, "wall_now", lambda: self.wall)
        patch.setattr(time, "monotonic", lambda: self.steady)

    def go_on(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def sleep(self, seconds: float) -> None:
        """The machine sleeps; on Linux and macOS the steady clock sleeps with it."""
        self.wall += seconds

    def set_back(self, seconds: float) -> None:
        self.wall -= seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


EVENTS: list[tuple[Callable[[Clocks], object], bool]] = [
    (lambda clocks: clocks.go_on(HOUR - 400), False),
    (lambda clocks: clocks.go_on(HOUR), True),
    (lambda clocks: clocks.sleep(HOUR), True),
    (lambda clocks: clocks.set_back(DAY), False),
    (lambda clocks: (clocks.set_back(DAY), clocks.go_on(HOUR)), True),
    (lambda clocks: (clocks.go_on(HOUR / 2), clocks.set_back(DAY), clocks.go_on(HOUR)), True),
]
every_event = pytest.mark.parametrize(("happens", "over"), EVENTS)


@every_event
def test_a_lease(clocks: Clocks, happens: Callable[[Clocks], object], over: bool) -> None:
    lease = Lease(HOUR)
    happens(clocks)
    assert lease.over is over


def test_a_lease_without_end(clocks: Clocks) -> None:
    lease = Lease(float("inf"))
    clocks.go_on(365 * DAY)
    assert not lease.over


class Account:
    """Credentials of google-auth; each token is another one."""

    token, expiry, quota_project_id, project_id = "", None, None, "p"

    def refresh(self, request: Any) -> None:
        self.token += "t"


@every_event
async def test_a_token_of_google(
    clocks: Clocks, happens: Callable[[Clocks], object], over: bool
) -> None:
    credentials = GoogleCredentials(Account())
    assert await credentials.token() == "t"
    happens(clocks)
    # Nothing tells how long this one lasts, so it is used for ten minutes.
    lasted = happens is EVENTS[3][0]
    assert await credentials.token() == ("t" if lasted else "tt")
    assert over or lasted or happens is EVENTS[0][0]


class Source:
    """Credentials of botocore that last an hour."""

    def __init__(self) -> None:
        self.given = 0
        self.access_key, self.secret_key, self.token = "A", "S", None

    def get_credentials(self) -> Source:
        return self

    def get_frozen_credentials(self) -> Source:
        self.given += 1
        return self

    def _seconds_remaining(self) -> float:
        return HOUR + 300  # the margin


@every_event
async def test_credentials_of_aws(
    clocks: Clocks, happens: Callable[[Clocks], object], over: bool
) -> None:
    source = Source()
    credentials = AWSCredentials(session=source)
    await credentials.get()
    happens(clocks)
    await credentials.get()
    assert source.given == (2 if over else 1)


async def test_credentials_of_google_without_a_token_are_refused() -> None:
    class Empty(Account):
        def refresh(self, request: Any) -> None:
            self.token = None  # type: ignore[assignment]

    with pytest.raises(ConfigurationError, match=r"refresh\(\) left no text in token"):
        await GoogleCredentials(Empty()).token()
