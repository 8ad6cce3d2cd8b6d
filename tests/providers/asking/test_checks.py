"""Options are checked before anything is sent."""

from __future__ import annotations

import pytest

from rejoinder.errors import ConfigurationError
from rejoinder.providers.asking.checks import check_base_url


@pytest.mark.parametrize(
    "url", ["", "host/path", "ftp://host", "http://", "https:///x", "http://[::1"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url"):
        check_base_url(url)


def test_addresses() -> None:
    assert check_base_url(" https://host/v1/ ") == "https://host/v1"
